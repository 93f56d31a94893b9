"""Outputs and attention of a run's models for prompts: one compiled function for all members and checkpoints."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

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


class Single(NamedTuple):
    """What several members do with a single prompt: their outputs at the query, and the attention of the query token
    in every head, without layers where a model has no heads."""

    outputs: Float[Array, "member outputs"]
    attention: Float[Array, "member layer head token"]


def has_heads(model: Model) -> bool:
    """Whether a model has attention heads that can be shown."""
    return isinstance(model, Transformer)


def some_prompts(prompt: Any, start: int, count: int) -> AnyPrompt:
    """`count` of the prompts, from number `start` on, as NumPy arrays."""
    return jax.tree.map(np.asarray, part(prompt, start, count))


@lru_cache(maxsize=8)
def compile_single(model: Model) -> Callable[[Any, AnyPrompt], Single]:
    """The function from (parameters of several members, one prompt) to what the members do with it, one member after
    the other; compiled quickly."""

    def of(params: Params, prompt: AnyPrompt) -> Single:
        if not isinstance(model, Transformer):
            return Single(_at_query(model.apply(params, prompt), prompt)[0], jnp.zeros((0, 0, 0)))
        outputs, seen = record(model, params, prompt, PATTERNS, reduce=lambda name, value: value[0, :, -1])
        attention = jnp.stack([seen[f"blocks.{i}.attn.hook_pattern"] for i in range(model.layers)])
        return Single(_at_query(outputs, prompt)[0], attention)

    return compile_fast(lambda params, prompt: jax.lax.map(lambda one: of(one, prompt), params))


@lru_cache(maxsize=16)
def compile_outputs(model: Model, size: int) -> Callable[[Any, Any], Outputs]:
    """The function from (parameters of several members, prompts) to outputs at the query: one member after the other,
    `size` prompts at a time, which must divide their number evenly."""

    def outputs(params: Params, prompt: Any) -> Outputs:
        count = (prompt.exemplars if isinstance(prompt, Prompt) else prompt.inputs).shape[1]

        def of_some(one: Params, start: Any) -> Float[Array, "batch outputs"]:
            some = part(prompt, start, size)
            return _at_query(model.apply(one, some), some)

        def of(one: Params) -> Float[Array, "batch outputs"]:
            parts = jax.lax.map(lambda start: of_some(one, start), jnp.arange(0, count, size))
            return parts.reshape(count, -1)

        return jax.lax.map(of, params)

    return jax.jit(outputs)


def _at_query(outputs: Array, prompt: AnyPrompt) -> Float[Array, "batch outputs"]:
    """Of the outputs of a model those at the query of every prompt."""
    return outputs if isinstance(prompt, Prompt) else outputs[-1]


def tokens(model: Any, slots: int) -> list[list[Any]]:
    """What each token of a transformer's input shows: [slot, "exemplar"], [slot, "label"] or [slot, "pair"]."""
    if model.by_turns:
        turns = [[slot, what] for slot in range(slots) for what in ("exemplar", "label")]
        return turns[:-1]
    what = "pair" if model.pairing == "joint" else "exemplar"
    return [[slot, what] for slot in range(slots - 1)] + [[slots - 1, "exemplar"]]
