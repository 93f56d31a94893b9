"""The two types of prompts: what tasks draw, and models, losses, metrics and predictors read."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt


class Tag(IntEnum):
    """The role of a slot in a few-shot sequence."""

    OTHER = 0
    BURSTY = 1
    DISTRACTOR = 2
    QUERY = 3


class Prompt(NamedTuple):
    """A batch of few-shot sequences: pairs of an exemplar and a label, then a query exemplar.

    Arrays are token-major: slots come first, and the query is the last slot. A model and its loss see the first three
    fields; the others are latent variables, for oracles, metrics and tests.

    - `exemplars` [slots, batch, dim];
    - `labels` [context, batch], of the context's slots;
    - `target` [batch], the label of the query;
    - `classes` [slots, batch] and `indices` [slots, batch]: the class of every slot, and the exemplar within the class;
    - `tags` [slots, batch]: the role of every slot (`Tag`);
    - `own_label` [batch]: the label that training ties to the query's class, -1 where there is none (a class never
      trained, or labels drawn anew for every sequence).

    >>> spec, params = eb.model_at("runs/tiny")
    >>> prompt = eb.prompts_of(spec, "icl", 5)
    >>> prompt.exemplars.shape, prompt.labels.shape, prompt.target.shape
    ((3, 5, 8), (2, 5), (5,))
    """

    exemplars: Float[Array, "slots batch dim"]
    labels: Int[Array, "context batch"]
    target: Int[Array, " batch"]
    classes: Int[Array, "slots batch"]
    indices: UInt[Array, "slots batch"]
    tags: Int[Array, "slots batch"]
    own_label: Int[Array, " batch"]


class FunctionPrompt(NamedTuple):
    """A batch of sequences of pairs of an input and a response, in which every response is predicted from the pairs
    before it. The last slot is the query.

    - `inputs` [slots, batch, dim];
    - `responses` [slots, batch]: real numbers, or labels (integers from 0); for a dynamical system the next state,
      [slots, batch, dim];
    - `present` [context, batch]: the pairs that a prompt has; a model that reads only the query sees no others;
    - `latent`: arrays [batch, ...] by name, the variables behind the responses (weights, index in a pool, index of the
      noise level), for classical predictors, probes and tests.

    >>> task, source = eb.Regression(context=4), eb.Functions(dim=2)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.inputs.shape, prompt.responses.shape, sorted(prompt.latent)
    ((5, 5, 2), (5, 5), ['level', 'member', 'representation', 'weights'])
    """

    inputs: Float[Array, "slots batch dim"]
    responses: Num[Array, "slots batch *state"]
    present: Bool[Array, "context batch"]
    latent: dict[str, Num[Array, "batch *rest"]]


class SignPrompt(FunctionPrompt):
    """A `FunctionPrompt` whose responses are -s or +s: the sign is the class, and s > 0 the size at which the tokens of
    pairs show it. A model answers with a score whose sign is its class, and is trained with the hinge loss.

    >>> prompt = eb.SignPrompt(np.zeros((2, 1, 3)), np.asarray([[0.5], [-0.5]]), np.ones((1, 1), bool), {})
    >>> np.sign(prompt.responses)[:, 0].tolist()
    [1.0, -1.0]
    """


class CellPrompt(FunctionPrompt):
    """A `FunctionPrompt` whose responses are several labels each, [slots, batch, cells], integers from 0. All cells
    have the same number of possible values; a model answers with the logits of every value of every cell, one cell
    after the other.

    >>> prompt = eb.CellPrompt(np.zeros((2, 1, 3)), np.zeros((2, 1, 4), int), np.ones((1, 1), bool), {})
    >>> prompt.responses.shape
    (2, 1, 4)
    """


PromptType = type[Prompt] | type[FunctionPrompt]
"""Types of prompts."""

Some = TypeVar("Some", Prompt, FunctionPrompt)


def part(prompt: Some, start: int | Int[Array, ""], size: int) -> Some:
    """The sequences of a prompt from `start` to `start + size` - 1, all of which must exist. Latent variables of
    functions are left out."""
    visible = prompt._replace(latent={}) if isinstance(prompt, FunctionPrompt) else prompt
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, min(1, x.ndim - 1)), visible)


Parts = tuple[Float[Array, "slots dim"], Num[Array, "slots *state"], Bool[Array, " context"], dict[str, Array]]
"""One prompt: inputs, responses, present, latent."""


def function_prompts(
    one: Callable[[Key[Array, ""]], Parts], key: Key[Array, ""], index: UInt[Array, " batch"]
) -> FunctionPrompt:
    """Prompts with the numbers `index` of the stream `key`, each drawn by `one` from a key of its own."""
    parts = jax.vmap(lambda i: one(jax.random.fold_in(key, i)), out_axes=(1, 1, 1, 0))(index)
    return FunctionPrompt(*parts)
