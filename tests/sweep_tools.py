"""A sweep small enough to train in moments, and how to compare what came of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import Interrupted
from ebbtide.runs.records import Header
from ebbtide.runs.writer import Writer
from ebbtide.studies.comparison import SweepPlan
from ebbtide.studies.describe import field_text
from ebbtide.studies.study import Experiment, Setup, Study
from ebbtide.sweeps import task as task_process
from ebbtide.sweeps.attempt import Outcome
from ebbtide.sweeps.axes import Axis, Point
from ebbtide.sweeps.driver import make_plan, run_sweep
from ebbtide.sweeps.folder import SweepFolder, planning
from ebbtide.sweeps.plan import TaskGroup, group
from ebbtide.sweeps.sweep import Sweep
from tiny import evaluations, final_state, header, watched

BASE = {
    "batch": 16,
    "sequences": 48_000,
    "source.classes": 64,
    "source.dim": 8,
    "source.exemplars": 2,
    "source.holdout_classes": 8,
    "source.holdout_exemplars": 2,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "schedule.evaluations": 9,
    "schedule.checkpoints": 9,
    "evaluators": ["icl", "iwl"],
    "evaluation_sequences": 50,
}
LR = Axis(field="optimizer.lr", values=[1e-3, 3e-3])
WIDTH = Axis(field="model.width", values=[8, 16])
SWEEP = Sweep(name="try", base=BASE, axes=(WIDTH, LR, Axis(seeds=2)))
"""Two groups of four members; with `jobs=2` two tasks of some seconds."""
SHORT_SWEEP = Sweep(name="try", base={**BASE, "sequences": 1600}, axes=SWEEP.axes)
"""The same with a thirtieth of the training."""
TO_BE_STOPPED = Sweep(
    name="try",
    base=BASE | {"sequences": 6_400_000, "schedule.evaluations": 321, "schedule.checkpoints": 321},
    axes=SWEEP.axes,
)
"""The same, over a hundred times as long and looked at as often: no task ends before a stop reaches it, on any
machine."""


def plan_of(study: Study, experiment: Experiment, preset: str = "quick", changed: Point | None = None) -> SweepPlan:
    """The arms of an experiment, be it one of the study's or not, with fields changed."""
    fields = tuple((name, field_text(value)) for name, value in (changed or {}).items())
    plan = Setup(study, experiment, preset, fields).plan()
    assert isinstance(plan, SweepPlan)
    return plan


def make_sweep(study: Study, experiment: Experiment, preset: str = "quick", changed: Point | None = None) -> Sweep:
    """The sweep of an experiment's arms."""
    return plan_of(study, experiment, preset, changed).sweep


def bits(folder: SweepFolder) -> dict[str, bytes]:
    """For every member by its address: all its evaluations and its final state."""
    found: dict[str, bytes] = {}
    for address, (task, place) in folder.members.items():
        run = folder.run(task)
        assert run is not None and run.status() == "complete"
        raw, state = run.arrays(), final_state(run)
        parts = [raw["sequences"], raw["train_loss"][place], raw["values"][place]]
        parts += [state[name][place] for name in sorted(state)]
        found[address] = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return found


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its bytes and when it was changed."""
    found = [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in found}


def driver(file: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """`ebbtide sweep` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ebbtide.cli", "sweep", str(file), "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
    )


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Waits until `condition` holds; fails when it does not for so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.02)


def under_way(out: Path) -> list[str]:
    """Tasks that have committed something and are not complete."""
    folder = SweepFolder(out) if (out / "sweep.json").exists() else None
    runs = {task: folder.run(task) for task in folder.specs} if folder else {}
    return [t for t, run in runs.items() if run and 0 < run.sequences() < run.header.spec["sequences"]]


@contextmanager
def in_the_background() -> Iterator[None]:
    """What is started here inherits SIGINT as ignored, as from a driver that a shell started with `&`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def meanwhile(action: Callable[[], None]) -> threading.Thread:
    """Runs `action` beside the caller; `join` it."""
    thread = threading.Thread(target=action)
    thread.start()
    return thread


class _Idle:
    """Takes no task, and asks for none."""

    slots = 2

    def room(self) -> int:
        return 0

    def submit(self, tasks: list[str]) -> None: ...

    def finished(self):
        os.kill(os.getpid(), signal.SIGINT)  # the driver stops: the plan is made
        return []

    def stop(self) -> int:
        return 0


class InThisProcess:
    """Trains tasks one after the other in this process, where their own processes are not the subject."""

    slots = 2

    def __init__(self, folder: Path):
        self.folder = folder
        self.ended: list[tuple[str, Outcome]] = []

    def room(self) -> int:
        return 1

    def submit(self, tasks: list[str]) -> None:
        for task in tasks:
            assert task_process.run(self.folder, task, 0) == 0
            self.ended.append((task, Outcome("done", "")))

    def finished(self) -> list[tuple[str, Outcome]]:
        ended, self.ended = self.ended, []
        return ended

    def stop(self) -> int:
        return 0


def trained(out: Path, sweep: Sweep) -> SweepFolder:
    """A sweep whose tasks have all been trained in this process."""
    return run_sweep(sweep, out, on=InThisProcess(out))


def planned(out: Path, sweep: Sweep = SWEEP) -> SweepFolder:
    """A sweep with its plan and none of its tasks begun."""
    with pytest.raises(Interrupted):
        run_sweep(sweep, out, on=_Idle())
    return SweepFolder(out)


def made(path: Path, sweep: Sweep, members: int | None = None, leave: int = 0, bad: float = -1.0) -> SweepFolder:
    """A sweep whose tasks have run, with curves that depend on the member alone; `leave` tasks have not begun, and
    members with learning rate `bad` diverged."""
    folder = SweepFolder.make(path, sweep)
    with planning(path):
        planned = make_plan(replace(sweep, task_members=members), group(sweep, sweep.points()), folder.members, 1)
        folder.add([TaskGroup(msgspec.to_builtins(one.group.spec), one.tasks) for one in planned if one.tasks])
    for task in list(folder.specs)[: len(folder.specs) - leave]:
        if folder.run(task) is None:
            _write(folder, task, bad)
    return folder


def _write(folder: SweepFolder, task: str, bad: float = -1.0) -> None:
    spec, (_, what) = folder.spec(task), folder.specs[task]
    head: Header = replace(header(spec), digest=spec.digest(), spec=msgspec.to_builtins(spec))
    at = np.linspace(0, spec.sequences, 5)
    seeds = [np.random.default_rng(int(address[:8], 16)) for address in what.addresses]
    curves = {name: np.stack([rng.random(5) for rng in seeds]).astype(np.float32) for name in spec.evaluators}
    loss = np.stack([rng.random(5) for rng in seeds]).astype(np.float32)
    for i, rate in enumerate(what.values.get("optimizer.lr", [])):
        if rate == bad:
            curves["icl"][i, -1] = loss[i, -1] = np.nan
    writer = Writer(folder.run_path(task), head)
    writer.commit(
        sequences=spec.sequences,
        state=watched(spec.members),
        evaluations=evaluations(head, curves, loss, at),
        kept=True,
        finished=True,
        seconds=1.0,
    )
    writer.close()
