"""The driver of a run: schedules the workers, commits their results, stops cleanly."""

import os
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import jax
import msgspec
import numpy as np
from msgspec.structs import replace

from ebbtide.errors import Interrupted, require
from ebbtide.interrupts import stop_requests
from ebbtide.machine import DETERMINISTIC
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.identity import identity_differences, numeric_identity, original_identity
from ebbtide.runs.lock import BusyError
from ebbtide.runs.records import HEADER, Header, Instrument, Manifest
from ebbtide.runs.signed import SCHEMA
from ebbtide.runs.writer import Writer, check_folder, restore
from ebbtide.training import kernels
from ebbtide.training.device import choose_device, here, kind_of
from ebbtide.training.feasible import check_feasible
from ebbtide.training.inputs import changed_inputs, inputs
from ebbtide.training.kernels import XLA
from ebbtide.training.layout import LONG_STEP_SECONDS, choose, step_seconds
from ebbtide.training.progress import Progress, Report, Say, announce_slow_start, listeners
from ebbtide.training.run import Run, spec_of
from ebbtide.training.saved import check_state
from ebbtide.training.spec import Spec
from ebbtide.training.team import Team, Worker, WorkerError
from ebbtide.user_code import check_not_importing

SLICE_SECONDS = 1.0
"""Length of one training command in seconds: how often progress is reported, and how soon Ctrl-C acts."""
FIRST_STEPS = 8
"""Steps of the first command, before the pace is known; fewer where steps are expected to be long."""
SAVE_SECONDS = 30.0
"""Largest number of seconds between rolling checkpoints: the most training time that a power failure can cost."""
FIRST_SAVE_SECONDS = 3.0
SHARE_OF_SAVING = 0.01
"""Largest share of the time that rolling checkpoints take while there are more of them than `SAVE_SECONDS` asks for."""


def save_pause(trained: float, commit: float) -> float:
    """Seconds until the next rolling checkpoint, after `trained` seconds of training and a last checkpoint that took
    `commit` seconds to write. A reader sees a run at its checkpoints, so they follow one another closely in its first
    minutes (a tenth of the time so far), if they cost little."""
    return min(SAVE_SECONDS, max(FIRST_SAVE_SECONDS, trained / 10, commit / SHARE_OF_SAVING))


def count_saves(seconds: float, commit: float) -> int:
    """The number of rolling checkpoints in a training of so many seconds."""
    at = count = 0
    while (at := at + save_pause(at, commit)) < seconds:
        count += 1
    return count


