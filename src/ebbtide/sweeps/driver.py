"""The driver of a sweep: plans missing members, keeps an executor busy, retries failed tasks."""

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import InputError, Interrupted, one_line
from ebbtide.interrupts import stop_requests
from ebbtide.places import looking_in
from ebbtide.runs.output import check_output_folder
from ebbtide.sweeps import estimate
from ebbtide.sweeps.attempt import Outcome
from ebbtide.sweeps.executors import Executor, make_executor, trains_here
from ebbtide.sweeps.folder import SWEEP, SweepFolder, places, planning
from ebbtide.sweeps.plan import Group, PlannedGroup, TaskGroup, check_planned, group, plan
from ebbtide.sweeps.sweep import Sweep
from ebbtide.training.custom import files_needed
from ebbtide.training.layout import cores
from ebbtide.user_code import check_not_importing

POLL_SECONDS = 0.1
REPORT_SECONDS = 2.0
BUSY_SECONDS = 5.0
"""Seconds before looking again at a task that another driver trains."""


class SweepProgress(NamedTuple):
    """The progress of a sweep: tasks by state; sequences done, summed over members; their rate per second; seconds
    left; mean headline metrics of the tasks in training."""

    done: int
    active: int
    tasks: int
    members: int
    sequences: float
    total: float
    rate: float
    eta: float
    latest: dict[str, float]


class DiskFullError(RuntimeError):
    """The sweep stopped because the disk is full; everything finished is safe."""


def make_plan(sweep: Sweep, groups: list[Group], known: Collection[str], slots: int) -> list[PlannedGroup]:
    """Tasks for the members whose address is not `known`, sized by their cost on this machine."""
    seconds, members = 60 * sweep.task_minutes, sweep.task_members
    cost = partial(estimate.estimate_cost, correction=estimate.correction_factor(one.spec for one in groups))
    return plan(groups, known, cost, task_seconds=seconds, slots=slots, task_members=members)


def missing_resources(planned: list[PlannedGroup]) -> Iterator[str]:
    """A line about what this machine lacks for the planned tasks; none where it could train them."""
    try:
        check_planned(planned)
    except InputError as error:
        yield f"this machine could not train these tasks ({error}); each is checked again where it runs"


def preset_changed(before: SweepFolder | None, sweep: Sweep) -> Iterator[str]:
    """A line when a study's preset differs from the one with which the folder was planned; else none."""
    if before is None or before.sweep.resolved is None or before.sweep.study is None:
        return
    then, now = before.sweep, sweep
    same = (then.study, then.preset, then.base) == (now.study, now.preset, now.base)
    if same and then.spec() != now.spec():
        yield (
            f"{sweep.study}'s preset {sweep.preset} has changed since {before.path} was planned: members that this "
            "changes are trained anew, finished ones that it does not change are kept"
        )


