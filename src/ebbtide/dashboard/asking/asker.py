"""Questions to the process that holds the models: one at a time, each within a time limit."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading

import msgspec

from ebbtide.dashboard.asking.question import Question
from ebbtide.machine import forget_settings
from ebbtide.training.wire import receive, send

LIMIT_SECONDS = 120.0
"""Longest time for one answer, JAX's start and compilation included, on a machine whose cores all train."""
IDLE_SECONDS = 600.0
"""Time without a question after which the process ends."""
MOST_WAITING = 8
"""Questions that may wait for their turn."""
MODULE = f"{__package__}.child"
"""The module that the process runs."""


class NoAnswerError(Exception):
    """A question that was not answered; the message is one line."""


class Child:
    """A running process that answers questions."""

    def __init__(self, words: list[str]):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        forget_settings(environment)
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the server only, with which this process ends
        )
        self._answers: queue.Queue[dict | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        while (message := receive(self.process.stdout)) is not None:
            self._answers.put(message)
        self._answers.put(None)

    def ask(self, question: Question, seconds: float) -> dict | None:
        """The answer; None where the process ended before it answered. Raises `queue.Empty` after so many seconds."""
        assert self.process.stdin is not None
        try:
            send(self.process.stdin, msgspec.to_builtins(question))
        except BrokenPipeError:
            return None
        return self._answers.get(timeout=seconds)

    def end(self) -> int:
        """Ends the process; its exit code."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        code = self.process.wait()
        self._listener.join()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            try:
                stream.close()
            except BrokenPipeError:
                continue
        return code


class Asker:
    """Asks a process of its own, which is started at the first question and whenever it has ended. Used from several
    threads: they wait for each other."""

    def __init__(self, limit: float = LIMIT_SECONDS, idle: float = IDLE_SECONDS):
        self.limit = limit
        self._words = [sys.executable, "-m", MODULE, str(os.getpid()), str(idle)]
        self._child: Child | None = None
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST_WAITING)

    @property
    def pid(self) -> int | None:
        """The process number of the child; None where there is none."""
        return None if self._child is None or self._child.process.poll() is not None else self._child.process.pid

    def ask(self, question: Question) -> bytes:
        """The answer as JSON. Raises `NoAnswerError` when too many questions wait, when it took too long (the process
        is then ended), when the process ended, or with the line that it answered."""
        if not self._room.acquire(blocking=False):
            raise NoAnswerError("too many questions are waiting: ask again in a moment")
        try:
            with self._turn:
                message = self._message(question)
        finally:
            self._room.release()
        if "error" in message:
            raise NoAnswerError(message["error"])
        return message["answer"]

    def _message(self, question: Question) -> dict:
        for again in (True, False):
            fresh = self._child is None
            child = self._child = self._child or Child(self._words)
            try:
                message = child.ask(question, self.limit)
            except queue.Empty:
                self.close()
                raise NoAnswerError(f"no answer within {self.limit:g} seconds; the process was ended") from None
            if message is not None:
                return message
            code = self.close()
            if fresh or not again:
                raise NoAnswerError(f"the process that answers has ended ({reason(code)})")
        raise AssertionError("not reached")

    def close(self) -> int:
        """Ends the process, if there is one; its exit code."""
        child, self._child = self._child, None
        return 0 if child is None else child.end()


def reason(code: int) -> str:
    """The reason for which a process ended with this exit code."""
    if code >= 0:
        return f"exit code {code}"
    number = -code
    words = " (there may be too little memory)" if number == signal.SIGKILL else ""
    return f"killed by signal {number}{words}"
