"""Study `statisticians`: does a transformer do in context what the best statistical method does, and choose it?"""

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, member_values, predict_arm
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.models.positions import NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.papers.statisticians.contests import (
    best_predictor,
    gain_over_frontier,
    model_errors,
    noise_mixture_errors,
    predictor_errors,
    ridge_errors,
)
from ebbtide.papers.statisticians.links import LINKS, PROMPTS
from ebbtide.report.contest_figure import Contest, bars_figure, frontier_figure
from ebbtide.sources.functions import Functions
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Cosine, Schedule
from ebbtide.training.spec import Seeds, Spec

PAPER = (
    "Bai et al. 2023, Transformers as Statisticians: Provable In-Context Learning with In-Context Algorithm Selection, "
    "NeurIPS 2023, arXiv 2306.04637"
)

QUICK = Spec(
    task=Regression(context=4, noise=(0.1, 0.5)),
    source=Functions(dim=4, seed=5),
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
    seeds=Seeds(init=50, data=50, evaluation=50),
)
LINEAR, NOISY, SPARSE, LABELS, DECODER = "linear", "noisy", "sparse", "labels", "noisy, decoder"
LOW, HIGH = 0.1, 0.5
QUIET, LOUD, BOTH = "noise .1", "noise .5", "noise .1 or .5"
GRID = 81
"""Number of penalties on the frontier."""


def _predict(evidence: Evidence, arm: str) -> list[Predictions | None]:
    """Predictions of an arm's members at the end, on fresh prompts as in training."""
    return predict_arm(evidence, arm, "train", prompts=PROMPTS, last=True)


def _predict_at_noise(evidence: Evidence, arm: str, noise: float) -> list[Predictions | None]:
    """Predictions of an arm's members at the end, on prompts with this noise (a standard deviation); inputs, weights
    and the noise's directions are the same for every arm and noise."""
    return predict_arm(evidence, arm, "train", prompts=PROMPTS, last=True, noise=(noise,))


def _noise_of_training(predictions: Predictions) -> float:
    task = predictions.spec.task
    assert isinstance(task, Regression)
    return task.noise[0]


def _mean_model_error(predictions: Predictions) -> float:
    return float(model_errors(predictions, _noise_of_training(predictions)).mean())


def _predictor_errors(evidence: Evidence, arm: str) -> dict[str, np.ndarray]:
    """Errors of every classical predictor on an arm's prompts, which are the same for all members of the arm."""
    some = next((one for one in _predict(evidence, arm) if one is not None), None)
    return {} if some is None else predictor_errors(some, _noise_of_training(some))


def _best_error(evidence: Evidence, arm: str, kind: str = "") -> float:
    """Mean error of the best predictor whose name begins with `kind`; nan where no member has finished."""
    errors = {name: one for name, one in _predictor_errors(evidence, arm).items() if name.startswith(kind)}
    return float(errors[best_predictor(errors)].mean()) if errors else np.nan


