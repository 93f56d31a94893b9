r"""Predictors of streams of one Markov chain, of which a finite pool is known or none.

A stream is an array `symbols` [slots, batch] of numbers from 0 to k - 1; at slot t all predictors have read $x_0 \dots
x_t$ and give logarithms of the probabilities of $x_{t+1}$, [slots, batch, k]. A pool is an array `logs` [pool, state,
next state], log T of every chain; T has the stationary distribution $\pi = \pi T$. The first symbol is uniform for
every chain (task `Markov`). The four algorithms of Park et al. 2025 (arXiv 2412.01003) are `retrieval_log_probs` by
either likelihood and the two predictors from counts.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, logsumexp

from ebbtide.errors import require
from ebbtide.evaluation.pools import checked_weights

Symbols = Int[np.ndarray, "slots batch"]
Logs = Float[np.ndarray, "pool states states"]
LogPredictive = Float[np.ndarray, "slots batch states"]
Order = Literal["bigram", "unigram"]
PART = 2**23
"""Largest number of values of a posterior that are computed at once."""


def stationary(transitions: Float[np.ndarray, "*chains states states"]) -> Float[np.ndarray, "*chains states"]:
    r"""The stationary distribution of every chain, $\pi = \pi T$ with $\sum_i \pi_i = 1$. The chains need one each: all
    transitions possible, for instance.

    >>> stationary(np.array([[0.5, 0.5], [1.0, 0.0]])).round(3).tolist()
    [0.667, 0.333]
    """
    states = transitions.shape[-1]
    flow = np.swapaxes(transitions, -1, -2) - np.eye(states)
    flow[..., -1, :] = 1.0  # one balance equation follows from the others; in its place: probabilities add up to 1
    return np.linalg.solve(flow, np.eye(states)[-1][:, None])[..., 0]


def transition_counts(symbols: Symbols, states: int) -> Float[np.ndarray, "slots batch states states"]:
    """How often each state has followed each state in the symbols up to the slot, the slot's included. Raises
    `InputError` for an unknown symbol."""
    _check_symbols(symbols, states)
    pairs = np.eye(states * states)[symbols[:-1] * states + symbols[1:]]
    counts = np.zeros((*symbols.shape, states * states))
    np.cumsum(pairs, axis=0, out=counts[1:])
    return counts.reshape(*symbols.shape, states, states)


def state_counts(symbols: Symbols, states: int) -> Float[np.ndarray, "slots batch states"]:
    """How often each state is among the symbols up to the slot, the slot's included. Raises `InputError` for an unknown
    symbol."""
    _check_symbols(symbols, states)
    return np.cumsum(np.eye(states)[symbols], axis=0)


def row_log_probs(symbols: Symbols, states: int, smoothing: float = 1.0) -> LogPredictive:
    r"""Bigram inference, $\log \frac{n_{ij} + a}{n_i + k a}$ with i the slot's symbol, $n_{ij}$ the
    `transition_counts`, a the smoothing: the posterior mean of the row, and so the Bayes-optimal prediction, where rows
    are drawn from Dirichlet(a) for every stream.

    Raises `InputError` for an unknown symbol and a smoothing that is not above 0.

    >>> np.exp(row_log_probs(np.array([[0], [1], [0]]), 2))[:, 0].round(3).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.333, 0.667]]
    """
    _check_smoothing(smoothing)
    return _log_shares(_current_row(transition_counts(symbols, states), symbols) + smoothing)


def frequency_log_probs(
    symbols: Symbols, states: int, smoothing: float = 1.0, *, of: Literal["symbols", "rows"] = "symbols"
) -> LogPredictive:
    r"""Unigram inference, which ignores the slot's symbol. `of = "symbols"`: relative frequencies, $\log \frac{n_j +
    a}{t + 1 + k a}$ with $n_j$ the `state_counts` (Edelman et al. 2024, arXiv 2402.11004). `of = "rows"`: the
    stationary distribution of the chain with the rows of `row_log_probs` (Park et al. 2025).

    Raises `InputError` for an unknown symbol and a smoothing that is not above 0.

    >>> np.exp(frequency_log_probs(np.array([[0], [0]]), 2))[:, 0].round(3).tolist()
    [[0.667, 0.333], [0.75, 0.25]]
    """
    _check_smoothing(smoothing)
    if of == "symbols":
        return _log_shares(state_counts(symbols, states) + smoothing)
    return np.log(stationary(np.exp(_log_shares(transition_counts(symbols, states) + smoothing))))


def pool_log_posterior(
    symbols: Symbols, logs: Logs, likelihood: Order = "bigram", weights: Float[np.ndarray, " pool"] | None = None
) -> Float[np.ndarray, "slots batch pool"]:
    r"""Logarithm of the posterior over the chains of a pool by the symbols up to the slot: the probability of a chain
    before (`weights`; None: equal ones) times, by "bigram", $\prod_{s<t} T_{x_s x_{s+1}}$, or by "unigram",
    $\prod_{s \le t} \pi_{x_s}$, up to a factor.

    Raises `InputError` for an unknown symbol and logarithms that are no probabilities'.
    """
    states = _check_logs(logs)
    if likelihood == "bigram":
        counts, values = transition_counts(symbols, states), logs.reshape(len(logs), -1)
    else:
        counts, values = state_counts(symbols, states), np.log(stationary(np.exp(logs)))
    evidence = counts.reshape(-1, values.shape[1]) @ values.T  # one product of matrices, many times as fast as a stack
    evidence += np.log(checked_weights(weights, len(logs)))
    return log_softmax(evidence, axis=-1).reshape(*symbols.shape, len(logs))


def retrieval_log_probs(
    symbols: Symbols,
    logs: Logs,
    likelihood: Order = "bigram",
    answer: Literal["row", "stationary"] = "row",
    weights: Float[np.ndarray, " pool"] | None = None,
) -> LogPredictive:
    r"""Retrieval from a pool: the average over chains c, $\log \sum_c P(c \mid x_0 \dots x_t)\, p_c(x_{t+1})$, weighted
    by `pool_log_posterior`. p is the slot's row of $T_c$, or its stationary distribution.

    With "bigram" and "row" it is the Bayes-optimal prediction for streams of the pool: no predictor has a lower
    expected loss.

    Args:
        symbols: the streams [slots, batch].
        logs: log T of every chain in the pool [pool, state, next state].
        likelihood: what the posterior is read from.
        answer: what every chain answers with.
        weights: probabilities of the chains before [pool], e.g. `pool_weights`; None: equal ones.

    Raises:
        InputError: an unknown symbol, weights that are no probabilities, or logarithms that are no probabilities'.

    >>> logs = np.log([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.5, 0.5]]])
    >>> np.exp(retrieval_log_probs(np.array([[0], [0]]), logs))[:, 0].round(2).tolist()
    [[0.5, 0.5], [0.82, 0.18]]
    """
    states, (slots, batch) = _check_logs(logs), symbols.shape
    answers = np.exp(logs) if answer == "row" else stationary(np.exp(logs))
    size = max(PART // (slots * len(logs)), 1)
    parts = []
    for start in range(0, batch, size):
        some = symbols[:, start : start + size]
        posterior = np.exp(pool_log_posterior(some, logs, likelihood, weights)).reshape(-1, len(logs))
        average = posterior @ answers.reshape(len(logs), -1)
        if answer == "row":
            average = _current_row(average.reshape(*some.shape, states, states), some)
        parts.append(np.log(average).reshape(*some.shape, states))
    return np.concatenate(parts, axis=1)


def true_log_probs(symbols: Symbols, transitions: Float[np.ndarray, "batch states states"]) -> LogPredictive:
    """Logarithm of the row of the slot's symbol in the transition matrix of each stream."""
    _check_symbols(symbols, transitions.shape[-1])
    return np.log(transitions[np.arange(symbols.shape[1])[None], symbols])


