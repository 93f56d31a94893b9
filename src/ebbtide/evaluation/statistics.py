"""Intervals and tests that assume nothing of the distribution: of shares and medians of members, and of differences
over prompts."""

import numpy as np
from jaxtyping import Float, Num

from ebbtide.errors import require

LEVEL = 0.95
"""Confidence level of all intervals."""

FEWEST = 6
"""The least number of members that have an interval of their median at that level."""


def share_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    r"""The exact interval of a share of which `count` of `n` members are a sample (Clopper & Pearson 1934).

    Its ends are the shares $s$ with $P(\mathrm{Bin}(n, s) \ge k) = (1 - level)/2$ and
    $P(\mathrm{Bin}(n, s) \le k) = (1 - level)/2$, where $k$ is `count`. It covers the true share at least as often as
    `level` says, whatever the share and n.

    Raises `InputError` for a count that is not from 0 to n, and for a level that is not between 0 and 1.

    >>> [round(end, 3) for end in share_interval(5, 5)]  # five of five: more than 48 % of all
    [0.478, 1.0]
    >>> [round(end, 3) for end in share_interval(19, 20)]
    [0.751, 0.999]
    """
    from scipy.special import betaincinv

    require(0 <= count <= n, "count", count, f"must be from 0 to n = {n}")
    require(0 < level < 1, "level", level, "must be between 0 and 1")
    tail = (1 - level) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


def probability_of_as_many(count: int, n: int, share: float) -> float:
    r"""$P(\mathrm{Bin}(n, s) \ge k)$: how probable at least `count` of `n` members are where a share `share` of all
    would be counted. It is the exact p-value against "at most this share".

    >>> probability_of_as_many(5, 5, 0.5)
    0.03125
    """
    from scipy.special import bdtrc

    return 1.0 if count <= 0 else float(bdtrc(count - 1, n, share))


def rank_correlation(
    a: Num[np.ndarray, "*some"], b: Num[np.ndarray, "*others"], axis: int = -1
) -> Float[np.ndarray, "*rest"]:
    """Spearman's rank correlation of `a` and `b` along an axis (Spearman 1904): the correlation of their ranks, ties
    with their mean rank; nan where one of the two is constant or has a nan.

    >>> rank_correlation(np.array([1, 2, 3, 4]), np.array([[1, 10, 100, 1000], [4, 3, 2, 1]])).round(9).tolist()
    [1.0, -1.0]
    """
    from scipy.stats import rankdata  # half a second to import

    x, y = (rankdata(one, axis=axis) for one in np.broadcast_arrays(a, b))
    x, y = (one - one.mean(axis, keepdims=True) for one in (x, y))
    product = np.sqrt((x**2).sum(axis) * (y**2).sum(axis))
    return np.asarray((x * y).sum(axis) / np.where(product > 0, product, np.nan))


def corrected(p_values: Float[np.ndarray, " claims"]) -> Float[np.ndarray, " claims"]:
    """Holm's p-values of a family of claims (Holm 1979): the i-th smallest of m is multiplied by m - i + 1, then no
    smaller than the ones before it, and at most 1. The probability that any false claim of the family has one below
    alpha is at most alpha, however the claims depend on each other.

    >>> corrected(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    out = np.empty_like(p)
    out[order] = steps
    return out


def median_interval(
    values: Float[np.ndarray, "members *rest"], *, level: float = LEVEL
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    r"""The interval of the median of which the n members (first axis) are a sample, between two of their own values.

    With the members in order, it is $[x_{(r)}, x_{(n + 1 - r)}]$ with the largest $r$ for which
    $2 P(\mathrm{Bin}(n, 1/2) < r) \le 1 - level$: all medians that a two-sided sign test does not reject. It covers the
    median of *any* distribution at least as often as `level` says; of a continuous one
    $1 - 2 P(\mathrm{Bin}(n, 1/2) < r)$ of the time: 96.9 % with 6 members, 96.1 % with 9 and 12, 96.5 % with 15, 95.9 %
    with 20. With fewer than 6 members (at 95 %) there is none: both ends are nan.

    >>> [float(end) for end in median_interval(np.array([1.0, 1.0, 2.0, 1.0, 1.0, 1.0]))]
    [1.0, 2.0]
    """
    from scipy.special import bdtr

    require(0 < level < 1, "level", level, "must be between 0 and 1")
    n = values.shape[0]
    ranks = [r for r in range(1, (n + 1) // 2 + 1) if 2 * bdtr(r - 1, n, 0.5) <= 1 - level]
    if not ranks:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    ordered = np.sort(values.astype(np.float64), axis=0)
    return np.asarray(ordered[ranks[-1] - 1]), np.asarray(ordered[n - ranks[-1]])


def paired_bootstrap(
    values: Float[np.ndarray, " prompts"], seed: int, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean of a difference measured on every prompt, and the ends of its interval: quantiles (1 -+ level)/2 of the
    means of `resamples` draws of as many prompts with replacement (percentile bootstrap, Efron & Tibshirani 1993,
    chapter 13).

    `values` are differences of two predictors on the *same* prompts, so that the difficulty of a prompt for both
    cancels. For thousands of prompts; for a few members use `median_interval`. The result is a function of (values,
    seed, resamples, level). One prompt has no interval: both ends are nan.

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