def train(
    spec: Spec,
    out: str | os.PathLike[str],
    *,
    processes: int | None = None,
    width: int | None = None,
    devices: int | None = None,
    device: Literal["cpu", "gpu"] | None = None,
    distributed: bool = False,
    deterministic: bool = False,
    until: int | None = None,
    label: dict[str, str] | None = None,
    progress: bool | None = None,
    report: Report | None = None,
    say: Say | None = None,
) -> Run:
    """Trains all members of `spec` into the run folder `out`, and returns the run.

    A folder that holds a run of the same spec is continued from its newest intact checkpoint. On the CPU a run is
    repeatable bit for bit, unless it trains in this process (`processes=0`).

    Args:
        spec: the run. Its schedule counts in *sequences* per member, not in steps.
        out: the run folder; it must be new, empty, or hold a run of this spec.
        processes: worker processes of one thread each, among which the members are shared; 0: this process. None:
            chosen by `layout.choose`, as are `width` and `devices`.
        width: members mapped side by side by `vmap` in each process.
        devices: devices over which they are spread.
        device: "cpu": worker processes on this machine's processors; "gpu": the accelerators that JAX finds, in this
            process. None: chosen by `device.choose_device`, which says why.
        distributed: shares the members among the processes of JAX's distributed runtime (see `hosts`). Every process
            makes this call and gets the run; all must see `out`, and data files of the same content.
        deterministic: refuses whatever could make the run not repeatable, such as continuing a run begun elsewhere.
        until: the sequences at which the run is left, to be continued later (`resume`), a multiple of the batch; None:
            the end.
        label: text stored in run.json, e.g. the study and its preset.
        progress: whether a line shows the progress (on standard error, or below the cell of a notebook) and remarks
            are printed; None: in a terminal and in a notebook, unless `report` is given.
        report: called with the `Progress` about once a second.
        say: called with one-line remarks, e.g. about the layout that was measured, in place of printing them.

    Raises:
        InputError: the spec, the folder or the layout cannot be used; nothing has been written.
        OSError: the folder cannot be written.
        WorkerError: a worker died.
        Interrupted: Ctrl-C or SIGTERM asked to stop; everything has been saved.

    >>> spec = eb.Spec(
    ...     source=eb.Gaussian(classes=64, dim=8, holdout_classes=8),
    ...     model=eb.Transformer(width=16, heads=2),
    ...     evaluators=("icl",),
    ...     batch=16,
    ...     sequences=64,
    ...     evaluation_sequences=16,
    ...     schedule=eb.Schedule(evaluations=2, checkpoints=2),
    ... )
    >>> run = eb.train(spec, "runs/tiny", processes=0)
    >>> run.status(), run.metrics()["icl"].shape  # [member, evaluation]
    ('complete', (1, 2))
    """
    check_not_importing()
    spec.check()
    if not distributed:
        check_feasible(spec)
    path = Path(out)
    require("\0" not in str(path), "out", str(path), "must be the name of a folder")
    how: dict[str, Any] = {"width": width, "devices": devices, "deterministic": deterministic}
    goal = spec.sequences if until is None else until
    allowed = f"must be a multiple of batch = {spec.batch}, at most sequences = {spec.sequences}"
    require(goal % spec.batch == 0 and 0 <= goal <= spec.sequences, "until", until, allowed)
    rest = (deterministic, goal, label or {})
    if not distributed:
        how |= {"processes": processes, "device": device}
        with listeners(progress, report, say) as (hear, tell):
            return _train(spec, path, how | {"say": tell}, None, *rest, hear)
    require(device is None, "device", device, "must not be given for a distributed run")
    require(processes is None, "processes", processes, "must not be given for a distributed run")
    from ebbtide.training import hosts

    process = hosts.join(spec.members)
    hosts.check_hosts(spec)
    if process == 0:
        how |= {"processes": 0, "device": here()}
        with hosts.share_ending(), listeners(progress, report, say) as (hear, tell):
            return _train(spec, path, how | {"say": tell}, hosts.Hosts(), *rest, hear)
    failed = hosts.follow()
    if failed == "Interrupted":
        raise Interrupted
    if failed is not None:
        raise WorkerError(f"process 0 of the run ended with {failed}")
    return Run(path)


