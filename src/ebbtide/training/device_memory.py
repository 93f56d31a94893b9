"""How many members lie side by side in an accelerator's memory: an estimate from the spec."""

import jax

from ebbtide.errors import require
from ebbtide.sources.bank import FLOAT
from ebbtide.training.limits import checkpoint_bytes
from ebbtide.training.programs import EVALUATION_BYTES
from ebbtide.training.spec import Spec

PASSES = 4
"""Values of a layer that are held for one value of its tokens and patterns: forward, backward, and what MLP and norms
add. A guess; memory that was really taken is in the results of `benchmarks/accelerator.sh`."""


def device_memory() -> int | None:
    """Bytes that JAX may take of the first local device; None where it does not say (a CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def kept_bytes(spec: Spec) -> int:
    """Bytes that are held of one member from step to step: weights, moments, its best model, and bank and prompts where
    members have worlds of their own."""
    one = checkpoint_bytes(spec) // spec.members
    best = one // (1 + spec.optimizer.moments) if spec.best_evaluator() else 0
    return one + best + (world_bytes(spec) if spec.worlds() > 1 else 0)


def world_bytes(spec: Spec) -> int:
    """Bytes of a bank and of the inputs of all evaluation prompts."""
    prompts = len(spec.evaluators) * spec.evaluation_sequences * (spec.task.context + 1)
    return spec.source.bank_bytes() + FLOAT * prompts * spec.source.sizes().dim


def step_bytes(spec: Spec) -> int:
    """Bytes that a step of one member takes besides: gradients and new weights, and the activations of a batch."""
    weights = checkpoint_bytes(spec) // spec.members // (1 + spec.optimizer.moments)
    layers = getattr(spec.model, "layers", 1)
    tokens = spec.model.stored_values(spec.model.tokens(spec.task.context))
    return 2 * weights + FLOAT * spec.batch * (PASSES * layers * tokens + 2 * spec.outputs())


def width_that_fits(spec: Spec, devices: int = 1) -> int:
    """The number of members to train side by side on so many accelerators: all where they fit, else as many as do, in
    groups as equal as can be, which take turns. Raises `InputError` where not even the members' states fit."""
    members, memory = -(-spec.members // devices), device_memory()
    if memory is None:
        return members * devices
    shared = 0 if spec.worlds() > 1 else world_bytes(spec)
    left = memory - shared - EVALUATION_BYTES
    kept, step = kept_bytes(spec), step_bytes(spec)
    most = max((left - step) // kept, 0)
    allowed = f"must be at most {most * devices:,}: an estimate of how many fit into {memory:,} bytes of each device"
    require(members <= most, "members", spec.members, allowed)
    at_once = (left - members * kept) // step
    groups = -(-members // at_once)
    return -(-members // groups) * devices
