"""A sweep as a row of the list: its description and plans read without JAX, and the rows of its tasks added up."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ebbtide.dashboard.places import FAILURES, PLANS, RUNS, SWEEP, Root
from ebbtide.dashboard.rows import BROKEN, Row, Tally, Tasks, changed_at, tally
from ebbtide.errors import InputError, one_line
from ebbtide.runs.folder import inside
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import DamagedError, unsign
from ebbtide.studies.verdict import VERDICT, verdict_in

LARGEST_LISTED = 2**26
"""Largest number of bytes of a sweep's description and plans that are read for the list."""


class _Origin(msgspec.Struct, frozen=True):
    experiment: str
    preset: str


class _Sweep(msgspec.Struct, frozen=True):
    """The fields of a sweep's description that the list shows."""

    name: str
    study: str | None = None
    preset: str = "quick"
    tries: int = 3
    origin: _Origin | None = None


class _Stored(msgspec.Struct, frozen=True):
    schema: int
    sweep: _Sweep


class _Task(msgspec.Struct, frozen=True):
    name: str
    addresses: list[str]


class _Group(msgspec.Struct, frozen=True):
    spec: dict[str, msgspec.Raw]
    tasks: list[_Task]


class _Plan(msgspec.Struct, frozen=True):
    schema: int
    groups: list[_Group]


class TaskPlan(NamedTuple):
    """A task as it was planned: the name of its run, its members, the sequences that each shall see (None: unknown)."""

    name: str
    members: int
    total: int | None


class SweepPlans(NamedTuple):
    """What the list knows of a sweep before its runs are read."""

    description: _Sweep
    tasks: list[TaskPlan]


def read_plans(path: Path) -> SweepPlans:
    """The description of a sweep and its tasks. Raises one of `BROKEN` where they are damaged or very large."""
    data = read_bounded(path, SWEEP, LARGEST_LISTED)
    description, room = unsign(data, _Stored, str(path), SWEEP).sweep, LARGEST_LISTED - len(data)
    tasks: dict[str, TaskPlan] = {}
    for file in inside(path / PLANS):
        if file.name.endswith(".json") and not file.name.startswith("."):
            data = read_bounded(path, f"{PLANS}/{file.name}", room)
            room -= len(data)
            for group in unsign(data, _Plan, str(path), f"{PLANS}/{file.name}").groups:
                for task in group.tasks:
                    tasks[task.name] = TaskPlan(task.name, len(task.addresses), _sequences(group))
    bad = [name for name in tasks if not (name.isalnum() and name.isascii() and len(name) <= 64)]
    if bad:
        raise DamagedError(f"{PLANS}: {one_line(repr(bad[0]))} is no name of a task")
    return SweepPlans(description, list(tasks.values()))


def _sequences(group: _Group) -> int | None:
    """Sequences of each member of a group."""
    try:
        found: Any = msgspec.json.decode(group.spec.get("sequences", b"null"))
    except (msgspec.MsgspecError, ValueError):
        return None
    return found if type(found) is int and 0 < found < 2**32 else None


def task_states(
    root: Root, path: Path, plans: SweepPlans, row_of: Callable[[str, Path], Row | None]
) -> Iterable[tuple[TaskPlan, Row | None, str]]:
    """Every task with the row of its run (None before it has begun) and its state: `done`, `running`, `waiting`,
    `quarantined`. `row_of` reads a run, or knows it already."""
    root.check_runs_of(path)
    failing = {one.name for one in inside(path / FAILURES)}
    for task in plans.tasks:
        row = row_of(f"{path.name}/{RUNS}/{task.name}", path / RUNS / task.name)
        if row is not None and row.status in ("finished", "diverged"):
            state = "done"
        elif row is not None and row.status == "running":
            state = "running"
        else:
            tries = count_tries(path, task.name, row) if task.name in failing else 0
            state = "quarantined" if tries >= plans.description.tries else "waiting"
        yield task, row, state


class _Failure(msgspec.Struct, frozen=True):
    sequences: int


