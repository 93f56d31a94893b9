"""Study `statisticians`: does a transformer do in context what the best statistical method does, and choose it?"""

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set, member_values, predict_arm
from ebbtide.evaluation.statistics import paired_bootstrap, paired_bootstraps
from ebbtide.models.positions import NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.papers.statisticians.contests import (
    Errors,
    best_predictor,
    model_errors,
    predictor_errors,
)
from ebbtide.papers.statisticians.links import LINKS, PROMPTS
from ebbtide.papers.statisticians.selection import HIGH, LOW, NINE, SCALED, SELECTION
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.sources.functions import Functions
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Cosine, Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Bai et al. 2023, Transformers as Statisticians: Provable In-Context Learning with In-Context Algorithm Selection, "
    "NeurIPS 2023, arXiv 2306.04637"
)

QUICK = Spec(
    task=Regression(context=4, noise=(0.1, 0.5)),
    source=Functions(dim=4),
    model=Transformer(
        layers=3,
        width=32,
        heads=4,
        mlp_ratio=2,
        positions=NoPositions(),
        pairing="joint",
        attention="relu",
        mask="none",
        norm="pre",
        activation="relu",
    ),
    optimizer=Adam(lr=4e-3, schedule=Cosine(warmup=1400)),
    batch=64,
    sequences=1_792_000,
    schedule=Schedule(evaluations=13, spacing="log", first=6400, checkpoints=2),
    evaluators=("train",),
    evaluation_sequences=1000,
    keep_best=None,
)
LINEAR, NOISY, SPARSE, LABELS, DECODER = "linear", "noisy", "sparse", "labels", "noisy, decoder"


def _predict(evidence: Evidence, arm: str) -> list[Predictions | None]:
    """Predictions of an arm's members at the end, on fresh prompts as in training."""
    return predict_arm(evidence, arm, "train", prompts=PROMPTS, last=True)


def _noise_of_training(predictions: Predictions) -> float:
    task = predictions.spec.task
    assert isinstance(task, Regression)
    return task.noise[0]


def _model_errors(predictions: Predictions) -> Errors:
    return model_errors(predictions, _noise_of_training(predictions))


@cache_per_prompt_set
def _predictor_errors(predictions: Predictions) -> dict[str, Errors]:
    """Errors of every classical predictor on a member's prompts."""
    return predictor_errors(predictions, _noise_of_training(predictions))


def _best_errors(evidence: Evidence, arm: str, kind: str = "") -> Float[np.ndarray, " member"]:
    """Mean error, on each member's own prompts, of the best predictor whose name begins with `kind`."""

    def best(predictions: Predictions) -> float:
        errors = {name: one for name, one in _predictor_errors(predictions).items() if name.startswith(kind)}
        return float(errors[best_predictor(errors)].mean())

    return member_values(_predict(evidence, arm), best)


