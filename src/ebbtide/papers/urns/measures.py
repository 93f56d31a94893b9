"""Measures of models of a pool of urns over training, on prompts whose urns are in no pool. As all numbers of curves
they are smoothed over three times (`evaluation.summary`); the model before training is left out."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Num

from ebbtide.analysis.pool_fractions import PoolCourse, pool_course
from ebbtide.analysis.predictions import map_members
from ebbtide.evaluation.summary import smooth
from ebbtide.studies.evidence import Evidence, Series, stack_members

STRATEGIES = ("counts", "memory", "uniform")
"""The predictors of `evaluation.pool_predictors`, in its order: counts + 1, the average over the pool, and 1/V."""
COUNTS, MEMORY = 0, 1
HALFWAY = 0.5
"""The relative distance at which a model is as near to memory as to counts."""


def courses(evidence: Evidence, arm: str) -> list[PoolCourse | None]:
    """The `PoolCourse` of every member of an arm, None for a member that has not finished."""
    return map_members(evidence, arm, pool_course)


def relative_distances(evidence: Evidence, arm: str) -> Series:
    """Relative distance over training, 0 at counts and 1 at memory."""
    return _series(courses(evidence, arm), PoolCourse.relative_distance)


def divergences(evidence: Evidence, arm: str) -> Series:
    """Symmetrised divergence of the model from each of `STRATEGIES` over training, nats a symbol."""
    found = courses(evidence, arm)
    each = [_series(found, lambda one, which=which: one.nearness[:, which]) for which in range(len(STRATEGIES))]
    return Series(np.stack([one.values for one in each], axis=2), each[0].sequences)


def kl_to_truth(evidence: Evidence, arm: str) -> Series:
    """KL(the urn || model) over training, nats a symbol: the divergence out of distribution."""
    return _series(courses(evidence, arm), lambda one: one.truth)


def _series(found: list[PoolCourse | None], measure: Callable[[PoolCourse], np.ndarray]) -> Series:
    """Values over training, smoothed over three checkpoints; without the first, which is before training."""
    times = next((one.sequences for one in found if one is not None), np.zeros(2, int))
    values = stack_members([None if one is None else measure(one) for one in found], (len(times),))
    return Series(smooth(values[:, 1:]), times[1:])


def turn_times(relative: Series) -> Float[np.ndarray, " member"]:
    """Sequences after which each member is nearer to memory than to counts for good: the last time at which its
    relative distance rises through a half, interpolated in log sequences. 0: it always was; inf: it is not yet at the
    end; nan: it has not finished."""
    return np.asarray([_turn_time(relative.sequences, one) for one in relative.values])


def _turn_time(sequences: Num[np.ndarray, " time"], course: Float[np.ndarray, " time"]) -> float:
    if np.isnan(course).any():
        return np.nan
    nearer = np.flatnonzero(course < HALFWAY)  # to counts
    if not len(nearer):
        return 0.0
    if nearer[-1] == len(course) - 1:
        return np.inf
    between = slice(nearer[-1], nearer[-1] + 2)
    return float(np.exp(np.interp(HALFWAY, course[between], np.log(sequences[between]))))


def turn_slope(
    pools: Num[np.ndarray, " pool"], times: Float[np.ndarray, "pool member"], fewest: int = 3
) -> Float[np.ndarray, " member"]:
    """Slope of log turn time by log urns of every member, by least squares over the pools at which its turn was seen;
    nan where these are fewer than `fewest`. Pools whose model had turned before the first checkpoint (0) or has not at
    the end (inf) are left out.

    >>> from ebbtide.papers.urns.measures import turn_slope
    >>> turn_slope(np.array([4, 8, 16, 32]), np.array([[0.0], [10.0], [40.0], [160.0]])).round(6).tolist()
    [2.0]
    """
    slopes = np.full(times.shape[1], np.nan)
    for m, own in enumerate(times.T):
        seen = np.isfinite(own) & (own > 0)
        if seen.sum() >= fewest:
            slopes[m] = np.polyfit(np.log(pools[seen]), np.log(own[seen]), 1)[0]
    return slopes
