"""Affine recurrences, of real numbers, of vectors and modulo a number, with a pool that training can memorise."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.errors import require
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import FLOAT, SeededSource, Sizes

Ends = tuple[float, float]
"""The lowest and the highest value of a uniform distribution."""


class RecurrenceBank(NamedTuple):
    """Recurrences of the pool; one of zeros without a pool."""

    matrices: Float[Array, "pool dim dim"]
    offsets: Float[Array, "pool dim"]


class Recurrences(SeededSource, frozen=True, tag="recurrences", forbid_unknown_fields=True):
    r"""Affine recurrences $s_{n+1} = a s_n + b$ of real numbers (Bhargav & Gu 2024, arXiv 2410.17438, whose ranges were
    not found: those here are ours), and of vectors, $s_{n+1} = A s_n + b$.

    a, every number of b and every number of $s_0$ are uniform, each between ends of its own. A vector's matrix is A = a
    Q with Q a random orthogonal matrix, so that $|D_{n+1}| = |a| |D_n|$ for differences $D_n = s_n - s_{n-1}$ in any
    dimension. With |a| at most 1 a state grows by at most |b| at every step.

    Args:
        dim: the number of numbers of a state.
        slope: the ends of a.
        offset: the ends of b.
        start: the ends of $s_0$.
        pool: the number of recurrences (A, b) that are drawn once, from the seed, and that training then draws from.
            0: every prompt has a recurrence of its own.
        seed: the seed of the pool.

    >>> bank = eb.Recurrences(dim=2, pool=4).build()
    >>> bank.matrices.shape, bank.offsets.shape
    ((4, 2, 2), (4, 2))
    """

    dim: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    slope: Ends = (-1.0, 1.0)
    offset: Ends = (-1.0, 1.0)
    start: Ends = (-1.0, 1.0)
    pool: Annotated[int, msgspec.Meta(ge=0)] = 0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return RecurrenceBank

    def check(self) -> None:
        """Raises `InputError` for ends in the wrong order."""
        for name in ("slope", "offset", "start"):
            low, high = getattr(self, name)
            require(low <= high, f"source.{name}", [low, high], "must be two numbers, the lower first")

    def sizes(self) -> Sizes:
        """Numbers of classes and features: the pool's recurrences are classes with one exemplar each; without a pool
        there is a single class."""
        return Sizes(max(self.pool, 1), 0, 1, 0, self.dim)

    def bank_bytes(self) -> int:
        """Bytes of the pool's matrices and offsets."""
        return max(self.pool, 1) * self.dim * (self.dim + 1) * FLOAT

    def building_bytes(self) -> int:
        return 0

    def build(self) -> RecurrenceBank:
        """The pool, drawn from `seed`."""
        if not self.pool:
            return RecurrenceBank(jnp.zeros((1, self.dim, self.dim)), jnp.zeros((1, self.dim)))
        keys = jax.random.split(root(self.seed, Purpose.SOURCE), self.pool)
        return RecurrenceBank(*jax.vmap(self.sample_prior)(keys))

    def sample_prior(self, key: Key[Array, ""]) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
        """A and b of a new recurrence."""
        slope_key, offset_key, turn_key = jax.random.split(key, 3)
        slope = _uniform(slope_key, self.slope, ())
        turn = jnp.eye(self.dim)
        if self.dim > 1:
            turn, r = jnp.linalg.qr(jax.random.normal(turn_key, (self.dim, self.dim)))
            turn = turn * jnp.sign(jnp.diagonal(r))  # so that Q has no direction it prefers
        return slope * turn, _uniform(offset_key, self.offset, (self.dim,))

    def sample_start(self, key: Key[Array, ""]) -> Float[Array, " dim"]:
        """The first state of a prompt."""
        return _uniform(key, self.start, (self.dim,))

    def look_up(
        self, bank: RecurrenceBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Offsets b of the pool's recurrences with the numbers `classes`."""
        return bank.offsets[classes]


def _uniform(key: Key[Array, ""], ends: Ends, shape: tuple[int, ...]) -> Float[Array, "..."]:
    low, high = ends
    return low + (high - low) * jax.random.uniform(key, shape)


class ModularBank(NamedTuple):
    """All recurrences of a modulus in a random order: number `a modulus + b` stands for (a, b). The pool is the first
    of them."""

    order: Int[Array, " recurrences"]


class ModularRecurrences(SeededSource, frozen=True, tag="modular_recurrences", forbid_unknown_fields=True):
    r"""Affine recurrences of symbols, $s_{n+1} = a s_n + b$ modulo p, with a, b and $s_0$ uniform from 0 to p - 1: a
    version with discrete tokens of the recurrences of Bhargav & Gu 2024 (arXiv 2410.17438), which is ours.

    Args:
        modulus: p, the number of symbols.
        pool: the number of different recurrences (a, b) that training draws from; 0: all p^2 of them.
        seed: the seed that picks the pool.

    >>> source = eb.ModularRecurrences(modulus=5, pool=3)
    >>> sorted(source.build().order.tolist()) == list(range(25))
    True
    """

    modulus: Annotated[int, msgspec.Meta(ge=2, le=512)] = 11
    pool: Annotated[int, msgspec.Meta(ge=0)] = 0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return ModularBank

    @property
    def recurrences(self) -> int:
        """Number of recurrences there are, p^2."""
        return self.modulus**2

    def check(self) -> None:
        """Raises `InputError` unless there are recurrences outside the pool."""
        allowed = f"must be below modulus^2 = {self.recurrences}: no recurrence is left that training does not draw"
        require(self.pool < self.recurrences, "source.pool", self.pool, allowed)

    def sizes(self) -> Sizes:
        """Numbers of classes and features: recurrences are classes, and an input has a feature for every symbol."""
        return Sizes(self.pool or self.recurrences, 0, 1, 0, self.modulus)

    def bank_bytes(self) -> int:
        """Bytes of the numbers of all recurrences."""
        return self.recurrences * FLOAT

    def building_bytes(self) -> int:
        return 0

    def build(self) -> ModularBank:
        """The order of all recurrences, drawn from `seed`."""
        return ModularBank(jax.random.permutation(root(self.seed, Purpose.SOURCE), self.recurrences))

    def look_up(
        self, bank: ModularBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Offset b of the recurrences with these numbers in the order, one-hot."""
        return jax.nn.one_hot(bank.order[classes] % self.modulus, self.modulus)
