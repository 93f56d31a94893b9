"""The progress of a run, as it is reported while the run trains."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ebbtide.training.spec import Spec

QUIET_SECONDS = 30.0
"""Seconds without a report after which a slow start is announced."""


class Progress(NamedTuple):
    """The progress of a run: sequences per member, their rate summed over members, seconds left, latest metrics."""

    sequences: int
    total: int
    members: int
    rate: float
    eta: float
    latest: dict[str, float]


Report = Callable[[Progress], None]


@contextmanager
def announce_slow_start(spec: Spec, say: Callable[[str], None], report: Report) -> Iterator[Report]:
    """`report`, with one line to `say` when nothing has been reported within `QUIET_SECONDS`."""
    text = f"still starting: weights and prompts of {spec.members:,} members are drawn, programs are compiled"
    waiting = threading.Timer(QUIET_SECONDS, say, [text])
    waiting.daemon = True
    waiting.start()

    def heard(progress: Progress) -> None:
        waiting.cancel()
        report(progress)

    try:
        yield heard
    finally:
        waiting.cancel()
