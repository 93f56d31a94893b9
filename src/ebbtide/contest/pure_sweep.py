"""Pure runs: the training of a cell with data that one strategy alone can solve.

Theories that gate by regret or by cost see how fast each strategy is learnt by itself, and nothing of the cell's own
training. `in_context`: labels are drawn anew for every sequence, so that weights cannot hold them; where classes share
labels, which then would not tell classes apart, there are so many classes that none comes often (`ARRAY`).
`in_weights`: the context has no exemplar of the query's class, so that it cannot help. All else is the cell's. They are
trained as an ordinary sweep, so what is there is never trained again, and what was interrupted is continued.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from ebbtide.contest.cells import Cell
from ebbtide.contest.theory import Facts
from ebbtide.errors import InputError, require
from ebbtide.evaluation.summary import Curves
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.driver import SweepProgress, run_sweep
from ebbtide.sweeps.results import Results
from ebbtide.sweeps.sweep import Sweep
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence, Shared
from ebbtide.traced import kind_name
from ebbtide.training.spec import Spec

PURE = "pure"
"""The folder of the pure runs in that of a contest, and the name of their sweep."""
MEMBERS = 2
"""Members of every pure run: theories read their mean."""
KINDS = ("in_context", "in_weights")
ARRAY = 2**24
"""Numbers in the array of exemplars of a source with so many classes that weights cannot hold them: 64 MiB."""


def pure_spec(spec: Spec, kind: str) -> Spec:
    """The spec of a cell's pure run of one of `KINDS`, of one member. Raises `InputError` for a task without one.

    >>> pure_spec(eb.Spec(), "in_context").task.labels
    PerSequence(count=1600, holdout_pairs=0)
    >>> pure_spec(eb.Spec(), "in_weights").task.burst
    0
    """
    task, source = spec.task, spec.source
    if not isinstance(task, FewShot):
        raise InputError("task", kind_name(task), "has no pure runs: they are known of few_shot")
    if kind == "in_context" and isinstance(task.labels, Shared):
        allowed = "has no pure run in context with shared labels: it cannot have more classes"
        require(isinstance(source, Gaussian), "source", kind_name(source), allowed)
        assert isinstance(source, Gaussian)
        classes = max(source.classes, ARRAY // (source.exemplars * source.dim))
        source, evaluators = replace(source, classes=classes), ("train", "icl")
    elif kind == "in_context":
        labels = PerSequence(count=task.labels.total(source.stand_in().sizes().classes))
        task, evaluators = replace(task, labels=labels), ("train", "icl")
    else:
        task, evaluators = replace(task, burst=0, distractor=False, rest="no_support", p_bursty=1.0), ("train", "iwl")
    pure = replace(
        spec,
        task=task,
        source=source,
        evaluators=evaluators,
        members=1,
        vary={},
        keep_best=None,
        stopping=None,
        start=None,
        schedule=replace(spec.schedule, checkpoints=2),
    )
    pure.check()
    return pure


def train_pure(
    cells: Sequence[Cell],
    folder: Path,
    report: Callable[[SweepProgress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Cell]:
    """The cells with the curves of their pure runs in `Facts.pure`, after training those that are not in `folder` yet.

    Raises:
        InputError: a cell has no pure runs, or one of them failed too often.
        Interrupted: Ctrl-C or SIGTERM asked to stop; everything has been saved.
    """
    points = [_point(pure_spec(_spec(cell.facts), kind)) for cell in cells for kind in KINDS]
    axes = (Axis(chain=tuple(_axis(point) for point in points)), Axis(seeds=MEMBERS))
    results = Results(run_sweep(Sweep(name=PURE, axes=axes), folder, report=report, say=say).path)
    rows = [results.rows[i : i + MEMBERS] for i in range(0, len(results.rows), MEMBERS)]
    curves = [_curves(results, group) for group in rows]
    return [
        cell._replace(facts=cell.facts._replace(pure=dict(zip(KINDS, curves[len(KINDS) * i :], strict=False))))
        for i, cell in enumerate(cells)
    ]


def _spec(facts: Facts) -> Spec:
    if facts.spec is None:
        raise InputError("spec", facts.name, "is not known of a foreign run, so that it has no pure runs")
    return facts.spec


def _point(spec: Spec) -> dict[str, Any]:
    """Every field of a spec, as a point of a sweep whose base is the default spec."""
    data = spec.builtins()
    return {name: value for name, value in data.items() if name not in ("members", "vary")}


def _axis(point: dict[str, Any]) -> Axis:
    return Axis(zip=tuple(Axis(field=name, values=[value]) for name, value in point.items()))


def _curves(results: Results, rows: Sequence[Any]) -> Curves:
    """The curves of a pure run [member, evaluation], from its rows."""
    found: list[Curves] = []
    for row in rows:
        curves = results.metrics(row)
        require(curves is not None, "pure", row.state, f"run in {results.folder.path}: see ebbtide sweep status")
        assert curves is not None
        found.append({n: one[row.place : row.place + 1] if one.ndim == 2 else one for n, one in curves.items()})
    first = found[0]
    return {n: np.concatenate([c[n] for c in found]) if one.ndim == 2 else one for n, one in first.items()}
