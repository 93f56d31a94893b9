"""A sweep on the disk: its description, its plans, a run folder for every task, and what failed.

    sweep.json          the description as it was last asked for, with the base spec in full
    plans/000001.json   tasks, as they were planned; never changed, a later plan only adds members that no plan has
    runs/NAME/          the run of task NAME (see runs/README.md)
    failures/NAME/0001.json  one record for each try of a task that ended badly

Everything else - what is done, running, missing, set aside - is derived from these.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from ebbtide.errors import InputError, require
from ebbtide.runs import atomic, lock
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.folder import RunFolder, inside
from ebbtide.runs.output import check_output_folder
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.records import HEADER
from ebbtide.runs.signed import SCHEMA, DamagedError, check_plain, sign, unsign
from ebbtide.sweeps.plan import Task, TaskGroup, more_shapes_than
from ebbtide.sweeps.sweep import Sweep
from ebbtide.training.spec import Spec

SWEEP, PLANS, RUNS, FAILURES = "sweep.json", "plans", "runs", "failures"
PLAN_NAME, TASK_NAME, ADDRESS = (re.compile(one) for one in (r"[0-9]{6}\.json", "[0-9a-f]{16}", "[0-9a-f]{32}"))
LARGEST_SWEEP = 2**25
"""Largest number of bytes of sweep.json: room for a list of a million values. Reading this much takes some twenty
seconds at most."""
LARGEST_PLANS = 2**28
"""Largest number of bytes of all plans of a sweep together. A million members that are each a task of their own need
half of it, 100,000 groups of one member too. Reading this much takes some forty seconds and 2 GB of memory."""
LARGEST_FAILURE = 2**20
LONGEST_TRACEBACK = 20_000
MOST_UNPLANNED = 100_000
"""Largest number of points of a stored sweep that are read where its plans hold fewer members: reading this many of one
shape takes some three seconds."""
MOST_UNPLANNED_SHAPES = 10_000
"""Largest number of static shapes of a stored sweep that are read where its plans hold fewer groups: reading this many
takes some ten seconds, because every shape is a spec."""
PLANNING_SECONDS = 120.0
"""Seconds that a driver waits while another one plans."""

T = TypeVar("T")
TaskState = Literal["done", "running", "waiting", "quarantined", "damaged"]


class StoredSweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of sweep.json."""

    schema: int
    sweep: Sweep


class PlanRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file in plans/."""

    schema: int
    groups: list[TaskGroup]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A failed try: its kind, the end of its output, and the sequences committed by then."""

    schema: int
    task: str
    kind: str
    text: str
    sequences: int


class Member(NamedTuple):
    """Location of a member's results: the task, and the place in the task's run."""

    task: str
    place: int


