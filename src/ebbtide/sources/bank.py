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
    """How a source is split: training classes come first, held-out ones last, and likewise for the exemplars of each
    class."""

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
    """All that the rest of the code asks of a source; `training/kinds.py` lists the sources there are.

    Two abstract classes answer the last questions: `Drawn` for sources made from a seed, `FrozenFeatures` for those
    that read a file. An `InputError` names the field `source.NAME`.
    """

    @property
    def bank_type(self) -> type:
        """What `build` makes: `Bank` where there are exemplars of classes, else a NamedTuple of the source's own, into
        which only the source and its tasks look; a constant."""
        ...

    def check(self) -> None:
        """Raises `InputError` for fields that do not go together. The same on every machine: reads no file."""
        ...

    def sizes(self) -> Sizes:
        """How the source is divided, and the features of an exemplar. May read the header of a file."""
        ...

    def build(self) -> Any:
        """The arrays that `look_up` and the task need, a pytree: a `bank_type`."""
        ...

    def look_up(
        self, bank: Any, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`. Compiles."""
        ...

    def bank_bytes(self) -> int:
        """Bytes of what `build` makes, at least."""
        ...

    def building_bytes(self) -> int:
        """Bytes that `build` needs beside the bank, at least."""
        ...

    def file(self) -> tuple[str, str] | None:
        """The path of the data file and the name of the array in it; None where no file is read."""
        ...

    def check_data(self) -> None:
        """Raises `InputError` when this machine does not have the file, or the file not what is asked for."""
        ...

    def check_memory(self, memory: int) -> None:
        """Raises `InputError` when the file's array is larger than `memory` bytes."""
        ...

    def stand_in(self) -> "SourceLike":
        """A source divided like this one that reads no file: for checks of a spec, and for estimates of its cost."""
        ...

    def data_needed(self) -> str:
        """Words for people: which files a run reads."""
        ...


class Drawn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source made from its seed (abstract): it reads no file."""

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
