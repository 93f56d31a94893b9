"""A measured process: `python -m ebbtide.bench.child` holds one implementation and trains it on request.

Every implementation has a process of its own, so that thread settings, allocators and peak memory do not mix. Messages
are those of `training/wire.py`.
"""

import os
import signal
import sys
import time
from typing import Any, Protocol, runtime_checkable

from ebbtide.bench.memory import peak
from ebbtide.errors import InputError
from ebbtide.training.wire import receive, send
from ebbtide.training.worker import ENVIRONMENT, end_with

COLD = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
"""Environment without compilation caches: compile times are those of a first start. PyTorch's compiler starts no
processes of its own."""
BY_XLA = "ebbtide by XLA"
IMPLEMENTATIONS = ("ebbtide", BY_XLA, "plain JAX", "PyTorch eager", "PyTorch compiled")


def environment(threads: int, cores: int) -> dict[str, str]:
    """The environment of a child: one thread as in ebbtide's workers, or all cores."""
    base = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    if threads == 1:
        return {**base, **ENVIRONMENT, "MKL_NUM_THREADS": "1", **COLD}
    count = str(min(threads, cores))
    return {**base, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, **COLD}


@runtime_checkable
class Trainer(Protocol):
    """One implementation; `note` describes how it trains."""

    note: str

    def train(self, steps: int) -> None: ...


class EbbtideTrainer:
    """ebbtide's own loop as its workers run it: by the kernel that a run would take, or by XLA."""

    def __init__(self, spec: Any, members: int, by_xla: bool):
        from msgspec.structs import replace

        from ebbtide.kernel.native import register
        from ebbtide.training import kernels
        from ebbtide.training.members import Members

        kernel = kernels.XLA if by_xla else kernels.choose(spec)
        if kernel.library:
            register(kernel.library)
        self.note = kernel.name

        spec = replace(spec, evaluators=("train",), evaluation_sequences=2)  # nobody evaluates here
        self.members = Members(spec, list(range(members)), None, native=bool(kernel.library))

    def train(self, steps: int) -> None:
        """Trains every member for `steps` steps."""
        self.members.train(self.members.step + steps)


def make(implementation: str, spec: Any, members: int, threads: int) -> Trainer:
    """The implementation of this name."""
    match implementation:
        case "ebbtide" | "ebbtide by XLA":
            return EbbtideTrainer(spec, members, by_xla=implementation == BY_XLA)
        case "plain JAX":
            from ebbtide.bench.plain_jax import PlainJax

            return PlainJax(spec)
        case "PyTorch eager" | "PyTorch compiled":
            from ebbtide.bench.plain_torch import PlainTorch

            return PlainTorch(spec, threads, compiled=implementation == "PyTorch compiled")
    raise InputError("implementation", implementation, f"must be one of {', '.join(IMPLEMENTATIONS)}")


class TimedTrainer:
    """A trainer with its measured pace, which converts requested seconds to steps."""

    def __init__(self, command: dict[str, Any]):
        from ebbtide.training.spec import from_builtins

        self.spec = from_builtins(command["spec"])
        self.sequences = self.spec.batch * command["members"]
        began = time.perf_counter()
        self.trainer = make(command["implementation"], self.spec, command["members"], command["threads"])
        self.made = time.perf_counter() - began
        first, second = self._time(1), self._time(1)
        self.compiled = first - second
        if choose := getattr(self.trainer, "choose", None):
            choose()
        self.pace = 2 / self._time(2)

    def _time(self, steps: int) -> float:
        began = time.perf_counter()
        self.trainer.train(steps)
        return time.perf_counter() - began

    def train(self, seconds: float) -> dict[str, Any]:
        """Trains for about `seconds`, in calls of at most a second; returns the sequences and the time they took."""
        steps, began = 0, time.perf_counter()
        while (left := seconds - (time.perf_counter() - began)) > 0.05 * seconds:
            now = max(1, round(self.pace * min(left, 1.0)))
            took = self._time(now)
            self.pace, steps = now / took, steps + now
        return {"sequences": steps * self.sequences, "seconds": time.perf_counter() - began}


def obey(measured: TimedTrainer | None, command: dict[str, Any]) -> tuple[dict[str, Any], TimedTrainer | None]:
    """The answer to a command, and the trainer after it."""
    match command["do"]:
        case "start":
            measured = TimedTrainer(command)
            answer = {"compile_seconds": measured.compiled, "note": measured.trainer.note}
            return answer, measured
        case "train":
            assert measured is not None
            return measured.train(command["seconds"]), measured
        case "memory":
            return {"megabytes": peak()}, measured
        case "multiply":
            from ebbtide.bench.machine import multiply_rates

            return {"flops": [multiply_rates(tuple(s), command["seconds"]) for s in command["shapes"]]}, measured
        case "copy":
            from ebbtide.bench.machine import copy_rate

            return {"bandwidth": [copy_rate(size, command["seconds"]) for size in command["sizes"]]}, measured
        case "together" | "alone" as how:
            from ebbtide.bench import whole
            from ebbtide.training.spec import from_builtins

            spec, folder, intervals = from_builtins(command["spec"]), command["folder"], command["intervals"]
            if how == "alone":
                return whole.measure_member(spec, folder, intervals), measured
            return whole.measure_run(spec, folder, command["processes"], command["began"], intervals), measured
    raise ValueError(f"unknown command {command['do']!r}")


def main() -> None:
    """Serves the benchmark over the standard streams. Ctrl-C is handled by the benchmark."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(os.getppid())
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not break the protocol
    measured: TimedTrainer | None = None
    while (command := receive(sys.stdin.buffer)) is not None:
        try:
            answer, measured = obey(measured, command)
        except InputError as error:
            answer = {"error": str(error)}
        send(answers, answer)


if __name__ == "__main__":
    main()