class SweepFolder:
    """The folder of a sweep. It may have any number of readers and drivers; each run folder in it has one writer."""

    def __init__(self, path: Path):
        """Opens a folder that holds a sweep. Raises `InputError` when it holds none, or is damaged."""
        self.path = path
        require((path / SWEEP).is_file(), "sweep", str(path), "not a sweep folder (it has no sweep.json)")
        self.sweep = self._read(SWEEP, StoredSweep, lambda one: msgspec.to_builtins(one.sweep), LARGEST_SWEEP)[0].sweep
        self.sweep.check()
        self._plans: dict[str, PlanRecord] = {}
        self._plan_bytes = 0
        self.specs: dict[str, tuple[TaskGroup, Task]] = {}
        self.members: dict[str, Member] = {}
        """Members by address."""
        self.reread()

    @classmethod
    def make(cls, path: Path, sweep: Sweep) -> "SweepFolder":
        """Creates the folder, or opens the folder of a sweep with this name and stores the new description.

        Raises `InputError` when it holds something else.
        """
        check_output_folder(path)
        sweep = sweep.resolve()
        data = sign(StoredSweep(SCHEMA, sweep), indent=1)
        allowed = f"takes {len(data):,} bytes, more than the {LARGEST_SWEEP:,} that are read: divide the sweep"
        require(len(data) <= LARGEST_SWEEP, "sweep", sweep.name, allowed)
        if path.exists():
            others = [one.name for one in inside(path) if not _is_of_a_start(one)]
            ours = not others or (path / SWEEP).is_file()
            require(ours, "out", str(path), f"holds other files ({next(iter(others), '')} ...); give a new folder")
        if (path / SWEEP).is_file():
            name = cls(path).sweep.name
            require(name == sweep.name, "out", str(path), f"holds the sweep {name!r}; give another folder")
        path.mkdir(parents=True, exist_ok=True)
        with planning(path):
            for name in (PLANS, RUNS, FAILURES):
                atomic.make_folder(path / name)
            if not (path / SWEEP).is_file() or (path / SWEEP).read_bytes() != data:
                atomic.write_file(path / SWEEP, data)
        return cls(path)

    def reread(self) -> None:
        """Reads plans that other drivers have added."""
        for file in inside(self.path / PLANS):
            if PLAN_NAME.fullmatch(file.name) and file.name not in self._plans:
                room = LARGEST_PLANS - self._plan_bytes
                record, size = self._read(f"{PLANS}/{file.name}", PlanRecord, _numbers, room)
                self._plans[file.name] = record
                self._plan_bytes += size
                self._check_names(file.name, record)
                for group in record.groups:
                    for task in group.tasks:
                        self.specs[task.name] = (group, task)
                        for i, address in enumerate(task.addresses):
                            self.members.setdefault(address, Member(task.name, i))

    def _check_names(self, file: str, record: PlanRecord) -> None:
        """Raises `InputError` for a task name that this program does not write: it becomes a folder's name."""
        for task in (task for group in record.groups for task in group.tasks):
            bad = [] if TASK_NAME.fullmatch(task.name) else [task.name]
            bad += [one for one in task.addresses if not ADDRESS.fullmatch(one)]
            allowed = f"is damaged: {PLANS}/{file}: {bad[:1]} is no name of a task or member"
            require(not bad, "sweep", str(self.path), allowed)

    def check_size(self) -> None:
        """Raises `InputError` for a description of many more points, or static shapes, than were ever planned: reading
        them takes minutes, and nothing shows that they were ever meant."""
        size, most = self.sweep.size(), max(MOST_UNPLANNED, len(self.members))
        allowed = f"describes {size} points, its plans hold {len(self.members)}; at most {most} are read from a folder"
        require(size <= most, "sweep", str(self.path), f"{allowed}: give the sweep's file and --out")
        planned = sum(any(task.addresses for task in one.tasks) for plan in self._plans.values() for one in plan.groups)
        most = max(MOST_UNPLANNED_SHAPES, planned)
        if size > most:
            allowed = (
                f"describes more than {most} static shapes, its plans hold {planned}; no more are read from a folder"
            )
            many = more_shapes_than(most, self.sweep, self.sweep.points())
            require(not many, "sweep", str(self.path), f"{allowed}: give the sweep's file and --out")

    def add(self, groups: list[TaskGroup]) -> None:
        """Writes a plan. Call this inside `planning`, so that no other driver plans the same members."""
        number = 1 + max((int(name[:6]) for name in self._plans), default=0)
        data = sign(PlanRecord(SCHEMA, groups))
        size = self._plan_bytes + len(data)
        allowed = (
            f"its plans would take {size:,} bytes, more than the {LARGEST_PLANS:,} that are read: divide the sweep"
        )
        require(size <= LARGEST_PLANS, "sweep", str(self.path), allowed)
        atomic.write_file(self.path / PLANS / f"{number:06d}.json", data)
        self.reread()

    def spec(self, task: str) -> Spec:
        """The spec of a task. Raises `InputError` for an unknown task."""
        require(task in self.specs, "task", task, "is in no plan of this sweep")
        group, found = self.specs[task]
        return group.task_spec(found)

    def run_path(self, task: str) -> Path:
        """The run folder of a task, which need not exist yet."""
        return self.path / RUNS / task

    def run(self, task: str) -> RunFolder | None:
        """The run of a task, None before it has begun."""
        path = self.run_path(task)
        return RunFolder(path) if (path / HEADER).exists() else None

    def state(self, task: str) -> TaskState:
        """The state of a task now; `damaged` where its run cannot be read (`unreadable_reason`)."""
        return "damaged" if self.unreadable_reason(task) else self._state(task)

    def unreadable_reason(self, task: str) -> str:
        """Why nothing can be said of a task: its run.json is damaged, or may not be read. Empty where it can."""
        try:
            self._state(task)
        except InputError as error:
            return error.allowed
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return ""

    def _state(self, task: str) -> TaskState:
        run = self.run(task)
        status = run.status() if run else "waiting"
        if status == "complete":
            return "done"
        if status == "running":
            return "running"
        return "quarantined" if self.tries(task) >= self.sweep.tries else "waiting"

    def failures(self, task: str) -> list[Failure]:
        """The task's failed tries, oldest first; a damaged record is reported as such."""
        found = []
        for file in inside(self.path / FAILURES / task):
            if not file.name.startswith(TEMPORARY):
                name = f"{FAILURES}/{task}/{file.name}"
                try:
                    found.append(unsign(read_bounded(self.path, name, LARGEST_FAILURE), Failure, str(self.path), name))
                except DamagedError as error:
                    found.append(Failure(SCHEMA, task, "damaged", str(error), 0))
        return found

    def tries(self, task: str) -> int:
        """The number of failed tries since the task last made progress: being preempted again and again is no failure
        of the task."""
        run, failures = self.run(task), self.failures(task)
        at = run.sequences() if run else 0
        return sum(one.sequences >= at for one in failures)

    def note(self, task: str, kind: str, text: str) -> None:
        """Records a failed try."""
        run = self.run(task)
        record = Failure(SCHEMA, task, kind, text[-LONGEST_TRACEBACK:], run.sequences() if run else 0)
        folder = self.path / FAILURES / task
        atomic.make_folder(folder)
        taken = [int(p.stem) for p in inside(folder) if p.stem.isdigit()]
        atomic.write_file(folder / f"{1 + max(taken, default=0):04d}.json", sign(record, indent=1))

    def forgive(self, task: str) -> None:
        """Forgets the failed tries of a task: it may be tried again."""
        folder = self.path / FAILURES / task
        if folder.is_dir():
            gone = folder.with_name(TEMPORARY + task)
            atomic.rename(folder, gone, "failures")
            atomic.remove(gone)

    def _read(self, name: str, kind: type[T], plain: Callable[[T], Any], largest: int) -> tuple[T, int]:
        """A record of this kind of at most `largest` bytes, and its size; `plain` gives those of its fields that may
        hold any JSON."""
        try:
            data = read_bounded(self.path, name, largest)
            found = unsign(data, kind, str(self.path), name)
            check_plain(plain(found), name)
        except DamagedError as error:
            raise InputError("sweep", str(self.path), f"is damaged: {error}") from error
        return found, len(data)


def _numbers(record: PlanRecord) -> Any:
    """The specs and varied values of a plan."""
    return [[group.spec, [task.values for task in group.tasks]] for group in record.groups]


def _is_of_a_start(path: Path) -> bool:
    """Whether something in a folder is what a driver makes there before it writes sweep.json: another one may be about
    to, or was stopped."""
    if path.name in (PLANS, RUNS, FAILURES):
        return path.is_dir() and not inside(path)
    return path.name == lock.LOCK or path.name.startswith(TEMPORARY)


def places(path: Path, sweep: Sweep) -> list[Path | str | None]:
    """Folders to which relative paths in a sweep's specs refer, after the working folder, in this order: the folder in
    which the sweep was made, and the folder that has the sweep's own as `runs/NAME`."""
    return [sweep.made_in, path.absolute().parent.parent]


@contextmanager
def planning(path: Path) -> Iterator[None]:
    """Keeps other drivers from planning meanwhile. Raises `BusyError` when one does for two minutes."""
    until = time.monotonic() + PLANNING_SECONDS
    while True:
        try:
            held = lock.acquire(path)
            break
        except lock.BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    try:
        yield
    finally:
        os.close(held)