def count_tries(path: Path, task: str, row: Row | None) -> int:
    """The number of failed tries of a task since it last made progress."""
    at, count = (row.sequences or 0) if row else 0, 0
    for file in inside(path / FAILURES / task):
        if not file.name.startswith("."):
            name = f"{FAILURES}/{task}/{file.name}"
            try:
                count += unsign(read_bounded(path, name, 2**20), _Failure, str(path), name).sequences >= at
            except (DamagedError, InputError):
                count += at == 0
    return count


def sweep_row(name: str, path: Path, plans: SweepPlans, tasks: Iterable[tuple[TaskPlan, Row | None, str]]) -> Row:
    """The row of a sweep. Counts and means are over its members; a verdict is shown where `verdict_of` finds one."""
    sweep, states = plans.description, {"done": 0, "running": 0, "waiting": 0, "quarantined": 0}
    members, done, total, known, rate, left, changed, damaged = 0, 0.0, 0.0, 0, 0.0, 0.0, 0.0, 0
    sums: dict[str, list[tuple[float, int]]] = {"icl": [], "iwl": [], "loss": []}
    for task, row, state in tasks:
        states[state] += 1
        members += task.members
        changed = max(changed, row.changed if row else 0.0)
        damaged += row is not None and row.kind == "damaged"
        if task.total is not None:
            known += task.members
            total += task.total * task.members
            done += (task.total if state == "done" else (row.sequences or 0) if row else 0) * task.members
        if row is not None and row.status == "running":
            rate += row.rate or 0.0
        if state != "done" and task.total is not None:
            left += (task.total - ((row.sequences or 0) if row else 0)) * task.members
        for key, pairs in sums.items():
            value = getattr(row, key) if row else None
            if value is not None:
                pairs.append((value, task.members))
    verdict, problem = verdict_of(path)
    if damaged and not problem:
        problem = f"{damaged} of {len(plans.tasks)} runs cannot be read"
    status = status_of_tasks(states)
    origin = sweep.origin
    return Row(
        name=name,
        kind="sweep",
        study=one_line(sweep.study or ""),
        experiment=one_line(origin.experiment if origin else ""),
        preset=one_line(origin.preset if origin else sweep.preset if sweep.study else ""),
        status=status,
        status_words=", ".join(f"{n} {words(state)}" for state, n in states.items() if n) or "nothing planned",
        members=members,
        sequences=done / known if known else None,
        total=total / known if known else None,
        rate=rate or None,
        eta=left / rate if rate else None,
        icl=mean_of(sums["icl"]),
        iwl=mean_of(sums["iwl"]),
        loss=mean_of(sums["loss"]),
        verdict=verdict,
        changed=changed or changed_at(path / SWEEP),
        problem=problem,
        tasks=Tasks(**states),
    )


def words(state: str) -> str:
    """The state of a task in plain words."""
    return "set aside" if state == "quarantined" else state


def status_of_tasks(states: dict[str, int]) -> str:
    """The status of a sweep: `running` while a task runs, `failed` where tasks are set aside, else `finished` or
    `interrupted`."""
    if states["running"]:
        return "running"
    if states["quarantined"]:
        return "failed"
    return "interrupted" if states["waiting"] or not states["done"] else "finished"


def mean_of(pairs: list[tuple[float, int]]) -> float | None:
    """The mean of values with weights."""
    weight = sum(n for _, n in pairs)
    return sum(value * n for value, n in pairs) / weight if weight else None


def verdict_of(path: Path) -> tuple[Tally | None, str]:
    """The numbers of claims of a sweep's verdict, and why they are not shown. A verdict that is older than the
    description is not counted here: whether it is still of this sweep, the sweep's report says."""
    try:
        verdict = verdict_in(path)
        if verdict is None:
            return None, ""
        if changed_at(path / VERDICT) < changed_at(path / SWEEP):
            return None, f"{VERDICT} is older than {SWEEP}: see the report"
        return tally(verdict), ""
    except BROKEN as error:
        return None, one_line(error.allowed if isinstance(error, InputError) else str(error))
