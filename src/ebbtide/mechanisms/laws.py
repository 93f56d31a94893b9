"""Toy laws of three papers, trained by exact gradient descent on a few numbers per seed.

Two of them are about outer products of vectors with targets. Their losses depend on a vector v only through its square
|v|^2 and its overlap v.t with its target t. So the gradient lies in the plane of v and t, and a step of gradient
descent maps (square, overlap) to (square, overlap): a step costs the same in dimension 20 and 8,000, and nothing is
approximated. A state is an array [square | overlap | square of the target, vector, seed]; losses are [loss, seed].
"""

from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from ebbtide.errors import require

Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Rate = Annotated[float, msgspec.Meta(gt=0)]
Weight = Annotated[float, msgspec.Meta(ge=0)]
Losses = Float[np.ndarray, "loss seed"]
State = Float[np.ndarray, "... seed"]
Moments = Float[np.ndarray, "3 vector seed"]
Slopes = tuple[Float[np.ndarray, "vector seed"], Float[np.ndarray, "vector seed"]]
"""Derivatives of the loss by every square and by every overlap."""

FIXED_LOGIT = 40.0
"""The value of a logit that is given and not learned: its sigmoid is 1 to 1e-14."""


@runtime_checkable
class Law(Protocol):
    """A loss and its gradient step, for many seeds at once."""

    def losses(self, state: State) -> Losses:
        """The loss that is minimised, then its parts."""
        ...

    def step(self, state: State, rate: float) -> State:
        """The state after one step of gradient descent."""
        ...


class Descent(NamedTuple):
    """The result of `descend`: losses [loss, seed, record] at `steps`; `stopped` is the step at which a seed's loss
    fell below the limit (-1: never), from which on it is constant."""

    steps: Int[np.ndarray, " record"]
    losses: Float[np.ndarray, "loss seed record"]
    stopped: Int[np.ndarray, " seed"]


def descend(law: Law, state: State, rate: float, steps: int, every: int = 1, stop: float = 0.0) -> Descent:
    """Gradient descent at a constant rate, recorded every `every` steps; a seed stops once its loss is below `stop`."""
    require(steps % every == 0, "every", every, f"must divide the {steps} steps")
    records: list[Losses] = []
    stopped = np.full(state.shape[-1], -1)
    with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large ends in inf and nan
        losses = law.losses(state)
        for step in range(steps + 1):
            stopped[(stopped < 0) & (losses[0] < stop)] = step
            if step % every == 0:
                records.append(losses)
            moving: Bool[np.ndarray, " seed"] = stopped < 0
            if step < steps and moving.any():
                state = np.where(moving, law.step(state, rate), state)
                losses = law.losses(state)
    return Descent(np.arange(0, steps + 1, every), np.stack(records, axis=-1), stopped)


Pair = tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " dim"]]


def draw(dims: tuple[int, ...], seed: int) -> list[Pair]:
    """Initial value and target of every vector, with entries from N(0, 1)."""
    random = np.random.default_rng(seed)
    return [(random.standard_normal(dim), random.standard_normal(dim)) for dim in dims]


def moments(dims: tuple[int, ...], seeds: range) -> Moments:
    """Squares, overlaps and squared targets of the vectors that `draw` returns, for every seed."""
    each = [[(v @ v, v @ t, t @ t) for v, t in draw(dims, seed)] for seed in seeds]
    return np.array(each, np.float64).transpose(2, 1, 0)


def set_at_targets(state: Moments, vectors: tuple[int, ...]) -> Moments:
    """The state with the given vectors equal to their targets."""
    state, at = state.copy(), list(vectors)
    state[0, at] = state[1, at] = state[2, at]
    return state


def descend_vectors(state: Moments, slopes: Slopes, rate: float, fixed: tuple[int, ...] = ()) -> Moments:
    """One step of every vector that is not `fixed`: v becomes (1 - 2 rate s) v - rate p t, with s and p the derivatives
    by its square and its overlap, t its target."""
    square, overlap, target = state
    keep, pull = 1 - 2 * rate * slopes[0], rate * slopes[1]
    keep[list(fixed)], pull[list(fixed)] = 1.0, 0.0
    new = keep**2 * square - 2 * keep * pull * overlap + pull**2 * target
    return np.stack([new, keep * overlap - pull * target, target])


