"""Exact checks of the predictors of urns, which `evaluation.pool_predictors` takes from `evaluation.chains`: by
enumeration, by integrals, and the limit of many urns."""

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Float

from ebbtide.checks import Check
from ebbtide.evaluation.chains import LogPredictive, Symbols, frequency_log_probs, retrieval_log_probs
from ebbtide.evaluation.pools import pool_weights

LENGTH = 7
COLOURS = 3
Pool = Float[np.ndarray, "pool colours"]


@cache
def _all_streams(colours: int) -> Symbols:
    """Every stream of `LENGTH` draws, one a column."""
    return np.array(list(product(range(colours), repeat=LENGTH))).T


def _pool(urns: int, colours: int, seed: int) -> Pool:
    """Probabilities of colours, drawn from Dirichlet(1)."""
    theta = np.random.default_rng(seed).dirichlet(np.ones(colours), size=urns)
    return theta / theta.sum(-1, keepdims=True)


def _memory(symbols: Symbols, pool: Pool, weights: Float[np.ndarray, " pool"] | None = None) -> LogPredictive:
    """Log-probabilities of the average over the pool, whose urns are chains with equal rows."""
    rows = np.repeat(np.log(pool)[:, None], pool.shape[1], axis=1)
    return retrieval_log_probs(symbols, rows, "unigram", "stationary", weights)


def _joint(pool: Pool, weights: Float[np.ndarray, " pool"]) -> Float[np.ndarray, "slots stream"]:
    """Probability of the first t + 1 draws of every stream, averaged over the pool: products, draw by draw."""
    return np.tensordot(weights, np.cumprod(pool[:, _all_streams(pool.shape[1])], axis=1), axes=1)


def _said(log_probs: np.ndarray, streams: Symbols) -> Float[np.ndarray, "draws stream"]:
    """Log-probabilities of the draws that follow."""
    return np.take_along_axis(log_probs, streams[1:, :, None], axis=-1)[..., 0]


def memory_by_brute_force() -> Check:
    """The memorising predictor is the ratio of probabilities summed over the pool, P(x_0 ... x_t+1) / P(x_0 ... x_t),
    for every stream; also where the urns are not equally likely."""
    errors, streams = [], _all_streams(COLOURS)
    for urns, exponent in ((1, 0.0), (5, 0.0), (40, 0.0), (5, 1.5)):
        pool, weights = _pool(urns, COLOURS, urns), pool_weights(urns, exponent)
        joint = _joint(pool, weights)
        found = _memory(streams[:-1], pool, weights)
        errors.append(np.abs(_said(found, streams) - np.log(joint[1:] / joint[:-1])).max())
    detail = f"largest difference {max(errors):.1e} in log probability, allowed 1e-12"
    return Check("urns: memory = brute force over the pool", bool(max(errors) <= 1e-12), detail)


def lowest_loss() -> Check:
    """On its own pool the memorising predictor has the lowest expected loss, which is the entropy of the next draw
    given those before it: by summing over every stream."""
    pool, streams = _pool(4, COLOURS, 9), _all_streams(COLOURS)
    joint = _joint(pool, pool_weights(4))
    entropy = -(joint[-1] * np.log(joint[1:] / joint[:-1])).sum() / (LENGTH - 1)
    generalising, memorising = frequency_log_probs(streams[:-1], COLOURS), _memory(streams[:-1], pool)
    others, uniform = _memory(streams[:-1], _pool(4, COLOURS, 10)), np.full_like(generalising, -np.log(COLOURS))
    half = np.logaddexp(generalising, memorising) - np.log(2)
    rivals = {"counts": generalising, "uniform": uniform, "another pool": others, "half counts, half memory": half}

    def loss(predictor: np.ndarray) -> float:
        return float(-(joint[-1] * _said(predictor, streams)).sum() / (LENGTH - 1))

    error = abs(loss(memorising) - entropy)
    regrets = {name: loss(one) - entropy for name, one in rivals.items()}
    least = min(regrets, key=lambda name: regrets[name])
    detail = f"its loss - the entropy {error:.1e}, allowed 1e-12; next best {least} (+{regrets[least]:.3f} nats)"
    return Check("urns: lowest loss of the pool's posterior", bool(error <= 1e-12 and regrets[least] > 1e-3), detail)


def dirichlet_posterior() -> Check:
    """The generalising predictor is the posterior mean of an urn from the prior: by integrals over the probability p of
    one of two colours, with weights p^(a-1) (1-p)^(a-1), exact for these polynomials."""
    nodes, weights = np.polynomial.legendre.leggauss(2 * LENGTH)
    p, streams, errors = (nodes + 1) / 2, _all_streams(2), []
    ones = np.cumsum(streams == 0, axis=0)[..., None]
    zeros = np.cumsum(streams == 1, axis=0)[..., None]
    for concentration in (1, 2, 3):
        density = weights * p ** (concentration - 1 + ones) * (1 - p) ** (concentration - 1 + zeros)
        found = np.exp(frequency_log_probs(streams, 2, float(concentration))[..., 0])
        errors.append(np.abs(found - (density @ p) / density.sum(-1)).max())
    detail = f"largest difference {max(errors):.1e}, allowed 1e-12"
    return Check("urns: counts = posterior mean of an urn", bool(max(errors) <= 1e-12), detail)


POOLS = (32, 256, 2048)


def many_urns() -> Check:
    """The more urns, the nearer memory comes to generalising, by about 1 / sqrt(urns): the slope of the logarithm of
    the difference (root mean square over streams) against log urns is from -.6 to -.4."""
    streams = _all_streams(2)
    counts, differences = np.exp(frequency_log_probs(streams, 2)), []
    for urns in POOLS:
        errors = [np.exp(_memory(streams, _pool(urns, 2, 100 + seed))) - counts for seed in range(4)]
        differences.append(np.sqrt(np.square(errors).mean()))
    slope = np.polyfit(np.log(POOLS), np.log(differences), 1)[0]
    written = ", ".join(f"{one:.4f}" for one in differences)
    detail = f"slope {slope:.3f}; differences {written} at {', '.join(map(str, POOLS))} urns"
    return Check("urns: memory of many urns = counts", bool(-0.6 <= slope <= -0.4), detail)


URN_CHECKS: tuple[Callable[[], Check], ...] = (memory_by_brute_force, lowest_loss, dirichlet_posterior, many_urns)
