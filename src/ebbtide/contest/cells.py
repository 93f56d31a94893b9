"""Cells: the configurations of a sweep, each with the strategies of its members over training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float, Num

from ebbtide import __version__
from ebbtide.analysis.pool_fractions import pool_fractions
from ebbtide.contest.mixtures import few_shot_fractions
from ebbtide.contest.theory import STRATEGIES, Facts
from ebbtide.errors import InputError, require
from ebbtide.runs import atomic
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import SCHEMA, DamagedError, sign, unsign
from ebbtide.sweeps.plan import spec_at
from ebbtide.sweeps.results import Results
from ebbtide.sweeps.rows import Row
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Fixed, Shared
from ebbtide.tasks.markov import Markov
from ebbtide.traced import kind_name
from ebbtide.training.spec import Spec

LARGEST_KEPT = 1_000_000
SEEDS = "seeds."
"""How the names of axes begin whose values are the members of a cell."""


class Cell(NamedTuple):
    """One configuration of a sweep, and what its members did.

    Args:
        facts: what may be known of the cell without looking at its training.
        sequences: times of the evaluations or checkpoints, in sequences, increasing, all above 0.
        fractions: the share of each of `theory.STRATEGIES` in the behaviour of every member; nan for a member that has
            not finished.
    """

    facts: Facts
    sequences: Num[np.ndarray, " time"]
    fractions: Float[np.ndarray, "member time strategy"]


Measured = tuple[np.ndarray, np.ndarray]
"""Times in sequences, and the fractions [time, strategy] of one member at them."""


def cells_of(results: Results, report: Callable[[str], Any] | None = None, keep: Path | None = None) -> list[Cell]:
    """The cells of a sweep, in the order of its points; member i of each has the i-th seeds of the sweep.

    The fractions of few-shot models follow from the recorded evaluators (`mixtures.few_shot_fractions`), those of
    models of streams from the kept checkpoints (`analysis.pool_fractions`).

    Args:
        results: the results of a sweep, which may still be running.
        report: is told of every cell, in words, before its fractions are measured.
        keep: a folder in which fractions from checkpoints are kept, so that they are measured once.

    Raises:
        InputError: no member has finished, the task has no fractions of strategies, or the members of a cell were
            evaluated at different times.
    """
    axes = [name for name in results.axes if not name.startswith(SEEDS)]
    seeds = [name for name in results.axes if name.startswith(SEEDS)]
    by_cell: dict[str, list[Row]] = {}
    for row in results.rows:
        by_cell.setdefault(_cell_name(row, axes) or results.folder.sweep.name, []).append(row)
    places = list(dict.fromkeys(tuple(str(row.axes[name]) for name in seeds) for row in results.rows))
    specs = _specs(results, axes)
    cells = []
    for name, rows in by_cell.items():
        if report:
            report(f"cell {len(cells) + 1} of {len(by_cell)}: {name}")
        config = {axis: float(rows[0].axes[axis]) for axis in axes if _is_number(rows[0].axes[axis])}
        measured: dict[int, Measured] = {}
        for row in rows:
            if row.state == "finished":
                place = places.index(tuple(str(row.axes[axis]) for axis in seeds))
                measured[place] = _measure(results, row, specs[name], keep)
        if measured:
            cells.append(_cell(Facts(name, config, specs[name]), measured, len(places)))
    require(len(cells) > 0, "sweep", str(results.folder.path), "has no member that has finished")
    return cells


def _cell_name(row: Row, axes: list[str]) -> str:
    """`source.pool = 64, model.width = 32`."""
    return ", ".join(f"{name} = {_short(row.axes[name])}" for name in axes)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _specs(results: Results, axes: list[str]) -> dict[str, Spec]:
    """The spec of every cell by its name; its seeds are those of the base."""
    base = results.folder.sweep.builtins()
    specs: dict[str, Spec] = {}
    for row, point in zip(results.rows, results.folder.sweep.points(), strict=True):
        name = _cell_name(row, axes) or results.folder.sweep.name
        if name not in specs:
            specs[name] = spec_at(base, {field: value for field, value in point.items() if field in axes})
    return specs


def _measure(results: Results, row: Row, spec: Spec, keep: Path | None) -> Measured:
    """The times and the fractions of a finished member."""
    assert row.task is not None
    run = results.folder.run(row.task)
    assert run is not None
    if isinstance(spec.task, Markov):
        return _from_checkpoints(run, row, keep)
    if not isinstance(spec.task, FewShot):
        allowed = "has no strategy fractions: they are known of few_shot and markov"
        raise InputError("task", kind_name(spec.task), allowed)
    allowed = "must be fixed or shared: else a class has no label of its own to memorise"
    require(isinstance(spec.task.labels, Fixed | Shared), "task.labels", kind_name(spec.task.labels), allowed)
    curves = results.metrics(row)
    assert curves is not None
    own = {name: values[row.place : row.place + 1] for name, values in curves.items() if values.ndim == 2}
    return curves["sequences"], few_shot_fractions(own, run.chance())[0]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fractions of a member in a file: times in sequences, and the fractions [time, strategy] at them."""

    schema: int
    version: str
    sequences: list[int]
    fractions: list[list[float]]


def _from_checkpoints(run: RunFolder, row: Row, keep: Path | None) -> Measured:
    """The times and fractions of a member by its kept checkpoints; a file in `keep` has the name of its task, which is
    a hash of what the task computes."""
    file = None if keep is None else keep / f"{row.task}-{row.place}.json"
    if file is not None and file.exists():
        try:
            kept = unsign(read_bounded(file.parent, file.name, LARGEST_KEPT), Kept, str(file.parent), file.name)
        except DamagedError:
            kept = None
        if kept is not None and kept.version == __version__:
            return np.asarray(kept.sequences), np.asarray(kept.fractions, np.float64).reshape(-1, len(STRATEGIES))
    sequences, fractions = pool_fractions(run.snapshot(), row.place)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_file(file, sign(Kept(SCHEMA, __version__, sequences.tolist(), fractions.tolist())))
    return sequences, fractions


def _cell(facts: Facts, measured: dict[int, Measured], members: int) -> Cell:
    """A cell of the members by their places; at 0 sequences nothing is learnt, and there is no log-time."""
    times = next(iter(measured.values()))[0]
    for own, _ in measured.values():
        allowed = "has members that were evaluated at different times"
        require(np.array_equal(own, times), "cell", facts.name, allowed)
    after = np.asarray(times) > 0
    fractions = np.full((members, int(after.sum()), len(STRATEGIES)), np.nan)
    for place, (_, own) in measured.items():
        fractions[place] = own[after]
    return Cell(facts, np.asarray(times)[after], fractions)