def distance(state: Moments, vectors: tuple[int, ...], dims: tuple[int, ...]) -> Float[np.ndarray, " seed"]:
    """Half the mean squared difference between the outer product of some vectors and that of their targets."""
    square, overlap, target = state[:, list(vectors)].prod(axis=1)
    return (target - 2 * overlap + square) / (2 * _entries(vectors, dims))


def distance_slopes(state: Moments, vectors: tuple[int, ...], dims: tuple[int, ...]) -> Slopes:
    """Derivatives of `distance` by the squares and overlaps of all vectors; zero for vectors without a part in it."""
    by_square, by_overlap = np.zeros_like(state[0]), np.zeros_like(state[1])
    for one in vectors:
        others = [other for other in vectors if other != one]
        square, overlap, _ = state[:, others].prod(axis=1)
        by_square[one], by_overlap[one] = square, -2 * overlap
    scale = 2 * _entries(vectors, dims)
    return by_square / scale, by_overlap / scale


def _entries(vectors: tuple[int, ...], dims: tuple[int, ...]) -> float:
    return float(np.prod([dims[one] for one in vectors], dtype=np.float64))


class Product(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Three factors that only work together: half the mean squared error of a x b x c against a target of rank one.

    After Singh et al. 2024 (arXiv 2404.07129, Fig. 5a). `fixed` factors (0 a, 1 b, 2 c) equal their targets from the
    start and are not trained. Without fixed factors the point where all vanish is a saddle that gradient descent
    approaches first; the loss there is `level`.
    """

    dim: Size = 20
    fixed: tuple[Annotated[int, msgspec.Meta(ge=0, le=2)], ...] = ()

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of every vector."""
        return (self.dim,) * 3

    def start(self, seeds: range) -> Moments:
        """Initial values and targets from N(0, 1), with fixed factors at their targets."""
        return set_at_targets(moments(self.dims, seeds), self.fixed)

    def level(self, state: Moments) -> Float[np.ndarray, " seed"]:
        """The loss of a product that is zero."""
        return state[2].prod(axis=0) / (2 * self.dim**3)

    def losses(self, state: Moments) -> Losses:
        """The loss of every seed."""
        return distance(state, (0, 1, 2), self.dims)[None]

    def step(self, state: Moments, rate: float) -> Moments:
        """The state after one step of the factors that are not fixed."""
        return descend_vectors(state, distance_slopes(state, (0, 1, 2), self.dims), rate, self.fixed)


class Competition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two mechanisms that share parts and compete: the minimal model of Singh et al. 2025 (arXiv 2503.05631, section
    6).

    Mechanism 1 (ICL in the paper) is a x b x c, mechanism 2 (CIWL) d x b x c, each with half the mean squared error L1,
    L2 against its target; K is half the mean square of a x d. The loss is (L1 + mu1)(L2 + mu2) + alpha K: either
    mechanism alone can make it small, and with mu1 > 0 mechanism 1 alone not as small as mechanism 2. Vectors are a, b,
    c, d.
    """

    dim: Size = 20
    slow_dim: Size = 160
    """The dimension of d: mechanism 2 is the slower one."""
    mu1: Weight = 0.1
    mu2: Weight = 0.0
    alpha: Weight = 0.1

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of every vector."""
        return (self.dim, self.dim, self.dim, self.slow_dim)

    def start(self, seeds: range) -> Moments:
        """Initial values and targets from N(0, 1)."""
        return moments(self.dims, seeds)

    def levels(self, state: Moments) -> Losses:
        """L1 and L2 of products that are zero: about the height of the plateau."""
        return np.stack([state[2, [one, 1, 2]].prod(axis=0) / (2 * _entries((one, 1, 2), self.dims)) for one in (0, 3)])

    def losses(self, state: Moments) -> Losses:
        """The loss, L1, L2, K of every seed."""
        one, two = distance(state, (0, 1, 2), self.dims), distance(state, (3, 1, 2), self.dims)
        both = state[0, 0] * state[0, 3] / (2 * self.dim * self.slow_dim)
        return np.stack([(one + self.mu1) * (two + self.mu2) + self.alpha * both, one, two, both])

    def step(self, state: Moments, rate: float) -> Moments:
        """The state after one step of all four vectors."""
        _, one, two, _ = self.losses(state)
        first, second = distance_slopes(state, (0, 1, 2), self.dims), distance_slopes(state, (3, 1, 2), self.dims)
        by_square, by_overlap = (
            (two + self.mu2) * a + (one + self.mu1) * b for a, b in zip(first, second, strict=True)
        )
        both = self.alpha / (2 * self.dim * self.slow_dim)
        by_square[0] += both * state[0, 3]
        by_square[3] += both * state[0, 0]
        return descend_vectors(state, (by_square, by_overlap), rate)


class NestedLogits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An induction head as three nested logits, in the spirit of Reddy 2023 (arXiv 2312.03002).

    The form is ours, the mean field of the paper's task; its abstract describes a two-parameter induction head and
    three nested logits learned one after another. There are `pairs` pairs in context, each class `burst` times, so
    pairs / burst labels in context, one of which is the query's, and `labels` labels in all.

    - first: a label's token attends to the item before it with a = sigmoid(first - log(2 pairs)), against as many
      other tokens. This share of the item is in its residual stream.
    - match: the query attends to labels whose residual stream matches it with
      m = sigmoid(a match - log(pairs / burst - 1)), against the labels of the other classes.
    - read: the classifier gives a label the logit `read` times the attention on it: read m to the query's, read
      (1 - m) / (pairs / burst - 1) to each other one in context, 0 to labels that are not in context.

    The loss is -log of the query label's probability. Logits start near 0, from N(0, spread^2), in the order read,
    match, first of their being learned; those in `fixed` (0 first, 1 match, 2 read) are given. With `read` given it is
    an induction head with two parameters. There are at least two labels in context.
    """

    pairs: Annotated[int, msgspec.Meta(ge=2, le=2**20)] = 8
    burst: Size = 1
    labels: Size = 32
    spread: Weight = 0.1
    fixed: tuple[Annotated[int, msgspec.Meta(ge=0, le=2)], ...] = ()

    def check(self) -> None:
        """Raises `InputError` when these numbers describe no context."""
        allowed = f"must divide the {self.pairs} pairs into two classes or more"
        require(self.pairs % self.burst == 0 and self.pairs > self.burst, "burst", self.burst, allowed)
        shown = self.pairs // self.burst
        require(self.labels >= shown, "labels", self.labels, f"must be {shown} or more: so many are in context")

    def start(self, seeds: range) -> Float[np.ndarray, "3 seed"]:
        """Initial logits (first, match, read) of every seed."""
        each = [np.random.default_rng(seed).standard_normal(3) for seed in seeds]
        state = self.spread * np.array(each).T
        state[list(self.fixed)] = FIXED_LOGIT
        return state

    def level(self) -> float:
        """The loss of a predictor that knows which labels are in context and nothing else."""
        return float(np.log(self.pairs / self.burst))

    def losses(self, state: Float[np.ndarray, "3 seed"]) -> Losses:
        """The loss; the probability of all labels in context; the two attentions a and m."""
        a, m, chances = self._forward(state)
        return np.stack([-np.log(chances[0]), chances[:2].sum(axis=0), a, m])

    def step(self, state: Float[np.ndarray, "3 seed"], rate: float) -> Float[np.ndarray, "3 seed"]:
        """The state after one step of the logits that are not fixed."""
        slopes = self.slopes(state)
        slopes[list(self.fixed)] = 0.0
        return state - rate * slopes

    def slopes(self, state: Float[np.ndarray, "3 seed"]) -> Float[np.ndarray, "3 seed"]:
        """Derivatives of the loss by every logit."""
        _, match, read = state
        a, m, (target, others, _) = self._forward(state)
        count = self.pairs // self.burst - 1
        # by the logits of the query's label and of all others in context together, then by what they are made of
        by_target, by_others = target - 1, others
        by_read = by_target * m + by_others * (1 - m) / count
        by_m = read * (by_target - by_others / count)
        by_inner = by_m * m * (1 - m)
        return np.stack([by_inner * match * a * (1 - a), by_inner * a, by_read])

    def _forward(self, state: Float[np.ndarray, "3 seed"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both attentions, and the probabilities of the query's label, of all others in context, and of all labels
        outside it."""
        count = self.pairs // self.burst - 1
        first, match, read = state
        a = 1 / (1 + 2 * self.pairs * np.exp(-first))
        m = 1 / (1 + count * np.exp(-a * match))
        logits = np.stack([read * m, read * (1 - m) / count, np.zeros_like(m)])
        weights = np.exp(logits - logits.max(axis=0)) * np.array([[1], [count], [self.labels - count - 1]])
        return a, m, weights / weights.sum(axis=0)
