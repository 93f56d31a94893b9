"""Models without attention: stacked LSTMs and simple recurrent networks."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key
from msgspec import UNSET, UnsetType

from ebbtide.models.cells import CellReadout, compute_outputs, init_outputs
from ebbtide.models.encoders import Encoder, Linear
from ebbtide.models.layers import linear, weight
from ebbtide.models.model import (
    AnyPrompt,
    Model,
    Params,
    Tap,
    init_tokens,
    tokens_of,
    untouched,
)
from ebbtide.models.positions import Learned, NoPositions, Sinusoidal
from ebbtide.models.product import Product
from ebbtide.tasks.prompt import FunctionPrompt

Size = Annotated[int, msgspec.Meta(ge=1)]
Tokens = Float[Array, "tokens batch d"]


class Recurrent(Model, frozen=True, tag="recurrent", forbid_unknown_fields=True):
    r"""Stacked recurrent layers over interleaved tokens $e_1 l_1 \dots e_M l_M e_q$, read out at the query; or over the
    symbols of a stream, read out at each of them.

    Layer by layer, with x the token or the h of the layer below and h, c = 0 before the first token:
    $$\text{lstm:}\quad (i, g, f, o) = W_x x_t + W_h h_{t-1} + b, \quad
      c_t = \sigma(f + 1)\, c_{t-1} + \sigma(i) \tanh g, \quad h_t = \sigma(o) \tanh c_t;$$
    $$\text{rnn:}\quad h_t = \tanh(W_x x_t + W_h h_{t-1} + b); \qquad \text{relu\_rnn: ReLU in its place.}$$

    Then logits = h_query W + b of the last layer. There is no residual stream, no norm and no dropout between
    layers, and the tokens are those of the transformer, positions included: so it is in the public code of Chan et
    al. 2022 (arXiv 2205.05055: `lstm` or `relu_rnn`, 12 layers of width 64, sinusoidal positions), which compares
    models of equal depth and width. Two differences: its ReLU network has a bias for each of the two products, of
    which only the sum matters; and its positions have all sines before the cosines.

    Weights are LeCun normal (a row of the LSTM's has 2 d inputs, x and h together; those of the RNNs d), biases 0.
    Args:
        kind: "lstm", "rnn" (tanh) or "relu_rnn".
        layers: the number of layers.
        width: the width d of every layer.
        positions: the positional encoding of the tokens.
        encoder: the embedding of exemplars.
        pairing: the tokens: "interleaved" exemplars and labels, or "states", exemplars alone.
        readout: the read-out of the cells of a `CellPrompt`; unset: one linear layer, as for labels.

    To match models by size instead, compare `parameters`: a layer has 8 d^2 + 4 d (lstm) or 2 d^2 + d (rnn)
    of them, a transformer's block 12 d^2 + 9 d at `mlp_ratio = 4`.

    >>> eb.Recurrent(kind="lstm", layers=2, width=16).parameters(context=2, dim=8, labels=64) > 0
    True
    """

    kind: Literal["lstm", "rnn", "relu_rnn"] = "lstm"
    layers: Size = 12
    width: Size = 64
    positions: Learned | Sinusoidal | NoPositions = Sinusoidal()
    encoder: Encoder = Linear()
    pairing: Literal["interleaved", "states"] = "interleaved"
    readout: CellReadout | UnsetType = UNSET  # not None: absent from the JSON of specs without it

    def check(self) -> None:
        """Does nothing: all sizes are compatible."""

    def check_cells(self, cells: int) -> None:
        if self.readout is not UNSET:
            self.readout.check(self.width, cells)

    def tokens(self, context: int) -> int:
        return (1 if self.pairing == "states" else 2) * context + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for prompts of `context` pairs, exemplars of `dim` features, `labels` outputs."""
        keys = iter(jax.random.split(key, 4 + self.layers))
        sizes = {"tokens": self.tokens(context), "dim": dim, "width": self.width, "labels": labels}
        params = init_tokens(keys, self.encoder, self.positions, self.pairing, **sizes)
        params |= {"layers": [self._init_layer(next(keys)) for _ in range(self.layers)]}
        outputs = labels or (dim if self.pairing == "states" else 0)
        return params | {"readout": init_outputs(next(keys), self.readout, self.width, outputs)}

    def _init_layer(self, key: Key[Array, ""]) -> dict[str, Array]:
        d, outputs = self.width, self._outputs()
        if self.kind == "lstm":
            x, h = jnp.split(weight(key, 2 * d, outputs), 2)
        else:
            x, h = (weight(one, d, outputs) for one in jax.random.split(key))
        return {"x": x, "h": h, "b": jnp.zeros(outputs)}

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "*predicted batch labels"]:
        x = tokens_of(params, prompt, self.encoder, self.positions, tap, self.pairing)
        for i, layer in enumerate(params["layers"]):
            x = tap(f"layers.{i}.hook_h", self._layer(layer, x))
        every = x if self.pairing == "states" else x[::2]
        return compute_outputs(params, self.readout, every if isinstance(prompt, FunctionPrompt) else x[-1], tap)

    def _layer(self, w: dict[str, Array], x: Tokens) -> Tokens:
        """The hidden state of every token, computed in a loop: unrolled, 17 tokens are no faster and take up to eight
        times as long to compile."""
        driven = linear(x, w["x"], w["b"])
        start = jnp.zeros_like(x[0])
        if self.kind == "lstm":
            return jax.lax.scan(lambda state, one: _lstm(w["h"], state, one), (start, start), driven)[1]
        bend: Callable[[Array], Array] = jnp.tanh if self.kind == "rnn" else jax.nn.relu

        def step(h: Array, one: Array) -> tuple[Array, Array]:
            h = bend(one + h @ w["h"])
            return h, h

        return jax.lax.scan(step, start, driven)[1]

    def _outputs(self) -> int:
        """Numbers that a layer computes for each token: four gates, or the state itself."""
        return (4 if self.kind == "lstm" else 1) * self.width

    def weights(self, *, dim: int, labels: int) -> int:
        d = self.width
        ends = 2 * labels * d if self.readout is UNSET else self.readout.weights(d, labels)
        return self.encoder.weights(dim, d) + ends + 2 * self.layers * d * self._outputs()

    def stored_values(self, tokens: int) -> int:
        """The number of values in the tokens of one sequence."""
        return tokens * self.width

    def products(self, *, batch: int, context: int, dim: int, labels: int) -> list[Product]:
        """The matrix products of a forward pass: inputs of a layer for all tokens at once, its recurrence token by
        token."""
        d, tokens, outputs = self.width, self.tokens(context), self._outputs()
        products = self.encoder.products((context + 1) * batch, dim, d)
        products += [Product("x", self.layers, tokens * batch, d, outputs)]
        products += [Product("h", self.layers * tokens, batch, d, outputs)]
        return [*products, Product("readout", 1, batch, d, labels)]


Carry = tuple[Float[Array, "batch d"], Float[Array, "batch d"]]


def _lstm(w: Float[Array, "d gates"], state: Carry, driven: Float[Array, "batch gates"]) -> tuple[Carry, Any]:
    """The next (h, c) of an LSTM, and h."""
    h, c = state
    i, g, f, o = jnp.split(driven + h @ w, 4, axis=-1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h