def _member_errors(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    return member_values(_predict(evidence, arm), _mean_model_error)


WITHIN = "within 10 % / 1.5 points: what separates bars in the paper's figure of base tasks"
BASE_CLAIMS = (
    Claim(
        LINEAR,
        "without noise and with twice as many pairs as dimensions it is near least squares, which makes no error",
        "Fig. of base tasks, linear regression, N = 2d; a twentieth of the response's variance",
        "0.05 - (squared error - least squares')",
        0.0,
        lambda evidence: 0.05 - (_member_errors(evidence, LINEAR) - _best_error(evidence, LINEAR, "least")),
        (LINEAR,),
    ),
    Claim(
        NOISY,
        "with noise .5 and as many pairs as dimensions it is near ridge with the posterior's penalty",
        f"the same, noisy regression, N = d; {WITHIN}",
        "1.1 - squared error / ridge's",
        0.0,
        lambda evidence: 1.1 - _member_errors(evidence, NOISY) / _best_error(evidence, NOISY, "ridge"),
        (NOISY,),
    ),
    Claim(
        SPARSE,
        "with sparse weights and fewer pairs than dimensions it is near the Lasso with the best of four penalties",
        f"the same, sparse regression, N < d; {WITHIN}",
        "1.1 - squared error / the Lasso's",
        0.0,
        lambda evidence: 1.1 - _member_errors(evidence, SPARSE) / _best_error(evidence, SPARSE, "Lasso"),
        (SPARSE,),
    ),
    Claim(
        "sparser",
        "and better than least squares, so it uses that they are sparse",
        "the same",
        "least squares' squared error - the model's",
        0.0,
        lambda evidence: _best_error(evidence, SPARSE, "least") - _member_errors(evidence, SPARSE),
        (SPARSE,),
    ),
    Claim(
        LABELS,
        "of signs it predicts as well as logistic regression",
        f"the same, classification, N = 2d; {WITHIN}",
        "0.015 - (share of wrong labels - logistic regression's)",
        0.0,
        lambda evidence: 0.015 - (_member_errors(evidence, LABELS) - _best_error(evidence, LABELS, "logistic")),
        (LABELS,),
    ),
    Claim(
        "decoder",
        "a decoder, which answers every input from what comes before it, is near ridge too",
        f"the paper's GPT-2 decoders; {WITHIN}",
        "1.1 - squared error at the query / ridge's",
        0.0,
        lambda evidence: 1.1 - _member_errors(evidence, DECODER) / _best_error(evidence, DECODER, "ridge"),
        (DECODER,),
    ),
)


def _excess_error(evidence: Evidence, arm: str, noise: float) -> Float[np.ndarray, " member"]:
    """Mean squared error of the members less the noise's variance, where every prompt has this noise."""
    members = _predict_at_noise(evidence, arm, noise)
    return member_values(members, lambda one: float(model_errors(one, noise).mean()) - noise**2)


def _optimum_excess(evidence: Evidence, noise: float) -> float:
    """Mean squared error, less the noise's variance, of the optimum: ridge at both noise levels, weighed by the
    evidence for each."""
    some = next((one for one in _predict_at_noise(evidence, BOTH, noise) if one is not None), None)
    return np.nan if some is None else float(noise_mixture_errors(some, noise, (LOW, HIGH)).mean()) - noise**2


def error_pairs(evidence: Evidence, arm: str) -> Float[np.ndarray, "member 2"]:
    """Mean squared errors of an arm's members at the two noise levels."""
    return np.stack([_excess_error(evidence, arm, noise) + noise**2 for noise in (LOW, HIGH)], axis=1)


def ridge_frontier(evidence: Evidence) -> Float[np.ndarray, "penalty 2"]:
    """Mean squared errors, at the two noise levels, of ridge with one penalty for both, on the same prompts. Penalties
    go from a tenth of the best one at low noise to ten times the best one at high noise."""
    columns = []
    for noise in (LOW, HIGH):
        some = next((one for one in _predict_at_noise(evidence, BOTH, noise) if one is not None), None)
        if some is None:
            return np.full((1, 2), np.nan)
        source = some.spec.source
        assert isinstance(source, Functions)
        ends = penalty_of(LOW, source.deviation) / 10, penalty_of(HIGH, source.deviation) * 10
        columns.append([ridge_errors(some, noise, float(one)).mean() for one in np.geomspace(*ends, GRID)])
    return np.asarray(columns).T


def _near_claim(name: str, noise: float) -> Claim:
    return Claim(
        name,
        f"where the noise is {noise:g}, the model of both is near the optimum, ridge weighed by evidence",
        "Fig. of algorithm selection; within 15 % of the excess over the noise's variance",
        f"1.15 - excess / the optimum's, noise {noise:g}",
        0.0,
        lambda evidence: 1.15 - _excess_error(evidence, BOTH, noise) / _optimum_excess(evidence, noise),
        (BOTH,),
    )


def _worse_claim(name: str, arm: str, noise: float) -> Claim:
    return Claim(
        name,
        f"the model of {arm} alone is worse than it where the noise is {noise:g}",
        "Fig. of algorithm selection: single-noise models sit at the ends of the frontier",
        f"excess at noise {noise:g}: {arm} - {BOTH}",
        0.0,
        lambda evidence: _excess_error(evidence, arm, noise) - _excess_error(evidence, BOTH, noise),
        (arm, BOTH),
    )


SELECTION_CLAIMS = (
    _near_claim("near at .1", LOW),
    _near_claim("near at .5", HIGH),
    Claim(
        "below",
        "its two errors lie below the whole frontier of ridge with one penalty for both: it chooses by the prompt",
        "Fig. of algorithm selection: below and left of the curve",
        "smallest over penalties of the larger of the two gains",
        0.0,
        lambda evidence: gain_over_frontier(error_pairs(evidence, BOTH), ridge_frontier(evidence)),
        (BOTH,),
    ),
    _worse_claim("quiet", QUIET, HIGH),
    _worse_claim("loud", LOUD, LOW),
)


def _draw_bars(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: errors of the model and of every predictor; above each panel the model's difference to the best
    predictor."""
    panels = {}
    for arm in evidence.finished_arms():
        others = {name: paired_bootstrap(errors, seed=0) for name, errors in _predictor_errors(evidence, arm).items()}
        unit = "share of wrong labels" if arm == LABELS else "squared error for the query"
        gap = difference_to_best(evidence, arm)
        words = f"{arm}\nmodel - {gap[0]}:\n{gap[1]:.3f} [{gap[2]:.3f}, {gap[3]:.3f}]"
        panels[words] = Contest(unit, _member_errors(evidence, arm), others)
    return {"contest.png": bars_figure(title, panels)["png"]} if panels else {}


def difference_to_best(evidence: Evidence, arm: str) -> tuple[str, float, float, float]:
    """Name of the best predictor, and the model's error (mean over members) less that predictor's error: the mean over
    prompts and the ends of its 95 % bootstrap interval."""
    others = _predictor_errors(evidence, arm)
    best = best_predictor(others)
    model = np.mean(
        [model_errors(one, _noise_of_training(one)) for one in _predict(evidence, arm) if one is not None], axis=0
    )
    return best, *paired_bootstrap(model - others[best], seed=0)


def _draw_frontier(evidence: Evidence, title: str) -> dict[str, bytes]:
    """frontier.png: errors at the two noise levels of the trained models and of ridge, as in the paper's figure."""
    if BOTH not in evidence.finished_arms():
        return {}
    curve = ridge_frontier(evidence)
    marks = {"weighed by evidence": np.asarray([_optimum_excess(evidence, noise) + noise**2 for noise in (LOW, HIGH)])}
    marks["each with its own penalty"] = curve.min(0)
    points = {arm: error_pairs(evidence, arm) for arm in evidence.finished_arms()}
    say = (f"squared error, noise {LOW:g}", f"squared error, noise {HIGH:g}")
    return {"frontier.png": frontier_figure(title, say, {"ridge, one penalty for both": curve}, points, marks)["png"]}


def _base_arms(dim: int, sparse: int) -> dict[str, Point]:
    """Arms of the base tasks; pairs and noise as in the paper, in proportion to the dimension."""
    return {
        LINEAR: {"task.noise": [0.0], "task.context": 2 * dim},
        NOISY: {"task.noise": [HIGH], "task.context": dim},
        SPARSE: {"task.noise": [0.0], "task.context": sparse, "source.nonzero": 3},
        LABELS: {"task.noise": [0.0], "task.context": 2 * dim, "task.link": "sign"},
    }


def _decoder_arm(dim: int, sparse: int, width: int, heads: int) -> dict[str, Point]:
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
    return {DECODER: _base_arms(dim, sparse)[NOISY] | model}


SELECTION_ARMS: dict[str, Point] = {
    QUIET: {"task.noise": [LOW]},
    LOUD: {"task.noise": [HIGH]},
    BOTH: {"task.noise": [LOW, HIGH]},
}

SCALED = (
    "3 layers of width 32 with 4 heads, pre-norm (post-norm, as in the paper, learns more slowly at this size), rate "
    "4e-3 with a cosine, in place of 12 layers of width 64 with one head and rate 1e-4; "
)
PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=20, noise=(LOW, HIGH)),
    source=Functions(dim=20, seed=5),
    model=replace(QUICK.model, layers=12, width=64, heads=1, mlp_ratio=1, norm="post"),
    optimizer=Adam(lr=1e-4, schedule=Constant()),
    sequences=19_200_000,
    schedule=Schedule(evaluations=41, spacing="log", first=6400, checkpoints=2),
)
SMALL_ARMS = _base_arms(8, 6) | _decoder_arm(8, 6, 32, 2)
SHORT: Point = {"source.dim": 8, "sequences": 512_000, "optimizer.schedule.warmup": 400}
LONGER: Point = {"source.dim": 8, "sequences": 2_048_000}
LONG: Point = {"source.dim": 8, "task.context": 8, "model.layers": 4, "sequences": 6_400_000}
LARGE = "a prompt's noise is drawn for itself, where the paper takes a step of each in turn"
NINE = "9 members an arm, the paper trains one"

