"""The list of a root: every folder as a row, read in a thread, and read again only where something was committed.

A folder that was read is known by the times at which the system last changed it and its checkpoints, so a look at it
costs two questions to the file system. Only a request starts a pass over the root; without a viewer nothing is read.
"""

import contextlib
import os
import secrets
import threading
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from ebbtide import __version__
from ebbtide.dashboard.places import COMPUTED, FAILURES, OUTSIDE, PLANS, PROBES, RUNS, SWEEP, Root, is_plain, names_in
from ebbtide.dashboard.rows import BROKEN, Row, computation_row, damaged_row, foreign_row, run_row
from ebbtide.dashboard.sweep_rows import SweepPlans, TaskPlan, read_plans, sweep_row, task_states
from ebbtide.errors import one_line, visible
from ebbtide.runs import lock
from ebbtide.runs.records import CHECKPOINTS, HEADER

EVERY = 1.0
"""Least number of seconds between the beginnings of two passes."""
SHARE = 5.0
"""A pass follows another after at least this many times the seconds that it took, so that looking stays cheap."""
WAIT = 0.3
"""Seconds that a request waits for a pass before it gets what is known."""
SETTLED = 2.0
"""Seconds after a change during which a folder is read at every pass: another change may have got the same time."""
DAMAGED_AGAIN = 30.0
"""Seconds after which a damaged folder is read again."""

Stamp = tuple[tuple[int, int] | None, ...]


class Known(NamedTuple):
    """A folder as it was read: when, by which stamp, and whether that tells it apart from any later state."""

    stamp: Stamp
    at: float
    settled: bool
    row: Row


class KnownSweep(NamedTuple):
    """A sweep as it was read: stamp, plans, the rows and states of its tasks, its own row."""

    stamp: Stamp
    settled: bool
    plans: SweepPlans
    tasks: list[tuple[TaskPlan, Row | None, str]]
    row: Row


class Reading(msgspec.Struct, frozen=True):
    """The number of folders that have been read, and of all."""

    done: int
    of: int


class Listing(msgspec.Struct, frozen=True):
    """The answer to `/api/runs`."""

    root: str
    version: str
    reading: Reading
    rows: list[Row]


