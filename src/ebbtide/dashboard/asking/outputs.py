"""Outputs and attention of a run's models for prompts: one compiled function for all members and checkpoints."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ebbtide.compile import compile_fast
from ebbtide.mechanisms.taps import record
from ebbtide.models.model import AnyPrompt, Model, Params
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import Prompt, part

PATTERNS = "blocks.*.attn.hook_pattern"
Outputs = Float[Array, "member batch outputs"]


def query_outputs(model: Model, params: Params, prompt: AnyPrompt) -> Float[Array, "batch outputs"]:
    """The outputs of one model at the query of every prompt."""
    outputs = model.apply(params, prompt)
    return outputs if isinstance(prompt, Prompt) else outputs[-1]


def some_prompts(prompt: Any, start: int, count: int) -> AnyPrompt:
    """`count` of the prompts, from number `start` on, as NumPy arrays."""
    return jax.tree.map(np.asarray, part(prompt, start, count))


@lru_cache(maxsize=16)
def compile_outputs(model: Model, size: int) -> Callable[[Params, Any], Outputs]:
    """The function from (parameters of several members, prompts) to outputs at the query: one member after the other,
    `size` prompts at a time, which must divide their number evenly. A single prompt is a program that is compiled
    quickly."""

    def outputs(params: Params, prompt: Any) -> Outputs:
        count = (prompt.exemplars if isinstance(prompt, Prompt) else prompt.inputs).shape[1]

        def of(one: Params) -> Float[Array, "batch outputs"]:
            if count == size:
                return query_outputs(model, one, prompt)
            starts = jnp.arange(0, count, size)
            parts = jax.lax.map(lambda start: query_outputs(model, one, part(prompt, start, size)), starts)
            return parts.reshape(count, -1)

        return jax.lax.map(of, params)

    return compile_fast(outputs) if size == 1 else jax.jit(outputs)


def has_heads(model: Model) -> bool:
    """Whether a model has attention heads that can be shown."""
    return isinstance(model, Transformer)


@lru_cache(maxsize=8)
def compile_attention(model: Model) -> Callable[[Params, AnyPrompt], Float[Array, "layer head token"]]:
    """The function from (parameters of one member, one prompt) to the attention of the query token in every head."""
    assert isinstance(model, Transformer)

    def attention(params: Params, prompt: AnyPrompt) -> Float[Array, "layer head token"]:
        _, patterns = record(model, params, prompt, PATTERNS, reduce=lambda name, value: value[0, :, -1])
        return jnp.stack([patterns[f"blocks.{i}.attn.hook_pattern"] for i in range(model.layers)])

    return compile_fast(attention)


def tokens(model: Any, slots: int) -> list[list[Any]]:
    """What each token of a transformer's input shows: [slot, "exemplar"], [slot, "label"] or [slot, "pair"]."""
    if model.by_turns:
        turns = [[slot, what] for slot in range(slots) for what in ("exemplar", "label")]
        return turns[:-1]
    what = "pair" if model.pairing == "joint" else "exemplar"
    return [[slot, what] for slot in range(slots - 1)] + [[slots - 1, "exemplar"]]
