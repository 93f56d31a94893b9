"""Peak memory of a process and of all that it started. Linux only: elsewhere it is 0, that is unknown."""

import threading
from pathlib import Path

EVERY = 0.2
"""Seconds between looks: a shorter peak may be missed."""


def peak(process: int | str = "self") -> float:
    """Largest resident size of a process so far, in megabytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def children(process: int | str = "self") -> list[int]:
    """The processes a process has started and their children, as far as they are alive."""
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
    """Megabytes a process takes now, a page that n processes share counted as 1 / n of one; 0 where the
    system does not tell."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), 0.0)


class MemoryWatch:
    """Follows the memory that this process and all its children take together. Use as a context manager.

    Pages that they share (libraries) count once: it is what the machine must have.
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
        """The largest sum seen."""
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            self._peak = max(self._peak, sum(share(process) for process in ("self", *children())))
