"""One run over the processes of JAX's distributed runtime: several hosts with accelerators, one run folder.

Every process calls `train(..., distributed=True)`, and all compare the content of their data files. Member m belongs to
process m mod P, which trains it on its own devices. Process 0 is the driver and the only writer of the folder: it
broadcasts the commands of the wire protocol and gathers the answers; the other processes follow. Members never
communicate, so nothing else is sent. When a process dies, JAX's runtime ends the others after its heartbeat timeout;
started again, with any number of processes, the run continues from its last checkpoint.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ebbtide.errors import InputError, require
from ebbtide.training.feasible import check_feasible
from ebbtide.training.inputs import check_same_inputs, inputs
from ebbtide.training.spec import Spec
from ebbtide.training.wire import pack, unpack
from ebbtide.training.worker import obey

SMALLEST_MESSAGE = 1024
"""Bytes. Messages are padded to powers of two from this size on, so that few programs are compiled to carry them."""
SIZE_BYTES = 8
LARGEST_PIECE = 2**28
"""Largest number of bytes sent at a time; a message may be longer than the largest array that every backend can
move."""


def join(members: int) -> int:
    """The number of this process in the distributed runtime, which it joins if it has not yet.

    JAX finds the other processes by the variables of SLURM, Open MPI, Kubernetes or the TPU runtime, or the caller has
    called `jax.distributed.initialize(address, processes, number)` before. Raises `InputError` when no runtime is
    found, or there are more processes than members.
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


def check_hosts(spec: Spec) -> None:
    """Raises the same `InputError` in every process, naming the process at fault, when one lacks what the spec needs
    (`check_feasible`), or reads other data than process 0: members would learn from different files, and nothing in the
    run's folder would say so."""
    try:
        check_feasible(spec)
        mine: dict[str, Any] = {"inputs": inputs(spec)}
    except InputError as error:
        mine = {"error": [error.field, str(error.value), error.allowed]}
    except OSError as error:
        mine = {"error": ["source", str(error.filename), str(error.strerror)]}
    everyone = _gather(mine)
    for process, part in enumerate(everyone):
        if "error" in part:
            field, value, allowed = part["error"]
            raise InputError(field, value, f"{allowed} (in process {process} of {len(everyone)})")
    check_same_inputs(spec, [part["inputs"] for part in everyone])


class Hosts:
    """All processes of a distributed run as one worker, seen from process 0."""

    def __init__(self) -> None:
        self._here: Any = None
        self._answers: list[dict[str, Any]] = []

    def send(self, command: dict[str, Any]) -> None:
        _broadcast(command)
        answer, self._here = _obey(self._here, command)
        self._answers.append(_join_answers(_gather(answer)))

    def answer(self, stop: threading.Event | None = None) -> dict[str, Any]:
        found = self._answers.pop(0)
        if "error" in found:
            raise InputError(*found["error"])
        return found

    def close(self) -> None: ...


@contextmanager
def share_ending() -> Iterator[None]:
    """Sends the outcome of the block in process 0 to the other processes, so that all end alike."""
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
    """The loop of every process but the first: carries out commands until process 0 has ended. Returns its error, None
    where it succeeded.

    Stop signals are handled by process 0. Raises `InputError` when the run could not be made.
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
    """The answer to a command, and the members of this process after it."""
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


def _join_answers(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers of all processes as one: arrays in the order of the members; an error if any process had one."""
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
    """The message of process 0, in every process."""
    data = _pack(message) if message is not None else np.zeros(0, np.uint8)
    first = jax.process_index() == 0
    size = _size(np.asarray(multihost_utils.broadcast_one_to_all(_bytes(len(data)), is_source=first)))
    pieces = [np.asarray(multihost_utils.broadcast_one_to_all(p, is_source=first)) for p in _pieces(data, size)]
    return unpack(np.concatenate(pieces)[:size].tobytes())


def _gather(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of all processes, in their order."""
    data = _pack(message)
    sizes = np.asarray(multihost_utils.process_allgather(_bytes(len(data)))).reshape(-1, SIZE_BYTES)
    sizes = [_size(row) for row in sizes]
    pieces = [np.asarray(multihost_utils.process_allgather(p)) for p in _pieces(data, max(sizes))]
    rows = np.concatenate([piece.reshape(len(sizes), -1) for piece in pieces], axis=1)
    return [unpack(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _bytes(size: int) -> np.ndarray:
    """A length as bytes, because JAX truncates integers to 32 bits."""
    return np.frombuffer(size.to_bytes(SIZE_BYTES, "big"), np.uint8)


def _size(data: np.ndarray) -> int:
    """The length that `_bytes` encoded."""
    return int.from_bytes(data.astype(np.uint8).tobytes(), "big")


def _pieces(data: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`data`, padded to the `size` of the longest message, in pieces."""
    for start in range(0, size, LARGEST_PIECE):
        part = data[start : start + LARGEST_PIECE]
        padded = np.zeros(_room(min(size - start, LARGEST_PIECE)), np.uint8)
        padded[: len(part)] = part
        yield padded


def _room(size: int) -> int:
    return max(SMALLEST_MESSAGE, 1 << max(size - 1, 0).bit_length())


def _pack(message: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(pack(message), np.uint8)
