"""Intervals over members: what one run of a few seeds says about all seeds."""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float


def interval(
    values: Float[np.ndarray, "members *rest"], *, level: float = 0.95, resamples: int = 20_000, seed: int = 0
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Confidence interval of the mean over members: the expanded percentile bootstrap.

    The plain percentile bootstrap is too narrow for few members. Its quantiles alpha/2 are moved
    outwards to Phi(-sqrt(n / (n - 1)) * t_{1 - alpha/2, n - 1}) (Hesterberg 2015, "What teachers
    should know about the bootstrap", section 4.2), which gives it the width of Student's interval.
    It never leaves the range of the members, so for very few it covers the mean more seldom than
    `level` says: with four members it is, in effect, the range from the lowest to the highest, which
    holds the mean of a symmetric distribution 7 times in 8 (87.5 %); with eight, about 19 in 20. With
    one member there is no interval: both ends are nan.
    """
    n = values.shape[0]
    if n < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    from scipy.special import stdtrit

    student = float(stdtrit(n - 1, 0.5 + level / 2))
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student)
    rows = np.random.default_rng(seed).integers(0, n, (resamples, n))
    flat = values.reshape(n, -1).astype(np.float64)
    low, high = np.empty(flat.shape[1]), np.empty(flat.shape[1])
    for i in range(flat.shape[1]):  # column by column: memory stays at resamples x members
        low[i], high[i] = np.quantile(flat[rows, i].mean(axis=1), [tail, 1 - tail])
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])
