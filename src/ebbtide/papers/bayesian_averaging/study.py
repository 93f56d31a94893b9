"""Study `bayesian-averaging`: does a trained model predict the average of its concepts, weighted by the context?"""

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.layer_probes import Targets, probe_values
from ebbtide.analysis.predictions import Predictions, predict_arm
from ebbtide.models.transformer import Transformer
from ebbtide.papers.bayesian_averaging.measures import (
    NEAR,
    exact_predictions,
    final_kl_to_average,
    kl_to_model,
    measure_arm,
    model_log_probs,
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
from ebbtide.training.spec import Spec

PAPER = "Zhang et al. 2023, What and How does In-Context Learning Learn?, arXiv 2305.19420"

QUICK = Spec(
    task=Cued(context=12),
    source=Concepts(concepts=8, cues=5, responses=4),
    model=Transformer(layers=2, width=32, heads=4),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=100)),
    batch=32,
    sequences=320_000,
    schedule=Schedule(evaluations=21, spacing="log", first=1600, checkpoints=21),
    evaluators=("train", "prior", "wrong"),
    evaluation_sequences=1000,
    keep_best=None,
)
PAPER_SIZE = replace(
    QUICK,
    task=Cued(context=24),
    source=Concepts(concepts=128, cues=10, responses=8),
    model=Transformer(layers=8, width=128, heads=4),
    optimizer=Adam(lr=3e-4, schedule=Cosine(warmup=1000)),
    batch=256,
    sequences=12_800_000,
    members=9,
)
EIGHT, DEEP = "8 concepts", "8 concepts, twice as deep"
FIRST = 6
"""The slot from which the regret's decay is fitted: before it, the context does not yet tell the concepts apart."""


def decay_slope(regret: Float[np.ndarray, " slots"]) -> float:
    """Slope of log(average regret) by log(number of slots), from slot `FIRST` on."""
    total, count = np.cumsum(regret), np.arange(1, len(regret) + 1)
    late = count >= FIRST
    return float(np.polyfit(np.log(count[late]), np.log(np.maximum(total / count, 1e-9)[late]), 1)[0])


def slope_difference(evidence: Evidence, arm: str) -> np.ndarray:
    """`decay_slope` of the model's regret - of the exact average's on the same prompts."""

    def difference(predictions: Predictions) -> float:
        both = (model_log_probs(predictions)[-1], exact_predictions(predictions).average)
        model, average = (decay_slope(regret_by_slot(predictions, logs)) for logs in both)
        return model - average

    return measure_arm(evidence, arm, "train", difference)


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


def _passing_margin(evidence: Evidence, arm: str) -> np.ndarray:
    """`NEAR` less the larger of: KL(marginal || model) at its smallest, KL(average || model) at the end."""

    def margin(predictions: Predictions) -> float:
        average, marginal = _kl_over_training(predictions).T
        return float(NEAR - max(marginal.min(), average[-1]))

    return measure_arm(evidence, arm, "train", margin, last=False)


def _depth_margin(evidence: Evidence) -> np.ndarray:
    """Smaller of: KL(average || model) of the model that is half as deep - of the deeper one, `NEAR` - the latter."""
    deep = final_kl_to_average(evidence, DEEP)
    return np.minimum(final_kl_to_average(evidence, EIGHT) - deep, NEAR - deep)


CLAIMS = (
    Claim(
        "average",
        "the model predicts the Bayesian model average within .02 nats a slot",
        "Prop. on BMA; .02: own limit",
        f"{NEAR:g} - KL(average || model) ({EIGHT})",
        0.0,
        lambda evidence: NEAR - final_kl_to_average(evidence, EIGHT),
        (EIGHT,),
    ),
    Claim(
        "decays",
        "the average regret falls with the number of slots as the exact average's does",
        "O(1/T), which the exact average itself does not reach in so few slots; .15: own limit",
        f".15 - |slope of log average regret by log slots: the model's - the exact average's| ({EIGHT})",
        0.0,
        lambda evidence: 0.15 - np.abs(slope_difference(evidence, EIGHT)),
        (EIGHT,),
    ),
    Claim(
        "posterior",
        "a linear probe reads the log posterior of the concepts",
        "attention parameterises the average; R^2 .9: own limit",
        f"R^2 - .9 ({EIGHT})",
        0.0,
        lambda evidence: posterior_r2(evidence, EIGHT) - 0.9,
        (EIGHT,),
    ),
    Claim(
        "wrong",
        "after wrong responses the model errs as the average does",
        "misspecified examples; .95: own limit",
        f"correlation over prompts - .95 ({EIGHT})",
        0.0,
        lambda evidence: log_prob_correlation(evidence, EIGHT) - 0.95,
        (EIGHT,),
    ),
    Claim(
        "depth",
        "a model twice as deep is nearer to the average",
        "approximation error falls with depth",
        f"smaller of: KL(average || model) of {EIGHT} - of {DEEP}, {NEAR:g} - the latter",
        0.0,
        _depth_margin,
        (EIGHT, DEEP),
    ),
    Claim(
        "marginal first",
        "training comes to the marginal over concepts before it comes to the average: within .02 nats a slot of each",
        "own: dynamics; .02 as above",
        f"{NEAR:g} - larger of: smallest KL(marginal || model), KL(average || model) at the end ({EIGHT})",
        0.0,
        lambda evidence: _passing_margin(evidence, EIGHT),
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


def _arms(deep: int) -> dict[str, Point]:
    """The model of the preset's depth, and one of `deep` layers, twice as many."""
    return {EIGHT: {"source.concepts": 8}, DEEP: {"source.concepts": 8, "model.layers": deep}}


SMALLER = "a finite set of tables (5 cues, 4 responses, 12 pairs) make the average exact; theory there"
AVERAGING = Experiment(
    name="averaging",
    question="Is what is learned in context the Bayesian average over concepts?",
    section="sections on Bayesian model averaging, regret and misspecified examples",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=_arms(4), base={}, round=1), 8, SMALLER),
        "cpu": Preset(
            Comparison(arms=_arms(4), base={"sequences": 1_280_000}, round=1), 27, f"4 times as long; {SMALLER}"
        ),
        "paper": Preset(
            Comparison(arms=_arms(16), base={}, preset="paper", round=1),
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
