"""One run over the processes of JAX's distributed runtime: several hosts with accelerators, one run folder.

Every process calls `train(..., distributed=True)`. Member m belongs to process m mod P, which trains it on its own
devices. Process 0 is the driver and the one writer of the folder: it broadcasts the commands of the wire protocol and
gathers the answers; the others follow. Members never talk to each other, so that is all that is ever sent. When a
process dies, JAX's runtime ends the others after its heartbeat timeout; the run goes on from its last checkpoint when
it is started again, with any number of processes.
"""

import io
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ebbtide.errors import InputError, require
from ebbtide.training.wire import receive, send
from ebbtide.training.worker import obey

SMALLEST_MESSAGE = 1024
"""Bytes; messages are padded to a power of two, so that few programs are compiled to carry them."""


def join(members: int) -> int:
    """Joins the runtime, if this process has not yet; returns its number.

    JAX finds the others by SLURM's, Open MPI's, Kubernetes' or the TPU's own variables, or the caller has called
    `jax.distributed.initialize(address, processes, number)` before. Raises `InputError` when it finds nothing, or there
    are more processes than members.
    """
    if not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            allowed = (
                f"found no other processes ({error}); start it under srun, or call jax.distributed.initialize first"
            )
            raise InputError("distributed", True, allowed) from error
    count = jax.process_count()
    require(members >= count, "members", members, f"must be at least the number of processes, {count}")
    return jax.process_index()


class Hosts:
    """All processes as one worker, seen from process 0."""

    def __init__(self) -> None:
        self._here: Any = None
        self._answers: list[dict[str, Any]] = []

    def send(self, command: dict[str, Any]) -> None:
        _broadcast(command)
        answer, self._here = _obey(self._here, command)
        self._answers.append(_joined(_gather(answer)))

    def answer(self, stop: threading.Event | None = None) -> dict[str, Any]:
        found = self._answers.pop(0)
        if "error" in found:
            raise InputError(*found["error"])
        return found

    def close(self) -> None: ...


@contextmanager
def leading() -> Iterator[None]:
    """Tells the others how it ended, however it ends: they end alike."""
    ended: dict[str, Any] = {"do": "close"}
    try:
        yield
    except InputError as error:
        ended["error"] = [error.field, str(error.value), error.allowed]
        raise
    except BaseException as error:
        ended["failed"] = type(error).__name__
        raise
    finally:
        _broadcast(ended)


def follow() -> str | None:
    """What the other processes do: obey until process 0 has ended. Returns how it failed (None: it did not).

    Stop signals are process 0's to handle. Raises `InputError` when the run could not be made.
    """
    members: Any = None
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        while (command := _broadcast(None))["do"] != "close":
            answer, members = _obey(members, command)
            _gather(answer)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if "error" in command:
        raise InputError(*command["error"])
    return command.get("failed")


def _obey(members: Any, command: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Carries out a command for the members of this process."""
    if command["do"] == "start":
        mine = _share(command["members"], jax.process_index())
        state = command["state"]
        own = None if state is None else {name: array[mine] for name, array in state.items()}
        command = {**command, "members": mine, "state": own}
    try:
        return obey(members, command)
    except InputError as error:
        return {"error": [error.field, str(error.value), error.allowed]}, members


def _share(members: list[int], process: int) -> list[int]:
    return members[process :: jax.process_count()]


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers of all processes as one: arrays in the order of the members; an error wherever one was."""
    for part in parts:
        if "error" in part:
            return part
    arrays = {name: value for name, value in parts[0].items() if isinstance(value, np.ndarray)}
    out = dict(parts[0])
    if arrays:
        sizes = [len(next(iter(part.values()))) for part in parts]
        order = np.argsort(np.concatenate([_share(list(range(sum(sizes))), p) for p in range(len(parts))]))
        out |= {name: np.concatenate([part[name] for part in parts])[order] for name in arrays}
    if "identity" in out:
        out["identity"] = {**out["identity"], "hosts": len(parts)}
    return out


def _broadcast(message: dict[str, Any] | None) -> dict[str, Any]:
    """Process 0's message, to everybody."""
    data = _pack(message) if message is not None else np.zeros(0, np.uint8)
    first = jax.process_index() == 0
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(data), np.int32), is_source=first))
    padded = np.zeros(_room(size), np.uint8)
    padded[: len(data)] = data
    return _unpack(np.asarray(multihost_utils.broadcast_one_to_all(padded, is_source=first))[:size])


def _gather(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Everybody's message, in the order of the processes."""
    data = _pack(message)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray([len(data)], np.int32))).reshape(-1)
    padded = np.zeros(_room(int(sizes.max())), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [_unpack(row[:size]) for row, size in zip(rows, sizes, strict=True)]


def _room(size: int) -> int:
    return max(SMALLEST_MESSAGE, 1 << max(size - 1, 0).bit_length())


def _pack(message: dict[str, Any]) -> np.ndarray:
    stream = io.BytesIO()
    send(stream, message)
    return np.frombuffer(stream.getvalue(), np.uint8)


def _unpack(data: np.ndarray) -> dict[str, Any]:
    message = receive(io.BytesIO(data.astype(np.uint8).tobytes()))
    assert message is not None
    return message
