"""The workers of a run as the driver sees them: commands go to all, answers come back in order."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ebbtide.errors import InputError, Interrupted
from ebbtide.machine import forget_settings
from ebbtide.training.custom import files_needed
from ebbtide.training.kernels import XLA, Choice
from ebbtide.training.wire import receive, send
from ebbtide.training.worker import ENVIRONMENT, obey, out_of_memory

POLL_SECONDS = 0.1
"""Seconds between two checks for a stop request."""
REASONS = {
    signal.SIGKILL: "the system may be out of memory",
    signal.SIGILL: "an instruction that this processor does not have: give --kernel xla, or build the kernel again",
    signal.SIGSEGV: "a fault of a compiled library",
    signal.SIGBUS: "a fault of a compiled library, or a file that was cut while it was used",
    signal.SIGABRT: "a fault of a compiled library",
}
"""The usual reason behind a signal that ended a process."""


class WorkerError(RuntimeError):
    """A worker ended without an answer. The message is one line when it was killed; otherwise it ends with what the
    worker printed, which is a bug.

    >>> issubclass(eb.WorkerError, RuntimeError)
    True
    """


def killed_by(number: int) -> str:
    """The name of a signal, and the usual reason behind it."""
    try:
        one = signal.Signals(number)
    except ValueError:  # a real-time signal
        return f"signal {number}"
    return f"{one.name} ({REASONS[one]})" if one in REASONS else one.name


@runtime_checkable
class Worker(Protocol):
    """One worker: it answers commands in their order. Waiting for an answer raises `Interrupted` when `stop` is set;
    outstanding answers are lost then."""

    def send(self, command: dict[str, Any]) -> None: ...
    def answer(self, stop: threading.Event | None = None) -> dict[str, Any]: ...
    def close(self) -> None: ...


class InProcessWorker:
    """A worker in this process, for accelerators, tests and debugging."""

    def __init__(self) -> None:
        self._members: Any = None
        self._answers: list[dict[str, Any]] = []

    def send(self, command: dict[str, Any]) -> None:
        try:
            answer, self._members = obey(self._members, command)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise WorkerError("this process ran out of memory") from error
        self._answers.append(answer)

    def answer(self, stop: threading.Event | None = None) -> dict[str, Any]:
        return self._answers.pop(0)

    def close(self) -> None: ...


class SubprocessWorker:
    """A worker in a process of its own with one thread; it ends when this process ends."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        environment = {**os.environ, **ENVIRONMENT}
        forget_settings(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ebbtide.training.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the driver only
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while (message := receive(self._process.stdout)) is not None:
            self._answers.put(message)
        self._answers.put(None)

    def send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, command)
        except BrokenPipeError:
            raise self._dead() from None

    def answer(self, stop: threading.Event | None = None) -> dict[str, Any]:
        message = self._next(stop)
        if message is None:
            raise self._dead()
        if "error" in message:
            raise InputError(*message["error"])
        if "failed" in message:
            raise WorkerError(message["failed"])
        return message

    def _next(self, stop: threading.Event | None) -> dict[str, Any] | None:
        while stop is not None:
            try:
                return self._answers.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if stop.is_set():
                    raise Interrupted from None
        return self._answers.get()

    def _dead(self) -> WorkerError:
        code = self._process.wait()
        if code < 0:
            return WorkerError(f"a worker process was killed by {killed_by(-code)}")
        self._errors.seek(0)
        tail = self._errors.read()[-4000:].decode(errors="replace").strip()
        return WorkerError(f"a worker process ended with code {code}\n{tail}")

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._listener.join()  # it reads to the end of the dead worker's output
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                stream.close()
            except BrokenPipeError:
                continue


class Team:
    """All workers of a run. Member m belongs to worker m mod (number of workers)."""

    def __init__(
        self,
        members: int,
        layout: Any,
        worker: Worker | None = None,
        kernel: Choice = XLA,
        stop: threading.Event | None = None,
    ):
        """`layout.processes` workers in processes of their own; 0: `worker`, or one in this process. They train by
        `kernel`. Raises `Interrupted` when `stop` is set while they start, or in `try_training`."""
        self.layout, self.kernel, self.stop, processes = layout, kernel, stop, layout.processes
        self.workers: list[Worker] = (
            [SubprocessWorker() for _ in range(processes)] if processes else [worker or InProcessWorker()]
        )
        self.shares = [list(range(members))[i :: len(self.workers)] for i in range(len(self.workers))]

    def send(self, command: dict[str, Any]) -> None:
        """Sends the same command to every worker."""
        for worker in self.workers:
            worker.send(command)

    def start(self, spec: dict[str, Any], state: dict[str, Any] | None) -> dict[str, Any]:
        """Gives every worker its members; returns the first worker's answer when all are ready."""
        common = {"do": "start", "spec": spec, "width": self.layout.width, "devices": self.layout.devices}
        common["code"] = files_needed([spec])
        common["kernel"] = self.kernel.library and str(self.kernel.library)
        for worker, share in zip(self.workers, self.shares, strict=True):
            mine = None if state is None else {name: array[share] for name, array in state.items()}
            worker.send({**common, "members": share, "state": mine})
        answers = [worker.answer(self.stop) for worker in self.workers]
        return answers[0]

    def instruments(self) -> list[list[Any]]:
        """The run's evaluators with their chance levels. All workers are sent the command, so that all draw their
        evaluation prompts at the same time."""
        self.send({"do": "instruments"})
        answers = [worker.answer(self.stop) for worker in self.workers]
        return answers[0]["instruments"]

    def try_training(self, step: int) -> None:
        """Trains to `step` for a measurement; the result is dropped."""
        self.send({"do": "train", "step": step})
        for worker in self.workers:
            worker.answer(self.stop)

    def answers(self) -> dict[str, Any]:
        """The oldest outstanding answer of every worker, with arrays joined in the order of the members."""
        parts = [worker.answer() for worker in self.workers]
        order = np.argsort(np.concatenate([np.asarray(share) for share in self.shares]))
        return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
