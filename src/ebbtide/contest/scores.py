r"""Scores of a prediction: how far predicted strategy fractions are from measured ones, over the logarithm of time.

Evaluations are rarely even in log-time, so no time counts by how often it was looked at: every mean over time here is
the integral over $\log s$ ($s$: sequences) by the trapezoid rule, divided by the length of the stretch.
"""

import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.theory import GENERALISING, STRATEGIES

FLOOR = 1e-3
"""The least share of a strategy, in predictions and in measurements: a theory that is sure and wrong pays at most
ln(1000) nats."""
NOMINAL = 0.9
"""The share of measured values that the intervals of a prediction should cover."""


def log_time_weights(sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    """Weights, sum 1, with which values at these times (above 0, increasing) give their mean over log-time by the
    trapezoid rule. One time alone has weight 1.

    >>> log_time_weights(np.array([1, 10, 100])).tolist()
    [0.25, 0.5, 0.25]
    """
    if len(sequences) == 1:
        return np.ones(1)
    steps = np.diff(np.log(np.asarray(sequences, np.float64)))
    weights = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2
    return weights / weights.sum()


def floored(fractions: Float[np.ndarray, "*batch time strategy"]) -> Float[np.ndarray, "*batch time strategy"]:
    """(1 - 3 `FLOOR`) x fractions + `FLOOR`: the same mixture with a little of every strategy; sums stay 1."""
    return (1 - len(STRATEGIES) * FLOOR) * np.asarray(fractions, np.float64) + FLOOR


def divergence(
    measured: Float[np.ndarray, "*batch time strategy"],
    predicted: Float[np.ndarray, "*batch time strategy"],
    sequences: Num[np.ndarray, " time"],
) -> Float[np.ndarray, "*batch"]:
    r"""Mean over log-time of the Kullback-Leibler divergence from measured to predicted fractions, nats:

    $$\int \sum_k m_k(s) \log \frac{m_k(s)}{p_k(s)} \, d \log s \Big/ \int d \log s,$$

    of fractions that are both `floored`. So it is 0 only where a prediction is right, below ln(1000), and smooth in the
    prediction; were the prediction alone floored, the best one would not be the truth.

    >>> half, sure = np.array([[0.5, 0.5, 0.0]]), np.array([[1.0, 0.0, 0.0]])
    >>> round(float(divergence(sure, half, np.array([1]))), 2)  # ln 2, but for the floor
    0.68
    """
    shares, expected = floored(measured), floored(predicted)
    return np.asarray((shares * np.log(shares / expected)).sum(axis=-1) @ log_time_weights(sequences))


def curve_error(
    measured: Float[np.ndarray, "*batch time strategy"],
    predicted: Float[np.ndarray, "*batch time strategy"],
    sequences: Num[np.ndarray, " time"],
) -> Float[np.ndarray, "*batch"]:
    """Mean over log-time of the absolute error of the generalising fraction, 0 to 1.

    >>> float(curve_error(np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.5, 0.25]]), np.array([1])))
    0.25
    """
    error = np.abs(measured[..., GENERALISING] - predicted[..., GENERALISING])
    return np.asarray(error @ log_time_weights(sequences))


def coverage(
    measured: Float[np.ndarray, "time strategy"],
    drawn: Float[np.ndarray, "draw time strategy"],
    sequences: Num[np.ndarray, " time"],
) -> float:
    """The share of log-time in which the measured generalising fraction lies in the interval that holds the middle
    `NOMINAL` of the drawn predictions; it should be near `NOMINAL`.

    >>> measured, sequences = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]), np.array([1, 10])
    >>> drawn = np.stack([[[p, 1 - p, 0.0]] * 2 for p in np.linspace(0.3, 0.7, 9)])
    >>> coverage(measured, drawn, sequences)
    0.5
    """
    tail = 100 * (1 - NOMINAL) / 2
    low, high = np.percentile(drawn[..., GENERALISING], [tail, 100 - tail], axis=0)
    inside = (measured[:, GENERALISING] >= low) & (measured[:, GENERALISING] <= high)
    return float(inside @ log_time_weights(sequences))


def skill(score: float, baseline: float) -> float:
    """1 - score / score of a baseline: 1 is perfect, 0 no better than the baseline; nan where the baseline is perfect.

    >>> skill(0.1, 0.4), skill(0.8, 0.4)
    (0.75, -1.0)
    """
    return 1 - score / baseline if baseline > 0 else float("nan")
