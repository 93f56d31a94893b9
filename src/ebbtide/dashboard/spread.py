"""What a set of members shows at each evaluation: mean, median with its interval, quantiles, and how many are
counted."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ebbtide.evaluation.statistics import median_interval

QUANTILES = {"low90": 0.05, "low50": 0.25, "median": 0.5, "high50": 0.75, "high90": 0.95}
"""Ends of the bands that hold 90 % and 50 % of the members, and the middle."""


def groups(
    curve: Float[np.ndarray, "member evaluation"],
) -> Iterator[tuple[Int[np.ndarray, " some"], Float[np.ndarray, "finite some"]]]:
    """The evaluations in groups of equal numbers of finite members: their indices, and the finite values in order."""
    ordered = np.sort(np.where(np.isfinite(curve), curve, np.nan).astype(np.float64), axis=0)  # nan comes last
    finite = np.isfinite(ordered).sum(0)
    for n in np.unique(finite):
        at = np.flatnonzero(finite == n)
        yield at, ordered[: int(n), at]


def spread(curve: Float[np.ndarray, "member evaluation"]) -> dict[str, np.ndarray]:
    """By name, at each evaluation: `n` finite members, their `mean` and `median`, the ends `low` and `high` of the 95 %
    interval of the median (nan with fewer than 6), and the quantiles of `QUANTILES`; nan where no member is finite."""
    count = curve.shape[1]
    names = ("mean", "low", "high", *QUANTILES)
    out = {name: np.full(count, np.nan) for name in names}
    out["n"] = np.zeros(count, np.int64)
    for at, values in groups(curve):
        n = len(values)
        out["n"][at] = n
        if n == 0:
            continue
        out["mean"][at] = values.mean(0)
        out["low"][at], out["high"][at] = median_interval(values)
        for name, share in QUANTILES.items():
            out[name][at] = np.quantile(values, share, axis=0)
    return out