class Catalog:
    """The rows of a root. `listing` may be called from any thread; one thread of its own reads."""

    def __init__(self, root: Root):
        self.root = root
        self._known: dict[str, Known] = {}
        self._sweeps: dict[str, KnownSweep] = {}
        self._rows: dict[str, Row] = {}
        self._seen: set[str] = set()
        self._reading = Reading(0, 0)
        self._revision, self._passes, self._due = 0, 0, 0.0
        self._busy = False
        self._body: tuple[int, bytes] = (-1, b"")
        self._nonce = secrets.token_hex(4)
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def listing(self, wait: float = WAIT) -> tuple[str, bytes]:
        """The tag of the list and the list as JSON, after waiting up to `wait` seconds for a pass that is due."""
        with self._change:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="catalog", daemon=True)
                self._thread.start()
            if not self._busy and time.monotonic() >= self._due:
                self._busy = True
                self._change.notify_all()
            if self._busy:
                before = self._passes
                self._change.wait_for(lambda: self._passes > before, wait)
            revision = self._revision
            if self._body[0] != revision:
                rows = [self._rows[name] for name in sorted(self._rows)]
                shown = Listing(visible(self.root.given), __version__, self._reading, rows)
            else:
                shown = None
        if shown is not None:
            self._body = (revision, msgspec.json.encode(shown))
        revision, body = self._body
        return f'"{self._nonce}-{revision}"', body

    def is_read(self) -> bool:
        """Whether every folder has been read once."""
        return self._passes > 0

    def read_all(self) -> list[Row]:
        """All rows, after a whole pass in this thread."""
        self._pass()
        return [self._rows[name] for name in sorted(self._rows)]

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._busy)
            began = time.monotonic()
            try:
                self._pass()
            finally:
                now = time.monotonic()
                with self._change:
                    self._busy, self._passes = False, self._passes + 1
                    self._due = max(began + EVERY, now + SHARE * (now - began))
                    self._change.notify_all()

    def _pass(self) -> None:
        """Looks at every folder of the root once; the newest first, so that they are shown first."""
        found = self._folders()
        first = self._passes == 0
        self._seen = set()
        if first:
            self._show(Reading(0, len(found)), {})
        for i, (name, path) in enumerate(found, 1):
            row = self._look(name, path)
            done = Reading(i if first else len(found), len(found))
            if row != self._rows.get(row.name) or done != self._reading:
                self._show(done, {row.name: row})
        names = {visible(name) for name, _ in found}
        gone = [name for name in self._rows if name not in names]
        with self._change:
            for name in gone:
                del self._rows[name]
            self._revision += bool(gone)
        for known in (self._known, self._sweeps):
            for name in [one for one in known if one not in self._seen]:
                del known[name]

    def _show(self, reading: Reading, rows: dict[str, Row]) -> None:
        with self._change:
            self._reading = reading
            self._rows |= rows
            self._revision += 1

    def _folders(self) -> list[tuple[str, Path]]:
        """The folders of the root by name, the last changed first; none while the root is not there."""
        found: list[tuple[float, str, Path]] = []
        try:
            with os.scandir(self.root.path) as entries:
                for one in entries:
                    try:
                        if not one.name.startswith(".") and one.is_dir():
                            found.append((one.stat().st_mtime, one.name, Path(one.path)))
                    except OSError:  # gone, or a circle of links
                        continue
        except OSError:
            return []
        return [(name, path) for _, name, path in sorted(found, key=lambda one: (-one[0], one[1]))]

    def _look(self, name: str, path: Path) -> Row:
        """The row of a folder, read only where it may have changed."""
        if not is_plain(name):
            return damaged_row(visible(name), path, "its name has characters that cannot be printed")
        if path.is_symlink() and self.root.leads_out(path):
            return damaged_row(name, path, OUTSIDE)
        try:
            files = names_in(path) if self._changed(name, path) else None
            if name in self._sweeps if files is None else (SWEEP in files and COMPUTED not in files):
                return self._sweep(name, path)
            return self._run(name, path, files)
        except BROKEN as error:
            return damaged_row(name, path, error)
        except Exception as error:  # a folder may hold anything: one that shows a fault of ours must not stop the list
            return damaged_row(name, path, one_line(f"cannot be read: {type(error).__name__}: {error}"))

    def _changed(self, name: str, path: Path) -> bool:
        """Whether a folder may have changed since it was read."""
        self._seen.add(name)
        if name in self._sweeps:
            return False  # asked by `_sweep`
        known = self._known.get(name)
        if known is None or not known.settled or known.stamp != stamp_of(path, CHECKPOINTS):
            return True
        if known.row.kind == "damaged":
            return time.time() - known.at > DAMAGED_AGAIN
        waiting = known.row.kind == "run" and known.row.status in ("running", "interrupted")
        return waiting and (lock.holder(path) is not None) != (known.row.status == "running")

    def _run(self, name: str, path: Path, files: list[str] | None) -> Row:
        """The row of a run or computation; `files` are its entries where it has to be read."""
        if files is None:
            return self._known[name].row
        stamp, at = stamp_of(path, CHECKPOINTS), time.time()
        try:
            if COMPUTED in files:
                row = computation_row(name, path)
            else:
                row = run_row(name, path) if HEADER in files else foreign_row(name, path, files)
        except BROKEN as error:
            row = damaged_row(name, path, error)
        self._known[name] = Known(stamp, at, is_settled(stamp, at), row)
        return row

    def _task(self, name: str, path: Path) -> Row | None:
        """The row of a task's run; None before it has begun."""
        try:
            files = names_in(path) if self._changed(name, path) else None
        except FileNotFoundError:
            return None
        if files is not None and HEADER not in files:
            return None
        return self._run(name, path, files)

    def _sweep(self, name: str, path: Path) -> Row:
        """The row of a sweep, from those of its tasks."""
        stamp, at = stamp_of(path, PLANS, RUNS, FAILURES), time.time()
        known = self._sweeps.get(name)
        try:
            same = known is not None and known.stamp == stamp and known.settled
            plans = known.plans if known and same else read_plans(path)
            tasks = list(task_states(self.root, path, plans, self._task))
        except BROKEN:
            self._sweeps.pop(name, None)
            raise
        if known and same and tasks == known.tasks:
            return known.row
        row = sweep_row(name, path, plans, tasks)
        self._sweeps[name] = KnownSweep(stamp, is_settled(stamp, at), plans, tasks, row)
        return row


def stamp_of(path: Path, *parts: str) -> Stamp:
    """What tells the states of a folder apart: of it and of some parts the number on the disk and the time of the last
    change (of their entries, names or permissions); None for a part that is not there."""
    found: list[tuple[int, int] | None] = []
    for place in (path, *(path / part for part in parts)):
        try:
            one = place.stat()
            found.append((one.st_ino, one.st_ctime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def look(path: Path) -> str:
    """A text that changes whenever a run, sweep or computation does: something is committed, judged, planned, measured,
    or a writer begins or ends."""
    at = time.time()
    stamps = [stamp_of(path, CHECKPOINTS, PROBES, PLANS, RUNS, FAILURES)]
    folders = [path]
    with contextlib.suppress(OSError):
        folders += [path / RUNS / name for name in sorted(names_in(path / RUNS))]
    stamps += [stamp_of(one, CHECKPOINTS) for one in folders[1:]]
    held = [lock.holder(one) is not None for one in folders]
    recent = "" if all(is_settled(one, at) for one in stamps) else at
    return f"{stamps} {held} {recent}"


def is_settled(stamp: Stamp, at: float) -> bool:
    """Whether a stamp that was taken at the time `at` (seconds since 1970) is older than any change that could share
    its times."""
    return all(one is None or one[1] < (at - SETTLED) * 1e9 for one in stamp)
