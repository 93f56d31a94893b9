"""Splits: which part of which cells theories are fitted to, and which part they are scored on.

They are fixed here, before any sweep is trained, and no time of a cell and member is ever in both parts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ebbtide.contest.cells import Cell
from ebbtide.contest.events import events_of, peak_stretch
from ebbtide.errors import InputError, nearest, require

SPLITS = {
    "later": "fitted to the first half of log-time of every cell, scored on the rest",
    "elsewhere": "fitted to the cells in the smaller half of an axis, scored on those in the larger half",
    "early": "fitted to the time before the generalising fraction of a cell is near its peak, scored on what follows",
    "seeds": "fitted to the first 40 % of the members of every cell, scored on the others: the noise floor",
}
"""The splits, each with what it does."""
FITTED_SEEDS = 0.4
"""The share of members that theories are fitted to in the split `seeds`."""
FEWEST_DIVIDED = 5
"""The least number of members that the split `seeds` divides: two of them are fitted, three scored."""
FEWEST_TIMES = 2
"""The least number of times in a part of a cell: with one there is no log-time to average over."""


class Parts(NamedTuple):
    """A cell, and which of its times are fitted and which are scored; all False: none of this cell."""

    cell: Cell
    fitted: Bool[np.ndarray, " time"]
    scored: Bool[np.ndarray, " time"]


class Split(NamedTuple):
    """The parts of all cells, and the members whose means are fitted and scored: the same in every cell.

    Args:
        name: one of `SPLITS`.
        axis: the axis of the split `elsewhere`, else empty.
        parts: one for each cell.
        fitted_members, scored_members: places on the cells' first axis.
    """

    name: str
    axis: str
    parts: tuple[Parts, ...]
    fitted_members: Int[np.ndarray, " fitted"]
    scored_members: Int[np.ndarray, " scored"]

    def words(self) -> str:
        """What is fitted and what is scored."""
        on = f" {self.axis}" if self.axis else ""
        return SPLITS[self.name].replace(" an axis", f" the axis{on}")


def make_split(cells: Sequence[Cell], name: str, axis: str | None = None) -> Split:
    """The split `name` of some cells; a member that has not finished in one of them takes part in none.

    Args:
        cells: the cells of a sweep.
        name: one of `SPLITS`.
        axis: the axis of the split `elsewhere`; None: the only one.

    Raises:
        InputError: there is no such split or axis, fewer than two members have finished in all cells, or one of the two
            parts would be empty.
    """
    check_split(name)
    require(axis is None or name == "elsewhere", "axis", axis, "goes with the split elsewhere")
    require(len(cells) > 0, "cells", 0, "must be one at least")
    members = finished_members(cells)
    allowed = "must be two at least that have finished in every cell, or nothing tells what chance does"
    require(len(members) >= 2, "members", len(members), allowed)
    fitted = scored = members
    if name == "later":
        parts = [_later(cell) for cell in cells]
    elif name == "elsewhere":
        axis = _axis(cells, axis)
        last = _last_fitted(cells, axis)
        parts = [_whole(cell, cell.facts.config[axis] <= last, cell.facts.config[axis] > last) for cell in cells]
    elif name == "early":
        parts = [_early(cell, members) for cell in cells]
        allowed = "has no cell in which the generalising fraction passes one half and falls again before the end"
        require(any(one.scored.any() for one in parts), "split", name, allowed)
    else:
        allowed = f"needs {FEWEST_DIVIDED} members that have finished in every cell; here are {len(members)}"
        require(len(members) >= FEWEST_DIVIDED, "split", name, allowed)
        count = math.floor(FITTED_SEEDS * len(members))
        fitted, scored = members[:count], members[count:]
        parts = [_whole(cell, True, True) for cell in cells]
    parts = [_with_enough_times(one) for one in parts]
    for part in ("fitted", "scored"):
        there = any(getattr(one, part).any() for one in parts)
        require(there, "split", name, f"leaves no cell with {FEWEST_TIMES} times that are {part}")
    return Split(name, axis or "", tuple(parts), fitted, scored)


def check_split(name: str) -> None:
    """Raises `InputError` where there is no split of this name."""
    require(name in SPLITS, "split", name, f"must be one of {', '.join(SPLITS)}{nearest(name, SPLITS)}")


def finished_members(cells: Sequence[Cell]) -> Int[np.ndarray, " member"]:
    """The places of the members that have finished in every cell."""
    least = min(len(cell.fractions) for cell in cells)
    return np.flatnonzero([all(np.isfinite(cell.fractions[m]).all() for cell in cells) for m in range(least)])


def _axis(cells: Sequence[Cell], axis: str | None) -> str:
    """The axis that divides the cells: it has two numbers at least."""
    shared = [name for name in cells[0].facts.config if all(name in cell.facts.config for cell in cells)]
    known = [name for name in shared if len({cell.facts.config[name] for cell in cells}) > 1]
    require(len(known) > 0, "split", "elsewhere", "needs an axis with two numbers at least")
    if axis is None:
        require(len(known) == 1, "axis", None, f"must be one of {', '.join(known)}")
        return known[0]
    if axis not in known:
        raise InputError("axis", axis, f"must be one of {', '.join(known)}{nearest(axis, known)}")
    return axis


def _last_fitted(cells: Sequence[Cell], axis: str) -> float:
    """The largest value of the smaller half; of an odd number of values the middle one is in this half."""
    values = sorted({cell.facts.config[axis] for cell in cells})
    return values[(len(values) + 1) // 2 - 1]


def _whole(cell: Cell, fitted: bool, scored: bool) -> Parts:
    count = len(cell.sequences)
    return Parts(cell, np.full(count, fitted), np.full(count, scored))


def _later(cell: Cell) -> Parts:
    times = np.log(np.asarray(cell.sequences, np.float64))
    fitted = times <= (times[0] + times[-1]) / 2
    return Parts(cell, fitted, ~fitted)


def _early(cell: Cell, members: Int[np.ndarray, " member"]) -> Parts:
    """A cell that does not peak is fitted as a whole: there is nothing in it to foretell."""
    mean = cell.fractions[members].mean(axis=0)
    peak = events_of(cell.sequences, mean)["peak"]
    if peak is None or peak.censored != "no":
        return _whole(cell, True, False)
    fitted = np.arange(len(cell.sequences)) < peak_stretch(mean)[0]
    return Parts(cell, fitted, ~fitted)


def _with_enough_times(parts: Parts) -> Parts:
    """The parts without one that has fewer than `FEWEST_TIMES` times."""
    cell, fitted, scored = parts
    nothing = np.zeros(len(cell.sequences), bool)
    enough = [one if one.sum() >= FEWEST_TIMES else nothing for one in (fitted, scored)]
    return Parts(cell, *enough)
