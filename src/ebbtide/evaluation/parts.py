"""A model's outputs for many prompts, computed part by part."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebbtide.tasks.prompt import FunctionPrompt, part

AT_ONCE = 256
"""Largest number of prompts that are evaluated at a time. The activations of this many fit the processor's cache: 2,000
prompts at once take 2.7 times as long as in parts of 250 (LOG.md, 2026-11-27)."""


def in_parts(
    answer: Callable[[FunctionPrompt], Float[Array, "predicted part outputs"]], prompt: FunctionPrompt
) -> Float[Array, "predicted batch outputs"]:
    """`answer(prompt)`, computed for at most `AT_ONCE` prompts at a time where the batch divides evenly, else for all
    at once. Can be compiled."""
    n = prompt.inputs.shape[1]
    size = next((size for size in range(min(n, AT_ONCE), AT_ONCE // 4, -1) if n % size == 0), n)
    outputs = jax.lax.map(lambda at: answer(part(prompt, at, size)), jnp.arange(0, n, size))
    return jnp.moveaxis(outputs, 0, 1).reshape(outputs.shape[1], n, -1)
