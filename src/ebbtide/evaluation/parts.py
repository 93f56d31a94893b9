"""Answers of a model to many prompts, a part of them at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebbtide.tasks.prompt import FunctionPrompt, part

AT_ONCE = 256
"""What so many prompts hold fits a cache: 2,000 at once take 2.7 times as long as parts of 250 (LOG.md, 2026-11-27)."""


def in_parts(
    answer: Callable[[FunctionPrompt], Float[Array, "asked part outputs"]], prompt: FunctionPrompt
) -> Float[Array, "asked batch outputs"]:
    """`answer` of all prompts of a batch, at most `AT_ONCE` at a time where they can be parted evenly. Compiles."""
    n = prompt.inputs.shape[1]
    size = next((size for size in range(min(n, AT_ONCE), AT_ONCE // 4, -1) if n % size == 0), n)
    found = jax.lax.map(lambda at: answer(part(prompt, at, size)), jnp.arange(0, n, size))
    return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], n, -1)
