r"""Resampled members, and the intervals that follow from them.

What a theory gets from chance is which members were trained, so members are what is resampled: never prompts, never
times. Every resample draws the members of a sweep with replacement, the same ones in every cell and for every theory;
theories are fitted again to their means and scored against their means. A difference between two theories is therefore
paired. With few members the resamples spread too little: n members drawn from n have (n - 1) / n of the variance, and
normal quantiles are too small. Deviations are stretched by
$$\sqrt{n/(n-1)}\; t_{n-1}(.975) / z(.975)$$
(Hesterberg 2015, The American Statistician 69, 371, on the bootstrap of small samples), so that an interval reaches 3.1
standard errors of the resamples with 5 members, and 2 with many.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.contest.splits import Split
from ebbtide.evaluation.statistics import LEVEL

RESAMPLES = 100
"""The number of resamples of the members."""
Interval = tuple[float, float]


class Members(NamedTuple):
    """The members whose means are fitted and scored, as places on the first axis of every cell."""

    fitted: Int[np.ndarray, " fitted"]
    scored: Int[np.ndarray, " scored"]


def resample_members(split: Split, resamples: int = RESAMPLES, seed: int = 0) -> list[Members]:
    """Members drawn with replacement. Where the same members are fitted and scored, so are the same draws; where a
    split divides the members, each part is drawn from itself."""
    random = np.random.default_rng(seed)
    together = np.array_equal(split.fitted_members, split.scored_members)
    drawn = []
    for _ in range(resamples):
        fitted = random.choice(split.fitted_members, len(split.fitted_members))
        drawn.append(
            Members(fitted, fitted if together else random.choice(split.scored_members, len(split.scored_members)))
        )
    return drawn


def interval(estimate: float, resampled: Float[np.ndarray, " resample"], stretched: float = 1.0) -> Interval:
    """The 95 % interval around an estimate: the middle of the resampled values, whose deviations from their own mean
    are stretched and put around the estimate.

    >>> low, high = interval(1.0, np.linspace(4, 6, 201))
    >>> round(low, 2), round(high, 2)
    (0.05, 1.95)
    """
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled - resampled.mean(), [tail, 100 - tail])
    return float(estimate + stretched * low), float(estimate + stretched * high)


def stretch_of(split: Split) -> float:
    """By how much the deviations of resamples of a split's members are stretched. Where the split divides the members,
    n is the size of the smaller part, and t has two degrees of freedom less than there are members."""
    fitted, scored = len(split.fitted_members), len(split.scored_members)
    together = np.array_equal(split.fitted_members, split.scored_members)
    return stretch(fitted, fitted - 1) if together else stretch(min(fitted, scored), fitted + scored - 2)


def stretch(members: int, freedom: int) -> float:
    """sqrt(n / (n - 1)) t(.975) / z(.975) for n members and so many degrees of freedom.

    >>> round(stretch(5, 4), 2), round(stretch(1000, 999), 2)
    (1.58, 1.0)
    """
    from scipy.special import ndtri, stdtrit

    level = (1 + LEVEL) / 2
    return float(np.sqrt(members / (members - 1)) * stdtrit(freedom, level) / ndtri(level))
