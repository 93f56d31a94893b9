"""Peak memory of a process and its children. Linux only: elsewhere it is 0, that is unknown."""

import threading
from pathlib import Path

EVERY = 0.2
"""Seconds between measurements; a shorter peak may be missed."""


def peak(process: int | str = "self") -> float:
    """The largest resident size of a process so far, in megabytes; 0 where the system does not report it."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def children(process: int | str = "self") -> list[int]:
    """The living children of a process, and their children."""
    found: list[int] = []
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            own = [int(word) for word in listing.read_text().split()]
        except OSError:
            continue
        for one in own:
            found += [one, *children(one)]
    return found


def share(process: int | str = "self") -> float:
    """Megabytes that a process takes now, where a page shared by n processes counts as 1 / n; 0 where the system does
    not report it."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), 0.0)


class MemoryWatch:
    """A measurement of the peak memory of this process and all its children together. Use as a context manager.

    Pages that they share (libraries) count once: this is the memory that the machine must have.
    """

    def __init__(self) -> None:
        self._peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def megabytes(self) -> float:
        """The largest sum measured."""
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            self._peak = max(self._peak, sum(share(process) for process in ("self", *children())))
