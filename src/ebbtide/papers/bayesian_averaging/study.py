"""Study `bayesian-averaging`: does a trained model predict the average of its concepts, weighted by the context?"""

import numpy as np
from msgspec.structs import replace

from ebbtide.analysis.layer_probes import Targets, probe_values
from ebbtide.analysis.predictions import Predictions, predict_arm
from ebbtide.models.transformer import Transformer
from ebbtide.papers.bayesian_averaging.measures import (
    exact_predictions,
    final_kl_to_average,
    kl_to_model,
    measure_arm,
    model_log_probs,
    prompt_regret,
    regret_by_slot,
    response_log_probs,
)
from ebbtide.papers.bayesian_averaging.scaling import SCALING
from ebbtide.report.functions_figure import Line, distances_figure
from ebbtide.sources.concepts import Concepts
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.cued import Cued
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Seeds, Spec

PAPER = "Zhang et al. 2023, What and How does In-Context Learning Learn?, arXiv 2305.19420"

QUICK = Spec(
    task=Cued(context=12),
    source=Concepts(concepts=8, cues=5, responses=4, seed=5),
    model=Transformer(layers=2, width=32, heads=4),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=100)),
    batch=32,
    sequences=320_000,
    schedule=Schedule(evaluations=21, spacing="log", first=1600, checkpoints=21),
    evaluators=("train", "prior", "wrong"),
    evaluation_sequences=1000,
    keep_best=None,
    seeds=Seeds(init=50, data=50, evaluation=50),
)
PAPER_SIZE = replace(
    QUICK,
    task=Cued(context=24),
    source=Concepts(concepts=128, cues=10, responses=8, seed=5),
    model=Transformer(layers=8, width=128, heads=4),
    optimizer=Adam(lr=3e-4, schedule=Cosine(warmup=1000)),
    batch=256,
    sequences=12_800_000,
    members=9,
)
EIGHT, MANY, SHALLOW = "8 concepts", "32 concepts", "8 concepts, 1 layer"
FIRST = 6
"""The slot from which the regret's decay is fitted: before it, the context does not yet tell the concepts apart."""


def regret_decay_slope(evidence: Evidence, arm: str) -> np.ndarray:
    """Slope of log(average regret) by log(number of slots), from slot `FIRST` on."""

    def slope(predictions: Predictions) -> float:
        total = np.cumsum(regret_by_slot(predictions))
        count = np.arange(1, len(total) + 1)
        late = count >= FIRST
        return float(np.polyfit(np.log(count[late]), np.log(np.maximum(total / count, 1e-9)[late]), 1)[0])

    return measure_arm(evidence, arm, "train", slope)


def log_prob_correlation(evidence: Evidence, arm: str) -> np.ndarray:
    """Correlation over prompts of the model's and the average's log-probability of the query's response, after a
    context of wrong responses."""

    def correlation(predictions: Predictions) -> float:
        model, average = model_log_probs(predictions)[-1], exact_predictions(predictions).average
        both = (response_log_probs(logs, predictions.responses)[-1] for logs in (model, average))
        return float(np.corrcoef(*both)[0, 1])

    return measure_arm(evidence, arm, "wrong", correlation)


def posterior_targets(predictions: Predictions) -> Targets:
    """Log posterior of the concepts at every input, at least -10: below that no prediction depends on it."""
    return Targets({"log posterior": np.maximum(exact_predictions(predictions).posterior, -10.0)}, {})


def posterior_r2(evidence: Evidence, arm: str) -> np.ndarray:
    """R^2 of a linear probe of `posterior_targets` on the last layer's residual stream."""
    return probe_values(evidence, arm, posterior_targets, lambda here: float(here.inputs["log posterior"][-1]))


def _kl_over_training(predictions: Predictions) -> np.ndarray:
    """KL(average || model) and KL(marginal || model) at every checkpoint, nats a slot."""
    exact = exact_predictions(predictions)
    return np.stack([kl_to_model(predictor, predictions) for predictor in (exact.average, exact.marginal)], axis=1)


def _marginal_lead(evidence: Evidence, arm: str) -> np.ndarray:
    """1 - sequences until the model is nearest to the marginal / until it is nearest to the average."""

    def lead(predictions: Predictions) -> float:
        at = _kl_over_training(predictions).argmin(0)
        return float(1 - predictions.sequences[at[1]] / predictions.sequences[at[0]])

    return measure_arm(evidence, arm, "train", lead, last=False)


