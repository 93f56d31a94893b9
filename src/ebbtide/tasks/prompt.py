"""The schema every task draws and every model reads."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt


class Tag(IntEnum):
    """The part a slot plays in a few-shot sequence."""

    OTHER = 0
    BURSTY = 1
    DISTRACTOR = 2
    QUERY = 3


class Prompt(NamedTuple):
    """One batch of (exemplar, label) sequences that end with a query exemplar.

    Slots come first (token-major) and the query is the last slot. The first three fields are what
    a model and its loss see; the rest is the latent truth behind them, for oracles, metrics and tests.
    `own_label` is the label that training ties to the query's class, or -1 where there is none
    (a class never trained, or labels drawn anew for every sequence).
    """

    exemplars: Float[Array, "slots batch dim"]
    labels: Int[Array, "context batch"]
    target: Int[Array, " batch"]
    classes: Int[Array, "slots batch"]
    indices: UInt[Array, "slots batch"]
    tags: Int[Array, "slots batch"]
    own_label: Int[Array, " batch"]


class FunctionPrompt(NamedTuple):
    """One batch of sequences of (input, response) pairs in which every response is asked for.

    Slot t is answered from the pairs before it; the last slot is the query. Responses are real numbers, vectors of
    them (the next state of a dynamical system), or whole numbers below the task's `labels`. `present` says which of the
    context's pairs a prompt has: a model that reads only the query sees no others. `latent` is the truth behind the
    responses (weights, which of a pool, noise), for baselines, probes and tests.
    """

    inputs: Float[Array, "slots batch dim"]
    responses: Num[Array, "slots batch *state"]
    present: Bool[Array, "context batch"]
    latent: dict[str, Num[Array, "batch *rest"]]


PromptType = type[Prompt] | type[FunctionPrompt]
"""The two kinds of prompt there are."""

Some = TypeVar("Some", Prompt, FunctionPrompt)


def part(prompt: Some, start: int | Int[Array, ""], size: int) -> Some:
    """`size` sequences of a prompt from `start` on; all of them must be there. Of functions what a model may see: their
    latent truth is left out."""
    seen = prompt._replace(latent={}) if isinstance(prompt, FunctionPrompt) else prompt
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, min(1, x.ndim - 1)), seen)


Parts = tuple[Float[Array, "slots dim"], Num[Array, "slots *state"], Bool[Array, " context"], dict[str, Array]]
"""One prompt: inputs, responses, present, latent."""


def function_prompts(
    one: Callable[[Key[Array, ""]], Parts], key: Key[Array, ""], index: UInt[Array, " batch"]
) -> FunctionPrompt:
    """Examples `index` of the stream `key`, each drawn by `one` from a key of its own."""
    parts = jax.vmap(lambda i: one(jax.random.fold_in(key, i)), out_axes=(1, 1, 1, 0))(index)
    return FunctionPrompt(*parts)
