"""Events of a learning curve by absolute levels, and what is known of a member when ICL has just been learned."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.summary import Curves

LEVEL = 0.75
"""ICL half the way from chance (.5) to 1. An absolute level: the time of a share of a curve's own peak would change
when the curve has one late outlier."""
LASTING = 3
"""Evaluations in a row below the level that make a fall: one alone is noise."""
EARLIER = 1.5
"""Slopes reach from a moment back to the evaluation at 1/EARLIER of its sequences."""
MEAN_OF = 3
"""Evaluations, the last ones up to a moment, of which a level is the mean."""
LATER = 150_000
"""The later moment of a forecast, in sequences: ICL is near its peak, and the first members fall thrice as late."""
LEVELS = ("train loss", "icl", "iwl", "ciwl", "flip")
FEATURES = ("log onset", *LEVELS, *(f"{name} slope" for name in LEVELS))
"""What a forecast may see of a member: the onset (natural logarithm of its sequences), the levels of training loss
(natural logarithm of nats) and accuracies at the moment of the forecast, and their change per factor e of training up
to there."""
MOMENTS = ("onset", "later")
"""When a forecast is made: at the first evaluation with ICL above `LEVEL`, or after `LATER` sequences."""


class Course(NamedTuple):
    """What became of every member, and what was known of it at the moment of a forecast.

    Args:
        onset: the first evaluation with ICL above `LEVEL`, in sequences; nan: there is none.
        fall: the first of `LASTING` evaluations in a row after the onset with ICL below `LEVEL`, in sequences; nan:
            there is none before the end of training (or no onset).
        end: the last evaluation, in sequences.
        features: the values of `FEATURES` at the moment of the forecast; nan where there is no onset before it, or the
            fall is not after it. They rest on no later evaluation.
    """

    onset: Float[np.ndarray, " member"]
    fall: Float[np.ndarray, " member"]
    end: float
    features: Float[np.ndarray, "member feature"]


def course_of(curves: Curves, moment: str) -> Course:
    """The course of every member, from curves as `Run.metrics` has them, with what is known at a moment (`MOMENTS`).

    >>> icl = np.array([[0.5, 0.6, 0.8, 0.9, 0.7, 0.9, 0.7, 0.7, 0.6]])
    >>> curves = dict.fromkeys(("icl", "iwl", "ciwl", "flip"), icl)
    >>> curves |= {"sequences": np.arange(9) * 100, "train_loss": np.ones((1, 9))}
    >>> found = course_of(curves, "onset")
    >>> found.onset.tolist(), found.fall.tolist(), found.features[0, :3].round(2).tolist()
    ([200.0], [600.0], [5.3, 0.0, 0.63])
    """
    sequences, icl = curves["sequences"].astype(np.float64), curves["icl"]
    onset, fall = np.full(len(icl), np.nan), np.full(len(icl), np.nan)
    features = np.full((len(icl), len(FEATURES)), np.nan)
    for m, curve in enumerate(icl):
        above = np.flatnonzero((curve > LEVEL) & (sequences > 0))
        if not len(above):
            continue
        first = int(above[0])
        onset[m] = sequences[first]
        low = curve < LEVEL
        lasting = np.all([low[i : len(low) - LASTING + 1 + i] for i in range(LASTING)], axis=0)
        after = [int(i) for i in np.flatnonzero(lasting) if i > first]
        if after:
            fall[m] = sequences[after[0]]
        at = first if moment == MOMENTS[0] else int(np.flatnonzero(sequences <= LATER)[-1])
        if at >= first and not (after and after[0] <= at):
            features[m] = [np.log(onset[m]), *levels_at(curves, m, at), *slopes_at(curves, m, at)]
    return Course(onset, fall, float(sequences[-1]), features)


def levels_at(curves: Curves, member: int, at: int) -> Float[np.ndarray, " level"]:
    """`LEVELS` of a member at evaluation number `at`, each the mean of the last evaluations up to there (not of that at
    0 sequences, which no training batch precedes)."""
    last = slice(max(at - MEAN_OF + 1, 1), at + 1)
    loss = np.log(np.maximum(curves["train_loss"][member, last], 1e-9))
    return np.asarray([loss.mean(), *(curves[name][member, last].mean() for name in LEVELS[1:])], np.float64)


def slopes_at(curves: Curves, member: int, at: int) -> Float[np.ndarray, " level"]:
    """Change of `LEVELS` of a member per factor e of training up to evaluation number `at`."""
    times = curves["sequences"].astype(np.float64)
    before = max(int(np.abs(times[:at] - times[at] / EARLIER).argmin()), 1) if at > 1 else at
    span = np.log(times[at] / times[before]) if before < at else 1.0
    return (levels_at(curves, member, at) - levels_at(curves, member, before)) / span
