"""The interface and the shared parts of models: tokens of a prompt, loss, read-out."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypedDict

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, PyTree

from ebbtide.models.encoders import Encoder, Linear
from ebbtide.models.layers import weight
from ebbtide.models.positions import Positions
from ebbtide.models.product import Product
from ebbtide.tasks.prompt import CellPrompt, FunctionPrompt, Prompt, SignPrompt

Params = PyTree[Float[Array, "..."]]
Tap = Callable[[str, Array], Array]
Pairing = Literal["interleaved", "copied", "joint", "states", "whole"]
"""The tokens of a prompt. `interleaved`: exemplars and labels alternate; `copied`: the same, with an embedding of its
exemplar added to each label; `joint`: one token per pair, the sum of both embeddings; `states`: exemplars alone, of
each of which the response is predicted from those up to it; `whole`: the same, from all of them."""
STREAMS = ("states", "whole")
"""Pairings whose tokens are exemplars alone."""


class Shape(TypedDict):
    """The sizes that a model must fit: `context` pairs in a prompt, exemplars of `dim` features, `labels` outputs (0:
    one output, for real responses)."""

    context: int
    dim: int
    labels: int


AnyPrompt = Prompt | FunctionPrompt


def untouched(name: str, value: Array) -> Array:
    """The tap that leaves every activation unchanged."""
    return value


def cross_entropy(logits: Float[Array, "batch labels"], target: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """-log softmax(logits)[target] of every sequence, in nats."""
    chosen = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def response_losses(
    outputs: Float[Array, "predicted batch outputs"], prompt: FunctionPrompt
) -> Float[Array, "predicted batch"]:
    """Loss of every predicted slot (all slots, or the last alone): squared error (for vectors the mean over their
    coordinates), cross-entropy in nats where responses are labels (for cells the mean over them), or the hinge loss
    max(0, 1 - score * sign) where they are signs."""
    responses = prompt.responses[-outputs.shape[0] :]
    if isinstance(prompt, CellPrompt):
        logits = cell_logits(outputs, prompt)
        chosen = jnp.take_along_axis(logits, responses[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean(-1)
    if isinstance(prompt, SignPrompt):
        return jax.nn.relu(1 - outputs[..., 0] * jnp.sign(responses))
    if jnp.issubdtype(responses.dtype, jnp.integer):
        return jax.vmap(cross_entropy)(outputs, responses)
    return ((outputs - responses.reshape(outputs.shape)) ** 2).mean(-1)


def cell_logits(
    outputs: Float[Array, "predicted batch outputs"], prompt: CellPrompt
) -> Float[Array, "predicted batch cells values"]:
    """The outputs for a prompt of cells, as the logits of every value of every cell."""
    return outputs.reshape(*outputs.shape[:2], prompt.responses.shape[-1], -1)


def mean_loss(outputs: Array, prompt: AnyPrompt) -> Float[Array, ""]:
    """Training loss: the mean cross-entropy of the query's label (nats), or, for functions, the mean loss over all
    predicted slots (`response_losses`)."""
    if isinstance(prompt, Prompt):
        return cross_entropy(outputs, prompt.target).mean()
    return response_losses(outputs, prompt).mean()


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of models. A subclass computes what lies between the tokens and the read-out (`init`, `apply`), and
    has a `pairing` (a field, or a constant of the class), which says how it makes tokens of a prompt.

    The costs here (`weights`, `stored_values`, `products`) are lower bounds for a model of unknown parts; a subclass
    that knows its parts overrides them, so that its cost is estimated better.
    """

    encoder = Linear()  # a subclass with another one has it as a field

    def check(self) -> None:
        """Raises `InputError` for fields that do not go together; here all do."""

    def check_cells(self, cells: int) -> None:
        """Raises `InputError` unless the read-out fits a task whose responses have so many cells (0: none). A linear
        read-out fits all."""

    def tokens(self, context: int) -> int:
        """Number of tokens of a prompt with `context` pairs."""
        return 2 * context + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for prompts of `context` pairs, exemplars of `dim` features, `labels` outputs."""
        raise NotImplementedError

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "*predicted batch labels"]:
        """Logits of the query's label [batch, labels]; for function tasks the outputs at every predicted slot."""
        raise NotImplementedError

    def loss(self, params: Params, prompt: AnyPrompt) -> Float[Array, ""]:
        """`mean_loss` of the outputs."""
        return mean_loss(self.apply(params, prompt), prompt)

    def loss_and_grad(self, params: Params, prompt: AnyPrompt) -> tuple[Float[Array, ""], Params]:
        """The loss and its gradient: the only function of a model that training calls, so that the compiled kernel can
        replace it."""
        return jax.value_and_grad(self.loss)(params, prompt)

    def parameters(self, *, context: int, dim: int, labels: int) -> int:
        """Number of trained parameters."""

        def init(key: Key[Array, ""]) -> Params:
            return self.init(key, context=context, dim=dim, labels=labels)

        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))))

    def weights(self, *, dim: int, labels: int) -> int:
        """Number of entries in the matrices and tables, without building them; biases, norms and positions are left
        out."""
        return self.parameters(context=1, dim=dim, labels=labels)

    def stored_values(self, tokens: int) -> int:
        """Smallest number of values that one layer stores at once for a sequence of `tokens` tokens."""
        return tokens

    def products(self, *, batch: int, context: int, dim: int, labels: int) -> list[Product]:
        """The matrix products in the forward pass of one step; only those that the loss needs."""
        size = self.parameters(context=context, dim=dim, labels=labels)
        return [Product("all parameters, for every token", 1, self.tokens(context) * batch, 1, size)]


