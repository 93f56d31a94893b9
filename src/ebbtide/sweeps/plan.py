"""The plan of a sweep: its points grouped into members that share a program, and these, unless they exist already, into
tasks."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sweeps.axes import MEMBER, Point
from ebbtide.sweeps.sweep import Sweep
from ebbtide.traced import default_at, replace_at, value_at
from ebbtide.training.feasible import check_feasible
from ebbtide.training.fields import assign_all
from ebbtide.training.spec import Spec, from_builtins

LEAST_SECONDS = 60.0
"""Least seconds of training per task; starting a shorter one would cost more than a few per cent."""

DIGITS = 32
"""Hexadecimal digits of a member's address that are kept: 128 bits."""


class Estimate(NamedTuple):
    """The expected cost of one member of a group: seconds of training on one core, seconds of starting a task, bytes of
    memory of a worker. `source` says whether they were measured or guessed."""

    seconds: float
    start: float
    memory: float
    source: str


class Group(NamedTuple):
    """Members of one static shape. `spec` describes one of them, without its varied values; `values` has one value per
    member for every varied field; `rows` are the indices of their points, `addresses` their addresses."""

    spec: Spec
    static: Point
    values: dict[str, list[float]]
    rows: list[int]
    addresses: list[str]


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some members of a group, trained as one run. `name` follows from the members' addresses."""

    name: str
    values: dict[str, list[float]]
    addresses: list[str]


class TaskGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks with the same spec, except for the varied values and the number of members."""

    spec: dict[str, Any]
    tasks: list[Task]

    def task_spec(self, task: Task) -> Spec:
        """The spec of a task's run. Raises `InputError` when it does not fit the task's name."""
        spec = task_spec(from_builtins(self.spec), task.values, len(task.addresses))
        same = [one[:DIGITS] for one in spec.addresses()] == task.addresses
        require(same and task_name(task.addresses) == task.name, "task", task.name, "is not what its plan says")
        return spec


class PlannedGroup(NamedTuple):
    """A group, the number of its members that exist already, and the tasks planned for the others."""

    group: Group
    estimate: Estimate
    known: int
    tasks: list[Task]


def task_spec(spec: Spec, values: dict[str, list[float]], members: int) -> Spec:
    """The spec of the run that trains these members."""
    return replace(spec, members=members, vary=values)


def task_name(addresses: list[str]) -> str:
    """The name of a task and of its run folder, a hash of its members' addresses in their order."""
    return hashlib.sha256("".join(addresses).encode()).hexdigest()[:16]


def group(sweep: Sweep, points: list[Point]) -> list[Group]:
    """Points grouped by static shape, in the order of their first points, for a plan; every spec and every value is
    checked.

    Raises `InputError` in one line for a point that describes no run. Whether this machine can train it is checked
    elsewhere (`check_planned`).
    """
    found = group_unchecked(sweep, points)
    for one in found:
        one.spec.check()
        for name, column in one.values.items():
            for value in dict.fromkeys(column):
                one.spec.check_value(name, value)
    return found


def group_unchecked(sweep: Sweep, points: list[Point]) -> list[Group]:
    """Points by static shape, for reading finished sweeps: it is not checked whether this version or machine could
    train them again.

    A field is varied where it is a traced number or a seed of the spec at that point; which structs the spec has
    follows from the point's non-numeric fields. Raises `InputError` in one line for a point that is no spec.
    """
    base = sweep.builtins()
    variable, rows = _rows_by_shape(sweep, base, points)
    merged: dict[tuple[Any, ...], tuple[Spec, list[str], list[int]]] = {}
    for (kinds, _), found in rows.items():
        spec, names = _common(base, points[found[0]], variable[kinds])
        merged.setdefault((spec.digest(), *names), (spec, names, []))[2].extend(found)
    return [_group(points, spec, names, sorted(found)) for spec, names, found in merged.values()]


def more_shapes_than(most: int, sweep: Sweep, points: Iterable[Point]) -> bool:
    """Whether these points of a sweep have more than `most` static shapes; looks no further than it must."""
    return len(_rows_by_shape(sweep, sweep.builtins(), points, most)[1]) > most