def _current_row(matrices: Float[np.ndarray, "slots batch states states"], symbols: Symbols) -> LogPredictive:
    return np.take_along_axis(matrices, symbols[:, :, None, None], axis=2)[:, :, 0]


def _log_shares(counts: Float[np.ndarray, "*rows states"]) -> Float[np.ndarray, "*rows states"]:
    logs = np.log(counts)
    return logs - np.log(counts.sum(-1, keepdims=True))


def _check_symbols(symbols: Symbols, states: int) -> None:
    require(symbols.ndim == 2, "shape of symbols", list(symbols.shape), "must be [slots, batch]")
    wrong = symbols[(symbols < 0) | (symbols >= states)]
    require(wrong.size == 0, "symbols", int(wrong[0]) if wrong.size else None, f"must be from 0 to {states - 1}")


def _check_smoothing(smoothing: float) -> None:
    require(0 < smoothing < math.inf, "smoothing", smoothing, "must be above 0")


def _check_logs(logs: Logs) -> int:
    """The number of states."""
    square = logs.ndim == 3 and logs.shape[1] == logs.shape[2] and len(logs) > 0
    require(square, "shape of logs", list(logs.shape), "must be [pool, states, states]")
    most = float(np.abs(np.asarray(logsumexp(logs, axis=-1))).max())
    require(most < 1e-4, "logs", most, "must be logarithms of probabilities, that add up to 1 in every row")
    return logs.shape[1]
