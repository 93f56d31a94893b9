"""A forecast of the fall of in-context learning, learned from other members of the same configuration.

The logarithm of the time of the fall is a linear function of the features at the onset plus a normal error (an
accelerated-failure-time regression): a member that has not fallen by the end of its training adds the probability of
falling later. The weights of the standardised features have a normal prior (ridge).
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import log_ndtr

from ebbtide.papers.forecast.events import FEATURES, LEVELS, MOMENTS

TRAINING = Path(__file__).with_name("training.csv")
"""The members that the published forecasters have learned from: fall (empty: not by the end), end, and the features at
each moment."""
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Precisions of the prior of the weights among which the likelihood of left-out members chooses."""
WIDTHS = (1 + len(LEVELS), len(FEATURES))
"""Numbers of features among which it chooses too: without the slopes, or all."""
COVERAGE = 0.9
NORMAL = -0.5 * np.log(2 * np.pi)
"""Logarithm of the density of the standard normal distribution at 0."""


class Members(NamedTuple):
    """Members to learn from: `features`, and `times`, the natural logarithm of the sequences at which a member fell or,
    where it has not `fallen`, of the end of its training."""

    features: Float[np.ndarray, "member feature"]
    times: Float[np.ndarray, " member"]
    fallen: Bool[np.ndarray, " member"]

    def without(self, member: int) -> "Members":
        """All members but one."""
        kept = np.arange(len(self.times)) != member
        return Members(self.features[kept], self.times[kept], self.fallen[kept])


class Line(NamedTuple):
    """A fitted regression: log time = intercept + weights . (features - middle) / scale + spread * normal error."""

    middle: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]
    weights: Float[np.ndarray, " feature"]
    intercept: float
    spread: float

    def predict(self, features: Float[np.ndarray, "member feature"]) -> Float[np.ndarray, " member"]:
        """The forecasts of members, log sequences; of the features only as many as there are weights are used."""
        return self.intercept + (features[:, : len(self.weights)] - self.middle) / self.scale @ self.weights


def fit(members: Members, penalty: float) -> Line:
    """The regression of largest posterior density; without features it is the configuration's mean and spread."""
    from scipy.optimize import minimize  # heavy; the list of studies is read by every command

    middle, scale = members.features.mean(0), np.maximum(members.features.std(0), 1e-9)
    x, width = (members.features - middle) / scale, members.features.shape[1]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log density, and its gradient."""
        intercept, log_spread, weights = parameters[0], parameters[1], parameters[2:]
        spread = np.exp(log_spread)
        r = (members.times - intercept - x @ weights) / spread
        later = log_ndtr(-r)  # the logarithm of the probability of falling later
        hazard = np.exp(NORMAL - r**2 / 2 - later)
        value = (
            np.where(members.fallen, log_spread + r**2 / 2 - NORMAL, -later).sum() + penalty * (weights @ weights) / 2
        )
        slope = -np.where(members.fallen, r, hazard) / spread
        wider = np.where(members.fallen, 1 - r**2, -hazard * r).sum()
        return float(value), np.concatenate([[slope.sum(), wider], slope @ x + penalty * weights])

    start = np.concatenate([[members.times.mean(), np.log(members.times.std() + 0.05)], np.zeros(width)])
    bounds = [(None, None), (np.log(0.02), np.log(5.0)), *[(None, None)] * width]
    best = minimize(loss, start, jac=True, bounds=bounds).x
    return Line(middle, scale, best[2:], float(best[0]), float(np.exp(best[1])))


def left_out(members: Members, penalty: float) -> tuple[Float[np.ndarray, " member"], float]:
    """The forecast of every member by the others, and the log-likelihood of all of them."""
    forecasts, likelihood = np.empty(len(members.times)), 0.0
    for i in range(len(members.times)):
        line = fit(members.without(i), penalty)
        forecasts[i] = line.predict(members.features[i : i + 1])[0]
        residual = (members.times[i] - forecasts[i]) / line.spread
        seen = NORMAL - residual**2 / 2 - np.log(line.spread)
        likelihood += float(seen if members.fallen[i] else log_ndtr(-residual))
    return forecasts, likelihood


def half_width(members: Members, forecasts: Float[np.ndarray, " member"]) -> float:
    """Half the width of an interval around a forecast that contains the time of a new member with a probability of at
    least `COVERAGE` (conformal, from forecasts of left-out members); log sequences.

    It is the quantile of |time - forecast| at COVERAGE (1 + 1/n). Of a member that has not fallen only a lower limit of
    it is known, end - forecast, so it is the quantile of Kaplan and Meier; infinite where that does not reach.
    """
    distance = np.abs(members.times - forecasts)
    known = members.fallen
    distance = np.where(known, distance, np.maximum(members.times - forecasts, 0.0))
    order = np.lexsort((~known, distance))
    level, count, beyond = COVERAGE * (1 + 1 / len(distance)), len(distance), 1.0
    for rank, i in enumerate(order):
        if known[i]:
            beyond *= 1 - 1 / (count - rank)
        if 1 - beyond >= level - 1e-9:
            return float(distance[i])
    return float("inf")


class Forecaster(NamedTuple):
    """A forecast of when ICL falls, from the features at one moment, with an interval; and the same from the
    configuration alone.

    Args:
        line: the regression on the features; `half` its interval's half-width, log sequences.
        mean, spread: mean and standard deviation of the configuration, log sequences; `mean_half` the half-width of its
            interval.
        penalty: precision of the weights' prior that was chosen.
        learned: forecasts and times of the members that it has learned from, each forecast by the others.
    """

    line: Line
    half: float
    mean: float
    spread: float
    mean_half: float
    penalty: float
    learned: tuple[Float[np.ndarray, " member"], Members]


def learn(members: Members) -> Forecaster:
    """The forecaster that has learned from these members. Penalty and number of features are those by which left-out
    members are most likely."""
    shown = {width: members._replace(features=members.features[:, :width]) for width in WIDTHS}
    tried = {(width, one): left_out(shown[width], one) for width in WIDTHS for one in PENALTIES}
    width, penalty = max(tried, key=lambda one: tried[one][1])
    forecasts, nothing = tried[width, penalty][0], members._replace(features=members.features[:, :0])
    alone = fit(nothing, 1.0)
    return Forecaster(
        line=fit(shown[width], penalty),
        half=half_width(members, forecasts),
        mean=alone.intercept,
        spread=alone.spread,
        mean_half=half_width(nothing, left_out(nothing, 1.0)[0]),
        penalty=penalty,
        learned=(forecasts, members),
    )


@lru_cache(maxsize=len(MOMENTS))
def published(moment: str) -> Forecaster:
    """The forecaster at a moment that has learned from the members of `TRAINING`, whose seeds no verdict uses."""
    return learn(read_members(TRAINING, moment))


def read_members(path: Path, moment: str) -> Members:
    """The members in a table with the columns moment, fall, end (sequences) and `FEATURES`, at one moment."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["moment"] == moment]
    fall = np.asarray([float(row["fall"] or "nan") for row in rows])
    end = np.asarray([float(row["end"]) for row in rows])
    features = np.asarray([[float(row[name]) for name in FEATURES] for row in rows])
    return Members(features, np.log(np.where(np.isnan(fall), end, fall)), ~np.isnan(fall))
