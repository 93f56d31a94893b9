"""Experiment `scaling` of `bayesian-averaging`: how regret grows with the concepts, and what few prompts cost."""

from functools import partial

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import TRAINING_PROMPTS, Predictions, member_series, predict_arm
from ebbtide.papers.bayesian_averaging.measures import (
    NEAR,
    distance_of_marginal,
    exact_predictions,
    exact_regret,
    final_kl_to_average,
    kl_to_model,
    measure_arm,
    model_log_probs,
    prompt_regret,
    response_log_probs,
)
from ebbtide.report.functions_figure import Line, distances_figure
from ebbtide.report.scaling_figure import Panel, scaling_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence, Series
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point

CONCEPTS = (2, 8, 32)
PROMPTS = (2_000, 8_000, 32_000)


def _concepts_arm(count: int) -> str:
    return f"{count} concepts"


def _prompts_arm(count: int) -> str:
    return f"8 concepts, {count:,} prompts"


EIGHT, FEW = _concepts_arm(8), _prompts_arm(PROMPTS[0])


def log_slope(x: tuple[int, ...], y: Float[np.ndarray, "points member"]) -> Float[np.ndarray, " member"]:
    """Least-squares slope of y by log(x), for every member."""
    centred = np.log(x) - np.log(x).mean()
    return centred @ y / (centred @ centred)


def _excess_log_loss(predictions: Predictions) -> float:
    """Log loss of the model at the end - of the exact average on the same prompts, nats a slot."""
    average = response_log_probs(exact_predictions(predictions).average, predictions.responses)
    return float((average - response_log_probs(model_log_probs(predictions)[-1], predictions.responses)).mean())


