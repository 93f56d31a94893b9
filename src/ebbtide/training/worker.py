"""A worker process: `python -m ebbtide.training.worker` trains members on one thread.

Reads commands from standard input, answers on standard output, and ends when the driver has ended.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from ebbtide import __version__
from ebbtide.errors import InputError, require
from ebbtide.interrupts import SIGNALS
from ebbtide.machine import DETERMINISTIC, instruction_sets, processor
from ebbtide.training.wire import receive, send
from ebbtide.user_code import explain, load_words

ENVIRONMENT = {
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}
"""Environment of a worker: one thread per process. Only so are XLA's results on the CPU repeatable, and they are
faster."""

WATCH_SECONDS = 1.0
"""Seconds within which a worker ends after its driver was killed."""
NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc")
"""Texts in XLA's errors that mean a lack of memory."""


def end_with(parent: int) -> None:
    """Ends this process soon after its parent has died, whatever it is doing. The end of the command stream alone is
    noticed only between two commands, and one may take minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def serve(commands: IO[bytes], answers: IO[bytes]) -> None:
    """Answers commands in order until the stream ends.

    `start` (spec, code: the user's files that it needs, members, their state or None, width, devices, kernel: the
    compiled library or None), then any of
    `instruments`, `train` (step), `evaluate`, `state`.
    """
    members: Any = None
    while (command := receive(commands)) is not None:
        try:
            answer, members = obey(members, command)
        except InputError as error:
            answer = {"error": [error.field, str(error.value), error.allowed]}
        except Exception as error:
            fault = explain(error)
            if isinstance(error, MemoryError | RuntimeError) and out_of_memory(error):
                answer = {"failed": "a worker process ran out of memory"}
            elif fault is not None:
                answer = {"error": [fault.field, str(fault.value), fault.allowed]}
            else:
                raise
        send(answers, answer)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of NumPy or XLA means a lack of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def obey(members: Any, command: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The answer to a command, and the members after it."""
    match command["do"]:
        case "start":
            from ebbtide.training.members import Members
            from ebbtide.training.spec import from_builtins

            load_words(command["code"])
            spec = from_builtins(command["spec"])
            check_jax()
            if command["kernel"]:
                from ebbtide.kernel.library import BuildError
                from ebbtide.kernel.native import register

                try:
                    register(Path(command["kernel"]))
                except BuildError as error:
                    raise InputError("kernel", "native", str(error)) from error
            layout = command["width"], command["devices"]
            members = Members(spec, command["members"], command["state"], *layout, bool(command["kernel"]))
            return {"identity": identity()}, members
        case "instruments":
            return {"instruments": [[i.name, i.headline, i.chance] for i in members.instruments()]}, members
        case "train":
            members.train(command["step"])
            return {}, members
        case "evaluate":
            return members.evaluate(), members
        case "state":
            return members.state(), members
    raise ValueError(f"unknown command {command['do']!r}")


def check_jax() -> None:
    """Raises `InputError` when JAX in this process is set to other types or random streams than ebbtide's."""
    import jax

    for name, needed in (("jax_enable_x64", False), ("jax_threefry_partitionable", True)):
        value = getattr(jax.config, name, needed)
        require(value == needed, name, value, f"must be {needed} where members are trained in this process")


def identity() -> dict[str, Any]:
    """The numeric identity: everything except spec and layout on which the bits of a run depend. `deterministic` is
    true on the CPU with one thread, and on a GPU when XLA was set to be deterministic."""
    from importlib.metadata import version

    import jax

    device, flags = jax.devices()[0], os.environ.get("XLA_FLAGS", "")
    versions = {"ebbtide": __version__} | {name: version(name) for name in ("jax", "jaxlib", "numpy", "optax")}
    one_thread = device.platform == "cpu" and all(os.environ.get(k) == v for k, v in ENVIRONMENT.items())
    deterministic_ops = device.platform == "gpu" and DETERMINISTIC in flags
    what = {"device": device.device_kind, "platform": device.platform}
    what |= {"processor": processor(), "features": instruction_sets()}
    return {**versions, **what, "one_thread": one_thread, "deterministic": one_thread or deterministic_ops}


def main() -> None:
    """Serves the driver, whose process number is the first argument, over the standard streams. The stop signals
    are handled by the driver, also where a batch system sends SIGTERM to every process: a worker is needed to save."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not break the protocol
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
