"""One try of one task, in a process of its own; every executor starts tasks in this way."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ebbtide.machine import forget_settings
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.sweep import Resources
from ebbtide.training.team import killed_by

BUSY, FULL, STOPPED = 75, 74, 130
"""Exit codes of `task.py`: another process trains the task; the disk is full; saved and stopped as requested."""
GRACE_SECONDS = 60.0
"""Seconds that a task gets to save after a stop request."""

Kind = Literal["done", "busy", "full", "stopped", "failed", "killed"]


class Outcome(NamedTuple):
    """The end of a try of a task. `text` gives the reason: the traceback, or the signal."""

    kind: Kind
    text: str


class Attempt:
    """A task in training. When this process dies, however it dies, the task saves and ends."""

    def __init__(self, folder: Path, task: str, resources: Resources, code: Sequence[str] = ()):
        """`code` names the files of the user that the task needs (`user_code.to_words`)."""
        from ebbtide.training.worker import ENVIRONMENT

        self.folder, self.task = folder, task
        alone = resources.cpus == 1 and resources.gpus == 0
        workers = [] if resources.gpus else [f"--processes={0 if alone else resources.cpus}"]
        files = [f"--code={one}" for one in code]
        environment = {**os.environ, **(ENVIRONMENT if not resources.gpus else {})}
        forget_settings(environment)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the try
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "ebbtide.sweeps.task", str(folder), task, *workers, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the driver only
        )

    @property
    def pid(self) -> int:
        """The process number of the try."""
        return self._process.pid

    def poll(self) -> Outcome | None:
        """The outcome, None while the try runs. A failure is recorded in the sweep's folder, once."""
        code = self._process.poll()
        if code is None:
            return None
        self._errors.seek(0)
        text = self._errors.read()[-100_000:].decode(errors="replace").strip()
        self.ask_to_stop()
        self._errors.close()
        found = _outcome(code, text)
        if found.kind in ("failed", "killed"):
            with contextlib.suppress(OSError):  # a full disk: the driver is told, and will say so
                SweepFolder(self.folder).note(self.task, found.kind, found.text)
        return found

    def wait(self, seconds: float = float("inf")) -> Outcome | None:
        """The outcome, waiting for it at most `seconds`; None when the try still runs."""
        until = time.monotonic() + seconds
        while (found := self.poll()) is None and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def running(self) -> bool:
        """Whether the try has not ended yet."""
        return self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Requests that the task saves and ends."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def stop(self, seconds: float = GRACE_SECONDS) -> bool:
        """Requests that the task saves and ends, and waits at most `seconds`; returns whether it has ended. A task in
        the middle of a longer step saves and ends after it."""
        self.ask_to_stop()
        ended = self.wait(seconds) is not None
        self._errors.close()  # nobody will read what one that is left prints
        return ended


def _outcome(code: int, text: str) -> Outcome:
    plain: dict[int, Kind] = {0: "done", BUSY: "busy", FULL: "full", STOPPED: "stopped"}
    if code in plain:
        return Outcome(plain[code], text)
    if code < 0:
        return Outcome("killed", f"killed by {killed_by(-code)}\n{text}".strip())
    return Outcome("failed", text or f"ended with code {code}")
