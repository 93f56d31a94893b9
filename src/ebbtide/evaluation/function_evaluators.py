"""The instruments of regression in context: training prompts, functions never trained, and shifted prompts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebbtide.errors import InputError, nearest
from ebbtide.models.model import response_losses
from ebbtide.tasks.cued import Cued
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.prompt import FunctionPrompt, part
from ebbtide.tasks.regression import Regression

FunctionTask = Regression | Cued | Dynamics
FUNCTION_METRICS = ("loss", "query_loss", "explained")
"""Names of the metrics, in the order of the last axis of every metric array."""
AT_ONCE = 256
"""What so many prompts hold fits a cache: 2,000 at once take 2.7 times as long as parts of 250 (LOG.md, 2026-11-27)."""


def function_task(name: str, task: FunctionTask) -> FunctionTask:
    """The task of an evaluator. Raises `InputError` for an unknown name."""
    names = task.evaluators()
    if name not in names:
        raise InputError("evaluators", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
    return task.variant(name)


def in_parts(
    answer: Callable[[FunctionPrompt], Float[Array, "asked part outputs"]], prompt: FunctionPrompt
) -> Float[Array, "asked batch outputs"]:
    """`answer` of all prompts of a batch, at most `AT_ONCE` at a time where they can be parted evenly. Compiles."""
    n = prompt.inputs.shape[1]
    size = next((size for size in range(min(n, AT_ONCE), AT_ONCE // 4, -1) if n % size == 0), n)
    found = jax.lax.map(lambda at: answer(part(prompt, at, size)), jnp.arange(0, n, size))
    return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], n, -1)


def per_prompt(outputs: Float[Array, "asked batch outputs"], prompt: FunctionPrompt) -> Float[Array, "metrics batch"]:
    """The metrics of every prompt:

    - loss: mean over the slots that are asked (squared error, or nats);
    - query_loss: that of the last slot, which has the whole context;
    - explained: 1 - query_loss / what a constant answer gets, the mean square of the queries' responses, or the
      logarithm of the number of labels. 1 is perfect, 0 knows nothing.
    """
    losses = response_losses(outputs, prompt)
    labels = jnp.issubdtype(prompt.responses.dtype, jnp.integer)
    nothing = jnp.log(outputs.shape[-1] * 1.0) if labels else (prompt.responses[-1] ** 2).mean()
    return jnp.stack([losses.mean(0), losses[-1], 1 - losses[-1] / nothing])
