"""The loop: read what is new, send it, tell what happened, wait."""

import hashlib
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import InputError, require
from ebbtide.follow.command import call_command
from ebbtide.follow.series import Series
from ebbtide.follow.told import Told
from ebbtide.follow.trackers import Tracker
from ebbtide.follow.watched import SWEEP, Happened, Watched, WatchedRun
from ebbtide.runs.records import HEADER

EVERY = 2.0
"""Seconds between two looks at the folder."""
LONGEST_PAUSE = 60.0
SHARE = 0.01
"""The share of a core that looking may take: of a sweep of many tasks one look takes longer, and the pause too, up to
`LONGEST_PAUSE` seconds."""
PER = ("member", "cell")
TOLD = "ebbtide-follow"
"""Folder, beside what a tracker writes, with a folder for everything that was followed."""


class Counts(NamedTuple):
    """Rows that were sent, and those that the tracker had already."""

    sent: int
    known: int


class Follower:
    """Sends what one run or sweep has to one tracker. Use as a context manager."""

    def __init__(self, watched: Watched, tracker: Tracker, per: str, alert: list[str], say: Callable[[str], None]):
        self._watched, self._tracker, self._alert, self._say = watched, tracker, alert, say
        named = f"{watched.identity()} {tracker.place} {per}"
        self._told = Told(tracker.home / TOLD / hashlib.sha256(named.encode(errors="replace")).hexdigest()[:16])
        self._known: dict[str, Container[int]] = {}
        self._after: dict[str, int] = {}
        self._shown: set[tuple[str, str]] = set()
        self._stopped = True
        self.counts = Counts(0, 0)
        self.pause = EVERY

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._tracker.close(self._stopped)
        finally:
            self._told.close()

    def round(self) -> None:
        """Reads, sends and tells what is new; sets the `pause` before the next round, in seconds."""
        begun = time.process_time()
        for line in self._watched.read():
            self._say(line)
        self.pause = min(max(EVERY, (time.process_time() - begun) / SHARE), LONGEST_PAUSE)
        for one in self._watched.series():
            self._send(one)
        for happened in self._watched.events():
            self._tell(happened)

    def finish(self) -> None:
        """Says that the end was reached: the tracker may take the time it needs."""
        self._stopped = False

    def _send(self, series: Series) -> None:
        if series.key not in self._known:
            self._known[series.key] = self._tracker.open(series)
        rows = series.rows(self._after.get(series.key, -1))
        if not rows:
            return
        new = [row for row in rows if row.values and row.sequences not in self._known[series.key]]
        if new:
            self._tracker.send(series, new)
        had = sum(row.sequences in self._known[series.key] for row in rows)
        self.counts = Counts(self.counts.sent + len(new), self.counts.known + had)
        self._after[series.key] = rows[-1].sequences

    def _tell(self, happened: Happened) -> None:
        """Tells an event to the tracker, which knows what it has; prints it and calls the command, unless that was
        done."""
        event, name, series, folder = happened
        fresh = event.id not in self._told.told
        if series is not None and (event.id, series.key) not in self._shown:
            self._tracker.alert(series, event, fresh)
            self._shown.add((event.id, series.key))
        if not fresh:
            return
        self._say(f"{name}: {event.text}")
        if self._alert:
            again = event.id in self._told.begun
            self._told.note(event.id, "begun")
            record = {"id": event.id, "event": event.kind, "level": event.level, "text": event.text}
            record |= {"run": name, "folder": str(folder.absolute()), "member": event.member}
            problem = call_command(self._alert, record | {"sequences": event.sequences, "again": again})
            if problem:
                self._say(f"the alert command {problem}")
        self._told.note(event.id, "told")


def follow(
    find: Callable[[], Path | None],
    name: str,
    tracker: Callable[[], Tracker],
    *,
    per: str = "member",
    alert: list[str] | None = None,
    once: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Sends what the folder has, and goes on as it grows until nothing more is to come; the exit code: 0, or 1 where
    tasks of a sweep were set aside or are damaged.

    `find` gives the folder once it is there, `name` is what the user calls it. With `once` it sends what is there now
    and ends.
    """
    require(per in PER, "per", per, f"must be one of {', '.join(PER)}")
    made = tracker()  # a package that is missing is told before an hour of waiting
    watched = _wait(find, name, per, once, say)
    with Follower(watched, made, per, alert or [], say) as follower:
        while True:
            follower.round()
            if once or watched.over():
                break
            time.sleep(follower.pause)
        follower.finish()
    sent, known = follower.counts
    end = "complete" if watched.over() and not watched.failed() else watched.failed() or "not complete"
    say(f"{watched.name}: {end}; {sent:,} evaluations sent" + (f", {known:,} were there" if known else ""))
    return 1 if watched.over() and watched.failed() else 0


def _wait(find: Callable[[], Path | None], name: str, per: str, once: bool, say: Callable[[str], None]) -> Watched:
    """What the folder holds, as soon as it holds something."""
    told = False
    while True:
        path = find()
        watched = open_watched(path, per) if path is not None else None
        if watched is not None:
            return watched
        if once:
            raise InputError("run", name, "no run or sweep folder of this name")
        if not told:
            say(f"waiting for {name}")
            told = True
        time.sleep(EVERY)


def open_watched(path: Path, per: str) -> Watched | None:
    """What the folder holds; None where it holds nothing yet. Raises `InputError` where it holds something else."""
    if (path / SWEEP).is_file():
        from ebbtide.follow.sweep import WatchedSweep  # needs JAX, which following a run does not

        return WatchedSweep(path, per)
    if (path / HEADER).is_file():
        return WatchedRun(path, per)
    if (path / "computed.json").is_file():
        raise InputError("run", str(path), "is a computation: it has no evaluations to follow")
    return None
