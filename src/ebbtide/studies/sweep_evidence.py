"""Evidence of a sweep: the members of its arms as arrays."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ebbtide.evaluation.summary import Curves
from ebbtide.studies.evidence import AXES, Arm, Evidence
from ebbtide.sweeps.results import Results
from ebbtide.sweeps.rows import Row


def evidence_of_sweep(results: Results, arms: Iterable[str]) -> Evidence:
    """The evidence of a sweep whose points are the members of each arm in turn, in equal parts."""
    names, rows = list(arms), results.rows
    each = len(rows) // len(names)
    return Evidence({name: _arm_of(results, rows[i * each : (i + 1) * each]) for i, name in enumerate(names)})


def _arm_of(results: Results, rows: list[Row]) -> Arm:
    states = tuple(row.state for row in rows)
    runs = tuple(
        (row.place, results.folder.run(row.task) if row.task and row.state == "finished" else None) for row in rows
    )
    measured = [(row, curves) for row in rows if (curves := results.metrics(row)) is not None]
    if not measured:
        return Arm(states=states, runs=runs)
    some, longest = max(measured, key=lambda one: len(one[1]["sequences"]))
    blank = {name: np.full_like(curve[0], np.nan) for name, curve in longest.items() if name not in AXES}
    members = [blank if (c := results.metrics(row)) is None else _pad_curves(c, row.place, blank) for row in rows]
    curves = {name: longest[name] for name in AXES} | {name: np.stack([one[name] for one in members]) for name in blank}
    run: Any = results.folder.run(some.task or "")
    return Arm(curves, run.chance(), states, runs, headline=run.header.instruments[0].headline)


def _pad_curves(curves: Curves, member: int, blank: Curves) -> Curves:
    """A member's curves, as long as `blank`: one whose run ended early keeps its model, and trains no more."""
    own = {}
    for name, longest in blank.items():
        curve = curves[name][member]
        rest = np.nan if name == "train_loss" else curve[-1]
        own[name] = np.concatenate([curve, np.full(len(longest) - len(curve), rest, curve.dtype)])
    return own
