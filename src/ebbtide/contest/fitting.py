r"""The fit of a theory: the parameters with the least mean divergence from what some cells did.

The divergence of predicted fractions p from observed ones o at one time is, in nats,
$$\sum_s o'_s \log \frac{o'_s}{p'_s}, \qquad x' = (1 - 3 f)\, x + f,$$
with f = `scores.FLOOR`, so that a prediction of 0 costs much and not everything, and is 0 where p = o
(`scores.divergence`). A fit minimises its mean over the log-time of a cell and then over cells.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.optimize import minimize

from ebbtide.contest.scores import FLOOR, log_time_weights
from ebbtide.contest.theory import STRATEGIES, Fractions, Seen
from ebbtide.errors import require

REFINED = 3
"""Starts that are followed to their minimum: those with the lowest values."""

LIMITS = {"maxiter": 100}

Vector = Float[np.ndarray, " parameter"]
Objective = Callable[[Vector], tuple[float, Vector]]
"""The value that is minimised, and its slope by every parameter."""


class Rows(NamedTuple):
    """The times of several cells, one after another: the cell of each, the sequences, the observed fractions, and
    weights with sum 1 by which every cell counts as much as any other."""

    cell: Int[np.ndarray, " row"]
    sequences: Float[np.ndarray, " row"]
    fractions: Float[np.ndarray, "row strategy"]
    weights: Float[np.ndarray, " row"]


def join(seen: Sequence[Seen]) -> Rows:
    """The rows of some cells. Raises `InputError` where there is nothing to fit."""
    require(sum(len(one.sequences) for one in seen) > 0, "cells to fit", len(seen), "must have one time at least")
    full = [(i, one) for i, one in enumerate(seen) if len(one.sequences)]
    counts = [len(one.sequences) for _, one in full]
    return Rows(
        np.repeat([i for i, _ in full], counts),
        np.concatenate([np.asarray(one.sequences, np.float64) for _, one in full]),
        np.concatenate([one.fractions for _, one in full]),
        np.concatenate([log_time_weights(one.sequences) / len(full) for _, one in full]),
    )


def loss_and_slope(rows: Rows, predicted: Fractions) -> tuple[float, Float[np.ndarray, "row strategy"]]:
    """The mean divergence, and its derivatives by the predicted fractions."""
    scale = 1 - len(STRATEGIES) * FLOOR
    observed, floored = scale * rows.fractions + FLOOR, scale * predicted + FLOOR
    ratio = observed / floored
    return float(rows.weights @ (observed * np.log(ratio)).sum(axis=1)), -scale * rows.weights[:, None] * ratio


def softmax(scores: Float[np.ndarray, "row strategy"]) -> Fractions:
    """exp(score) / sum over strategies, for scores of any size."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def through_softmax(
    slope: Float[np.ndarray, "row strategy"], fractions: Fractions
) -> Float[np.ndarray, "row strategy"]:
    """Derivatives by the scores of a softmax, from those by its fractions."""
    return fractions * (slope - (slope * fractions).sum(axis=1, keepdims=True))


def logistic(x: Num[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """1 / (1 + exp(-x)), for x of any size."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def minimise(objective: Objective, bounds: Sequence[tuple[float, float]], starts: Sequence[Sequence[float]]) -> Vector:
    """The parameters with the lowest value that L-BFGS-B reaches from the best `REFINED` of some starts, within
    bounds. A fit that continues another has one start, the other's parameters.

    >>> from ebbtide.contest.fitting import minimise
    >>> minimise(lambda x: (float((x[0] - 2) ** 2), 2 * (x - 2)), [(-5, 5)], [[0.0], [4.0]]).round(6).tolist()
    [2.0]
    """
    low, high = np.array(bounds, np.float64).T
    inside = [np.clip(np.asarray(start, np.float64), low, high) for start in starts]
    if len(inside) > REFINED:
        values = [objective(start)[0] for start in inside]
        inside = [inside[i] for i in np.argsort(values, kind="stable")[:REFINED]]
    ends = [
        minimize(objective, start, jac=True, bounds=list(bounds), method="L-BFGS-B", options=LIMITS) for start in inside
    ]
    return np.asarray(min(ends, key=lambda end: end.fun).x, np.float64)


def minimise_value(
    value: Callable[[Vector], float],
    bounds: Sequence[tuple[float, float]],
    starts: Sequence[Sequence[float]],
    step: float = 1e-4,
) -> Vector:
    """`minimise` for a value whose slope is taken from two values around, for theories that are integrated.

    >>> from ebbtide.contest.fitting import minimise_value
    >>> minimise_value(lambda x: float((x[0] - 2) ** 2), [(-5, 5)], [[0.0], [4.0]]).round(4).tolist()
    [2.0]
    """

    def objective(at: Vector) -> tuple[float, Vector]:
        offsets = step * np.eye(len(at))
        return value(at), np.array([(value(at + one) - value(at - one)) / (2 * step) for one in offsets])

    low, high = np.array(bounds, np.float64).T
    best = sorted(starts, key=lambda start: value(np.clip(start, low, high)))[:REFINED] if len(starts) > 1 else starts
    return minimise(objective, bounds, best)
