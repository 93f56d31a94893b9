"""Whether this machine can run a spec now (it has the data, the memory and the run to start from), or use the models
of a run of it."""

import jax
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.training import limits
from ebbtide.training.context import StoredContext
from ebbtide.training.spec import Spec


def check_feasible(spec: Spec) -> None:
    """Raises `InputError` in one line when this machine lacks what a spec needs: files, memory, a checkpoint.

    The spec has been checked (`Spec.check`). Another machine, or this one tomorrow, may answer otherwise.
    """
    allowed = "must be float32 on a CPU, which has no products of lower precision"
    require(
        spec.product_precision() == "float32" or jax.default_backend() != "cpu",
        "precision",
        spec.product_precision(),
        allowed,
    )
    spec.source.check_data()
    spec.model.encoder.check(spec.source.sizes().dim)
    limits.check_memory(spec)
    if spec.start is not None:
        spec.start.check(spec.model, spec.shape(), [spec.number(m) for m in range(spec.members)])
        if isinstance(spec.start.context, StoredContext):
            spec.start.context.read(spec.task.prompt_type, spec.shape())


def check_loadable(spec: Spec) -> None:
    """Raises `InputError` in one line when a spec describes no run (`Spec.check`), or its models do not fit into this
    machine's memory. Nothing is allocated."""
    spec.check()
    limits.check_checkpoint_memory(spec)


def check_answerable(spec: Spec, prompts: int, field: str = "sequences") -> None:
    """Raises `InputError` in one line when a spec describes no run, or this machine lacks the data or the memory to
    give its models `prompts` prompts, a number that the user knows as `field`. Nothing is drawn, and the run that it
    started from is not needed."""
    check_loadable(spec)
    spec.source.check_data()
    spec.model.encoder.check(spec.source.sizes().dim)
    one = replace(spec, batch=1, evaluators=spec.evaluators[:1], evaluation_sequences=2)
    limits.check_memory(one)
    need, memory = limits.needed_bytes(replace(one, evaluation_sequences=prompts)), limits.physical_memory()
    allowed = f"so many prompts need at least {need:,} bytes with the models; this machine has {memory:,}"
    require(need <= memory, field, prompts, allowed)
