"""Children that are measured in turn: several rounds of A B C, so that a slow minute of the machine affects all."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from statistics import median
from typing import Any, NamedTuple

from ebbtide.bench.child import environment
from ebbtide.bench.machine import cores
from ebbtide.training.wire import receive, send


class ChildError(RuntimeError):
    """A child ended, refused or took too long; the message says which."""


class Child:
    """A process of `child.py`. Use as a context manager, which ends it with the block."""

    def __init__(self, threads: int = 1):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ebbtide.bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(threads, cores()),
            start_new_session=True,  # Ctrl-C reaches the bench only, which then ends its children
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while (message := receive(self._process.stdout)) is not None:
            self._answers.put(message)
        self._answers.put(None)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def tell(self, do: str, **command: Any) -> None:
        """Sends a command; its answer comes by `answer`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer says the same, with the reason
            send(self._process.stdin, {"do": do, **command})

    def answer(self, limit: float = 600) -> dict[str, Any]:
        """The next answer. Raises `ChildError` after `limit` seconds, or when there will be none."""
        try:
            message = self._answers.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise ChildError(f"not ready within {limit:.0f} s") from None
        if message is None:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise ChildError(lines[-1][:200] if lines else "ended without a word")
        if "error" in message:
            raise ChildError(message["error"])
        return message

    def ask(self, do: str, *, limit: float = 600, **command: Any) -> dict[str, Any]:
        """Sends a command and returns its answer."""
        self.tell(do, **command)
        return self.answer(limit)

    def close(self) -> None:
        """Ends the child and its processes (the workers of a run end with their driver)."""
        if self._errors.closed:
            return
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Pace(NamedTuple):
    """Sequences per second over all rounds: the median, and the median ratio to the first implementation."""

    sequences_per_second: float
    ratio: float


def take_turns(contestants: dict[str, list[Child]], rounds: int, seconds: float) -> dict[str, Pace]:
    """The pace of every implementation, each training for `seconds` in each round, one after the other. The children of
    one implementation train at the same time, and their paces are summed."""
    paces: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, children in contestants.items():
            for child in children:
                child.tell("train", seconds=seconds)
            done = [child.answer() for child in children]
            paces[name].append(sum(one["sequences"] / one["seconds"] for one in done))
    return summarise(paces)


def summarise(paces: dict[str, list[float]]) -> dict[str, Pace]:
    """Medians over rounds; ratios to the first implementation are taken within a round."""
    first = next(iter(paces.values()))
    return {
        name: Pace(median(own), median(a / b for a, b in zip(own, first, strict=True))) for name, own in paces.items()
    }
