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
Say = Callable[[str], None]
"""Called with remarks of one line."""


@contextmanager
def listeners(progress: bool | None, report: Report | None, say: Say | None) -> Iterator[tuple[Report, Say]]:
    """The functions that a run calls with its progress and its remarks: those of the caller, and those of a progress
    line. `progress`: whether there is a line; None: where the caller reports nothing himself and somebody would see
    it."""
    given: tuple[Report, Say] = (report or (lambda progress: None), say or (lambda text: None))
    if progress is False or (progress is None and report is not None):
        yield given
        return
    from ebbtide.report.progress_display import shown  # loads rich

    with shown(always=progress is True) as functions:
        if functions is None:
            yield given
            return
        show, tell = functions

        def both(progress: Progress) -> None:
            show(progress)
            given[0](progress)

        yield both, say or tell


@contextmanager
def announce_slow_start(spec: Spec, say: Say, report: Report) -> Iterator[Report]:
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
