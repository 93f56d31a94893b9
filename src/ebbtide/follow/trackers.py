"""What every tracker does, and which there are.

A tracker is its own record of what it has: rows and alerts are compared with what it holds when a series is opened, so
nothing is sent twice and nothing is left out, at whatever moment an earlier process was ended.
"""

from collections.abc import Container
from pathlib import Path
from typing import Protocol, runtime_checkable

from ebbtide.errors import require
from ebbtide.follow.events import Event
from ebbtide.follow.series import Row, Series

NAMES = ("wandb", "trackio", "tensorboard")
PROJECT = "ebbtide"
LONGEST_NAME = 128
"""Largest number of characters of a project's name."""


@runtime_checkable
class Tracker(Protocol):
    """A place to which series are sent."""

    home: Path
    """The folder on this machine in which it keeps what it was sent."""
    place: str
    """Where that is, for people."""

    def open(self, series: Series) -> Container[int]:
        """Makes the series known, and returns the sequences whose rows the tracker has already."""
        ...

    def send(self, series: Series, rows: list[Row]) -> None:
        """Adds rows, in order; each is kept as a whole or not at all."""
        ...

    def alert(self, series: Series, event: Event, fresh: bool) -> None:
        """Adds an event unless the tracker has it; `fresh`: this process is the first that tells it."""
        ...

    def close(self, stopped: bool) -> None:
        """Ends all series; `stopped`: at once, because the user asked for it."""
        ...


def tracker_named(name: str, project: str | None, out: Path | None) -> Tracker:
    """The tracker of this name. Raises `InputError` for an unknown one, one that is not installed, and a name of a
    project that it does not take."""
    require(name in NAMES, "to", name, f"must be one of {', '.join(NAMES)}")
    if project is not None:
        allowed = "is the name of a project: printable, without / \\ # ? % :"
        sound = 0 < len(project) <= LONGEST_NAME and project.isprintable() and not set(project) & set("/\\#?%:")
        require(sound and project.strip(".") != "", "project", project, allowed)
    if name == "wandb":
        from ebbtide.follow.to_wandb import Wandb

        return Wandb(project or PROJECT, out)
    if name == "trackio":
        from ebbtide.follow.to_trackio import Trackio

        return Trackio(project or PROJECT, out)
    from ebbtide.follow.to_tensorboard import TensorBoard

    return TensorBoard(project, out)
