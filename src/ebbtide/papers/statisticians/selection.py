"""Experiment `selection` of `statisticians`: one model of two noise levels, which chooses its penalty by the prompt."""

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Predictions, member_values, predict_arm
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.papers.statisticians.contests import gain_over_frontier, model_errors, noise_mixture_errors, ridge_errors
from ebbtide.papers.statisticians.links import PROMPTS
from ebbtide.report.contest_figure import frontier_figure
from ebbtide.sources.functions import Functions
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence, stack_members
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point

LOW, HIGH = 0.1, 0.5
QUIET, LOUD, BOTH = "noise .1", "noise .5", "noise .1 or .5"
GRID = 81
"""Number of penalties on the frontier."""


def _predict_at_noise(evidence: Evidence, arm: str, noise: float) -> list[Predictions | None]:
    """Predictions of an arm's members at the end, on prompts with this noise (a standard deviation); inputs, weights
    and the noise's directions are the same for every arm and noise."""
    return predict_arm(evidence, arm, "train", prompts=PROMPTS, last=True, noise=(noise,))


def _excess_error(evidence: Evidence, arm: str, noise: float) -> Float[np.ndarray, " member"]:
    """Mean squared error of the members less the noise's variance, where every prompt has this noise."""
    members = _predict_at_noise(evidence, arm, noise)
    return member_values(members, lambda one: float(model_errors(one, noise).mean()) - noise**2)


def _optimum_excess(evidence: Evidence, noise: float) -> Float[np.ndarray, " member"]:
    """Mean squared error, less the noise's variance, of the optimum on each member's prompts: ridge at both noise
    levels, weighed by the evidence for each."""
    members = _predict_at_noise(evidence, BOTH, noise)
    return member_values(members, lambda one: float(noise_mixture_errors(one, noise, (LOW, HIGH)).mean()) - noise**2)


def error_pairs(evidence: Evidence, arm: str) -> Float[np.ndarray, "member 2"]:
    """Mean squared errors of an arm's members at the two noise levels."""
    return np.stack([_excess_error(evidence, arm, noise) + noise**2 for noise in (LOW, HIGH)], axis=1)


def ridge_frontiers(evidence: Evidence) -> Float[np.ndarray, "member penalty 2"]:
    """Mean squared errors, at the two noise levels, of ridge with one penalty for both, on each member's prompts.
    Penalties go from a tenth of the best one at low noise to ten times the best one at high noise."""

    def measure(predictions: Predictions, noise: float) -> Float[np.ndarray, " penalty"]:
        source = predictions.spec.source
        assert isinstance(source, Functions)
        ends = penalty_of(LOW, source.deviation) / 10, penalty_of(HIGH, source.deviation) * 10
        return ridge_errors(predictions, noise, np.geomspace(*ends, GRID)).mean(1)

    levels = []
    for noise in (LOW, HIGH):
        members = _predict_at_noise(evidence, BOTH, noise)
        levels.append(stack_members([one and measure(one, noise) for one in members], (GRID,)))
    return np.stack(levels, axis=-1)


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


def _end_claim(name: str, arm: str, own: float, other: float) -> Claim:
    def estimate(evidence: Evidence) -> np.ndarray:
        here, there = (
            _excess_error(evidence, arm, noise) - _excess_error(evidence, BOTH, noise) for noise in (own, other)
        )
        return np.minimum(-here, there)

    return Claim(
        name,
        f"the model of {arm} alone is at an end of the curve: better than it there, and worse where the noise is "
        f"{other:g}",
        "Fig. of algorithm selection: single-noise models sit at the ends of the frontier",
        f"smaller of: excess of {BOTH} - of {arm} at noise {own:g}, the reverse at noise {other:g}",
        0.0,
        estimate,
        (arm, BOTH),
    )


CLAIMS = (
    _near_claim("near at .1", LOW),
    _near_claim("near at .5", HIGH),
    Claim(
        "below",
        "its two errors lie below the whole frontier of ridge with one penalty for both: it chooses by the prompt",
        "Fig. of algorithm selection: below and left of the curve",
        "smallest over penalties of the larger of the two gains, on the member's own prompts",
        0.0,
        lambda evidence: gain_over_frontier(error_pairs(evidence, BOTH), ridge_frontiers(evidence)),
        (BOTH,),
    ),
    _end_claim("quiet", QUIET, LOW, HIGH),
    _end_claim("loud", LOUD, HIGH, LOW),
)


def _draw_frontier(evidence: Evidence, title: str) -> dict[str, bytes]:
    """frontier.png: errors at the two noise levels of the trained models and of ridge (mean over the members' prompts),
    as in the paper's figure."""
    if BOTH not in evidence.finished_arms():
        return {}
    curve = np.nanmean(ridge_frontiers(evidence), axis=0)
    optimum = [float(np.nanmean(_optimum_excess(evidence, noise))) + noise**2 for noise in (LOW, HIGH)]
    marks = {"weighed by evidence": np.asarray(optimum)}
    marks["each with its own penalty"] = curve.min(0)
    points = {arm: error_pairs(evidence, arm) for arm in evidence.finished_arms()}
    say = (f"squared error, noise {LOW:g}", f"squared error, noise {HIGH:g}")
    return {"frontier.png": frontier_figure(title, say, {"ridge, one penalty for both": curve}, points, marks)["png"]}


ARMS: dict[str, Point] = {
    QUIET: {"task.noise": [LOW]},
    LOUD: {"task.noise": [HIGH]},
    BOTH: {"task.noise": [LOW, HIGH]},
}

SCALED = (
    "3 layers of width 32 with 4 heads, pre-norm (post-norm, as in the paper, learns more slowly at this size), rate "
    "4e-3 with a cosine, in place of 12 layers of width 64 with one head and rate 1e-4; "
)
NINE = "9 members an arm, the paper trains one"
LARGE = "a prompt's noise is drawn for itself, where the paper takes a step of each in turn"
LONG: Point = {"source.dim": 8, "task.context": 8, "model.layers": 4, "sequences": 6_400_000}
SELECTION = Experiment(
    name="selection",
    question="Trained on two noise levels, does it choose the penalty by the prompt?",
    section="Section 5, algorithm selection: the Bayes corner below the frontier of single penalties",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison(arms=ARMS, base={}, task_members=3, round=1),
            5,
            f"{SCALED}4 dimensions and pairs for 20",
        ),
        "cpu": Preset(Comparison(arms=ARMS, base=LONG, round=1), None, f"{SCALED}8 dimensions and pairs for 20"),
        "paper": Preset(Comparison(arms=ARMS, base={}, preset="paper", round=1), None, f"{LARGE}; {NINE}"),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_frontier,
)
