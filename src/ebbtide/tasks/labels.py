"""Labelling schemes: fixed, shared, several labels per class, or drawn anew for every sequence."""

from typing import Annotated

import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Int, UInt

from ebbtide.errors import require
from ebbtide.tasks.draws import distinct, integer

Count = Annotated[int, msgspec.Meta(ge=1)]


def first_occurrence(classes: Int[Array, " slots"]) -> Int[Array, " slots"]:
    """Index of the first slot that holds the same class, for each slot."""
    return jnp.argmax(classes[:, None] == classes[None, :], axis=1)


class Fixed(msgspec.Struct, frozen=True, tag="fixed", forbid_unknown_fields=True):
    """One label per class: label = class (the transience paper).

    >>> eb.Fixed().total(classes=100)
    100
    """

    def total(self, classes: int) -> int:
        return classes

    def modulus(self, classes: int) -> int:
        return classes

    def check(self, classes: int, slots: int) -> None: ...

    def assign(
        self, classes: Int[Array, " slots"], words: UInt[Array, " slots"], total: int
    ) -> tuple[Int[Array, " slots"], Int[Array, ""]]:
        """The label of every slot, and the label that training ties to the last slot's class."""
        return classes, classes[-1]


class Shared(msgspec.Struct, frozen=True, tag="shared", forbid_unknown_fields=True):
    """Classes share `count` labels: label = class mod count (Reddy 2023).

    >>> eb.Shared(count=16).total(classes=100)
    16
    """

    count: Count = 16

    def total(self, classes: int) -> int:
        return self.count

    def modulus(self, classes: int) -> int:
        return self.count

    def check(self, classes: int, slots: int) -> None:
        require(2 <= self.count <= classes, "task.labels.count", self.count, f"must be 2 to {classes} (the classes)")

    def assign(
        self, classes: Int[Array, " slots"], words: UInt[Array, " slots"], total: int
    ) -> tuple[Int[Array, " slots"], Int[Array, ""]]:
        """The label of every slot, and the label that training ties to the last slot's class."""
        labels = classes % self.count
        return labels, labels[-1]


class Polysemy(msgspec.Struct, frozen=True, tag="polysemy", forbid_unknown_fields=True):
    """`per_class` labels for each class; a sequence picks one of them per class (Chan et al. 2022).

    Class c owns the labels c * per_class .. (c + 1) * per_class - 1. Open-set accuracy counts any
    of them as correct.

    >>> eb.Polysemy(per_class=2).total(classes=100)
    200
    """

    per_class: Count = 2

    def total(self, classes: int) -> int:
        return classes * self.per_class

    def modulus(self, classes: int) -> int:
        return classes

    def check(self, classes: int, slots: int) -> None: ...

    def assign(
        self, classes: Int[Array, " slots"], words: UInt[Array, " slots"], total: int
    ) -> tuple[Int[Array, " slots"], Int[Array, ""]]:
        """The label of every slot, and the label that training ties to the last slot's class."""
        pick = (words % jnp.uint32(self.per_class)).astype(jnp.int32)
        labels = classes * self.per_class + pick[first_occurrence(classes)]
        return labels, labels[-1]


class PerSequence(msgspec.Struct, frozen=True, tag="per_sequence", forbid_unknown_fields=True):
    """Labels drawn anew for every sequence: its classes get different labels out of `count`, so that only the context
    determines them (ICL-only data; Singh et al. 2024, arXiv 2404.07129).

    `holdout_pairs` pairs of labels never occur together in training; the evaluator `icl_pairs` tests whether copying
    generalises to them. Sequences then hold at most two classes. The held-out pairs are not random: pairs are numbered
    by the distance of their labels around the circle of `count`, neighbours first (see `pair`), and the last ones are
    held out, so that each label is in about as many held-out pairs as any other, and {0, 1} is in none.

    >>> eb.PerSequence(count=5).total(classes=100)
    5
    """

    count: Count = 16
    holdout_pairs: Annotated[int, msgspec.Meta(ge=0)] = 0

    def total(self, classes: int) -> int:
        return self.count

    def modulus(self, classes: int) -> int:
        return classes

    def check(self, classes: int, slots: int) -> None:
        allowed = f"must be at least {slots} (different classes one sequence can hold)"
        require(self.count >= slots, "task.labels.count", self.count, allowed)
        if self.holdout_pairs:
            field, most = "task.labels.holdout_pairs", max(self.pairs() - self.count, 0)
            allowed = f"must be at most {most}: with {self.count} labels so many pairs are not neighbours"
            require(self.holdout_pairs <= most, field, self.holdout_pairs, allowed)
            allowed = f"must be 0 where a sequence can hold {slots} classes: a pair is of two"
            require(slots <= 2, field, self.holdout_pairs, allowed)

    def pairs(self) -> int:
        """The number of unordered pairs of different labels."""
        return self.count * (self.count - 1) // 2

    def pair(self, number: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Pair `number`: label a = number mod count, and the label number // count + 1 further around the circle."""
        first = number % self.count
        return first, (first + number // self.count + 1) % self.count

    def held_out(self, words: UInt[Array, " slots"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """A held-out pair in random order."""
        start = self.pairs() - self.holdout_pairs
        return self._shuffle(start + integer(words[0], self.holdout_pairs), words[1])

    def _shuffle(self, number: Int[Array, ""], word: UInt[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        a, b = self.pair(number)
        swap = word >> 31 == 1
        return jnp.where(swap, b, a), jnp.where(swap, a, b)

    def assign(
        self, classes: Int[Array, " slots"], words: UInt[Array, " slots"], total: int
    ) -> tuple[Int[Array, " slots"], Int[Array, ""]]:
        """The label of every slot, and -1: no label is tied to a class."""
        first = first_occurrence(classes)
        is_first = first == jnp.arange(classes.shape[0])
        rank = (jnp.cumsum(is_first) - 1)[first]  # the k-th different class of the sequence gets the k-th label
        if self.holdout_pairs:
            trained = integer(words[0], self.pairs() - self.holdout_pairs)
            return jnp.stack(self._shuffle(trained, words[1]))[rank], jnp.int32(-1)
        drawn = jnp.stack(distinct(words[: min(self.count, words.shape[0])], self.count))
        return drawn[rank], jnp.int32(-1)


Labels = Fixed | Shared | Polysemy | PerSequence