def run_sweep(
    sweep: Sweep,
    out: str | os.PathLike[str],
    *,
    on: str | Executor = "local",
    jobs: int | None = None,
    retry: bool = False,
    report: Callable[[SweepProgress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> SweepFolder:
    """Trains every member of `sweep` that the folder `out` does not have yet, and returns the folder.

    Finished tasks are not touched, interrupted ones continue. A task that fails is tried again, and set aside
    ("quarantined") after `sweep.tries` failures without progress. Several drivers may work on one folder.

    Args:
        sweep: the grid, e.g. from `read_sweep`.
        out: the sweep's folder; it must be new, or hold a sweep of this name.
        on: an executor, or the name of one: "local", "slurm", "slurm-local", "ray".
        jobs: how many tasks may run at a time (None: as many as fit).
        retry: whether to try quarantined tasks again.
        report: called with the `SweepProgress` every two seconds.
        say: called with one-line remarks.

    Raises:
        InputError: the sweep cannot be run; nothing has been started.
        Interrupted: Ctrl-C or SIGTERM asked to stop; everything has been saved.
        DiskFullError: the disk is full.

    >>> sweep = eb.Sweep(name="rates", axes=(eb.Axis(field="optimizer.lr", values=[1e-3, 1e-4]), eb.Axis(seeds=3)))
    >>> folder = eb.run_sweep(sweep, "runs/rates")  # doctest: +SKIP
    """
    check_not_importing()
    sweep.check()
    path, sweep = Path(out), sweep.resolve()
    groups = group(sweep, sweep.points())
    check_output_folder(path)
    before = SweepFolder(path) if (path / SWEEP).is_file() else None
    ended = {a for a, one in before.members.items() if before.state(one.task) == "done"} if before else set()
    left = make_plan(sweep, groups, ended, jobs or cores())
    with looking_in(places(path, sweep)):
        if trains_here(on):
            check_planned(left)  # what cannot be run is said before anything is written
        else:
            for text in missing_resources(left):
                say(text)
    for text in preset_changed(before, sweep):
        say(text)
    folder = SweepFolder.make(path, sweep)
    code = files_needed(one.spec.builtins() for one in groups)
    tasks_on = make_executor(on, path, sweep.resources, jobs, code) if isinstance(on, str) else on
    with planning(path):
        folder.reread()
        planned = make_plan(sweep, groups, folder.members, tasks_on.slots)
        fresh = [TaskGroup(one.group.spec.builtins(), one.tasks) for one in planned if one.tasks]
        if fresh:
            folder.add(fresh)
    say(f"{sum(len(one.tasks) for one in fresh)} new tasks in {path}")
    wanted = dict.fromkeys(folder.members[a].task for one in planned for a in one.group.addresses)
    if retry:
        for task in wanted:
            if folder.state(task) == "quarantined":
                folder.forgive(task)
    costs = {a: one.estimate.seconds for one in planned for a in one.group.addresses}
    longest = sorted(wanted, key=lambda t: -sum(costs.get(a, 0.0) for a in folder.specs[t][1].addresses))
    with stop_requests() as stop:
        _Loop(folder, longest, tasks_on, report, say, stop.is_set).run()
    return folder


class _Loop:
    """One call of `run_sweep`, after planning."""

    def __init__(
        self,
        folder: SweepFolder,
        tasks: list[str],
        on: Executor,
        report: Callable[[SweepProgress], None],
        say: Callable[[str], None],
        stop: Callable[[], bool],
    ):
        self.folder, self.on, self.report, self.say, self.stop = folder, on, report, say, stop
        self.tasks = tasks
        self.waiting: deque[str] = deque()
        self.later: dict[str, float] = {}
        """When to look again at a task that another driver trains."""
        self.active: set[str] = set()
        self.done = 0
        self.full = ""

    def run(self) -> None:
        for task in self.tasks:
            state = self.folder.state(task)
            self.done += state == "done"
            if state in ("waiting", "running"):
                self.waiting.append(task)
            elif state == "damaged":
                self._leave(task)
        pace = _Pace(self)
        try:
            while self.waiting or self.later or self.active:
                if self.stop() or (self.full and not self.active):
                    break
                self._submit()
                for task, outcome in self.on.finished():
                    self._take(task, outcome)
                if (now := pace.look()) is not None:
                    self.report(now)
                time.sleep(POLL_SECONDS)
        finally:
            if left := self.on.stop():
                self.say(f"{left} tasks are in a long step: they go on, save after it and end by themselves")
        if self.full:
            raise DiskFullError(f"the disk is full ({self.full}): make room and run the sweep again; nothing is lost")
        if self.waiting or self.later or self.active or self.stop():
            raise Interrupted

    def _submit(self) -> None:
        now = time.monotonic()
        for task in [one for one, when in self.later.items() if when <= now]:
            del self.later[task]
            self.waiting.append(task)
        room = 0 if self.full else min(self.on.room(), len(self.waiting))
        if room > 0:
            chosen = [self.waiting.popleft() for _ in range(room)]
            self.active.update(chosen)
            self.on.submit(chosen)

    def _take(self, task: str, outcome: Outcome) -> None:
        """Handles the outcome of a try: done, tried again, or set aside."""
        self.active.discard(task)
        state = self.folder.state(task)
        if state == "done":
            self.done += 1
        elif state == "damaged":
            self._leave(task)
        elif outcome.kind in ("busy", "stopped") or state == "running":
            self.later[task] = time.monotonic() + BUSY_SECONDS
        elif outcome.kind == "full":
            self.full = one_line(outcome.text.splitlines()[-1]) if outcome.text else "no room"
            self.waiting.append(task)
        elif state == "quarantined":
            self.say(f"task {task}: set aside after {self.folder.sweep.tries} tries: {_last(outcome.text)}")
        else:
            self.say(f"task {task}: {outcome.kind}, will be tried again: {_last(outcome.text)}")
            self.waiting.append(task)

    def _leave(self, task: str) -> None:
        """Says that a task is not trained, because its run cannot be read."""
        self.say(f"task {task}: left as it is: {self.folder.unreadable_reason(task)}")


class _Pace:
    """The pace of the tasks in training, from their folders."""

    def __init__(self, loop: "_Loop"):
        self.loop, self.looked = loop, 0.0
        folder = loop.folder
        self.size = {t: len(folder.specs[t][1].addresses) * folder.specs[t][0].spec["sequences"] for t in loop.tasks}
        self.total = float(sum(self.size.values()))
        self.seen: deque[tuple[float, float]] = deque(maxlen=60)

    def look(self) -> SweepProgress | None:
        now = time.monotonic()
        if now - self.looked < REPORT_SECONDS:
            return None
        self.looked = now
        loop, latest, part = self.loop, {}, 0.0
        left = {*loop.waiting, *loop.later, *loop.active}
        for task in left:
            run = loop.folder.run(task) if loop.folder.state(task) != "damaged" else None
            if run is None:
                continue
            part += run.sequences() * run.header.spec["members"]
            if task in loop.active and run.sequences() > 0:
                curves = run.metrics()
                for name in ("icl", "iwl", "ciwl", "train_loss"):
                    if name in curves:
                        latest.setdefault(name.removeprefix("train_"), []).append(float(curves[name][:, -1].mean()))
        done = self.total - sum(self.size[t] for t in left) + part
        self.seen.append((now, done))
        began, before = self.seen[0]
        took = now - began
        rate = (done - before) / took if took > 0 else 0.0
        eta = (self.total - done) / rate if rate > 0 else float("nan")
        members = sum(len(loop.folder.specs[t][1].addresses) for t in loop.tasks)
        means = {name: sum(values) / len(values) for name, values in latest.items()}
        return SweepProgress(loop.done, len(loop.active), len(loop.tasks), members, done, self.total, rate, eta, means)


def _last(text: str) -> str:
    return one_line(text.strip().splitlines()[-1]) if text.strip() else "no message"