def _train(
    spec: Spec,
    path: Path,
    how: dict[str, Any],
    hosts: Worker | None,
    deterministic: bool,
    goal: int,
    label: dict[str, str],
    report: Report,
) -> Run:
    """`train` in the process that writes the folder. `how` are the arguments of `choose`; `hosts` are all processes of
    a distributed run, as one worker."""
    check_folder(path, spec.digest())
    begun, before, read = None, {}, inputs(spec)
    if (path / HEADER).exists():
        if found := _finished_manifest(Run(path)):
            require(found.repeatable or not deterministic, "deterministic", True, "this run was not repeatable")
            return Run(path)
        before = Run(path).header.identity
        begun = before.get("kernel", XLA.name)
    given = [how[name] for name in ("processes", "width", "devices")]
    began_on = kind_of(before["platform"]) if "platform" in before else None
    how["device"] = choose_device(spec, how["device"], how["processes"], began_on, how["say"])
    there = how["device"] == began_on and (before.get("devices") or 1) <= jax.local_device_count()
    if given == [None, None, None] and there:  # a run keeps its shape, wherever it can be continued so
        how |= {name: before.get(name) for name in ("width", "devices")}
    with stop_requests() as stop:
        share = spec.members if hosts is None else -(-spec.members // jax.process_count())
        alone = hosts is None and how["width"] in (None, 1) and how["devices"] in (None, 1)
        device = how["device"]
        kernel = kernels.choose(spec, alone=alone, before=begun, device=device, say=how["say"], stop=stop.is_set)
        if kernel.library:  # it trains one member at a time: there is no width to measure
            how |= {"width": 1, "devices": 1}
        team = Team(spec.members, choose(replace(spec, members=share), **how, stop=stop), hosts, kernel, stop)
        try:
            with announce_slow_start(spec, how["say"], report) as report:
                return _Loop(spec, path, team, read, deterministic, goal, label, report, how["say"], stop).run()
        finally:
            team.close()


def resume(run: RunFolder, **options: Any) -> Run:
    """Continues a run from its newest intact checkpoint; takes the keyword arguments of `train` and raises what it
    raises.

    >>> eb.resume(eb.Run("runs/tiny")).status()
    'complete'
    """
    return train(spec_of(run), run.path, label=run.header.label, **options)


def _finished_manifest(run: RunFolder) -> Manifest | None:
    """The manifest of a finished run's last checkpoint if it is intact, else None."""
    found = run.latest() if run.status() == "complete" else None
    return found[1] if found and found[1].finished else None


class _Loop:
    """One call of `train`. Keeps two slices of work outstanding, so that workers never wait."""

    def __init__(
        self,
        spec: Spec,
        path: Path,
        team: Team,
        read: dict[str, str],
        deterministic: bool,
        goal: int,
        label: dict[str, str],
        report: Report,
        say: Say,
        stop: threading.Event,
    ):
        """`read` is the part of the run's identity that describes its data files (see `inputs`); `goal` the sequences
        at which the call ends."""
        self.spec, self.path, self.team, self.label, self.report, self.stop = spec, path, team, label, report, stop
        self.read, self.deterministic, self.goal, self.say = read, deterministic, goal, say
        self.points = set(spec.schedule.points(spec.sequences, spec.batch))
        self.kept = set(spec.schedule.kept(spec.sequences, spec.batch))
        self.rows: list[dict[str, np.ndarray]] = []
        self.latest: dict[str, float] = {}
        self.over: int | None = None
        """Sequences at which the last member stopped early."""

    def run(self) -> Run:
        """Trains to the end and returns the run. The folder is made once all workers have started."""
        self.writer, self.instruments = self._open()
        try:
            self._train()
        finally:
            self.writer.close()
        if self.stop.is_set():  # in the last moment: what follows the training is not begun
            raise Interrupted
        return Run(self.path)

    def _open(self) -> tuple[Writer, list[Instrument]]:
        spec = self.spec.builtins()
        good = restore(Run(self.path)) if (self.path / HEADER).exists() else None
        found, state = good if good else (None, None)
        if good:
            check_state(self.spec, good[0][1], good[1])
        started = self.team.start(spec, state)
        identity = started["identity"] | {"members": self.spec.members, "kernel": self.team.kernel.name}
        identity |= msgspec.to_builtins(self.team.layout) | self.read
        self._compare(identity, found[1] if found else None)
        instruments = [Instrument(*row) for row in self.team.instruments()]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        header = Header(
            SCHEMA, self.spec.digest(), spec, instruments, list(self.spec.metrics()), identity, self.label, now
        )
        if self.stop.is_set():
            raise Interrupted
        writer = Writer(self.path, header, found)
        if writer.manifest != (found[1] if found else None):  # another process committed between our look and our lock
            writer.close()
            raise BusyError("out", str(self.path), "was changed by another process; run the command again")
        return writer, instruments

    def _compare(self, identity: dict[str, Any], manifest: Manifest | None) -> None:
        """Reports which data differ from those that the run was begun with; with `deterministic` refuses any
        difference."""
        there = (self.path / HEADER).exists()
        before = original_identity(Run(self.path).header, manifest) if there else identity
        other = changed_inputs(self.spec, before, identity)
        if self.deterministic:
            require(not other, "deterministic", True, "; ".join(other))
            self._check_deterministic(identity, before, manifest)
        for sentence in other:
            self.say(f"note: {sentence}: this run is not repeatable any more")

    def _check_deterministic(self, identity: dict[str, Any], before: dict[str, Any], manifest: Manifest | None) -> None:
        allowed = "training in this process is not repeatable bit for bit on the CPU: give --processes 1 or more"
        if identity["platform"] == "gpu":
            allowed = f"set XLA_FLAGS={DETERMINISTIC} first"
        require(identity["deterministic"], "deterministic", True, allowed)
        if manifest is not None:
            require(manifest.repeatable, "deterministic", True, "a part of this run was not repeatable")
        one, other = numeric_identity(before), numeric_identity(identity)
        names = identity_differences(before, identity)
        words = ", ".join(f"{name} {one.get(name)} (here {other.get(name)})" for name in names)
        require(not names, "deterministic", True, f"this run was begun with {words}")

    def _train(self) -> None:
        spec, batch = self.spec, self.spec.batch
        manifest = self.writer.manifest
        at = manifest.sequences if manifest else 0
        self.before = manifest.seconds if manifest else 0.0
        self.began = self.saved = time.monotonic()
        self.commit_seconds = 0.0
        self.timed: deque[tuple[float, int]] = deque([(self.began, at)], maxlen=30)
        self.warm = False
        expected = step_seconds(spec) * -(-spec.members // len(self.team.workers))
        slice_steps = max(1, min(int(SLICE_SECONDS / expected), FIRST_STEPS))
        self.slow = expected > LONG_STEP_SECONDS
        outstanding = deque[tuple[str, int]]()

        def ask(do: str, sequences: int) -> None:
            self.team.send({"do": do, "step": sequences // batch} if do == "train" else {"do": do})
            outstanding.append((do, sequences))

        if manifest is None:
            ask("evaluate", 0)
            ask("state", 0)
        while True:
            most = 1 if self.slow else 4  # a stop waits for all of them
            while self.over is None and at < self.goal and len(outstanding) < most and not self.stop.is_set():
                following = min((p for p in self.points if p > at), default=self.goal)
                at = min(following, self.goal, at + slice_steps * batch)
                ask("train", at)
                if at in self.points:
                    ask("evaluate", at)
                now = time.monotonic()
                if at in self.kept or now - self.saved > save_pause(now - self.began, self.commit_seconds):
                    self.saved = now
                    ask("state", at)
            if not outstanding:
                break
            do, sequences = outstanding.popleft()
            answer = self.team.answers()
            if self.over is not None:  # asked for before we knew
                continue
            if do == "train":
                slice_steps = self._slice(sequences, slice_steps)
            elif do == "evaluate":
                self._note(sequences, answer)
            else:
                self._commit(sequences, answer)
        if self.over is not None:
            ask("state", self.over)
            self._commit(self.over, self.team.answers())
        elif at < spec.sequences:
            if not self.writer.manifest or self.writer.manifest.sequences < at or self.rows:
                ask("state", at)
                self._commit(at, self.team.answers())
            if self.stop.is_set():
                raise Interrupted

    def _slice(self, sequences: int, steps: int) -> int:
        """The number of steps in a slice of `SLICE_SECONDS`, from the pace up to `sequences`."""
        now, total = time.monotonic(), self.spec.sequences
        if not self.warm:  # the first slice compiles: it says nothing of the pace
            self.timed.clear()
        self.timed.append((now, sequences))
        t0, s0 = self.timed[0]
        if not self.warm:
            self.warm = True
            return steps
        pace = (sequences - s0) / max(now - t0, 1e-9)
        eta = (total - sequences) / max(pace, 1e-9)
        members = self.spec.members
        self.report(Progress(sequences, total, members, pace * members, eta, self.latest))
        self.slow = pace * LONG_STEP_SECONDS < self.spec.batch
        return max(1, min(int(pace * SLICE_SECONDS) // self.spec.batch, 4 * steps))

    def _note(self, sequences: int, answer: dict[str, np.ndarray]) -> None:
        stopped = answer.pop("stopped_at")
        self.rows.append({"sequences": np.asarray([sequences], np.int64), **answer})
        if (stopped >= 0).all() and sequences < self.spec.sequences:
            self.over = sequences
        for i, one in enumerate(self.instruments):
            j = self.spec.metrics().index(one.headline)
            self.latest[one.name] = float(answer["values"][:, i, j, 0].mean())
        trained = (stopped < 0) | (stopped == sequences)  # the others have no loss any more
        self.latest["loss"] = float(answer["train_loss"][trained].mean()) if trained.any() else float("nan")

    def _commit(self, sequences: int, state: dict[str, np.ndarray]) -> None:
        rows, self.rows = self.rows, []
        evaluations = None
        if rows:
            evaluations = {
                "sequences": np.concatenate([r["sequences"] for r in rows]),
                "train_loss": np.stack([r["train_loss"] for r in rows], axis=1),
                "values": np.stack([r["values"] for r in rows], axis=1),
            }
        seconds = self.before + time.monotonic() - self.began
        finished = sequences == (self.spec.sequences if self.over is None else self.over)
        kept = sequences in self.kept or finished
        begun = time.monotonic()
        self.writer.commit(
            sequences=sequences, state=state, evaluations=evaluations, kept=kept, finished=finished, seconds=seconds
        )
        self.commit_seconds = time.monotonic() - begun