def _member_errors(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    return member_values(_predict(evidence, arm), lambda one: float(_model_errors(one).mean()))


POINTS = 0.015
"""1.5 points: the largest difference of two bars that are level in the paper's figure of base tasks."""
RATIO = 1.1
"""Largest ratio of two such bars."""
WITHIN = "within 10 % / 1.5 points: what separates bars in the paper's figure of base tasks"
BASE_CLAIMS = (
    Claim(
        LINEAR,
        "without noise and with twice as many pairs as dimensions it is near least squares, which makes no error",
        "Fig. of base tasks, linear regression, N = 2d: both bars at 0; 1.5 points of the responses' variance",
        f"{POINTS:g} - (squared error - least squares')",
        0.0,
        lambda evidence: POINTS - (_member_errors(evidence, LINEAR) - _best_errors(evidence, LINEAR, "least")),
        (LINEAR,),
    ),
    Claim(
        NOISY,
        "with noise .5 and as many pairs as dimensions it is near ridge with the posterior's penalty",
        f"the same, noisy regression, N = d; {WITHIN}",
        f"{RATIO:g} - squared error / ridge's",
        0.0,
        lambda evidence: RATIO - _member_errors(evidence, NOISY) / _best_errors(evidence, NOISY, "ridge"),
        (NOISY,),
    ),
    Claim(
        SPARSE,
        "with sparse weights and fewer pairs than dimensions it is near the Lasso with the best of four penalties",
        f"the same, sparse regression, N < d; {WITHIN}",
        f"{RATIO:g} - squared error / the Lasso's",
        0.0,
        lambda evidence: RATIO - _member_errors(evidence, SPARSE) / _best_errors(evidence, SPARSE, "Lasso"),
        (SPARSE,),
    ),
    Claim(
        "sparser",
        "and better than least squares, so it uses that they are sparse",
        "the same",
        "least squares' squared error - the model's",
        0.0,
        lambda evidence: _best_errors(evidence, SPARSE, "least") - _member_errors(evidence, SPARSE),
        (SPARSE,),
    ),
    Claim(
        LABELS,
        "of signs it predicts as well as logistic regression",
        f"the same, classification, N = 2d; {WITHIN}",
        f"{POINTS:g} - (share of wrong labels - logistic regression's)",
        0.0,
        lambda evidence: POINTS - (_member_errors(evidence, LABELS) - _best_errors(evidence, LABELS, "logistic")),
        (LABELS,),
    ),
    Claim(
        "decoder",
        "a decoder, which answers every input from what comes before it, is near ridge too",
        f"the paper's GPT-2 decoders; {WITHIN}",
        f"{RATIO:g} - squared error at the query / ridge's",
        0.0,
        lambda evidence: RATIO - _member_errors(evidence, DECODER) / _best_errors(evidence, DECODER, "ridge"),
        (DECODER,),
    ),
)


def _pooled(evidence: Evidence, arm: str) -> tuple[Errors, dict[str, Errors]]:
    """Errors of the model and of every classical predictor, by name, on the prompts of all members that have finished,
    one member after the other."""
    members = [one for one in _predict(evidence, arm) if one is not None]
    others = [_predictor_errors(one) for one in members]
    return (
        np.concatenate([_model_errors(one) for one in members]),
        {name: np.concatenate([one[name] for one in others]) for name in others[0]},
    )


def _draw_bars(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: errors of the model and of every predictor; above each panel the model's difference to the best
    predictor."""
    panels = {}
    for arm in evidence.finished_arms():
        errors = _pooled(evidence, arm)[1]
        ends = np.stack(paired_bootstraps(np.stack(list(errors.values())), seed=0), axis=1)
        others = {name: (float(a), float(b), float(c)) for name, (a, b, c) in zip(errors, ends, strict=True)}
        unit = "share of wrong labels" if arm == LABELS else "squared error for the query"
        gap = difference_to_best(evidence, arm)
        words = f"{arm}\nmodel - {gap[0]}:\n{gap[1]:.3f} [{gap[2]:.3f}, {gap[3]:.3f}]"
        panels[words] = Contest(unit, _member_errors(evidence, arm), others)
    return {"contest.png": bars_figure(title, panels)["png"]} if panels else {}


def difference_to_best(evidence: Evidence, arm: str) -> tuple[str, float, float, float]:
    """Name of the best predictor, and the model's error less that predictor's error: the mean over the prompts of all
    members and the ends of its 95 % bootstrap interval over prompts."""
    model, others = _pooled(evidence, arm)
    best = best_predictor(others)
    return best, *paired_bootstrap(model - others[best], seed=0)


def _base_arms(dim: int) -> dict[str, Point]:
    """Arms of the base tasks that a short training can show; pairs and noise as in the paper, in proportion to the
    dimension."""
    return {
        LINEAR: {"task.noise": [0.0], "task.context": 2 * dim},
        NOISY: {"task.noise": [HIGH], "task.context": dim},
    }


def _long_arms(dim: int, pairs: int) -> dict[str, Point]:
    """Arms of the base tasks that take longer: sparse weights took the paper 2,000,000 steps at ten times the rate, and
    an auxiliary loss that asks for the weights, which is not here."""
    return {
        SPARSE: {
            "task.noise": [0.0],
            "task.context": pairs,
            "source.nonzero": 3,
            "sequences": 128_000_000,
            "optimizer.lr": 1e-3,
        },
        LABELS: {"task.noise": [0.0], "task.context": 2 * dim, "task.link": "sign"},
    }


def _decoder_arm(dim: int, width: int, heads: int) -> dict[str, Point]:
    """The arm of a small GPT-2 over x and y in turn that predicts every response, on the prompts of the noisy arm."""
    model: Point = {
        "model.pairing": "interleaved",
        "model.mask": "causal",
        "model.attention": "softmax",
        "model.norm": "pre",
        "model.activation": "gelu",
        "model.width": width,
        "model.heads": heads,
        "model.mlp_ratio": 4,
        "model.positions": {"type": "learned"},
    }
    return {DECODER: _base_arms(dim)[NOISY] | model}


PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=20, noise=(LOW, HIGH)),
    source=Functions(dim=20),
    model=replace(QUICK.model, layers=12, width=64, heads=1, mlp_ratio=1, norm="post"),
    optimizer=Adam(lr=1e-4, schedule=Constant()),
    sequences=19_200_000,
    schedule=Schedule(evaluations=41, spacing="log", first=6400, checkpoints=2),
)
SMALL_ARMS = _base_arms(8) | _decoder_arm(8, 32, 2)
LARGE_ARMS = _base_arms(20) | _long_arms(20, 10) | _decoder_arm(20, 256, 8)
SHORT: Point = {"source.dim": 8, "sequences": 512_000, "optimizer.schedule.warmup": 400}
LONGER: Point = {"source.dim": 8, "sequences": 2_048_000}
LATER = "sparse weights and labels, which took the paper 2,000,000 and 300,000 steps, are asked at the preset paper"

BASE = Experiment(
    name="base",
    question="Is a transformer as good as the best statistical method for the task it was trained on?",
    section="Section 5, base tasks: linear, noisy, sparse regression, classification",
    claims=BASE_CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=SMALL_ARMS, base=SHORT, round=1), 5, f"{SCALED}8 dimensions for 20; {LATER}"),
        "cpu": Preset(
            Comparison(arms=SMALL_ARMS, base=LONGER, round=1),
            20,
            f"{SCALED}8 dimensions for 20; 4 times as long; {LATER}",
        ),
        "paper": Preset(
            Comparison(arms=LARGE_ARMS, base={}, preset="paper", round=1),
            None,
            f"{NINE}; no auxiliary loss for sparse weights",
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_bars,
)
STATISTICIANS = Study(
    name="statisticians",
    paper=PAPER,
    question="Does a transformer do in context what the best statistical method does, and choose among methods?",
    bases={
        "quick": Base(QUICK, "4 dimensions, 4 pairs, noise .1 or .5"),
        "paper": Base(PAPER_SIZE, "20 dimensions, 20 pairs, 12 layers"),
    },
    experiments=(BASE, SELECTION, LINKS),
)