def _rows_by_shape(
    sweep: Sweep, base: dict[str, Any], points: Iterable[Point], most: int | None = None
) -> tuple[dict[tuple[Any, ...], frozenset[str]], dict[tuple[Any, ...], list[int]]]:
    """The varied fields by the kinds of a point's values, and the indices of the points by (kinds, values of the other
    fields): the first `most` such shapes and one more, or all."""
    fields = sweep.fields()
    variable: dict[tuple[Any, ...], frozenset[str]] = {}
    rows: dict[tuple[Any, ...], list[int]] = {}
    for i, point in enumerate(points):
        kinds = tuple((name, None if _number(value) else _key(value)) for name, value in point.items())
        if kinds not in variable:
            variable[kinds] = frozenset(fields).intersection(spec_at(base, point).variable())
        varied = variable[kinds]
        key = (kinds, tuple(value for name, value in point.items() if _number(value) and name not in varied))
        rows.setdefault(key, []).append(i)
        if most is not None and len(rows) > most:
            break
    return variable, rows


def _common(base: dict[str, Any], point: Point, varied: frozenset[str]) -> tuple[Spec, list[str]]:
    """The shared spec of a group's members, with the base's values in the varied fields, and the names of these
    fields."""
    spec = spec_at(base, point)
    without = spec_at(base, {name: value for name, value in point.items() if name not in varied})
    names = [name for name in spec.variable() if name in varied or name == MEMBER]  # or the place in the run decides
    for name in names:
        has = name in without.variable()
        spec = replace_at(spec, name, value_at(without, name) if has else default_at(spec, name))
    return spec, names


def _group(points: list[Point], spec: Spec, names: list[str], rows: list[int]) -> Group:
    values = {name: [float(points[i].get(name, value_at(spec, name))) for i in rows] for name in names}
    first = points[rows[0]]
    static = {name: value for name, value in first.items() if name not in names}
    addresses = [one[:DIGITS] for one in task_spec(spec, values, len(rows)).addresses()]
    return Group(spec, static, values, rows, addresses)


def plan(
    groups: Iterable[Group],
    known: Collection[str],
    estimate: Callable[[Spec], Estimate],
    *,
    task_seconds: float,
    slots: int,
    task_members: int | None = None,
) -> list[PlannedGroup]:
    """Tasks for all members whose address is not `known`.

    A task gets as many members of its group as train in about `task_seconds`; fewer where some of the `slots` tasks
    that run at a time would otherwise have no work, but no task becomes shorter than a minute for that. `task_members`
    replaces this rule by a fixed number.
    """
    listed = [(one, estimate(one.spec)) for one in groups]
    missing = [[i for i, address in enumerate(one.addresses) if address not in known] for one, _ in listed]
    total = sum(len(left) * cost.seconds for left, (_, cost) in zip(missing, listed, strict=True))
    target = max(min(task_seconds, total / max(slots, 1)), min(LEAST_SECONDS, task_seconds))
    planned, seen = [], set(known)
    for (one, cost), left in zip(listed, missing, strict=True):
        fresh: list[int] = []
        for i in left:
            if one.addresses[i] not in seen:
                seen.add(one.addresses[i])
                fresh.append(i)
        most = task_members or max(1, int(target / max(cost.seconds, 1e-9)))
        tasks = [_task(one, part) for part in _even(fresh, most)]
        planned.append(PlannedGroup(one, cost, len(one.rows) - len(fresh), tasks))
    return planned


def check_planned(planned: Iterable[PlannedGroup]) -> None:
    """Raises `InputError` when this machine cannot train the planned tasks, judged by the largest task of each
    group."""
    for one in planned:
        if one.tasks:
            check_feasible(task_spec(one.group.spec, one.tasks[0].values, len(one.tasks[0].addresses)))


def _task(one: Group, members: list[int]) -> Task:
    values = {name: [column[i] for i in members] for name, column in one.values.items()}
    addresses = [one.addresses[i] for i in members]
    return Task(task_name(addresses), values, addresses)


def _even(items: list[int], most: int) -> Iterator[list[int]]:
    """`items` in as few parts of at most `most` as possible, of sizes that differ by at most one, the larger first."""
    parts = math.ceil(len(items) / most)
    for i in range(parts):
        start, end = (-(-len(items) * j // parts) for j in (i, i + 1))
        yield items[start:end]


def spec_at(base: dict[str, Any], point: Point) -> Spec:
    """The spec of a point: the base (`Sweep.builtins`) with the fields that the point sets."""
    data = msgspec.json.decode(msgspec.json.encode(base))
    assign_all(Spec, data, point)
    return from_builtins(data)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(value: Any) -> Any:
    return value if isinstance(value, str | bool | None) else msgspec.json.encode(value, order="sorted")