def init_tokens(
    keys: Iterator[Key[Array, ""]],
    encoder: Encoder,
    positions: Positions,
    pairing: Pairing,
    *,
    tokens: int,
    dim: int,
    width: int,
    labels: int,
) -> dict[str, Any]:
    """Initial parameters of the tokens: the label table (standard deviation 0.02; for real responses one LeCun-normal
    row, which is multiplied by the response; none where tokens are states), the exemplar encoder (and the encoder of
    copies), the positional encoding."""
    key, exemplar_key = next(keys), next(keys)
    params = {"exemplar": encoder.init(exemplar_key, dim, width), "position": positions.init(next(keys), tokens, width)}
    if pairing not in STREAMS:
        table = 0.02 * jax.random.truncated_normal(key, -2, 2, (labels, width)) if labels else weight(key, 1, width)
        params["label"] = {"table": table}
    if pairing == "copied":
        params["copy"] = encoder.init(jax.random.fold_in(exemplar_key, 1), dim, width)
    return params


def embeddings_of(
    params: Any, prompt: AnyPrompt, encoder: Encoder, tap: Tap
) -> tuple[Float[Array, "slots batch d"], Float[Array, "context batch d"]]:
    """The embeddings of a prompt's exemplars, the query last, and of its labels."""
    inputs, labels = _parts(prompt)
    exemplars = tap("hook_exemplar_embed", encoder.apply(params["exemplar"], inputs))
    table = params["label"]["table"]
    real = jnp.issubdtype(labels.dtype, jnp.floating)
    return exemplars, tap("hook_label_embed", labels[..., None] * table[0] if real else table[labels])


def _parts(prompt: AnyPrompt) -> tuple[Float[Array, "slots batch dim"], Array]:
    """The exemplars of a prompt, and the labels of its context."""
    if isinstance(prompt, Prompt):
        return prompt.exemplars, prompt.labels
    return prompt.inputs, prompt.responses[:-1]


def tokens_of(
    params: Any, prompt: AnyPrompt, encoder: Encoder, positions: Positions, tap: Tap, pairing: Pairing = "interleaved"
) -> Float[Array, "tokens batch d"]:
    """The tokens of a prompt, the query last: e1 l1 ... eM lM eq, copied e1 l1+c1 ... eM lM+cM eq, as joint pairs
    e1+l1 ... eM+lM eq, as states e1 ... eM eq."""
    if pairing in STREAMS:
        states = tap("hook_exemplar_embed", encoder.apply(params["exemplar"], _parts(prompt)[0]))
        return tap("hook_embed", positions.add(params["position"], states))
    exemplars, labels = embeddings_of(params, prompt, encoder, tap)
    if pairing == "copied":
        labels = labels + encoder.apply(params["copy"], _parts(prompt)[0][:-1])
    context, batch, d = labels.shape
    if pairing == "joint":
        pairs = exemplars[:-1] + labels
    else:
        pairs = jnp.stack([exemplars[:-1], labels], axis=1).reshape(2 * context, batch, d)
    tokens = jnp.concatenate([pairs, exemplars[-1:]])
    return tap("hook_embed", positions.add(params["position"], tokens))


def init_readout(key: Key[Array, ""], width: int, labels: int) -> dict[str, Array]:
    """Initial parameters of the read-out, a linear layer to the labels or to the coordinates of a real response (0:
    one); untied from the label table."""
    return {"w": weight(key, width, max(labels, 1)), "b": jnp.zeros(max(labels, 1))}


def read_out(
    params: Any, query: Float[Array, "*predicted batch d"], tap: Tap
) -> Float[Array, "*predicted batch labels"]:
    """The logits of the query, or of every predicted slot."""
    return tap("hook_logits", query @ params["readout"]["w"] + params["readout"]["b"])
