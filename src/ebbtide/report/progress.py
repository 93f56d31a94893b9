"""The progress line of a run."""

import time
from collections.abc import Callable
from typing import Any

from rich.live import Live
from rich.text import Text

from ebbtide.report.tables import short
from ebbtide.terminal import Terminal

EVERY = 10.0
"""Seconds between lines where the output is not a terminal."""


class ProgressLine:
    """A progress display with sequences, pace, time left and the latest metrics: a moving line on a terminal, else a
    line now and then. Use as a context manager; call it with a `Progress` (or with any object that `words` turns into a
    line)."""

    def __init__(self, console: Terminal, words: Callable[[Any], str] | None = None):
        self._console = console
        self._words = words or line
        self._live = Live(Text("starting: compiling"), console=console, refresh_per_second=4, transient=True)
        self._printed = 0.0

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, progress) -> None:
        text = self._words(progress)
        if self._console.is_terminal:
            self._live.update(Text(text))
        elif time.monotonic() - self._printed > EVERY:
            self._printed = time.monotonic()
            self._console.print(text, soft_wrap=True)


def clock(seconds: float) -> str:
    """A duration in seconds as text: 83 -> 1:23, 4000 -> 1:06:40."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def line(p) -> str:
    """The text of a `Progress`: `1.2M/3.0M sequences x 4 members, 88k/s, 1:23 left | icl 0.83 iwl 0.12 ciwl 0.75 loss
    0.31`."""
    now = " ".join(
        f"{n} {p.latest[n]:.3f}"
        for n in ("icl", "iwl", "ciwl", "loss")
        if p.latest.get(n) == p.latest.get(n) and n in p.latest
    )
    head = (
        f"{short(p.sequences)}/{short(p.total)} sequences x {p.members} members, {short(p.rate)}/s, {clock(p.eta)} left"
    )
    return f"{head} | {now}"
