"""Which evaluations of a long run are sent: real ones, the same for every curve, among them all minima and maxima."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

MOST_POINTS = 2000
"""Largest number of evaluations that are sent as they are."""
LEAST_STRETCHES = 20


def keep_extremes(
    curves: Sequence[Float[np.ndarray, "member evaluation"]], most: int = MOST_POINTS
) -> Int[np.ndarray, " kept"]:
    """Indices of about `most` of the evaluations, in order; all where there are no more.

    The evaluations are cut into stretches of equal length. Of each stretch and curve these are kept: where any member
    is lowest, where any is highest, and where one is farthest from its own mean over the stretch (so that a narrow peak
    of one member stays although others lie above it). The first and the last are kept, and the lowest and the highest
    of each member.
    """
    count = curves[0].shape[1] if curves else 0
    if count <= most:
        return np.arange(count)
    stretches = max(LEAST_STRETCHES, most // (3 * len(curves)))
    length = -(-count // stretches)
    found = [np.array([0, count - 1])]
    for curve in curves:
        finite = np.where(np.isfinite(curve), curve, np.nan).astype(np.float64)
        if len(finite) > 0:
            found += [_of_stretches(finite, length), _of_members(finite)]
    return np.unique(np.concatenate(found))


def _of_stretches(curve: Float[np.ndarray, "member evaluation"], length: int) -> Int[np.ndarray, " kept"]:
    members, count = curve.shape
    stretches = -(-count // length)
    cut = np.full((members, stretches * length), np.nan)
    cut[:, :count] = curve
    cut = cut.reshape(members, stretches, length)
    known = np.isfinite(cut)
    total, number = np.where(known, cut, 0).sum(2, keepdims=True), known.sum(2, keepdims=True)
    away = np.where(known, np.abs(cut - total / np.maximum(number, 1)), -1).max(0)
    low = np.where(known, cut, np.inf).min(0)
    high = np.where(known, cut, -np.inf).max(0)
    first = np.arange(stretches) * length
    some = known.any((0, 2))
    return np.concatenate([(first + at)[some] for at in (low.argmin(1), high.argmax(1), away.argmax(1))])


def _of_members(curve: Float[np.ndarray, "member evaluation"]) -> Int[np.ndarray, " kept"]:
    known = np.isfinite(curve)
    some = known.any(1)
    low, high = np.where(known, curve, np.inf).argmin(1), np.where(known, curve, -np.inf).argmax(1)
    return np.concatenate([low[some], high[some]])
