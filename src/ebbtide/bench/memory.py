"""Peak memory of a process and of all that it started. Linux only: elsewhere it is 0, that is unknown."""

import threading
from pathlib import Path

EVERY = 0.05
"""Seconds between looks. The kernel keeps the peak, so only growth in a process's last moment is missed."""


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


class Watch:
    """Follows the peak memory of this process and of all its children. Use as a context manager.

    Pages that processes share (libraries) are counted in each of them.
    """

    def __init__(self) -> None:
        self._peaks: dict[int | str, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def megabytes(self) -> float:
        """Sum of all peaks."""
        return sum(self._peaks.values())

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            for process in ("self", *children()):
                self._peaks[process] = max(peak(process), self._peaks.get(process, 0.0))
