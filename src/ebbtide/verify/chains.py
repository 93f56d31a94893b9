"""Exact checks of the predictors of Markov chains (`evaluation.chains`): optima by enumeration, posteriors by brute
force and by integrals, and the limit of a large pool."""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np

from ebbtide.checks import Check
from ebbtide.evaluation.chains import (
    LogPredictive,
    Logs,
    Symbols,
    frequency_log_probs,
    retrieval_log_probs,
    row_log_probs,
    stationary,
)
from ebbtide.evaluation.pools import pool_weights

LENGTH = 7


def _pool(chains: int, states: int, seed: int, concentration: float = 1.0) -> Logs:
    rows = np.random.default_rng(seed).dirichlet([concentration] * states, size=(chains, states))
    return np.log(rows / rows.sum(-1, keepdims=True))


def _all_streams(states: int) -> Symbols:
    """Every stream of `LENGTH` symbols, one a column."""
    return np.array(list(product(range(states), repeat=LENGTH))).T


def _likelihoods(streams: Symbols, logs: Logs) -> np.ndarray:
    """Probability of the first t + 1 symbols of every stream under every chain, [slots, stream, chain]: products of
    probabilities, symbol by symbol."""
    states = logs.shape[1]
    found = [np.full((streams.shape[1], len(logs)), 1 / states)]
    for before, after in pairwise(streams):
        found.append(found[-1] * np.exp(logs)[:, before, after].T)
    return np.stack(found)


def retrieval_by_brute_force() -> Check:
    """Retrieval by the bigram posterior, answering with rows, is the ratio of probabilities summed over the pool:
    P(x_0 ... x_t+1) / P(x_0 ... x_t), for every stream; also where the chains are not equally likely."""
    errors = []
    for states, chains, exponent in ((2, 1, 0.0), (2, 5, 0.0), (3, 4, 0.0), (3, 4, 1.5)):
        logs, streams, weights = _pool(chains, states, chains), _all_streams(states), pool_weights(chains, exponent)
        joint = _likelihoods(streams, logs) @ weights
        by_hand = np.log(joint[1:] / joint[:-1])
        found = retrieval_log_probs(streams[:-1], logs, weights=weights)
        errors.append(np.abs(np.take_along_axis(found, streams[1:, :, None], axis=-1)[..., 0] - by_hand).max())
    detail = f"largest difference {max(errors):.1e} in log probability, allowed 1e-12"
    return Check("chains: retrieval = brute force over the pool", bool(max(errors) <= 1e-12), detail)


def lowest_loss() -> Check:
    """Of all predictors the pool's own, by bigrams and rows, has the lowest expected loss, which is the entropy of the
    next symbol given those before it: by summing over every stream."""
    states, logs = 3, _pool(4, 3, 9)
    streams = _all_streams(states)
    joint = _likelihoods(streams, logs).mean(-1)
    weight = joint[-1]
    entropy = -(weight * np.log(joint[1:] / joint[:-1])).sum() / (LENGTH - 1)
    rivals: dict[str, LogPredictive] = {
        "unigram posterior, rows": retrieval_log_probs(streams[:-1], logs, "unigram"),
        "bigram posterior, stationary": retrieval_log_probs(streams[:-1], logs, "bigram", "stationary"),
        "unigram posterior, stationary": retrieval_log_probs(streams[:-1], logs, "unigram", "stationary"),
        "bigram counts": row_log_probs(streams[:-1], states),
        "unigram counts": frequency_log_probs(streams[:-1], states),
        "stationary of counts": frequency_log_probs(streams[:-1], states, of="rows"),
        "another pool": retrieval_log_probs(streams[:-1], _pool(4, 3, 10)),
    }

    def loss(predictor: LogPredictive) -> float:
        said = np.take_along_axis(predictor, streams[1:, :, None], axis=-1)[..., 0]
        return float(-(weight * said).sum() / (LENGTH - 1))

    error = abs(loss(retrieval_log_probs(streams[:-1], logs)) - entropy)
    regrets = {name: loss(one) - entropy for name, one in rivals.items()}
    least = min(regrets, key=lambda name: regrets[name])
    detail = f"its loss - the entropy {error:.1e}, allowed 1e-12; next best {least} (+{regrets[least]:.3f} nats)"
    return Check("chains: lowest loss of the pool's posterior", bool(error <= 1e-12 and regrets[least] > 1e-3), detail)


def dirichlet_posterior() -> Check:
    """Counts with smoothing a are the posterior mean of a row that was drawn from Dirichlet(a): by integrals over the
    probability p of one of two states, with weights p^(a-1) (1-p)^(a-1), exact for these polynomials."""
    nodes, weights = np.polynomial.legendre.leggauss(2 * LENGTH)
    p, streams, errors = (nodes + 1) / 2, _all_streams(2), []
    for smoothing in (1, 2, 3):
        prior = weights * (p * (1 - p)) ** (smoothing - 1)
        found = np.exp(row_log_probs(streams, 2, float(smoothing)))
        for t, stream in product(range(LENGTH), range(streams.shape[1])):
            seen = streams[: t + 1, stream]
            after = seen[1:][seen[:-1] == seen[-1]]
            density = prior * p ** (after == 0).sum() * (1 - p) ** (after == 1).sum()
            errors.append(abs(found[t, stream, 0] - (density @ p) / density.sum()))
    detail = f"largest difference {max(errors):.1e} in {len(errors):,} probabilities, allowed 1e-12"
    return Check("chains: counts = posterior mean of a Dirichlet row", bool(max(errors) <= 1e-12), detail)


POOLS = (16, 128, 1024)


def large_pools() -> Check:
    """The larger a pool, the nearer retrieval from it comes to counts + 1, by about 1 / sqrt(pool): the slope of the
    logarithm of the difference (root mean square over streams) against log pool is from -.6 to -.4."""
    streams = _all_streams(2)
    fresh = np.exp(row_log_probs(streams, 2))
    differences = []
    for pool in POOLS:
        errors = [np.exp(retrieval_log_probs(streams, _pool(pool, 2, 100 + seed))) - fresh for seed in range(4)]
        differences.append(np.sqrt(np.square(errors).mean()))
    slope = np.polyfit(np.log(POOLS), np.log(differences), 1)[0]
    written = ", ".join(f"{one:.4f}" for one in differences)
    detail = f"slope {slope:.3f}; differences {written} at {', '.join(map(str, POOLS))} chains"
    return Check("chains: a large pool's posterior = counts + 1", bool(-0.6 <= slope <= -0.4), detail)


def stationary_distributions() -> Check:
    """A stationary distribution is kept by its chain, and is what the chain's 4,096th power has in every row."""
    transitions = np.exp(_pool(200, 5, 12))
    found = stationary(transitions)
    kept = np.abs(np.einsum("ci,cij->cj", found, transitions) - found).max()
    powers = np.abs(np.linalg.matrix_power(transitions, 4096) - found[:, None]).max()
    detail = f"largest differences {kept:.1e} after one step, {powers:.1e} from the power, allowed 1e-10"
    return Check("chains: stationary distributions", bool(max(kept, powers) <= 1e-10), detail)


CHAIN_CHECKS: tuple[Callable[[], Check], ...] = (
    retrieval_by_brute_force,
    lowest_loss,
    dirichlet_posterior,
    large_pools,
    stationary_distributions,
)
