"""Linear analysis of activations and outputs: ridge probes, and the plane of training trajectories."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import require


class Plane(NamedTuple):
    """The leading principal components of several trajectories together: `points` [trajectory, time, component], and
    the share of the variance that each component explains."""

    points: Float[np.ndarray, "trajectory time component"]
    explained: Float[np.ndarray, " component"]


def joint_plane(outputs: Float[np.ndarray, "trajectory time feature"], components: int = 2) -> Plane:
    """Principal components of all trajectories together: features (logits on fixed prompts, say) are centred over
    trajectories and times and projected on their leading axes, each with the sign that makes its largest weight
    positive.

    A trajectory that is not finite throughout is left out: its points are nan. Source: joint trajectory PCA of Carroll
    et al. 2025 (arXiv 2501.17745). Raises `InputError` for too many components.
    """
    every, times, width = outputs.shape
    most = min(every * times - 1, width)
    require(1 <= components <= most, "components", components, f"must be from 1 to {most}")
    whole = np.isfinite(outputs).all((1, 2))
    runs, drawn = int(whole.sum()), np.full((every, times, components), np.nan)
    if min(runs * times - 1, width) < components:
        return Plane(drawn, np.full(components, np.nan))
    x = outputs[whole].reshape(runs * times, width).astype(np.float64)
    x = x - x.mean(0)
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    signs = np.sign(right[np.arange(components), np.abs(right[:components]).argmax(1)])
    points = left[:, :components] * sizes[:components] * signs
    total = max(float((sizes**2).sum()), np.finfo(np.float64).tiny)
    drawn[whole] = points.reshape(runs, times, components)
    return Plane(drawn, sizes[:components] ** 2 / total)


def ridge_probe(
    x: Float[np.ndarray, "row feature"],
    label: Int[np.ndarray, " row"],
    *,
    penalty: float = 1.0,
    test: float = 0.5,
) -> float:
    """Accuracy of a linear probe for `label` on held-out rows, the last share `test` of `x`.

    One-hot targets Y, both centred on the rows of the fit, W = (X'X + penalty I)^-1 X'Y; the prediction is the largest
    output. Raises `InputError` for a penalty that is not positive or when a part has no row.
    """
    cut = _rows_of_fit(len(x), test)
    known, coded = np.unique(label[:cut], return_inverse=True)
    guess = known[_ridge(x, np.eye(len(known))[coded], penalty).argmax(1)]
    return float((guess == label[cut:]).mean())


def explained_by_probe(
    x: Float[np.ndarray, "row feature"],
    y: Float[np.ndarray, "row target"],
    *,
    penalty: float = 1.0,
    test: float = 0.5,
) -> float:
    """R^2 of a linear probe for `y` on held-out rows, the last share `test` of `x`.

    R^2 = 1 - |Y - X W|^2 / |Y - mean Y|^2 over all targets together, W by ridge on the first rows, centred on them.
    Raises `InputError` for a penalty that is not positive or when a part has no row.
    """
    cut = _rows_of_fit(len(x), test)
    rest = y[cut:] - _ridge(x, y[:cut], penalty)
    return float(1 - (rest**2).sum() / ((y[cut:] - y[cut:].mean(0)) ** 2).sum())


def _rows_of_fit(rows: int, test: float) -> int:
    """The number of rows before the last share `test`."""
    cut = rows - round(test * rows)
    require(0 < cut < rows, "test", test, f"must leave rows on both sides of {rows}")
    return cut


def _ridge(
    x: Float[np.ndarray, "row feature"], y: Float[np.ndarray, "known target"], penalty: float
) -> Float[np.ndarray, "rest target"]:
    """Predictions for the rows after those with a known `y`, by ridge regression on the first; both are centred on the
    rows of the fit."""
    require(penalty > 0, "penalty", penalty, "must be larger than 0")
    x, cut = x.astype(np.float64), len(y)
    mean = x[:cut].mean(0)
    fit = x[:cut] - mean
    w = np.linalg.solve(fit.T @ fit + penalty * np.eye(x.shape[1]), fit.T @ (y - y.mean(0)))
    return (x[cut:] - mean) @ w + y.mean(0)
