"""Orthogonal patterns, some relevant to a label and some not, for classification in context."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, UInt

from ebbtide.errors import require
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import SeededSource, Sizes, array_bytes


class PatternBank(NamedTuple):
    """Patterns, each of the source's norm and orthogonal to all others: those that decide a label, and the others."""

    relevant: Float[Array, "relevant dim"]
    irrelevant: Float[Array, "irrelevant dim"]


class Patterns(SeededSource, frozen=True, tag="patterns", forbid_unknown_fields=True):
    r"""Relevant patterns $\mu_j$ and irrelevant patterns $\nu_k$, orthogonal to each other and of one norm, which span
    the space of inputs; and the ordered pairs (a, b) of relevant patterns, each of which is a rule: an input of
    pattern a has the label +1, one of pattern b has -1 (Li et al. 2024, arXiv 2402.15607).

    Pairs are numbered by the distance from a to b around the circle of relevant patterns: (0, 1), (1, 2), ..., (M - 1,
    0), then (0, 2), (1, 3) and so on. Training draws from the first `pairs` of them. Where `pairs` is a multiple of
    `relevant`, every pattern has the label +1 in as many of the trained pairs as the label -1.

    Args:
        relevant: the number M of relevant patterns.
        irrelevant: the number of irrelevant patterns.
        norm: the norm of every pattern.
        pairs: the number of pairs that training draws from, at most M (M - 1).
        seed: the seed of the basis whose vectors are the patterns.

    >>> bank = eb.Patterns(relevant=4, irrelevant=2, norm=3.0, pairs=4).build()
    >>> (bank.relevant @ bank.relevant.T).round(3).diagonal().tolist()
    [9.0, 9.0, 9.0, 9.0]
    """

    relevant: Annotated[int, msgspec.Meta(ge=3)] = 6
    irrelevant: Annotated[int, msgspec.Meta(ge=1)] = 24
    norm: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    pairs: Annotated[int, msgspec.Meta(ge=1)] = 6
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return PatternBank

    @property
    def all_pairs(self) -> int:
        """Number of ordered pairs of different relevant patterns."""
        return self.relevant * (self.relevant - 1)

    def check(self) -> None:
        """Raises `InputError` for more pairs than there are."""
        allowed = f"must be at most relevant x (relevant - 1) = {self.all_pairs}"
        require(self.pairs <= self.all_pairs, "source.pairs", self.pairs, allowed)

    def sizes(self) -> Sizes:
        """Numbers of classes and features: all patterns are classes with one exemplar each."""
        dim = self.relevant + self.irrelevant
        return Sizes(dim, 0, 1, 0, dim)

    def bank_bytes(self) -> int:
        """Bytes of all patterns."""
        return array_bytes(self.sizes())

    def building_bytes(self) -> int:
        return 0

    def build(self) -> PatternBank:
        """The patterns, drawn from `seed`: a random orthogonal basis, times the norm."""
        dim = self.sizes().dim
        basis = jnp.linalg.qr(jax.random.normal(root(self.seed, Purpose.SOURCE), (dim, dim)))[0]
        return PatternBank(*jnp.split(self.norm * basis, [self.relevant]))

    def pair(self, number: Int[Array, "*batch"]) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"]]:
        """The patterns (a, b) of the pairs with these numbers."""
        first = number % self.relevant
        return first, (first + 1 + number // self.relevant) % self.relevant

    def look_up(
        self, bank: PatternBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Patterns with the numbers `classes`: first the relevant ones, then the others."""
        return jnp.concatenate(bank)[classes]
