"""The interface of sources: a bank of exemplars, and the ranges that split it into training and held-out parts."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec
from jaxtyping import Array, Float, Int, Key, Num, UInt

from ebbtide.errors import require
from ebbtide.traced import kind_name


class Range(NamedTuple):
    """The integers start, start + 1, ..., start + size - 1."""

    start: int
    size: int


class Split(NamedTuple):
    """The classes, and the exemplars of each class, that a data stream may use."""

    classes: Range
    exemplars: Range


class Bank(NamedTuple):
    """The arrays that a source needs to look up exemplars; a pytree passed into the compiled step.

    `features[c, e]` is exemplar e of class c. A source with infinitely many exemplars stores the class means there (one
    per class) and draws exemplar e from `key` and `noise`. Pixels are stored as bytes; `look_up` converts them to
    float.
    """

    features: Num[Array, "classes exemplars dim"]
    key: Key[Array, ""]
    noise: Float[Array, ""]


class Sizes(NamedTuple):
    """Numbers of training and held-out classes, and of training and held-out exemplars of each class. Training ones
    come first, held-out ones last. `dim` is the number of features of an exemplar."""

    classes: int
    holdout_classes: int
    exemplars: int
    holdout_exemplars: int
    dim: int

    def split(self, *, holdout_classes: bool = False, holdout_exemplars: bool = False) -> Split:
        """The ranges of the training part (default), or of held-out classes or exemplars."""
        classes = Range(self.classes, self.holdout_classes) if holdout_classes else Range(0, self.classes)
        exemplars = Range(self.exemplars, self.holdout_exemplars) if holdout_exemplars else Range(0, self.exemplars)
        return Split(classes, exemplars)


FLOAT = 4
"""Bytes of a number."""


@runtime_checkable
class SourceLike(Protocol):
    """The protocol of sources: all that the rest of the code needs of one. `training/kinds.py` lists all sources.

    The last methods are defined once for all sources made from a seed (`SeededSource`), and once for all that read a
    file (`FrozenFeatures`). An `InputError` names the field `source.NAME`.
    """

    @property
    def bank_type(self) -> type:
        """The type that `build` returns: `Bank` where there are exemplars of classes, else a NamedTuple of the source's
        own, which only the source and its tasks read; a constant."""
        ...

    def check(self) -> None:
        """Raises `InputError` for fields that do not go together. The same on every machine: reads no file."""
        ...

    def sizes(self) -> Sizes:
        """Numbers of classes, exemplars and features. May read the header of a file."""
        ...

    def build(self) -> Any:
        """The arrays that `look_up` and the task need, a pytree of the type `bank_type`."""
        ...

    def look_up(
        self, bank: Any, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`. Can be compiled."""
        ...

    def bank_bytes(self) -> int:
        """Bytes of the bank, at least."""
        ...

    def building_bytes(self) -> int:
        """Bytes that `build` needs in addition to the bank, at least."""
        ...

    def file(self) -> tuple[str, str] | None:
        """The path of the data file and the name of the array in it; None where no file is read."""
        ...

    def check_data(self) -> None:
        """Raises `InputError` when this machine does not have the file, or the file lacks what the fields name."""
        ...

    def check_memory(self, memory: int) -> None:
        """Raises `InputError` when the file's array is larger than `memory` bytes."""
        ...

    def stand_in(self) -> "SourceLike":
        """A source with the sizes of this one that reads no file: for checks of a spec, and for estimates of its
        cost."""
        ...

    def data_needed(self) -> str:
        """The files that a run reads, in words for people."""
        ...


class SeededSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of sources that are made from their field `seed` and read no file. Only `build` may read the seed:
    members with seeds of their own share the other methods."""

    def file(self) -> None:
        return None

    def check_data(self) -> None:
        """Raises nothing."""

    def check_memory(self, memory: int) -> None:
        """Raises nothing: what is built is counted by `bank_bytes`."""

    def stand_in(self) -> Any:
        return self

    def data_needed(self) -> str:
        return f"none: source {kind_name(self)} is made from its seed"


def array_bytes(sizes: Sizes, number: int = FLOAT) -> int:
    """Bytes of all exemplars, `number` for each feature."""
    images = (sizes.classes + sizes.holdout_classes) * (sizes.exemplars + sizes.holdout_exemplars)
    return images * sizes.dim * number


def check_counts(source: SourceLike) -> None:
    """Raises `InputError` unless no count is negative and something is left to train on."""
    for name, least in (("classes", 1), ("exemplars", 1), ("holdout_classes", 0), ("holdout_exemplars", 0)):
        value = getattr(source, name)
        require(value >= least, f"source.{name}", value, f"must be at least {least}")