BASE = Experiment(
    name="base",
    question="Is a transformer as good as the best statistical method for the task it was trained on?",
    section="Section 5, base tasks: linear, noisy, sparse regression, classification",
    claims=BASE_CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=SMALL_ARMS, base=SHORT), 7, f"{SCALED}8 dimensions for 20"),
        "cpu": Preset(Comparison(arms=SMALL_ARMS, base=LONGER), 31, f"{SCALED}8 dimensions for 20; 4 times as long"),
        "paper": Preset(
            Comparison(arms=_base_arms(20, 10) | _decoder_arm(20, 10, 256, 8), base={}, preset="paper"), None, NINE
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_bars,
)
SELECTION = Experiment(
    name="selection",
    question="Trained on two noise levels, does it choose the penalty by the prompt?",
    section="Section 5, algorithm selection: the Bayes corner below the frontier of single penalties",
    claims=SELECTION_CLAIMS,
    presets={
        "quick": Preset(
            Comparison(arms=SELECTION_ARMS, base={}, task_members=3), 5, f"{SCALED}4 dimensions and pairs for 20"
        ),
        "cpu": Preset(Comparison(arms=SELECTION_ARMS, base=LONG), None, f"{SCALED}8 dimensions and pairs for 20"),
        "paper": Preset(Comparison(arms=SELECTION_ARMS, base={}, preset="paper"), None, f"{LARGE}; {NINE}"),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_frontier,
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
