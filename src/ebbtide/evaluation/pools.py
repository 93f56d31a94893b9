"""Probabilities of the tasks of a finite pool before a prompt is seen: where exact predictors that know it begin."""

import numpy as np
from jaxtyping import Float

from ebbtide.errors import require


def pool_weights(pool: int, exponent: float = 0.0) -> Float[np.ndarray, " pool"]:
    """Probabilities of the tasks of a pool, p(c) ~ (c + 1)^-exponent for number c, as the tasks draw them (`zipf`).

    >>> from ebbtide.evaluation.pools import pool_weights
    >>> pool_weights(3, 1.0).round(3).tolist()
    [0.545, 0.273, 0.182]
    """
    weights = np.arange(1, pool + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def checked_weights(weights: Float[np.ndarray, " pool"] | None, pool: int) -> Float[np.ndarray, " pool"]:
    """The weights of a pool, in float64; equal ones for None. Raises `InputError` unless they are probabilities above
    0, one of each task."""
    if weights is None:
        return pool_weights(pool)
    require(weights.shape == (pool,), "shape of weights", list(weights.shape), f"must be [{pool}]")
    right = bool((weights > 0).all()) and abs(float(weights.sum()) - 1) < 1e-6
    require(right, "weights", float(weights.sum()), "must be above 0, with the sum 1")
    return weights.astype(np.float64)
