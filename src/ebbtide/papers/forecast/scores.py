"""How good a forecast of a member's fall is, one number for each member, so that it can be judged by counting members.

A member that has not fallen by the end of its training is right with every forecast beyond the end, and wrong by the
distance from the forecast to the end otherwise.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from ebbtide.papers.forecast.events import Course
from ebbtide.papers.forecast.forecaster import Forecaster

Values = Float[np.ndarray, " member"]
RANK_OF_HALF = 0.16
"""Median distance of ranks where Spearman's correlation is .5, both are normal, and a quarter of the members have not
fallen by the end (simulated: .165). Without information it is .27, and of one forecast for all .24."""
DRAWS = 10_000


def forecasts(forecaster: Forecaster, course: Course) -> Values:
    """The forecast of every member's fall, log sequences; nan for a member without an onset."""
    return forecaster.line.predict(course.features)


def distance(forecast: Values, course: Course) -> Values:
    """|time of the fall - forecast| of every member, log sequences; of a member that has not fallen, how much earlier
    than the end the forecast is (0: it is not). nan without an onset or a forecast."""
    late = np.maximum(np.log(course.end) - forecast, 0.0)
    found = np.where(np.isnan(course.fall), late, np.abs(np.log(course.fall) - forecast))
    return np.where(np.isnan(course.onset), np.nan, found)


def ranks(forecaster: Forecaster, course: Course) -> tuple[Values, Values]:
    """Ranks, from 0 to 1, of every member's forecast and of its time (the end of training where it has not fallen)
    among those of the configuration: by the normal distributions of the left-out forecasts, and of the times, of the
    members that the forecaster has learned from.

    These are fixed, so that the ranks of different members are independent of one another, which ranks among the
    members themselves would not be.
    """
    learned = forecaster.learned[0]
    time = np.log(np.where(np.isnan(course.fall), course.end, course.fall))
    own = ndtr((forecasts(forecaster, course) - learned.mean()) / learned.std(ddof=1))
    return own, ndtr((time - forecaster.mean) / forecaster.spread)


def rank_distance(forecaster: Forecaster, course: Course) -> Values:
    """|rank of the forecast - rank of the time| of every member; of one that has not fallen, how much lower the
    forecast's rank is than that of the end. nan without an onset or a forecast."""
    own, time = ranks(forecaster, course)
    return np.where(np.isnan(course.fall), np.maximum(time - own, 0.0), np.abs(time - own))


def side(forecaster: Forecaster, course: Course) -> Values:
    """How far the rank of the forecast is from 1/2 on the side on which the time is (below 0: on the other side)."""
    own, time = ranks(forecaster, course)
    return (own - 0.5) * np.sign(time - 0.5)


def correlation(forecast: Values, course: Course) -> tuple[float, float, float]:
    """Spearman's rank correlation of forecasts and times of the fall, and its 95 % interval (percentiles of resampled
    members); members that have not fallen are tied, behind all that have. nan with fewer than four forecasts."""
    known = np.isfinite(forecast)
    x, y = forecast[known], np.where(np.isnan(course.fall), np.inf, course.fall)[known]
    if len(x) < 4:
        return np.nan, np.nan, np.nan
    drawn = np.random.default_rng(0).integers(len(x), size=(DRAWS, len(x)))
    found = _spearman(x[drawn], y[drawn])
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(_spearman(x[None], y[None])[0]), float(low), float(high)


def _spearman(x: Float[np.ndarray, "draw member"], y: Float[np.ndarray, "draw member"]) -> Float[np.ndarray, " draw"]:
    from scipy.stats import rankdata  # heavy, and for the figure only

    a, b = (rankdata(one, axis=1) for one in (x, y))
    a, b = (one - one.mean(1, keepdims=True) for one in (a, b))
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)
