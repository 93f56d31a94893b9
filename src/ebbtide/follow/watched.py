"""What is followed: a run, or the tasks of a sweep."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ebbtide.follow.events import Event, events_of
from ebbtide.follow.series import Series, series_of_run
from ebbtide.follow.tail import State, Tail

SWEEP = "sweep.json"


class Happened(NamedTuple):
    """An event, the name of its run, and the series in which a tracker shows it (None: not yet, or none)."""

    event: Event
    name: str
    series: Series | None
    folder: Path


@runtime_checkable
class Watched(Protocol):
    """A run or a sweep, as of the last `read`."""

    name: str

    def read(self) -> Iterator[str]:
        """Reads what is new; gives a line for everything that cannot be read."""
        ...

    def series(self) -> list[Series]:
        """All series that have begun."""
        ...

    def events(self) -> list[Happened]:
        """All events so far."""
        ...

    def over(self) -> bool:
        """Whether nothing more is to come."""
        ...

    def failed(self) -> str:
        """What is left unfinished although it is over, in words."""
        ...

    def identity(self) -> str:
        """What tells it from all others, also after it was moved."""
        ...


class WatchedRun:
    """A run."""

    def __init__(self, path: Path, per: str):
        self._tail = Tail(path)
        self.name = path.absolute().name
        self._series = series_of_run(self._tail, self.name, per)
        self._state: State = self._tail.state()

    def read(self) -> Iterator[str]:
        """Reads what is new."""
        self._state = self._tail.state()
        return iter(())

    def series(self) -> list[Series]:
        """One for each member or configuration."""
        return self._series

    def events(self) -> list[Happened]:
        """Events of members are shown in their series, those of the run in the first."""
        found, path = events_of(self._tail, self._state), self._tail.run.path
        return [Happened(one, self.name, series_with(self._series, one.member or 0), path) for one in found]

    def over(self) -> bool:
        """Whether the run is complete."""
        return self._state == "complete"

    def failed(self) -> str:
        """A complete run leaves nothing."""
        return ""

    def identity(self) -> str:
        """The digest of the spec, and when the run was made."""
        return f"{self._tail.header.digest} {self._tail.header.created}"


def series_with(series: list[Series], member: int) -> Series | None:
    """The series that a member of a run is in."""
    return next((one for one in series if any(place.member == member for place in one.places)), None)
