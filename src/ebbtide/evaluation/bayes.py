r"""Bayes-optimal predictors of linear regression in context, which know the prior.

The task is $y_t = w'x_t + \sigma\epsilon_t$ with one w for the whole prompt. Conventions are those of `baselines.py`:
slot t is predicted from the t pairs X, Y before it, and q is its input. `noise` is the standard deviation $\sigma$ of a
response and `prior` the standard deviation $\tau$ of a weight, as in the tasks and sources.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from ebbtide.errors import require
from ebbtide.evaluation.baselines import Inputs, Responses, blocks, linear_posterior, pairs, positive


class Mixed(NamedTuple):
    """Predictions, and the posterior probability of every noise level given the pairs before a slot."""

    predictions: Responses
    posterior: Float[np.ndarray, "slots batch levels"]


def penalty_of(noise: float, prior: float) -> float:
    """The penalty noise^2 / prior^2, with which ridge is the posterior mean. Raises `InputError` unless both are above
    0 (and so is the penalty)."""
    positive("noise", noise, ": without noise the posterior is a point, use least_squares")
    positive("prior", prior, ", the standard deviation of a weight")
    penalty = (noise / prior) * (noise / prior)
    require(0 < penalty < math.inf, "noise / prior", noise / prior, "must have a square that is above 0 and finite")
    return penalty


def ridge_risk(x: Inputs, noise: float, prior: float) -> Responses:
    r"""Expected squared error of the posterior mean at every slot, over weights and noise with the inputs as they are,
    the noise of the slot's own response included:
    $\sigma^2 (1 + q'(X'X + \lambda I)^{-1} q)$, $\lambda = \sigma^2/\tau^2$. No predictor has less.

    It is the variance of the posterior predictive (Bishop, Pattern Recognition and Machine Learning, eq. 3.59); at
    slot 0 it is $\sigma^2 + \tau^2|q|^2$. [slots, batch]. Raises `InputError` for a noise or prior that is not above 0.
    """
    require(x.ndim == 3, "shape of x", list(x.shape), "must be [slots, batch, dim]")
    spread = linear_posterior(x, np.zeros(x.shape[:2]), penalty_of(noise, prior)).spread
    return noise**2 * (1 + spread)


def mixed_ridge(
    x: Inputs, y: Responses, noises: Sequence[float], prior: float, weights: Sequence[float] | None = None
) -> Mixed:
    r"""Posterior mean where the noise of a prompt is one of `noises`, drawn with probabilities ~ `weights` (alike for
    None): ridge for every level j, averaged with the level's probability given the pairs before,

    $$\hat y = \sum_j P(j|X, Y)\, \hat y_j, \quad
    P(j|X,Y) \propto \pi_j \prod_{s<t} N(y_s;\ \hat y_{js},\ \sigma_j^2 (1 + x_s'(X_s'X_s + \lambda_j I)^{-1} x_s)),$$

    the product being the marginal likelihood $N(Y; 0, \tau^2 XX' + \sigma_j^2 I)$ slot by slot (a slot's input says
    nothing about the level). The optimum of the mixed-noise task of Bai et al. 2023 (arXiv 2306.04637, section 4),
    which the corner of the best single levels is not.

    Returns predictions [slots, batch] and the posterior [slots, batch, levels], which sums to 1.
    Raises `InputError` for shapes that disagree, no levels, and noises, prior or weights that are not above 0.
    """
    shares = [1.0] * len(noises) if weights is None else list(weights)
    require(len(noises) > 0, "noises", list(noises), "must name at least one standard deviation")
    require(len(shares) == len(noises), "weights", shares, f"must be {len(noises)} numbers, one for each noise")
    for share in shares:
        positive("weights", share, "")
    return _average_ridges([(x, noise) for noise in noises], y, prior, shares)


def mixed_features(features: Sequence[Inputs], y: Responses, noise: float, prior: float) -> Mixed:
    r"""Posterior mean where the response is linear in one of several `features` of the inputs, [slots, batch, dim]
    each, all equally likely for a prompt: ridge on every one, averaged with its probability given the pairs before, as
    `mixed_ridge` does for noise levels. The optimum where one of several fixed representations is drawn for a prompt
    (Guo et al. 2023, arXiv 2310.10616, the mixture setting).

    Returns predictions [slots, batch] and the posterior [slots, batch, features]. Raises `InputError` for shapes that
    disagree, no features, and a noise or prior that is not above 0.
    """
    require(len(features) > 0, "features", len(features), "must be at least one")
    return _average_ridges([(one, noise) for one in features], y, prior, [1.0] * len(features))


def _average_ridges(
    models: Sequence[tuple[Inputs, float]], y: Responses, prior: float, shares: Sequence[float]
) -> Mixed:
    """Ridge of every model (inputs, noise), averaged with its posterior probability given the pairs before a slot."""
    means, scores = [], []
    for x, noise in models:
        x, y = pairs(x, y)
        mean, spread = linear_posterior(x, y, penalty_of(noise, prior))
        variance = noise**2 * (1 + spread)
        score = -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)
        means.append(mean)
        scores.append(np.cumsum(score, axis=0) - score)
    posterior = np.exp(log_softmax(np.log(shares) + np.stack(scores, axis=-1), axis=-1))
    return Mixed((posterior * np.stack(means, axis=-1)).sum(-1), posterior)


def finite_pool(x: Inputs, y: Responses, pool: Float[np.ndarray, "tasks dim"], noise: float) -> Responses:
    r"""Discrete minimum-mean-squared-error estimator (dMMSE): the posterior mean where the weights are one of the
    `pool`, all equally likely (Raventos et al. 2023, arXiv 2306.15063, section 2),

    $$\hat y = \sum_k P(k|X,Y)\, w_k'q, \quad P(k|X,Y) \propto \exp(-|Y - Xw_k|^2 / 2\sigma^2).$$

    The best task's square is taken off before anything is divided by the noise, so that none is too small. What it
    needs of memory does not grow with the batch. Predictions are [slots, batch]; at slot 0 the mean weights are used.

    Raises `InputError` for shapes that disagree and a noise that is not above 0.
    """
    x, y = pairs(x, y)
    pool = _tasks(pool, x, noise)
    answer = np.empty(y.shape)
    for part in blocks(y.shape[1], 4 * len(pool)):
        for t, (clean, posterior) in enumerate(_pool_by_slot(x[:, part], y[:, part], pool, noise)):
            answer[t, part] = (clean * posterior).sum(-1)
    return answer


def pool_posterior(
    x: Inputs, y: Responses, pool: Float[np.ndarray, "tasks dim"], noise: float
) -> Float[np.ndarray, "slots batch tasks"]:
    """P(k | X, Y) of `finite_pool` for every task of the pool at every slot, [slots, batch, tasks]; uniform at slot 0.

    Raises `InputError` for shapes that disagree and a noise that is not above 0.
    """
    x, y = pairs(x, y)
    pool = _tasks(pool, x, noise)
    answer = np.empty((*y.shape, len(pool)))
    for part in blocks(y.shape[1], 4 * len(pool)):
        for t, (_, posterior) in enumerate(_pool_by_slot(x[:, part], y[:, part], pool, noise)):
            answer[t, part] = posterior
    return answer


def _tasks(pool: Float[np.ndarray, "tasks dim"], x: Inputs, noise: float) -> Float[np.ndarray, "tasks dim"]:
    fits = pool.ndim == 2 and len(pool) > 0 and pool.shape[1] == x.shape[2]
    require(fits, "shape of pool", list(pool.shape), f"must be [tasks, dim] with dim = {x.shape[2]} and a task or more")
    wrong = pool[~np.isfinite(pool)]
    require(wrong.size == 0, "pool", float(wrong[0]) if wrong.size else None, "must hold finite numbers")
    positive("noise", noise, "; for the limit take one far below the responses")
    return pool.astype(np.float64)


def _pool_by_slot(
    x: Inputs, y: Responses, pool: Float[np.ndarray, "tasks dim"], noise: float
) -> Iterator[tuple[Float[np.ndarray, "batch tasks"], Float[np.ndarray, "batch tasks"]]]:
    """At every slot: the prediction of each task, and its posterior probability."""
    square = np.zeros((y.shape[1], len(pool)))
    for inputs, responses in zip(x, y, strict=True):
        clean = inputs @ pool.T
        with np.errstate(over="ignore"):  # beyond all numbers: impossible
            posterior = np.exp(-0.5 * ((square - square.min(-1, keepdims=True)) / noise) / noise)
        yield clean, posterior / posterior.sum(-1, keepdims=True)
        square += np.square(responses[:, None] - clean)
