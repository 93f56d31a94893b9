"""The axes of sweeps: values, ranges and seeds, combined by product, zip and chain."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec

from ebbtide.errors import require

Point = dict[str, Any]
"""A point of the grid: values by dotted field of the spec."""

MOST_POINTS = 1_000_000
MEMBER = "seeds.member"
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_POINTS)]
Range = tuple[float, float, Count]


class Axis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A list of points of a grid, written in exactly one of these ways:

    - `field` with `values`: the field takes each value;
    - `field` with `linear = [first, last, n]` or `log = [first, last, n]`: n values, both ends included,
      at equal distances or equal ratios;
    - `seeds = n`: n independent repetitions, members 0 to n - 1 (field `seeds.member`);
    - `zip = [axes]`: the i-th point joins the i-th point of each axis (all equally long);
    - `product = [axes]`: every combination, the last axis running fastest;
    - `chain = [axes]`: one axis after the other; a point without a field has the base's value there.

    >>> axis = eb.Axis(product=(eb.Axis(field="optimizer.lr", log=[1e-4, 1e-2, 3]), eb.Axis(seeds=2)))
    >>> axis.size(), next(axis.points())
    (6, {'optimizer.lr': 0.0001, 'seeds.member': 0})
    """

    field: str | None = None
    values: list[Any] | None = None
    linear: Range | None = None
    log: Range | None = None
    seeds: Count | None = None
    zip: "tuple[Axis, ...] | None" = None
    product: "tuple[Axis, ...] | None" = None
    chain: "tuple[Axis, ...] | None" = None

    def check(self, name: str = "axes") -> None:
        """Raises `InputError` in one line unless the axis is written in exactly one way that gives points."""
        given = [way for way in ("values", "linear", "log", "seeds", "zip", "product", "chain") if getattr(self, way)]
        ways = "one of values, linear, log (with field), seeds, zip, product or chain"
        require(len(given) == 1, name, ", ".join(given) or "nothing", f"must have exactly {ways}, and not empty")
        needs = given[0] in ("values", "linear", "log")
        require((self.field is not None) == needs, f"{name}.field", self.field, f"goes with {ways}")
        for way in ("linear", "log"):
            if (found := getattr(self, way)) is not None:
                finite = math.isfinite(found[0]) and math.isfinite(found[1])
                require(finite, f"{name}.{way}", found, "must be [first, last, how many], finite")
        if self.log is not None:
            require(min(self.log[:2]) > 0, f"{name}.log", self.log, "both ends must be larger than 0")
        for way in ("zip", "product", "chain"):
            for i, part in enumerate(getattr(self, way) or ()):
                part.check(f"{name}.{way}.{i}")
        if self.zip is not None:
            lengths = [part.size() for part in self.zip]
            require(len(set(lengths)) == 1, f"{name}.zip", lengths, "all axes of a zip must be equally long")
        if not self.chain:
            fields = self.every_field()
            twice = repeated(fields)
            require(not twice, f"{name}.field", twice[:1], "is given twice in one point")

    def size(self) -> int:
        """The number of points."""
        if self.zip is not None:
            return self.zip[0].size()
        if self.product is not None:
            return math.prod(part.size() for part in self.product)
        if self.chain is not None:
            return sum(part.size() for part in self.chain)
        ranged = self.linear or self.log
        return self.seeds or (ranged[2] if ranged else len(self.values or []))

    def numbers(self) -> list[Any]:
        """The values of an axis over one field, in order."""
        if self.seeds is not None:
            return list(range(self.seeds))
        if self.linear is not None:
            first, last, n = self.linear
            return [first + (last - first) * i / max(n - 1, 1) for i in range(n)]
        if self.log is not None:
            first, last, n = self.log
            inner = [_short(first * (last / first) ** (i / (n - 1))) for i in range(1, n - 1)]
            return [first, *inner, last][:n]
        return list(self.values or [])

    def points(self) -> Iterator[Point]:
        """All points, in order."""
        if self.zip is not None:
            for parts in zip(*(part.points() for part in self.zip), strict=True):
                yield _join(parts)
        elif self.product is not None:
            yield from product(self.product)
        elif self.chain is not None:
            for part in self.chain:
                yield from part.points()
        else:
            name = MEMBER if self.seeds is not None else self.field
            assert name is not None
            for value in self.numbers():
                yield {name: value}

    def every_field(self) -> list[str]:
        """The fields that the points set, in the order of their first appearance; in a zip or product with
        repetitions."""
        inner = self.zip or self.product or self.chain
        if inner is None:
            return [MEMBER if self.seeds is not None else str(self.field)]
        found = [name for part in inner for name in part.every_field()]
        return list(dict.fromkeys(found)) if self.chain else found


def product(axes: tuple[Axis, ...]) -> Iterator[Point]:
    """Every combination of the axes' points, the last axis running fastest; one empty point without axes."""
    for parts in itertools.product(*(list(axis.points()) for axis in axes)):
        yield _join(parts)


def repeated(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, each once, in the order of their first appearance."""
    return [name for name, times in Counter(names).items() if times > 1]


def _join(parts: tuple[Point, ...]) -> Point:
    return {name: value for part in parts for name, value in part.items()}


def _short(value: float) -> float:
    """The value rounded to twelve digits: ranges by ratio give 9.999999999999999e-05 for 1e-4."""
    return float(f"{value:.12g}")
