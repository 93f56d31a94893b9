"""The interface of sources: a bank of exemplars, and the ranges that split it into training and held-out parts."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key, Num, UInt

from ebbtide.errors import require


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


@runtime_checkable
class SourceLike(Protocol):
    """The interface of a source (`Gaussian`, `Glyphs`, `Omniglot`, `Tokens`, `Features`, `Functions`). `build` returns
    a `Bank` (`FunctionBank` for functions), whose content only the source itself uses."""

    def check(self) -> None: ...
    def sizes(self) -> Sizes: ...
    def build(self) -> Any: ...
    def look_up(
        self, bank: Any, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]: ...


def check_counts(source: SourceLike) -> None:
    """Raises `InputError` unless no count is negative and something is left to train on."""
    for name, least in (("classes", 1), ("exemplars", 1), ("holdout_classes", 0), ("holdout_exemplars", 0)):
        value = getattr(source, name)
        require(value >= least, f"source.{name}", value, f"must be at least {least}")
