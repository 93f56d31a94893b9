"""What every source gives a task: a bank of exemplars and the ranges that split it."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key, Num, UInt

from ebbtide.errors import require


class Range(NamedTuple):
    """The integers start, start + 1, ..., start + size - 1."""

    start: int
    size: int


class Split(NamedTuple):
    """Which classes and which of their exemplars a stream may use."""

    classes: Range
    exemplars: Range


class Bank(NamedTuple):
    """Arrays a source needs at look-up time; a pytree passed into the compiled step.

    `features[c, e]` is exemplar e of class c. A source with infinitely many exemplars keeps the
    class means there (one per class) and makes exemplar e from `key` and `noise`. Pixels are kept as
    bytes; `look_up` makes numbers of them.
    """

    features: Num[Array, "classes exemplars dim"]
    key: Key[Array, ""]
    noise: Float[Array, ""]


class Sizes(NamedTuple):
    """How a source is divided: classes seen in training come first, held-out ones last, and
    likewise for the exemplars of each class."""

    classes: int
    holdout_classes: int
    exemplars: int
    holdout_exemplars: int
    dim: int

    def split(self, *, holdout_classes: bool = False, holdout_exemplars: bool = False) -> Split:
        """The ranges of training (default) or of held-out classes or exemplars."""
        classes = Range(self.classes, self.holdout_classes) if holdout_classes else Range(0, self.classes)
        exemplars = Range(self.exemplars, self.holdout_exemplars) if holdout_exemplars else Range(0, self.exemplars)
        return Split(classes, exemplars)


@runtime_checkable
class SourceLike(Protocol):
    """The interface of a source (`Gaussian`, `Glyphs`, `Omniglot`, `Tokens`, `Features`, `Functions`). What `build`
    makes is a `Bank`, or for functions a `FunctionBank`; only the source looks into it."""

    def check(self) -> None: ...
    def sizes(self) -> Sizes: ...
    def build(self) -> Any: ...
    def look_up(
        self, bank: Any, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]: ...


def check_counts(source: SourceLike) -> None:
    """Raises `InputError` unless there is something to train on and nothing is negative."""
    for name, least in (("classes", 1), ("exemplars", 1), ("holdout_classes", 0), ("holdout_exemplars", 0)):
        value = getattr(source, name)
        require(value >= least, f"source.{name}", value, f"must be at least {least}")
