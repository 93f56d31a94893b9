"""Upper limits of specs: what no machine could run is refused before anything is allocated."""

import os
from collections.abc import Callable
from typing import Any

import msgspec

from ebbtide.errors import require
from ebbtide.sources.bank import FLOAT
from ebbtide.traced import replace_at

MOST = 2**32
"""Every whole number of a spec is smaller: indices, counts and seeds are 32-bit words."""

MOST_AT = {
    "task.context": 1024,
    "model.layers": 1024,
    "model.encoder.blocks": 64,
    "model.positions.spare": 4096,
    "schedule.evaluations": 1_000_000,
    "schedule.checkpoints": 1_000_000,
}
"""Tighter limits: slots, layers and blocks are unrolled in the program, points of a schedule are listed."""

MOST_BYTES = 2**46
"""Seventy terabytes: no machine has so much memory."""

PROCESS = 200_000_000
"""Least bytes that a worker process takes, with all libraries loaded and nothing drawn."""


def check_integers(spec: msgspec.Struct) -> None:
    """Raises `InputError` for a whole number too large for its use."""
    for name, value in integers(msgspec.to_builtins(spec)).items():
        if name in MOST_AT:
            require(value <= MOST_AT[name], name, value, f"must be at most {MOST_AT[name]}")
        require(value < MOST, name, value, f"must be below 2^32 = {MOST}")


def check_processes(spec: Any, processes: int) -> None:
    """Raises `InputError` when `processes` worker processes for `spec` need more memory than the machine has."""
    total, memory = processes * PROCESS + needed_bytes(spec), physical_memory()
    allowed = f"need at least {total:,} bytes, {PROCESS:,} for a process; this machine has {memory:,}"
    require(total <= memory, "processes", processes, allowed)


def integers(data: dict[str, Any], prefix: str = "") -> dict[str, int]:
    """The whole numbers of a spec in builtins by dotted name (not those in lists)."""
    found: dict[str, int] = {}
    for name, value in data.items():
        if isinstance(value, dict) and prefix + name != "vary":
            found |= integers(value, f"{prefix}{name}.")
        elif type(value) is int:
            found[prefix + name] = value
    return found


def physical_memory() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def checkpoint_bytes(spec: Any) -> int:
    """A lower bound of the bytes of a checkpoint of `spec`: of every member, the model's matrices and tables with the
    optimiser's moments."""
    weights = spec.model.weights(dim=spec.source.sizes().dim, labels=spec.outputs())
    return FLOAT * spec.members * weights * (1 + spec.optimizer.moments)


def needed_bytes(spec: Any) -> int:
    """A lower bound of the bytes a run of `spec` holds at once, over all its processes.

    What a checkpoint holds (`checkpoint_bytes`); exemplars [class, exemplar, feature] (pixels: a byte each), once for
    each of the members' worlds, and the images of one bank whose components are taken; for one batch, or all evaluation
    sequences, the prompts, what one layer holds and the logits; the inputs of the other worlds' evaluation sequences;
    and for one batch, or the sequences that are evaluated at a time, what the encoder of exemplars holds.
    """
    sizes, model, task = spec.source.sizes(), spec.model, spec.task
    dim, slots, labels = sizes.dim, task.context + 1, spec.outputs()
    worlds, evaluated = spec.worlds(), len(spec.evaluators) * spec.evaluation_sequences
    exemplars = worlds * spec.source.bank_bytes() + spec.source.building_bytes()
    prompts = max(spec.batch, evaluated) * (slots * dim + model.stored_values(model.tokens(task.context)) + labels)
    prompts += (worlds - 1) * evaluated * slots * dim
    encoding = max(spec.batch, spec.evaluation_part()) * slots * model.encoder.stored_values(dim)
    return checkpoint_bytes(spec) + FLOAT * (prompts + encoding) + exemplars


def check_size(spec: Any) -> None:
    """Raises `InputError` when a spec needs more memory than any machine has."""
    _check_needed(spec, MOST_BYTES, f"no machine has more than {MOST_BYTES:,}")


def check_memory(spec: Any) -> None:
    """Raises `InputError` when a spec needs more memory than this machine has."""
    memory = physical_memory()
    spec.source.check_memory(memory)
    _check_needed(spec, memory, f"this machine has {memory:,}")


def check_checkpoint_memory(spec: Any) -> None:
    """Raises `InputError` when a checkpoint of a spec needs more memory than this machine has."""
    memory = physical_memory()
    _check_needed(spec, memory, f"this machine has {memory:,}", checkpoint_bytes, "weights and optimiser state")


def _check_needed(
    spec: Any,
    most: int,
    why: str,
    count: Callable[[Any], int] = needed_bytes,
    what: str = "weights, optimiser state, exemplars and prompts",
) -> None:
    """Raises `InputError` when a spec needs more than `most` bytes by `count`. Names the field
    with the largest share: the one that, set to 1, would reduce the need most."""
    bytes_needed = count(spec)
    if bytes_needed > most:
        sizes = integers(msgspec.to_builtins(spec))
        name = min(sizes, key=lambda one: count(replace_at(spec, one, 1)))
        require(False, name, sizes[name], f"{what} need at least {bytes_needed:,} bytes; {why}")
