r"""Predictors of the next term of an affine recurrence $s_{n+1} = A s_n + b$ from the terms before it.

Terms are [slots, batch, dim]: slot n holds $s_n$, and its prediction is one of $s_{n+1}$, from $s_0, \dots, s_n$. All
is in float64. Naive predictors know nothing of the recurrence; least squares is exact once it is determined; the
posteriors know a pool.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from ebbtide.errors import require
from ebbtide.evaluation.baselines import blocks, linear_posterior, positive
from ebbtide.evaluation.pools import checked_weights

Terms = Float[np.ndarray, "slots batch dim"]
Symbols = Int[np.ndarray, "slots batch"]
PENALTY = 1e-8
"""Penalty of least squares: small enough for an error of that size where two differences are not tiny."""
COPY_LAST, COPY_BEFORE, MEAN, LINE = "copy s_n", "copy s_(n-1)", "mean of the last two", "2 s_n - s_(n-1)"
NAIVE = (COPY_LAST, COPY_BEFORE, MEAN, LINE)


def _terms(terms: Terms) -> Terms:
    require(terms.ndim == 3, "shape of terms", list(terms.shape), "must be [slots, batch, dim]")
    require(bool(np.isfinite(terms).all()), "terms", "nan or infinite", "must be finite numbers")
    return terms.astype(np.float64)


def naive_predictions(terms: Terms) -> dict[str, Terms]:
    r"""Predictions that copy: by name ($s_n$; $s_{n-1}$; their mean; the straight line $2 s_n - s_{n-1}$), [slots,
    batch, dim] each. At slot 0 all are $s_0$.

    With $D_n = s_n - s_{n-1}$ the next term is $s_n + A D_n$, so their errors are $-A D_n$, $-(I + A) D_n$, $-(A + I/2)
    D_n$ and $(I - A) D_n$ without noise. Raises `InputError` for terms that are not [slots, batch, dim] and finite.

    >>> from ebbtide.evaluation.recurrences import naive_predictions
    >>> terms = np.asarray([0.0, 1.0, 1.5]).reshape(3, 1, 1)
    >>> {name: float(one[2, 0, 0]) for name, one in naive_predictions(terms).items()}
    {'copy s_n': 1.5, 'copy s_(n-1)': 1.0, 'mean of the last two': 1.25, '2 s_n - s_(n-1)': 2.0}
    """
    last = _terms(terms)
    before = np.concatenate([last[:1], last[:-1]])
    return {COPY_LAST: last, COPY_BEFORE: before, MEAN: (last + before) / 2, LINE: 2 * last - before}


def affine_ridge(terms: Terms, penalty: float = PENALTY) -> Terms:
    r"""Least squares of the pairs $(s_i, s_{i+1})$ seen so far on $s_i$ and a constant, with a penalty on squared
    weights: the autoregression AR(1). [slots, batch, dim].

    Without noise it is exact, up to the penalty, from slot dim + 1 on (in one dimension from the third term on), where
    the pairs determine A and b; with noise sigma and normal (A, b) of variance tau^2 the penalty sigma^2 / tau^2 makes
    it the posterior mean. At slot 0 it is 0.

    Raises `InputError` for terms that are not [slots, batch, dim] and finite, and a penalty that is not above 0.

    >>> from ebbtide.evaluation.recurrences import affine_ridge
    >>> terms = np.asarray([0.0, 1.0, 1.5, 1.75]).reshape(4, 1, 1)  # a = .5, b = 1
    >>> affine_ridge(terms)[:, 0, 0].round(6).tolist()
    [0.0, 1.0, 1.75, 1.875]
    """
    known = _terms(terms)
    features = np.concatenate([known, np.ones_like(known[..., :1])], axis=-1)
    after = np.concatenate([known[1:], known[-1:]])  # the last pair is used for no prediction
    return np.stack([linear_posterior(features, y, penalty).mean for y in np.moveaxis(after, -1, 0)], axis=-1)


class PoolPosterior(NamedTuple):
    """Predictions, and the posterior probability of every recurrence of the pool given the terms so far."""

    predictions: Terms
    posterior: Float[np.ndarray, "slots batch pool"]


def pool_posterior(
    terms: Terms,
    matrices: Float[np.ndarray, "pool dim dim"],
    offsets: Float[np.ndarray, "pool dim"],
    noise: float,
    weights: Float[np.ndarray, " pool"] | None = None,
) -> PoolPosterior:
    r"""Posterior mean of the next term where (A, b) is one of a finite pool, with probabilities w before (`weights`;
    None: equal ones):

    $$\hat s_{n+1} = \sum_j P_j (A_j s_n + b_j), \quad P_j \propto w_j \exp\Big(-\sum_{i<n}
    |s_{i+1} - A_j s_i - b_j|^2 / 2\sigma^2\Big).$$

    The optimum of a model that knows its pool by heart, in squared error. Without noise any small sigma gives it.
    Raises `InputError` for shapes that disagree, and a noise that is not above 0.

    >>> from ebbtide.evaluation.recurrences import pool_posterior
    >>> terms = np.asarray([0.0, 1.0, 1.5]).reshape(3, 1, 1)
    >>> pool = np.asarray([0.5, -0.5]).reshape(2, 1, 1), np.asarray([[1.0], [0.0]])
    >>> pool_posterior(terms, *pool, noise=0.1).predictions[:, 0, 0].round(3).tolist()
    [0.5, 1.5, 1.75]
    """
    known = _terms(terms)
    slots, batch, dim = known.shape
    pool = len(matrices)
    require(
        matrices.shape == (pool, dim, dim), "shape of matrices", list(matrices.shape), f"must be [pool, {dim}, {dim}]"
    )
    require(offsets.shape == (pool, dim), "shape of offsets", list(offsets.shape), f"must be [{pool}, {dim}]")
    positive("noise", noise, "; without noise take a small one")
    a, b = matrices.astype(np.float64), offsets.astype(np.float64)
    before = np.log(checked_weights(weights, pool))
    predicted, posterior = np.empty(known.shape), np.empty((slots, batch, pool))
    for part in blocks(batch, slots * pool * dim):
        after = np.einsum("jde,sbe->sbjd", a, known[:, part]) + b
        wrong = ((known[1:, part, None] - after[:-1]) ** 2).sum(-1)
        score = np.concatenate([np.zeros_like(wrong[:1]), -np.cumsum(wrong, axis=0) / (2 * noise**2)])
        likely = softmax(score + before, axis=-1)
        posterior[:, part], predicted[:, part] = likely, np.einsum("sbj,sbjd->sbd", likely, after)
    return PoolPosterior(predicted, posterior)


def modular_posterior(
    symbols: Symbols,
    modulus: int,
    pool: Int[np.ndarray, "pool 2"] | None = None,
    weights: Float[np.ndarray, " pool"] | None = None,
) -> Float[np.ndarray, "slots batch modulus"]:
    r"""Probabilities of the next symbol of $s_{n+1} = a s_n + b$ modulo p, where (a, b) is one of the `pool`
    (None: of all p^2), with probabilities `weights` before (None: equal ones): the weight of those recurrences that
    predict each symbol, of all that have made no wrong prediction so far.

    The exact posterior, for which no smoothing is needed: there is no noise. Where no recurrence of the pool is left,
    all symbols are equally likely.

    Raises `InputError` for symbols that are not whole numbers below the modulus, and a pool that is not [pool, 2].

    >>> from ebbtide.evaluation.recurrences import modular_posterior
    >>> modular_posterior(np.asarray([[0], [1], [0]]), 2)[:, 0].tolist()  # a = b = 1, or a = 0
    [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]
    """
    whole = symbols.ndim == 2 and np.issubdtype(symbols.dtype, np.integer)
    require(whole, "shape of symbols", list(symbols.shape), "must be whole numbers [slots, batch]")
    inside = bool(((symbols >= 0) & (symbols < modulus)).all())
    require(inside, "symbols", int(symbols.max(initial=0)), f"must be from 0 to {modulus - 1}")
    if pool is None:
        pool = np.stack(np.divmod(np.arange(modulus**2), modulus), axis=-1)
    require(pool.ndim == 2 and pool.shape[1] == 2, "shape of pool", list(pool.shape), "must be [pool, 2]")
    a, b = pool.T.astype(np.int64)[:, :, None]
    before = len(pool) * checked_weights(weights, len(pool))[:, None]
    slots, batch = symbols.shape
    found = np.empty((slots, batch, modulus))
    for part in blocks(batch, 4 * len(pool)):
        own = symbols[:, part].astype(np.int64)
        size = own.shape[1]
        alive, row = np.repeat(before, size, axis=1), modulus * np.arange(size)
        for n in range(slots):
            after = (a * own[n] + b) % modulus
            counts = np.bincount((row + after).ravel(), alive.ravel(), size * modulus).reshape(size, modulus)
            total = counts.sum(1, keepdims=True)
            found[n, part] = np.where(total > 0, counts / np.where(total > 0, total, 1), 1 / modulus)
            if n + 1 < slots:
                alive = alive * (after == own[n + 1])
    return found
