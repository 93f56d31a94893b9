"""A sweep's members as rows: axes, state, scalars, and the run that each was trained in. Importing this imports JAX."""

from pathlib import Path
from typing import Any

from ebbtide.dashboard.details import verdict_of
from ebbtide.dashboard.places import RUNS, Root
from ebbtide.dashboard.rows import BROKEN, reason
from ebbtide.errors import one_line
from ebbtide.pages.origin import known_sweep
from ebbtide.studies.comparison import find_verdict
from ebbtide.sweeps.results import SCALARS, Results

MOST_ROWS = 20_000
"""Largest number of members in one answer."""


def sweep_of(root: Root, name: str, path: Path) -> dict[str, Any]:
    """The answer to `/api/sweep`. Raises `InputError` where the folder holds no sweep that can be read."""
    root.check_runs_of(path)
    results = Results(path)
    sweep, rows = results.folder.sweep, results.table()
    begun = {row.task for row in results.rows if row.task and results.folder.run_path(row.task).is_dir()}
    names = [one for one in SCALARS if any(row[one] is not None for row in rows)]
    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
    verdict, problem = None, ""
    try:
        verdict = find_verdict(path)
    except BROKEN as error:
        problem = reason(error)
    known = known_sweep(sweep, verdict)
    arms = [arm for arm in known.arms for _ in range(len(rows) // len(known.arms))] if known and known.arms else []
    return {
        "name": name,
        "title": sweep.name,
        "study": known.study.name if known else one_line(sweep.study or ""),
        "experiment": known.experiment.name if known else "",
        "preset": known.preset if known else sweep.preset if sweep.study else "",
        "question": known.experiment.question if known else "",
        "axes": {axis: list(dict.fromkeys(row[axis] for row in rows)) for axis in results.axes},
        "arms": list(known.arms) if known else [],
        "scalars": names,
        "states": states,
        "members": len(rows),
        "rows": [
            {
                "axes": {axis: row[axis] for axis in results.axes},
                "arm": arms[i] if i < len(arms) else None,
                "state": row["state"],
                "task": own.task,
                "place": own.place,
                "run": f"{name}/{RUNS}/{own.task}" if own.task in begun else None,
                "scalars": {one: row[one] for one in names},
            }
            for i, (row, own) in enumerate(zip(rows[:MOST_ROWS], results.rows, strict=False))
        ],
        "shown": min(len(rows), MOST_ROWS),
        "verdict": verdict_of(verdict),
        "problem": problem,
    }
