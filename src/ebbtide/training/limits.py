"""What no machine could run is refused before anything is allocated."""

import math
import os
from typing import Any

import msgspec

from ebbtide.errors import require
from ebbtide.sources.features import FrozenFeatures
from ebbtide.sources.gaussian import Gaussian
from ebbtide.traced import replace_at

MOST = 2**32
"""Every whole number of a spec is smaller: indices, counts and seeds are 32-bit words."""

MOST_AT = {
    "task.context": 1024,
    "model.layers": 1024,
    "schedule.evaluations": 1_000_000,
    "schedule.checkpoints": 1_000_000,
}
"""Tighter bounds: slots and layers are unrolled in the program, points of a schedule are listed."""

FLOAT = 4
"""Bytes of a number."""


def check_integers(spec: msgspec.Struct) -> None:
    """Raises `InputError` for a whole number too large for its use."""
    for name, value in integers(msgspec.to_builtins(spec)).items():
        if name in MOST_AT:
            require(value <= MOST_AT[name], name, value, f"must be at most {MOST_AT[name]}")
        require(value < MOST, name, value, f"must be below 2^32 = {MOST}")


def check_memory(spec: Any) -> None:
    """Raises `InputError` when a spec needs more memory than the machine has. Names the field that
    asks for most: the one that, were it 1, would leave the least to ask for."""
    memory = physical_memory()
    if isinstance(spec.source, FrozenFeatures):
        path, shape = spec.source.file()[0], spec.source.shape()
        each, kind = (1, "bytes") if pixels(spec.source) else (FLOAT, "float32")
        stored = math.prod(shape) * each
        allowed = f"holds an array of shape {list(shape)}: {stored:,} bytes as {kind}; this machine has {memory:,}"
        require(stored <= memory, "source.path", path, allowed)
    bytes_needed = needed(spec)
    if bytes_needed > memory:
        sizes = integers(msgspec.to_builtins(spec))
        name = min(sizes, key=lambda one: needed(replace_at(spec, one, 1)))
        what = "weights, optimiser state, exemplars and prompts"
        allowed = f"{what} need at least {bytes_needed:,} bytes; this machine has {memory:,}"
        require(False, name, sizes[name], allowed)


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


def needed(spec: Any) -> int:
    """A lower bound of the bytes a run of `spec` holds at once, over all its processes.

    With L layers of width d, context M, D features and O labels: weights D d + 2 O d + L d^2 (4 + 2
    mlp_ratio), held with the optimiser's moments by every member; exemplars [class, exemplar, D] (pixels:
    a byte each), once for each combination of varied source and task values; and for one batch, or all
    evaluation sequences, the prompts, one layer's tokens, one layer's attention and the logits.
    """
    sizes, model, task = spec.source.sizes(), spec.model, spec.task
    d, dim, slots, labels = model.width, sizes.dim, task.context + 1, task.outputs(sizes.classes)
    tokens = 2 * slots - 1
    weights = dim * d + 2 * labels * d + model.layers * d * d * (4 + 2 * model.mlp_ratio)
    copies = 3 if spec.optimizer.__struct_config__.tag == "adam" else 1
    infinite = isinstance(spec.source, Gaussian) and spec.source.infinite
    each = 1 if infinite else sizes.exemplars + sizes.holdout_exemplars
    world = [values for name, values in spec.vary.items() if not name.startswith(("optimizer.", "seeds."))]
    worlds = len(set(zip(*world, strict=False))) if world else 1
    images = (sizes.classes + sizes.holdout_classes) * each
    exemplars = worlds * images * dim * (1 if pixels(spec.source) else FLOAT)
    sequences = max(spec.batch, len(spec.evaluators) * spec.evaluation_sequences)
    prompts = sequences * (slots * dim + tokens * d + model.heads * tokens + labels)
    return FLOAT * (spec.members * weights * copies + prompts) + exemplars


def pixels(source: Any) -> bool:
    """Whether a source's exemplars are images, kept as one byte a pixel."""
    return getattr(source, "features", None) == "pixels"
