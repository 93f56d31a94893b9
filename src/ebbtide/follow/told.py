"""The events that were told already, in a file of their own beside what the tracker writes."""

import os
from pathlib import Path
from typing import Literal

import msgspec

from ebbtide.runs import lock
from ebbtide.runs.reading import read_bounded

FILE = "told.jsonl"
LARGEST = 2**26
"""Largest number of bytes of the file that are read: some 600,000 events."""


class _Line(msgspec.Struct, frozen=True):
    id: str
    state: Literal["begun", "told"]


class Told:
    """Names of events in a folder that this process holds locked: `begun` (a command was started for it) and `told`
    (printed, and the command has ended). Raises `BusyError` when another process follows the same run to there."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock.acquire(folder)
        self._path = folder / FILE
        self.begun: set[str] = set()
        self.told: set[str] = set()
        data = read_bounded(folder, FILE, LARGEST) if self._path.exists() else b""
        for line in data.split(b"\n"):
            try:
                one = msgspec.json.decode(line, type=_Line)
            except msgspec.MsgspecError:  # the process was ended while it wrote this line
                continue
            (self.told if one.state == "told" else self.begun).add(one.id)
        self._whole = data.endswith(b"\n") or not data

    def note(self, name: str, state: Literal["begun", "told"]) -> None:
        """Adds a line, and waits until it is on the disk."""
        line = msgspec.json.encode(_Line(name, state)) + b"\n"
        with self._path.open("ab") as file:
            file.write(line if self._whole else b"\n" + line)
            file.flush()
            os.fsync(file.fileno())
        self._whole = True
        (self.told if state == "told" else self.begun).add(name)

    def close(self) -> None:
        """Lets another process follow."""
        os.close(self._lock)
