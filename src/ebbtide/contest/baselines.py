"""Baselines: predictions that know nothing of strategies, which a theory has to beat."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.fitting import join, loss_and_slope, minimise, softmax, through_softmax
from ebbtide.contest.theory import MEMORISING, NEITHER, STRATEGIES, Facts, Fractions, Seen
from ebbtide.errors import InputError


class Place(NamedTuple):
    """The place of a cell in the grid: its name and the values of the axes."""

    name: str
    config: Mapping[str, float]


class Baseline(msgspec.Struct, frozen=True):
    """What all baselines share: they see a cell's place in the grid, and no runs on other data."""

    @property
    def needs_pure(self) -> bool:
        return False

    def inputs(self, facts: Facts) -> Place:
        """The place of the cell."""
        return Place(facts.name, dict(facts.config))


class ConstantFractions(Baseline, frozen=True):
    """The mean fractions of all cells and times that were fitted, for every cell and time: no constant has a lower mean
    divergence."""

    means: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return "constant"

    @property
    def free(self) -> int:
        return len(STRATEGIES) - 1

    def fit(self, seen: Sequence[Seen]) -> "ConstantFractions":
        """The baseline with the mean over times of a cell, then over cells."""
        rows = join(seen)
        return ConstantFractions(tuple((rows.weights @ rows.fractions).tolist()))

    def predict(self, inputs: Place, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The means, at every time."""
        return np.tile(np.asarray(self.means), (len(sequences), 1))

    def parameters(self) -> Mapping[str, float]:
        return dict(zip(STRATEGIES, self.means, strict=True))


class Persistence(Baseline, frozen=True):
    """The curve of the fitted cell that is nearest in the grid, which before and after its times keeps its first and
    last value. Of a cell that was fitted itself, up to some time, that is its last value. Distances are Euclidean, in
    the logarithms of the axes' values where these are all positive, each axis in units of its spread over the fitted
    cells."""

    seen: tuple[Seen, ...] = ()

    @property
    def name(self) -> str:
        return "persistence"

    @property
    def free(self) -> int:
        return 0

    def fit(self, seen: Sequence[Seen]) -> "Persistence":
        """The baseline that remembers these cells."""
        join(seen)
        return Persistence(tuple(one for one in seen if len(one.sequences)))

    def predict(self, inputs: Place, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The fractions of the nearest cell, linear in log-time between its times."""
        known = [one for one in self.seen if one.inputs.name == inputs.name]
        return interpolate(known[0] if known else self.seen[self._nearest(inputs)], sequences)

    def _nearest(self, inputs: Place) -> int:
        axes = Axes.of([one.inputs.config for one in self.seen])
        places = np.stack([axes.values(one.inputs.config) for one in self.seen])
        return int(((places - axes.values(inputs.config)) ** 2).sum(axis=1).argmin())

    def parameters(self) -> Mapping[str, float]:
        return {}


class Logistic(Baseline, frozen=True):
    r"""A multinomial logistic curve in log-time whose parameters are linear in the axes' values:
    $$\log \frac{w_s}{w_\mathrm{neither}} = \sum_j \theta_{sj} f_j, \qquad f = (1, z_1, \dots) \otimes (1, \log n),$$
    with $z_i$ the logarithm of the value of axis i, and log n, in units of their spread over the fitted rows. So either
    strategy may rise and fall once, at times that are powers of the axes' values. The divergence is convex in
    $\theta$, up to the floor. A small penalty on their squares keeps parameters that no cell decides near 0, most of
    all those by which slopes differ between cells (`RIDGE`).

    Free parameters: 4 and 4 more for every axis.
    """

    axes: "Axes | None" = None
    centre: float = 0.0
    spread: float = 1.0
    theta: tuple[tuple[float, ...], ...] = ()

    @property
    def name(self) -> str:
        return "logistic"

    @property
    def free(self) -> int:
        return sum(len(one) for one in self.theta)

    def fit(self, seen: Sequence[Seen]) -> "Logistic":
        """The baseline with the parameters of the least divergence."""
        rows = join(seen)
        axes = Axes.of([one.inputs.config for one in seen])
        times = np.log(rows.sequences)
        centre, spread = float(times.mean()), float(times.std()) or 1.0
        places = np.stack([axes.values(one.inputs.config) for one in seen])[rows.cell]
        features = _features(places, (times - centre) / spread)
        shape = (len(STRATEGIES) - 1, features.shape[1])
        ridge = np.full(shape, RIDGE[0])
        ridge[:, 2 + places.shape[1] :] = RIDGE[1]
        ridge = ridge.ravel()

        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            fractions = softmax(_scores(features, theta.reshape(shape)))
            value, slope = loss_and_slope(rows, fractions)
            slope = through_softmax(slope, fractions)[:, :NEITHER]
            return value + float(ridge @ theta**2), (slope.T @ features).ravel() + 2 * ridge * theta

        same = len(self.theta) == shape[0] and len(self.theta[0]) == shape[1]
        start = np.asarray(self.theta).ravel() if same else np.zeros(shape).ravel()
        theta = minimise(objective, [(-MOST, MOST)] * start.size, [start.tolist()]).reshape(shape)
        return Logistic(axes, centre, spread, tuple(tuple(one) for one in theta.tolist()))

    def predict(self, inputs: Place, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The curve of the cell."""
        assert self.axes is not None, "a theory predicts after its fit"
        places = np.tile(self.axes.values(inputs.config), (len(sequences), 1))
        features = _features(places, (np.log(sequences) - self.centre) / self.spread)
        return softmax(_scores(features, np.asarray(self.theta)))

    def parameters(self) -> Mapping[str, float]:
        """theta by strategy and feature."""
        names = ["1", *(self.axes.names if self.axes else ())]
        labels = [f"{a}, {b}" for b in ("level", "slope") for a in names]
        values = zip(STRATEGIES[: MEMORISING + 1], self.theta, strict=True)
        return {f"{s}: {label}": v for s, own in values for label, v in zip(labels, own, strict=True)}


RIDGE = (1e-7, 1e-4)
"""Nats by the square of a parameter: of levels and of the mean slope, and of differences between slopes."""
MOST = 200.0
"""Largest absolute value of a parameter of `Logistic`."""


class Axes(NamedTuple):
    """The axes of a grid as coordinates: logarithms of their values, or, of an axis with values of 0 or below, the
    values themselves; less their mean, in units of their standard deviation over the fitted cells. An axis with one
    value is none."""

    names: tuple[str, ...]
    logs: tuple[bool, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]

    @classmethod
    def of(cls, configs: Sequence[Mapping[str, float]]) -> "Axes":
        """The axes that all of these cells have."""
        names = [name for name in configs[0] if all(name in config for config in configs)]
        names = [name for name in names if len({config[name] for config in configs}) > 1]
        logs = [all(config[name] > 0 for config in configs) for name in names]
        columns = [
            np.array([np.log(config[name]) if log else config[name] for config in configs], np.float64)
            for name, log in zip(names, logs, strict=True)
        ]
        means, spreads = [float(c.mean()) for c in columns], [float(c.std()) for c in columns]
        return cls(tuple(names), tuple(logs), tuple(means), tuple(spreads))

    def values(self, config: Mapping[str, float]) -> Float[np.ndarray, " axis"]:
        """The coordinates of a cell. Raises `InputError` for a cell without one of the axes."""
        values = []
        for name, log, mean, spread in zip(*self, strict=True):
            if name not in config or (log and config[name] <= 0):
                raise InputError("axis", name, "must have a value in every cell, positive where all fitted ones are")
            values.append(((np.log(config[name]) if log else config[name]) - mean) / spread)
        return np.array(values, np.float64)


def interpolate(seen: Seen, sequences: Num[np.ndarray, " time"]) -> Fractions:
    """Fractions of a cell at other times: linear in log-time, its first and last ones outside its own times."""
    at, own = np.log(np.asarray(sequences, np.float64)), np.log(np.asarray(seen.sequences, np.float64))
    return np.stack([np.interp(at, own, column) for column in seen.fractions.T], axis=1)


def _features(
    places: Float[np.ndarray, "row axis"], time: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row feature"]:
    base = np.concatenate([np.ones((len(time), 1)), places], axis=1)
    return np.concatenate([base, base * time[:, None]], axis=1)


def _scores(
    features: Float[np.ndarray, "row feature"], theta: Float[np.ndarray, "free feature"]
) -> Float[np.ndarray, "row strategy"]:
    return np.concatenate([features @ theta.T, np.zeros((len(features), 1))], axis=1)
