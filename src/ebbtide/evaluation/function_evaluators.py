"""The instruments of regression in context: training prompts, functions never trained, and shifted prompts."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ebbtide.errors import InputError, nearest
from ebbtide.models.model import response_losses
from ebbtide.tasks.cued import Cued
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import Regression

FunctionTask = Regression | Cued | Dynamics
FUNCTION_METRICS = ("loss", "query_loss", "explained")
"""Names of the metrics, in the order of the last axis of every metric array."""


def function_task(name: str, task: FunctionTask) -> FunctionTask:
    """The task of an evaluator. Raises `InputError` for an unknown name."""
    names = task.evaluators()
    if name not in names:
        raise InputError("evaluators", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
    return task.variant(name)


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