CLAIMS = (
    Claim(
        "average",
        "the model predicts the Bayesian model average within .02 nats a slot",
        "Prop. on BMA; .02: the pass rule set beforehand",
        f".02 - KL(average || model) ({EIGHT})",
        0.0,
        lambda evidence: 0.02 - final_kl_to_average(evidence, EIGHT),
        (EIGHT,),
    ),
    Claim(
        "bound",
        "its regret to the true concept is below log |Z| and what it lacks to the average",
        "regret bound log |Z| / T",
        f"log 8 + slots KL - regret of a prompt ({EIGHT})",
        0.0,
        lambda evidence: (
            np.log(8) + (QUICK.task.context + 1) * final_kl_to_average(evidence, EIGHT) - prompt_regret(evidence, EIGHT)
        ),
        (EIGHT,),
    ),
    Claim(
        "decays",
        "the average regret falls like 1 / T",
        "O(1/T); slope between -1.1 and -.8 set beforehand",
        f".15 - |slope of log average regret by log slots + .95| ({EIGHT})",
        0.0,
        lambda evidence: 0.15 - np.abs(regret_decay_slope(evidence, EIGHT) + 0.95),
        (EIGHT,),
    ),
    Claim(
        "concepts",
        "more concepts cost more regret",
        "log |Z|",
        f"regret of a prompt: {MANY} - {EIGHT}",
        0.0,
        lambda evidence: prompt_regret(evidence, MANY) - prompt_regret(evidence, EIGHT),
        (EIGHT, MANY),
    ),
    Claim(
        "posterior",
        "a linear probe reads the log posterior of the concepts",
        "attention parameterises the average; R^2 .9 set beforehand",
        f"R^2 - .9 ({EIGHT})",
        0.0,
        lambda evidence: posterior_r2(evidence, EIGHT) - 0.9,
        (EIGHT,),
    ),
    Claim(
        "wrong",
        "after wrong responses the model errs as the average does",
        "misspecified examples; .95 set beforehand",
        f"correlation over prompts - .95 ({EIGHT})",
        0.0,
        lambda evidence: log_prob_correlation(evidence, EIGHT) - 0.95,
        (EIGHT,),
    ),
    Claim(
        "depth",
        "one layer less is further from the average",
        "approximation error falls with depth",
        f"KL(average || model): {SHALLOW} - {EIGHT}",
        0.0,
        lambda evidence: final_kl_to_average(evidence, SHALLOW) - final_kl_to_average(evidence, EIGHT),
        (EIGHT, SHALLOW),
    ),
    Claim(
        "marginal first",
        "training passes the marginal over concepts before it comes to the average",
        "own: dynamics; half of the time set beforehand",
        f"1 - sequences at the nearest to the marginal / to the average ({EIGHT})",
        0.5,
        lambda evidence: _marginal_lead(evidence, EIGHT),
        (EIGHT,),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """distances.png: KL from the average and from the marginal to the model, of every arm over training."""
    panels: dict[str, dict[str, Line]] = {"to the average over concepts": {}, "to the marginal": {}}
    for arm in evidence.finished_arms():
        members = [one for one in predict_arm(evidence, arm, "train") if one is not None]
        both = np.stack([_kl_over_training(one) for one in members])
        for i, lines in enumerate(panels.values()):
            lines[arm] = members[0].sequences, both[:, :, i]
    return {"distances.png": distances_figure(title, "KL to the model (nats a slot)", panels)["png"]}


ARMS: dict[str, Point] = {
    EIGHT: {"source.concepts": 8},
    MANY: {"source.concepts": 32},
    SHALLOW: {"source.concepts": 8, "model.layers": 1},
}
SMALLER = "a finite set of tables (5 cues, 4 responses, 12 pairs) make the average exact; theory there"
AVERAGING = Experiment(
    name="averaging",
    question="Is what is learned in context the Bayesian average over concepts?",
    section="sections on Bayesian model averaging, regret and misspecified examples",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=ARMS, base={}), 7, SMALLER),
        "cpu": Preset(Comparison(arms=ARMS, base={"sequences": 1_280_000}), 23, f"4 times as long; {SMALLER}"),
        "paper": Preset(
            Comparison(arms=ARMS, base={}, preset="paper"),
            None,
            "10 cues, 8 responses, 24 pairs, 8 layers of width 128",
        ),
    },
    shows=("train", "prior", "wrong"),
    scalars=("train_final", "prior_final", "wrong_final", "train_loss_final"),
    figures=_draw_figures,
)

BAYESIAN_AVERAGING = Study(
    name="bayesian-averaging",
    paper=PAPER,
    question="Does a model of a mixture of concepts become the Bayesian model average?",
    bases={
        "quick": Base(QUICK, "8 tables of 5 cues and 4 responses, 12 pairs"),
        "paper": Base(PAPER_SIZE, "128 tables of 10 cues and 8 responses, 24 pairs"),
    },
    experiments=(AVERAGING, SCALING),
)
