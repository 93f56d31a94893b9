"""The base class of interventions - changes of a forward pass, described as data - and the taps that they share.

Layers and heads count from 0; `heads` = None means every head of the layer.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Bool, Float, Int

from ebbtide.errors import require
from ebbtide.mechanisms.taps import axes
from ebbtide.models.model import Params, Tap
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import Prompt

Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Indices = Annotated[tuple[Index, ...], msgspec.Meta(min_length=1)]
Heads = Indices | None
Strength = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sizes = dict[str, tuple[int, ...]]
"""The points of a model in the order of the forward pass, with their shapes."""
NEVER = -1e20
"""The score of a token that may not be attended to, the same as that of a later token under the causal mask."""


class ForwardPass(NamedTuple):
    """The inputs of an intervention: the model, its parameters, the prompt, and the activations that it requested from
    the forward pass without interventions (`clean`)."""

    model: Transformer
    params: Params
    prompt: Prompt
    clean: dict[str, Array]

    def label_positions(self) -> Int[Array, " context"]:
        """Positions of the context's labels among the tokens."""
        return label_positions(self.model, self.prompt)


def label_positions(model: Transformer, prompt: Prompt) -> Int[Array, " context"]:
    """Positions of the context's labels among the tokens; in a stream the label of a slot is the next symbol."""
    slots = jnp.arange(prompt.labels.shape[0])
    return 2 * slots + 1 if model.by_turns else slots + (model.pairing == "states")


class Intervention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One change of a forward pass: a frozen struct, so that a spec can hold it."""

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        """Raises `InputError` when the model has no such layer, head, point or neuron."""
        for name in ("layer", "head"):
            size = {"layer": model.layers, "head": model.heads}[name]
            index = getattr(self, name, 0)
            require(index < size, f"{field}.{name}", index, f"must be from 0 to {size - 1}")
        heads = getattr(self, "heads", None) or ()
        for head in heads:
            require(head < model.heads, f"{field}.heads", list(heads), f"must be from 0 to {model.heads - 1}")

    def needs_labels(self) -> bool:
        """Whether the change speaks of the labels and exemplars of a few-shot prompt, which functions in context and
        streams do not have."""
        return False

    def clean(self) -> tuple[str, ...]:
        """Globs of the points whose values are needed from a forward pass without interventions."""
        return ()

    def tap(self, forward: ForwardPass) -> Tap:
        """The tap that makes the change."""
        raise NotImplementedError


def axis_mask(value: Array, axis: int, indices: tuple[Any, ...]) -> Bool[Array, "..."]:
    """A mask that is true at `indices` of one axis, and broadcasts against `value`."""
    where = jnp.zeros(value.shape[axis], bool).at[jnp.array(indices)].set(True)
    return where.reshape([-1 if i == axis else 1 for i in range(value.ndim)])


def replace_at_heads(name: str, value: Array, new: Array, heads: Heads) -> Array:
    """`new` at some heads (None: at all), `value` at the others."""
    return new if heads is None else jnp.where(axis_mask(value, axes(name).index("head"), heads), new, value)


def query_positions(pattern: Float[Array, "batch head query key"]) -> Int[Array, " query"]:
    """Positions of the tokens whose attention is computed: all of them, or the last alone."""
    queries, keys = pattern.shape[-2:]
    return jnp.arange(keys - queries, keys)


def pattern_tap(layer: int, heads: Heads, new: Callable[[Array], Array]) -> Tap:
    """The tap that replaces the attention pattern of some heads (None: all) of a layer by `new(pattern)`."""

    def tap(name: str, value: Array) -> Array:
        if name != f"blocks.{layer}.attn.hook_pattern":
            return value
        return replace_at_heads(name, value, new(value), heads)

    return tap


def replace_query_attention(
    forward: ForwardPass, pattern: Float[Array, "batch head query key"], share: Float[Array, "batch context"]
) -> Array:
    """The pattern with the query's attention replaced by `share` on the labels of the context."""
    row = jnp.zeros((pattern.shape[0], pattern.shape[-1])).at[:, forward.label_positions()].set(share)
    return pattern.at[:, :, -1].set(row[:, None].astype(pattern.dtype))
