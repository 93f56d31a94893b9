"""Experiment `links` of `statisticians`: one model of regression and classification, which tells them by the labels."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Predictions, member_values, predict_arm
from ebbtide.evaluation.baselines import least_squares
from ebbtide.papers.statisticians.contests import classifier_scores, sign_errors, squared_errors
from ebbtide.report.contest_figure import frontier_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point

PROMPTS = 6400
"""Number of prompts that a model is evaluated on, as in the paper."""
REGRESSION, SIGNS, EITHER = "regression", "classification", "regression or classification"
Score = Callable[[Evidence, str], Float[np.ndarray, " member"]]


def _predict_link(evidence: Evidence, arm: str, link: str) -> list[Predictions | None]:
    """Predictions of an arm's members at the end, on prompts that all have this link; inputs and weights are the same
    for both links."""
    return predict_arm(evidence, arm, "train", prompts=PROMPTS, last=True, link=link)


def squared_error(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Mean squared error on prompts of regression, which have no noise."""
    members = _predict_link(evidence, arm, "linear")
    return member_values(members, lambda one: float(squared_errors(one, one.values()[-1, -1], 0.0).mean()))


def sign_error_rate(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Share of prompts of classification whose sign is wrong, from 0 to 1."""
    members = _predict_link(evidence, arm, "step")
    return member_values(members, lambda one: float(sign_errors(one, one.values()[-1, -1]).mean()))


TENTH = 0.1
"""A tenth of a way: what a figure shows."""


def _corner_claim(name: str, metric: str, score: Score, own: str, other: str) -> Claim:
    def estimate(evidence: Evidence) -> np.ndarray:
        corner, here, far = (score(evidence, arm) for arm in (own, EITHER, other))
        return TENTH * (far - corner) - (here - corner)

    return Claim(
        name,
        f"on {own} the model of both is at the corner: not a tenth of the way from the model of {own} alone to that of "
        f"{other} alone",
        "Fig. of algorithm selection, regression and classification: at the corner of the two models of one task, each "
        "of which is far off on the other; a tenth: what a figure shows",
        f"{TENTH:g} ({metric} of {other} - of {own}) - ({metric} of {EITHER} - of {own})",
        0.0,
        estimate,
        (EITHER, own, other),
    )


CLAIMS = (
    _corner_claim("as regression", "squared error", squared_error, REGRESSION, SIGNS),
    _corner_claim("as classification", "share of wrong signs", sign_error_rate, SIGNS, REGRESSION),
)


def _draw_corner(evidence: Evidence, title: str) -> dict[str, bytes]:
    """corner.png: errors on both kinds of prompts of the trained models, as in the paper's figure."""
    some = [
        (one, two)
        for one, two in zip(*(_predict_link(evidence, EITHER, link) for link in ("linear", "step")), strict=True)
    ]
    both = next(((one, two) for one, two in some if one is not None and two is not None), None)
    if both is None:
        return {}
    real, signs = both
    fitted = squared_errors(real, least_squares(real.inputs, real.responses, [len(real.inputs) - 1])[0], 0.0).mean()
    scores = classifier_scores(signs.inputs, signs.responses)
    marks = {
        "least squares, logistic regression": np.array([fitted, sign_errors(signs, scores["logistic"]).mean()]),
        "least squares for both": np.array([fitted, sign_errors(signs, scores["least squares"]).mean()]),
    }
    points = {
        arm: np.stack([squared_error(evidence, arm), sign_error_rate(evidence, arm)], axis=1)
        for arm in evidence.finished_arms()
    }
    say = ("squared error of regression", "share of wrong signs of classification")
    return {"corner.png": frontier_figure(title, say, {}, points, marks)["png"]}


def _arms(dim: int) -> dict[str, Point]:
    """The three arms, without noise and with twice as many pairs as dimensions, as in the paper."""
    common: Point = {"task.context": 2 * dim, "task.noise": [0.0]}
    links = {REGRESSION: "linear", SIGNS: "step", EITHER: "mixed"}
    return {arm: common | {"task.link": link} for arm, link in links.items()}


SCALED = "3 layers of width 32 with 4 heads, pre-norm, in place of 12 of width 64 with one; squared error for signs too"
LINKS = Experiment(
    name="links",
    question="Trained on regression and classification, does it choose by the labels?",
    section="Section 5, algorithm selection: regression and classification",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison(arms=_arms(4), base={}, task_members=3, round=1), 9, f"{SCALED}; 4 dimensions for 20"
        ),
        "cpu": Preset(
            Comparison(arms=_arms(8), base={"source.dim": 8, "sequences": 6_400_000}, round=1),
            None,
            f"{SCALED}; 8 dimensions for 20",
        ),
        "paper": Preset(
            Comparison(arms=_arms(20), base={}, preset="paper", round=1),
            None,
            "9 members an arm, the paper trains one; squared error for signs too; a prompt's link is drawn for "
            "itself, where the paper takes a step of each in turn",
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_corner,
)
