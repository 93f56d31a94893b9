r"""T3, the law of strategy coopetition of Singh et al. 2025 (arXiv 2503.05631, section 6).

Two mechanisms share the vectors b and c. Mechanism 1, learning in context, is a x b x c, and mechanism 2, memory,
d x b x c; L1 and L2 are half the mean squared differences from their targets and K half the mean square of a x d.
Gradient flow minimises
$$(L_1 + \mu_1)(L_2 + \mu_2) + \alpha K, \qquad \mu_2 = 0.$$
This is `mechanisms.laws.Competition`; its state is the square |v|^2 and the overlap v.t of every vector v with its
target t. Here it starts at their typical values, squares and squared targets at the dimension m, overlaps at the square
root of m, in place of random ones, so that a cell has one curve.

Four parameters: mu1, alpha, the dimension of d for every item that memory has to keep (the paper's 160 is of one
setting; that it is in proportion to the classes or to the pool is ours), and sequences for a unit of time. a, b and c
have 20 dimensions, as in the paper.

The way from losses to fractions is ours too, without a parameter: s_k = 1 - 2 L_k, from 0 (a product that is 0, or
worse) to 1, is how far a mechanism is there. Where both are, s1 s2 of the behaviour, they share it as s1 to s2.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float, Int, Num

from ebbtide.contest.fitting import join, loss_and_slope, minimise_value
from ebbtide.contest.theory import GENERALISING, Facts, Fractions, Seen

DIM = 20
MU1 = np.geomspace(0.003, 1.0, 9)
ALPHA = np.geomspace(0.01, 3.0, 5)
SLOW = np.geomspace(10.0, 5120.0, 20)
"""The grid on which the law is solved: mu1, alpha and the dimension of d; between its points logarithms are linear."""
TIMES = np.geomspace(10.0, 1e6, 151)
"""Units of time at which solutions are kept: a step of gradient descent at rate 1 is one."""
ERROR = 0.005
"""Largest error of a step, of squares and overlaps in units of the squared targets."""
GAMMA = 1 - 0.5**0.5

State = Float[np.ndarray, "2 4 lane"]


class Law(NamedTuple):
    """Several laws side by side: mu1, alpha and the dimension of d of each."""

    mu1: Float[np.ndarray, " lane"]
    alpha: Float[np.ndarray, " lane"]
    slow: Float[np.ndarray, " lane"]

    def targets(self) -> Float[np.ndarray, "4 lane"]:
        """Squared targets of a, b, c and d: their dimensions."""
        return np.stack([np.full_like(self.slow, DIM)] * 3 + [self.slow])

    def losses(self, state: State) -> Float[np.ndarray, "2 lane"]:
        """L1 and L2."""
        square, overlap, target = *state, self.targets()
        return np.stack([_distance(square, overlap, target, one) for one in (0, 3)])

    def slopes(self, state: State) -> tuple[Float[np.ndarray, "4 lane"], Float[np.ndarray, "4 lane"]]:
        """Derivatives of the loss by every square and by every overlap."""
        square, overlap, target = *state, self.targets()
        one, two = self.losses(state)
        by_square, by_overlap = np.zeros_like(square), np.zeros_like(square)
        for own, factor in ((0, two), (3, one + self.mu1)):
            vectors = [own, 1, 2]
            for v in vectors:
                others = [other for other in vectors if other != v]
                scale = factor / (2 * target[vectors].prod(axis=0))
                by_square[v] += scale * square[others].prod(axis=0)
                by_overlap[v] -= 2 * scale * overlap[others].prod(axis=0)
        both = self.alpha / (2 * DIM * self.slow)
        by_square[0] += both * square[3]
        by_square[3] += both * square[0]
        return by_square, by_overlap

    def flow(self, scaled: Float[np.ndarray, "8 lane"]) -> Float[np.ndarray, "8 lane"]:
        """The change of squares and overlaps, both in units of the squared targets, by v' = -2 s v - p t with s and p
        the `slopes`."""
        target = self.targets()
        square, overlap = scaled[:4], scaled[4:]
        s, p = self.slopes(np.stack([square * target, overlap * target]))
        return np.concatenate([-4 * s * square - 2 * p * overlap, -2 * s * overlap - p])


def _distance(square: np.ndarray, overlap: np.ndarray, target: np.ndarray, own: int) -> np.ndarray:
    vectors = [own, 1, 2]
    sizes = target[vectors].prod(axis=0)
    return (sizes - 2 * overlap[vectors].prod(axis=0) + square[vectors].prod(axis=0)) / (2 * sizes)


def solve(law: Law, times: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time 2 lane"]:
    """L1 and L2 of some laws at given times, linear between steps. The solver is Rosenbrock's of second order, stable
    at any step (Verwer et al. 1999), since a mechanism that is complete is stiff while the other is slow. Every law has
    steps of its own, chosen by the difference to the solution of first order."""
    target = law.targets()
    state = np.concatenate([np.ones_like(target), target**-0.5])
    now, step = np.zeros_like(law.slow), np.ones_like(law.slow)
    before = law.losses(_unscaled(state, target))
    kept = np.repeat(before[None], len(times), axis=0)
    while (now < times[-1]).any():
        slope = law.flow(state)
        matrix = np.eye(8) - GAMMA * step[:, None, None] * _jacobian(law, state, slope)
        one = _solve(matrix, slope)
        two = _solve(matrix, law.flow(state + step * one) - 2 * one)
        error = np.abs(0.5 * step * (one + two)).max(axis=0) / ERROR
        good = (error < 1) | (step < 1e-6)
        new = np.where(good, state + step * (1.5 * one + 0.5 * two), state)
        after = law.losses(_unscaled(new, target))
        part = (times[:, None] - now) / step
        between = before + np.clip(part, 0, 1)[:, None] * (after - before)
        kept = np.where((good & (part > 0))[:, None], between, kept)
        now = now + np.where(good, step, 0.0)
        state, before = new, after
        step = np.minimum(step * np.clip(0.9 / np.sqrt(np.maximum(error, 1e-9)), 0.2, 3.0), 0.2 * now + 1.0)
    return kept


def _unscaled(state: Float[np.ndarray, "8 lane"], target: Float[np.ndarray, "4 lane"]) -> State:
    return np.stack([state[:4] * target, state[4:] * target])


def _jacobian(
    law: Law, state: Float[np.ndarray, "8 lane"], slope: Float[np.ndarray, "8 lane"]
) -> Float[np.ndarray, "lane 8 8"]:
    """Derivatives of the flow [lane, of, by], by differences."""
    many = Law(*(np.tile(one, 8) for one in law))
    moved = state[:, None] + 1e-6 * np.eye(8)[:, :, None]
    flow = many.flow(moved.reshape(8, -1)).reshape(8, 8, -1)
    return np.transpose((flow - slope[:, None]) / 1e-6, (2, 0, 1))


def _solve(matrix: Float[np.ndarray, "lane 8 8"], right: Float[np.ndarray, "8 lane"]) -> Float[np.ndarray, "8 lane"]:
    return np.linalg.solve(matrix, right.T[..., None])[..., 0].T


@lru_cache(maxsize=2)
def _table(
    mu1: tuple[float, ...], alpha: tuple[float, ...], slow: tuple[float, ...]
) -> Float[np.ndarray, "mu1 alpha slow time 2"]:
    """How far both mechanisms are there, on a grid."""
    axes = np.meshgrid(mu1, alpha, slow, indexing="ij")
    losses = solve(Law(*(axis.ravel() for axis in axes)), TIMES)
    there = np.clip(1 - 2 * losses, 0.0, 1.0)
    return np.moveaxis(there, -1, 0).reshape(*axes[0].shape, len(TIMES), 2)


class Coopetition(msgspec.Struct, frozen=True):
    """The coopetition law. `dims` is the dimension of d for every item to memorise, `scale` the sequences of a unit of
    time."""

    mu1: float = float("nan")
    alpha: float = float("nan")
    dims: float = float("nan")
    scale: float = float("nan")

    @property
    def name(self) -> str:
        return "coopetition"

    @property
    def free(self) -> int:
        return 4

    @property
    def needs_pure(self) -> bool:
        return False

    def inputs(self, facts: Facts) -> float:
        """The number of items that memory has to keep: classes, or the pool of streams; 1 where it is not known."""
        if facts.spec is None:
            return 1.0
        return float(facts.spec.source.sizes().classes)

    def fit(self, seen: Sequence[Seen]) -> "Coopetition":
        """The theory with the parameters of the least divergence."""
        rows = join(seen)
        items = np.array([one.inputs for one in seen])[rows.cell]
        bounds = [_ends(MU1), _ends(ALPHA), (_ends(SLOW / items.max())[0], _ends(SLOW / items.min())[1])]
        bounds.append((float(np.log(rows.sequences.min() / 1e5)), float(np.log(rows.sequences.max() / 10))))

        def value(logs: np.ndarray) -> float:
            return loss_and_slope(rows, Coopetition(*np.exp(logs).tolist())._fractions(items, rows.sequences))[0]

        if np.isfinite(self.mu1):
            starts = [list(np.log([self.mu1, self.alpha, self.dims, self.scale]))]
        else:
            grid = [np.linspace(*bound, count + 2)[1:-1] for bound, count in zip(bounds, (3, 2, 4, 12), strict=True)]
            starts = np.stack([one.ravel() for one in np.meshgrid(*grid)], axis=1).tolist()
        return Coopetition(*np.exp(minimise_value(value, bounds, starts, 1e-3)).tolist())

    def predict(self, inputs: float, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The fractions of a cell with so many items."""
        return self._fractions(np.full(len(sequences), inputs), np.asarray(sequences, np.float64))

    def _fractions(self, items: Float[np.ndarray, " row"], sequences: Float[np.ndarray, " row"]) -> Fractions:
        context, memory = self._there(items, sequences / self.scale).T
        both = context * memory / np.maximum(context + memory, 1e-12)
        return np.stack([context - both * memory, memory - both * context, (1 - context) * (1 - memory)], axis=1)

    def _there(self, items: Float[np.ndarray, " row"], times: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 2"]:
        """How far both mechanisms are there, read between the points of the grid."""
        table = _table(tuple(MU1), tuple(ALPHA), tuple(SLOW))
        for grid, value in ((MU1, self.mu1), (ALPHA, self.alpha)):
            i, part = _place(grid, np.array([value]))
            table = (1 - part[0]) * table[i[0]] + part[0] * table[i[0] + 1]
        (i, a), (j, b) = _place(SLOW, self.dims * items), _place(TIMES, times)
        a, b = a[:, None], b[:, None]
        lower, upper = ((1 - b) * table[k, j] + b * table[k, j + 1] for k in (i, i + 1))
        return (1 - a) * lower + a * upper

    def parameters(self) -> Mapping[str, float]:
        return {"mu1": self.mu1, "alpha": self.alpha, "dims": self.dims, "scale": self.scale}

    def draw(self, random: np.random.Generator, inputs: Sequence[float], last: float) -> "Coopetition":
        """The theory with mu1 from .02 to .5, alpha from .03 to 1, dims such that d has 60 to 600 dimensions in the
        middle cell, and a scale by which mechanism 1 is half there after .01 to .1 of its training (or at time 500, if
        it never is), all even in the logarithm."""
        mu1, alpha, slow, onset = np.exp(random.uniform(*np.log([(0.02, 0.03, 60, 0.01), (0.5, 1, 600, 0.1)])))
        dims = float(slow / sorted(inputs)[len(inputs) // 2])
        unit = Coopetition(float(mu1), float(alpha), dims, 1.0)
        items = np.full(len(TIMES), sorted(inputs)[len(inputs) // 2])
        there = unit._there(items, TIMES)[:, GENERALISING] > 0.5
        first = float(TIMES[there.argmax()]) if there.any() else 500.0
        return Coopetition(unit.mu1, unit.alpha, dims, float(onset * last) / first)


def _ends(grid: Float[np.ndarray, " value"]) -> tuple[float, float]:
    return float(np.log(grid[0])), float(np.log(grid[-1]))


def _place(
    grid: Float[np.ndarray, " value"], values: Float[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """The point of a grid below every value, and how far the value is to the next one, in logarithms; its ends, of
    values outside."""
    place = np.interp(np.log(values), np.log(grid), np.arange(len(grid), dtype=np.float64))
    i = np.minimum(place.astype(int), len(grid) - 2)
    return i, place - i
