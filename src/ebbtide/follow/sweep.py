"""The tasks of a sweep as one thing that is followed."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from ebbtide.errors import InputError, one_line
from ebbtide.follow.events import Event, event, events_of
from ebbtide.follow.series import SEEDS, Place, Series, cell_words, make_series
from ebbtide.follow.tail import State, Tail
from ebbtide.follow.watched import SWEEP, Happened
from ebbtide.runs.records import HEADER
from ebbtide.runs.signed import DamagedError
from ebbtide.sweeps.folder import Member, SweepFolder
from ebbtide.sweeps.plan import group_unchecked


class WatchedSweep:
    """A sweep: the members of its points, whatever tasks they are in, also while tasks are planned and tried again."""

    def __init__(self, path: Path, per: str):
        self.path, self._per = path, per
        self.name = path.absolute().name
        self._tails: dict[str, Tail] = {}
        self._states: dict[str, State] = {}
        self._aside: dict[str, int] = {}
        self._damaged: dict[str, str] = {}
        self._made: dict[str, Series] = {}
        self._events: dict[str, tuple[int, State, list[Event]]] = {}
        self._open_folder()

    def _open_folder(self) -> None:
        """Reads the description, and which members belong to which cell: the same but for seeds."""
        self._folder, self._stat = SweepFolder(self.path), self._description()
        self._folder.check_size()
        self._cells: dict[str, list[str]] = {}
        sweep = self._folder.sweep
        points = sweep.points()
        for group in group_unchecked(sweep, points):
            for i, (row, address) in enumerate(zip(group.rows, group.addresses, strict=True)):
                own = {name: values[i] for name, values in group.values.items() if not name.startswith(SEEDS)}
                fixed = {name: value for name, value in points[row].items() if name not in group.values}
                words = cell_words({**{k: v for k, v in fixed.items() if not k.startswith(SEEDS)}, **own})
                inside = self._cells.setdefault(words, [])
                if address not in inside:
                    inside.append(address)

    def _description(self) -> tuple[int, int]:
        found = (self.path / SWEEP).stat()
        return found.st_mtime_ns, found.st_ino

    def read(self) -> Iterator[str]:
        """Reads new plans and every task that is not complete."""
        if self._description() != self._stat:
            self._open_folder()
        self._folder.reread()
        for task in self._tasks():
            if task in self._damaged or self._states.get(task) == "complete":
                continue
            try:
                self._read_task(task)
            except (InputError, DamagedError, OSError) as error:
                self._damaged[task] = one_line(str(error))
                yield f"task {task} cannot be followed: {self._damaged[task]}"

    def _read_task(self, task: str) -> None:
        if task not in self._tails:
            path = self._folder.run_path(task)
            if not (path / HEADER).is_file():
                self._look_aside(task)
                return
            self._tails[task] = Tail(path)
        self._states[task] = self._tails[task].state()
        self._look_aside(task)

    def _look_aside(self, task: str) -> None:
        """Notes whether the task was set aside, and by how many tries."""
        if self._states.get(task) not in ("running", "complete") and self._folder.state(task) == "quarantined":
            self._aside[task] = len(self._folder.failures(task))
        else:
            self._aside.pop(task, None)

    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(found.task for found in self._found() if found is not None))

    def _found(self) -> Iterator[Member | None]:
        for addresses in self._cells.values():
            for address in addresses:
                yield self._folder.members.get(address)

    def series(self) -> list[Series]:
        """One for each member whose run has begun, or for each configuration of which all have."""
        out = []
        for words, addresses in self._cells.items():
            group = f"{self.name} {words}" if words else self.name
            places = [self._place(address) for address in addresses]
            if self._per == "cell":
                begun = [place for place in places if place is not None]
                if len(begun) == len(places):
                    out.append(self._series(" ".join(addresses), group, group, begun))
                continue
            for i, address, place in zip(count(), addresses, places, strict=False):
                if place is not None:
                    out.append(self._series(address, group, f"{group}/{i}", [place]))
        return out

    def _series(self, key: str, group: str, name: str, places: list[Place]) -> Series:
        if key not in self._made:
            self._made[key] = make_series(group, name, places, cell=self._per == "cell")
        return self._made[key]

    def _place(self, address: str) -> Place | None:
        member = self._folder.members.get(address)
        tail = self._tails.get(member.task) if member is not None else None
        return None if member is None or tail is None else Place(tail, member.place)

    def events(self) -> list[Happened]:
        """Events of members are shown in their series; those of a task in the series of its first member."""
        by_place = {(id(tail), member): one for one in self.series() for tail, member in one.places}
        out = []
        for task in self._tasks():
            tail, state, path = self._tails.get(task), self._states.get(task), self._folder.run_path(task)
            name = f"{self.name}, task {task[:8]}"
            found = self._events_of(task, tail, state) if tail is not None and state is not None else []
            if task in self._aside:
                found = [*found, self._set_aside(task, tail)]
            for one in found:
                out.append(Happened(one, name, by_place.get((id(tail), one.member or 0)), path))
        return out

    def _events_of(self, task: str, tail: Tail, state: State) -> list[Event]:
        """The events of a task's run, found again only when something has changed."""
        rows, before, found = self._events.get(task, (-1, state, []))
        if (rows, before) != (len(tail.sequences), state):
            found = events_of(tail, state)
            self._events[task] = (len(tail.sequences), state, found)
        return found

    def _set_aside(self, task: str, tail: Tail | None) -> Event:
        tries = self._aside[task]
        last = (self._folder.failures(task)[-1].text.strip().splitlines() or ["no message"])[-1]
        text = f"set aside after {tries} failed tries: {one_line(last)}"
        if tail is None:
            return Event(f"{task}-aside-{tries}", "set aside", text, None, 0)
        at = int(tail.sequences[-1]) if len(tail.sequences) else 0
        return event(tail, "set aside", text, None, at, tries)

    def over(self) -> bool:
        """Whether every member is planned, and every task is complete, set aside or damaged."""
        ended = {task for task, state in self._states.items() if state == "complete"}
        ended |= self._aside.keys() | self._damaged.keys()
        return all(found is not None and found.task in ended for found in self._found())

    def failed(self) -> str:
        """How many tasks were set aside or are damaged."""
        parts = {"set aside": len(self._aside), "damaged": len(self._damaged)}
        return ", ".join(f"{n} task{'s' * (n > 1)} {what}" for what, n in parts.items() if n)

    def identity(self) -> str:
        """The sweep's name and folder."""
        return f"{self._folder.sweep.name} {self.path.absolute()}"
