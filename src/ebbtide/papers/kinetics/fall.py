"""Experiment `fall` of `kinetics`: the fall of ICL by the coefficient of L2, and as IWL alone foretells it."""

from functools import partial

import numpy as np
from jaxtyping import Float

from ebbtide.papers.kinetics.figures import draw_falls
from ebbtide.papers.kinetics.measures import Falls, courses, half_falls
from ebbtide.papers.kinetics.settings import SCALED
from ebbtide.papers.transience.models import weight_decay
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

COEFFICIENTS = (0.015, 0.02, 0.025, 0.03)
NEAR = 0.2
"""Largest |ln(predicted / observed)| that counts as near: a fifth."""


def arm_of(coefficient: float) -> str:
    """The name of the arm with this L2 on the attention."""
    return f"L2 {coefficient:g}"


ARMS: dict[str, Point] = {arm_of(one): weight_decay(one, on="attention") for one in COEFFICIENTS}


def falls_of(evidence: Evidence, coefficient: float) -> Falls:
    """The `Falls` of the arm with this coefficient."""
    return half_falls(courses(evidence, arm_of(coefficient)), coefficient)


def near_margin(evidence: Evidence, coefficient: float) -> Float[np.ndarray, " member"]:
    """A fifth - |ln(predicted / observed)| of the half-fall."""
    found = falls_of(evidence, coefficient)
    return NEAR - np.abs(np.log(found.predicted / found.observed))


def better_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Mean over the coefficients of |ln(half-rise of IWL / observed)| - |ln(predicted / observed)|."""
    found = [falls_of(evidence, one) for one in COEFFICIENTS]
    gains = [np.abs(np.log(one.iwl / one.observed)) - np.abs(np.log(one.predicted / one.observed)) for one in found]
    return np.mean(gains, axis=0)


def order_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smallest over neighbouring coefficients of ln(half-fall with the smaller / with the larger)."""
    times = np.log([falls_of(evidence, one).observed for one in COEFFICIENTS])
    return (times[:-1] - times[1:]).min(0)


_THEORY = "2412.00104, on transience: w exp(w) = c3 / lambda; a fifth in log-time: own"
CLAIMS = (
    *(
        Claim(
            f"half-fall {one:g}",
            f"L2 of {one:g}: ICL has fallen half-way when LambertW(c3 / lambda) says so, within a fifth in log-time",
            _THEORY,
            f"{NEAR:g} - |ln(predicted / observed time at which ICL has fallen half-way)| ({arm_of(one)})",
            0.0,
            partial(near_margin, coefficient=one),
            (arm_of(one),),
        )
        for one in COEFFICIENTS
    ),
    Claim(
        "better",
        "that says it better than IWL alone does, by the time at which it has risen half-way",
        "own: else lambda and the theory would add nothing to 'ICL goes when IWL comes'",
        "mean over coefficients of |ln(half-rise of IWL / observed)| - |ln(predicted / observed)|",
        0.0,
        better_margin,
        tuple(ARMS),
    ),
    Claim(
        "order",
        "the more L2, the sooner ICL falls",
        "2412.00104, on transience: w falls with lambda",
        "smallest over neighbouring coefficients of ln(half-fall with the smaller / with the larger)",
        0.0,
        order_margin,
        tuple(ARMS),
    ),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """fall.png: ICL over training as observed and as predicted for each coefficient, and the times of both."""
    return {"fall.png": draw_falls(evidence, {arm_of(one): one for one in COEFFICIENTS}, title)}


FALL = Experiment(
    name="fall",
    question="When does ICL fall under L2 on the attention: can the growth of IWL alone say it?",
    section="2412.00104, on transience: the balance of gradient and L2 after ICL is acquired",
    claims=CLAIMS,
    presets={"quick": Preset(Comparison(arms=ARMS, base={"sequences": 384_000}, round=1), 10, SCALED)},
    shows=("icl", "iwl", "flip"),
    scalars=("icl_peak", "icl_final", "iwl_final", "train_loss_final"),
    figures=_draw,
)
