"""The series that a tracker shows as its runs: one for each member, or one for each configuration."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.statistics import median_interval
from ebbtide.follow.tail import Tail

SEEDS = "seeds."
"""Varied fields of this name are seeds: members that differ in nothing else are of one configuration."""
Config = dict[str, str | int | float | bool]


class Place(NamedTuple):
    """A member by its run and its place in it."""

    tail: Tail
    member: int


class Row(NamedTuple):
    """The finite values of one evaluation, by name."""

    sequences: int
    values: dict[str, float]


class Series(NamedTuple):
    """What becomes one run of a tracker.

    `key` names it whatever the folder is called and however often it is followed. `group` is the configuration, `name`
    the member. Of a `cell` each row has the mean, the median, its interval and the number of the members `places`.
    """

    key: str
    group: str
    name: str
    config: Config
    places: list[Place]
    cell: bool

    def rows(self, after: int) -> list[Row]:
        """The rows later than `after` (sequences) that can no longer change, oldest first. A cell has a row once each
        of its members has made that evaluation, or its run has ended."""
        if not self.cell:
            tail, member = self.places[0]
            new = np.flatnonzero(tail.sequences > after)
            curves = tail.curves(member) if len(new) else {}
            return [_row(int(tail.sequences[i]), {name: curve[i] for name, curve in curves.items()}) for i in new]
        tails = {id(place.tail): place.tail for place in self.places}.values()
        open_ends = [int(tail.sequences[-1]) if len(tail.sequences) else -1 for tail in tails if not tail.finished]
        made = np.unique(np.concatenate([tail.sequences for tail in tails]))
        ready = made[(made > after) & (made <= min(open_ends, default=np.inf))]
        if not len(ready):
            return []
        found: dict[str, list[np.ndarray]] = {}
        for tail, member in self.places:
            at = np.minimum(np.searchsorted(tail.sequences, ready), len(tail.sequences) - 1)
            there = tail.sequences[at] == ready
            for name, curve in tail.curves(member).items():
                found.setdefault(name, []).append(np.where(there, curve[at], np.nan))
        columns = {f"{name}/{what}": column for name, values in found.items() for what, column in _summaries(values)}
        return [_row(int(at), {name: column[i] for name, column in columns.items()}) for i, at in enumerate(ready)]


def _summaries(values: list[np.ndarray]) -> list[tuple[str, Float[np.ndarray, " row"]]]:
    return list(summary(np.stack(values).astype(np.float64)).items())


def summary(values: Float[np.ndarray, "member row"]) -> dict[str, Float[np.ndarray, " row"]]:
    """In every row the mean and the median of the members that are finite, the ends `low` and `high` of the 95 %
    interval of the median (nan with fewer than six), and their number `n`."""
    there = np.isfinite(values)
    out = {name: np.full(values.shape[1], np.nan) for name in ("mean", "median", "low", "high")}
    for kept in np.unique(there, axis=1).T:
        rows = (there == kept[:, None]).all(axis=0)
        inside = values[kept][:, rows]
        if len(inside):
            out["mean"][rows], out["median"][rows] = inside.mean(axis=0), np.median(inside, axis=0)
            out["low"][rows], out["high"][rows] = median_interval(inside)
    return out | {"n": there.sum(axis=0).astype(np.float64)}


def _row(at: int, values: dict[str, Any]) -> Row:
    return Row(at, {name: float(value) for name, value in values.items() if np.isfinite(value)})


def key_of(places: Iterable[Place], cell: bool) -> str:
    """A name of 32 hexadecimal digits that follows from what the members compute and when their runs were made: a run
    that was moved keeps it, and one that was trained again has another."""
    parts = [[tail.header.digest, tail.header.created, member] for tail, member in places]
    return hashlib.sha256(msgspec.json.encode([parts, cell])).hexdigest()[:32]


def series_of_run(tail: Tail, name: str, per: str) -> list[Series]:
    """The series of one run: of its members, or of the members that differ in nothing but seeds."""
    members = range(tail.header.spec["members"])
    cells: dict[str, list[int]] = {}
    for member in members:
        cells.setdefault(cell_words(varied(tail, member)), []).append(member)
    found = []
    for words, inside in cells.items():
        group = f"{name} {words}" if len(cells) > 1 else name
        if per == "cell":
            found.append(make_series(group, group, [Place(tail, member) for member in inside], cell=True))
        else:
            found += [make_series(group, f"{name}/{member}", [Place(tail, member)], cell=False) for member in inside]
    return found


def make_series(group: str, name: str, places: list[Place], *, cell: bool) -> Series:
    """The series of these members, with its key and its config."""
    return Series(key_of(places, cell), group, name, config_of(places, cell), places, cell)


def varied(tail: Tail, member: int) -> dict[str, float]:
    """A member's own values of the varied fields."""
    return {name: values[member] for name, values in (tail.header.spec.get("vary") or {}).items()}


def cell_words(values: dict[str, Any]) -> str:
    """The values that are no seeds as text: `optimizer.lr 0.001, source.noise 0.1`."""
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items() if not name.startswith(SEEDS))


def config_of(places: list[Place], cell: bool) -> Config:
    """The spec by dotted names with the member's own values, and which member of which run this is; of a cell without
    the seeds in which its members differ."""
    tail, member = places[0]
    out = flatten({name: value for name, value in tail.header.spec.items() if name != "vary"})
    own = varied(tail, member)
    if cell:
        for name in (name for name in own if name.startswith(SEEDS)):
            out.pop(name, None)
        own = {name: value for name, value in own.items() if not name.startswith(SEEDS)}
        numbers = [_number(one.tail, one.member) for one in places]
        out |= {"members of the cell": len(places), "numbers": str(numbers)}
    else:
        out |= {"member": member, "number": _number(tail, member)}
    return out | own | {"digest": tail.header.digest, "created": tail.header.created}


def _number(tail: Tail, member: int) -> int:
    """The i of the member's seeds (see `Spec.number`)."""
    own = varied(tail, member).get("seeds.member")
    return int((tail.header.spec.get("seeds") or {}).get("member", 0)) + member if own is None else int(own)


def flatten(data: dict[str, Any], before: str = "") -> Config:
    """Nested fields by dotted names; lists, and values that are absent, as text."""
    out: Config = {}
    for name, value in data.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{before}{name}.")
        else:
            out[f"{before}{name}"] = value if isinstance(value, str | int | float | bool) else _text(value)
    return out


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else msgspec.json.encode(value, enc_hook=str).decode()