def generalisation_gap(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Log loss on fresh prompts - on training prompts, nats a slot. From each the exact average's log loss on the same
    prompts is subtracted, since that differs from one set of prompts to the next."""
    fresh, seen = (measure_arm(evidence, arm, which, _excess_log_loss) for which in ("train", TRAINING_PROMPTS))
    return fresh - seen


def kl_over_training(evidence: Evidence, arm: str) -> Series:
    """KL(average || model) on fresh prompts at every checkpoint, nats a slot."""
    return member_series(
        predict_arm(evidence, arm, "train"), lambda one: kl_to_model(exact_predictions(one).average, one)
    )


def _transience_margin(evidence: Evidence, arm: str) -> np.ndarray:
    """Smaller of two differences of KL(average || model), nats a slot: the marginal's less the model's smallest, and
    the model's at the end less its smallest, less `NEAR`."""
    values = kl_over_training(evidence, arm).values
    smallest = values.min(1)
    return np.minimum(distance_of_marginal(evidence, arm) - smallest, values[:, -1] - smallest - NEAR)


def _loss_fall(evidence: Evidence, arm: str) -> np.ndarray:
    """Share by which the training loss falls from the checkpoint nearest to the average to the end."""
    distances = kl_over_training(evidence, arm)
    nearest = np.nan_to_num(distances.values, nan=np.inf).argmin(1)
    return evidence.curve(arm, "train_loss").fall_since(distances.sequences[nearest])


def _regret_slope_margin(evidence: Evidence) -> np.ndarray:
    """.15 less the relative difference between the model's and the exact average's slope of regret by log |Z|."""
    ours, best = (
        log_slope(CONCEPTS, np.stack([measure(evidence, _concepts_arm(count)) for count in CONCEPTS]))
        for measure in (prompt_regret, exact_regret)
    )
    return 0.15 - np.abs(ours / best - 1)


def _smallest_fall(evidence: Evidence) -> np.ndarray:
    """Smallest fall of KL(average || model) from one number of training prompts to the next larger one, nats a slot."""
    gaps = np.stack([final_kl_to_average(evidence, arm) for arm in (*map(_prompts_arm, PROMPTS), EIGHT)])
    return -np.diff(gaps, axis=0).max(0)


CLAIMS = (
    Claim(
        "concepts",
        "regret grows with log |Z| as the exact average's does",
        "regret bound log |Z|; .15 of the average's slope set beforehand",
        ".15 - |slope of a prompt's regret by log |Z|: the model's / the exact average's - 1| (2, 8, 32 concepts)",
        0.0,
        _regret_slope_margin,
        tuple(map(_concepts_arm, CONCEPTS)),
    ),
    Claim(
        "data",
        "the more prompts there are to train on, the nearer is the model to the average",
        "generalisation error falls with the number of training sequences",
        "smallest fall of KL(average || model) from 2,000 to 8,000 to 32,000 prompts to all new ones",
        0.0,
        _smallest_fall,
        (*map(_prompts_arm, PROMPTS), EIGHT),
    ),
    Claim(
        "memorises",
        "on the few prompts that it was trained on the model beats the exact average: it has memorised them",
        "own: in-weights learning of prompts",
        f"log loss of the average - of the model on training's prompts ({FEW})",
        0.0,
        lambda evidence: -measure_arm(evidence, FEW, TRAINING_PROMPTS, _excess_log_loss),
        (FEW,),
    ),
    Claim(
        "transient",
        "and the average is transient: the model comes nearer to it than the marginal is, then goes .02 nats a slot "
        "away from it",
        "own: transience in a mixture of concepts; .02: the limit of being near, as in averaging",
        f"smaller of: KL(average || marginal) - KL(average || model) at the nearest, KL(average || model) at the end - "
        f"at the nearest - {NEAR:g} ({FEW})",
        0.0,
        lambda evidence: _transience_margin(evidence, FEW),
        (FEW,),
    ),
    Claim(
        "hidden",
        "the training loss falls meanwhile",
        "own: as in transience",
        f"smaller of: 1 - training loss at the end / at the nearest to the average, the same as before ({FEW})",
        0.0,
        lambda evidence: np.minimum(_loss_fall(evidence, FEW), _transience_margin(evidence, FEW)),
        (FEW,),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """distances.png: KL(average || model) of every arm over training; scaling.png: regret by the number of concepts,
    and generalisation by the number of training prompts."""
    lines: dict[str, Line] = {}
    for arm in evidence.finished_arms():
        distances = kl_over_training(evidence, arm)
        lines[arm] = distances.sequences, distances.values
    panels = {"to the exact average, on fresh prompts": lines}
    figures = {"distances.png": distances_figure(title, "KL to the model (nats a slot)", panels)["png"]}
    finished = set(evidence.finished_arms())
    if not finished >= {*map(_concepts_arm, CONCEPTS), *map(_prompts_arm, PROMPTS)}:
        return figures
    memorised = partial(measure_arm, evaluator=TRAINING_PROMPTS, measure=lambda one: -_excess_log_loss(one))
    by_concepts = [
        np.stack([measure(evidence, _concepts_arm(count)) for count in CONCEPTS], 1)
        for measure in (prompt_regret, exact_regret)
    ]
    by_prompts = [
        np.stack([measure(evidence, _prompts_arm(count)) for count in PROMPTS], 1)
        for measure in (generalisation_gap, memorised, final_kl_to_average)
    ]
    root = by_prompts[0][:, 0].mean() * np.sqrt(PROMPTS[0] / np.asarray(PROMPTS))
    scaling = [
        Panel(
            "concepts",
            "regret of a prompt (nats)",
            np.asarray(CONCEPTS),
            {"the model": by_concepts[0]},
            {"the exact average": by_concepts[1].mean(0), "log |Z|, the bound": np.log(CONCEPTS)},
        ),
        Panel(
            "prompts to train on",
            "nats a slot",
            np.asarray(PROMPTS),
            {
                "generalisation gap": by_prompts[0],
                "below the average on prompts seen": by_prompts[1],
                "KL to the average": by_prompts[2],
            },
            {"1 / sqrt(prompts)": root},
            log=True,
        ),
    ]
    return figures | {"scaling.png": scaling_figure(title, scaling)["png"]}


ARMS: dict[str, Point] = {_concepts_arm(count): {"source.concepts": count} for count in CONCEPTS} | {
    _prompts_arm(count): {"source.concepts": 8, "distinct": count} for count in PROMPTS
}
SMALLER = "tables of 5 cues and 4 responses, 12 pairs, 2 layers of width 32; theory there"
SCALING = Experiment(
    name="scaling",
    question="What does the model regret by the number of concepts, and by the number of prompts to train on?",
    section="regret bound, and generalisation error by the number of training sequences",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=ARMS, base={"sequences": 256_000}, round=1), 13, SMALLER),
        "cpu": Preset(
            Comparison(arms=ARMS, base={"sequences": 1_280_000}, round=1), None, f"5 times as long; {SMALLER}"
        ),
        "paper": Preset(
            Comparison(arms=ARMS, base={}, preset="paper", round=1),
            None,
            "10 cues, 8 responses, 24 pairs, 8 layers of width 128",
        ),
    },
    shows=("train", "prior"),
    scalars=("train_final", "prior_final", "train_loss_final"),
    figures=_draw_figures,
)
