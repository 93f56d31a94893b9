"""The instruments of regression in context: training prompts, functions never trained, and shifted prompts."""

from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float
from msgspec.structs import replace

from ebbtide.errors import InputError, nearest
from ebbtide.models.model import response_losses
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import Regression, Shift

SHIFTS: tuple[Shift, ...] = get_args(Shift)[1:]
FUNCTION_NAMES = ("train", "prior", *SHIFTS)
"""All evaluators, in the order of their stream indices."""
FUNCTION_METRICS = ("loss", "query_loss", "explained")
"""Names of the metrics, in the order of the last axis of every metric array."""


def function_task(name: str, task: Regression) -> Regression:
    """The task of an evaluator: `train` (training's prompts), `prior` (weights always anew: no pool can have been
    memorised), or a shift of `Regression` with functions as in training. All prompts have their full length. Raises
    `InputError` for an unknown name."""
    if name not in FUNCTION_NAMES:
        hint = nearest(name, FUNCTION_NAMES)
        raise InputError("evaluators", name, f"must be one of {', '.join(FUNCTION_NAMES)}{hint}")
    full = replace(task, lengths="full")
    if name == "train":
        return full
    if name == "prior":
        return replace(full, draw="prior")
    return replace(full, shift=name)


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
