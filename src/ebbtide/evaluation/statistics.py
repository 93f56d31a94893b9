"""Confidence intervals: of means over the members of a run, and of differences over prompts."""

import numpy as np
from jaxtyping import Float

from ebbtide.errors import require

INTERVAL = "95 % Student interval of the mean over members"


def interval(
    values: Float[np.ndarray, "members *rest"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Student's confidence interval of the mean over n members: mean -+ t_{(1 + level)/2, n - 1} sd / sqrt(n).

    A percentile bootstrap of four members stays within their range, which covers the true mean 7 times in 8 at best
    (LOG.md, 2026-11-23). With one member there is no interval: both ends are nan.
    """
    n = values.shape[0]
    if n < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    from scipy.special import stdtrit

    x = values.astype(np.float64)
    half = stdtrit(n - 1, 0.5 + level / 2) * x.std(axis=0, ddof=1) / np.sqrt(n)
    return np.asarray(x.mean(axis=0) - half), np.asarray(x.mean(axis=0) + half)


def paired_bootstrap(
    values: Float[np.ndarray, " prompts"], seed: int, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean of a difference measured on every prompt, and the ends of its interval: quantiles (1 -+ level)/2 of the
    means of `resamples` draws of as many prompts with replacement (percentile bootstrap, Efron & Tibshirani 1993,
    chapter 13).

    `values` are differences of two predictors on the *same* prompts, so that the difficulty of a prompt for both
    cancels. For thousands of prompts; for a few members use `interval`. The result is a function of (values, seed,
    resamples, level). One prompt has no interval: both ends are nan.

    Raises `InputError` for no values, no resamples, and a level that is not between 0 and 1.
    """
    require(
        values.ndim == 1 and values.size > 0, "shape of values", list(values.shape), "must be [prompts], at least 1"
    )
    mean, low, high = paired_bootstraps(values[None], seed, resamples, level)
    return float(mean[0]), float(low[0]), float(high[0])


def paired_bootstraps(
    values: Float[np.ndarray, "rows prompts"], seed: int, resamples: int = 2000, level: float = 0.95
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """`paired_bootstrap` of every row. All rows use the same draws of prompts, so a row's interval does not depend on
    the others, and many rows take the time of one. A million prompts are drawn at a time, to bound the memory.

    Raises `InputError` as `paired_bootstrap` does.
    """
    shape, allowed = list(values.shape), "must be [rows, prompts], at least 1 prompt"
    require(values.ndim == 2 and values.shape[1] > 0, "shape of values", shape, allowed)
    require(resamples >= 1, "resamples", resamples, "must be at least 1")
    require(0 < level < 1, "level", level, "must be between 0 and 1")
    x = values.astype(np.float64)
    rows, n = x.shape
    if n == 1:
        return x[:, 0], np.full(rows, np.nan), np.full(rows, np.nan)
    generator = np.random.default_rng(seed)
    means = np.empty((rows, resamples))
    chunk = max(1, 2**20 // n)
    for start in range(0, resamples, chunk):
        part = means[:, start : start + chunk]
        many = part.shape[1]
        drawn = generator.integers(0, n, (many, n)) + n * np.arange(many)[:, None]
        times = np.bincount(drawn.ravel(), minlength=many * n).reshape(many, n)
        part[:] = x @ times.T.astype(np.float64) / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return x.mean(axis=1), low, high
