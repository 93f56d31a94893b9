"""DeepSet: every pair embedded by itself, their mean or sum, and a network of that and the query."""

from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.models.encoders import Encoder, Linear
from ebbtide.models.layers import linear, weight
from ebbtide.models.model import (
    AnyPrompt,
    Model,
    Pairing,
    Params,
    Tap,
    embeddings_of,
    init_readout,
    init_tokens,
    read_out,
    untouched,
)
from ebbtide.models.positions import NoPositions
from ebbtide.models.product import Product
from ebbtide.tasks.prompt import FunctionPrompt

Size = Annotated[int, msgspec.Meta(ge=1)]
Tokens = Float[Array, "tokens batch d"]


class DeepSet(Model, frozen=True, tag="deepset", forbid_unknown_fields=True):
    r"""A DeepSet of pairs (Zaheer et al. 2017, arXiv 1703.06114), which predicts the response at each slot.

    $$h_i = \psi(e_i + l_i), \qquad s_t = \tfrac{1}{t} \sum_{i \le t} h_i, \qquad
      \hat y_t = W \xi(U s_t + V e_{t+1} + b) + c,$$
    with e and l the embeddings of exemplar and label (their sum is one linear layer of both side by side) and
    $s_0 = 0$. $\psi$ has `layers` hidden layers, the first of them ReLU(e + l),
    and a linear output layer; $\xi$ has `layers` too, the first a ReLU of its input. All have `width` units.

    Args:
        layers: the number of hidden layers of $\psi$, and of $\xi$.
        width: the number of units of every layer.
        pool: "mean", or "sum": without the 1 / t.
        encoder: the embedding of exemplars.

    The prediction depends on the set of pairs alone: f(permuted S, q) = f(S, q) to rounding. Since $s_t$ sums the first
    t pairs, one pass predicts at every prefix and no prediction sees later pairs. The architecture is used so in Ahuja
    & Lopez-Paz 2023 (arXiv 2305.16704, whose networks also have batch norms and one more network between pool and
    query) and in Chen et al. 2023 (arXiv 2311.18194). Pairs interact in the pool alone. Weights are LeCun normal,
    biases 0.

    >>> eb.DeepSet(layers=2, width=16).parameters(context=4, dim=3, labels=0)
    1441
    """

    pairing: ClassVar[Pairing] = "interleaved"
    """A DeepSet predicts after every prefix, as models over interleaved tokens do."""

    layers: Size = 3
    width: Size = 128
    pool: Literal["mean", "sum"] = "mean"
    encoder: Encoder = Linear()

    def check(self) -> None:
        """Does nothing: all sizes are compatible."""

    def tokens(self, context: int) -> int:
        """Number of tokens: the pairs and the query."""
        return context + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for prompts of any length, exemplars of `dim` features, `labels` outputs."""
        d, count = self.width, self.layers
        keys = iter(jax.random.split(key, 4 + 2 * count + 1))
        sizes = {"tokens": self.tokens(context), "dim": dim, "width": d, "labels": labels}
        params = init_tokens(keys, self.encoder, NoPositions(), "joint", **sizes)
        psi = [_init_layer(next(keys), d) for _ in range(count)]
        pooled, query = jnp.split(weight(next(keys), 2 * d, d), 2)
        xi = [_init_layer(next(keys), d) for _ in range(count - 1)]
        joined = {"pool": pooled, "query": query, "b": jnp.zeros(d)}
        readout = init_readout(next(keys), d, labels)
        return params | {"psi": psi, "join": joined, "xi": xi, "readout": readout}

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "*predicted batch labels"]:
        """Logits of the query's label [batch, labels]; for functions the outputs at every slot [slots, batch, ...]."""
        exemplars, labels = embeddings_of(params, prompt, self.encoder, tap)
        every = isinstance(prompt, FunctionPrompt)
        x = exemplars[:-1] + labels
        for i, layer in enumerate(params["psi"]):
            x = tap(f"psi.{i}.hook_post", jax.nn.relu(x))
            x = linear(x, layer["w"], layer["b"])
        pool = tap("hook_pool", self._pool(x, every=every))
        join = params["join"]
        x = linear(pool, join["pool"]) + linear(exemplars if every else exemplars[-1:], join["query"], join["b"])
        x = tap("xi.0.hook_post", jax.nn.relu(x))
        for i, layer in enumerate(params["xi"]):
            x = tap(f"xi.{i + 1}.hook_post", jax.nn.relu(linear(x, layer["w"], layer["b"])))
        return read_out(params, x if every else x[0], tap)

    def _pool(self, x: Tokens, *, every: bool) -> Float[Array, "predicted batch d"]:
        """The sum or mean of the pairs before each slot, or, without `every`, of all pairs for the last slot alone."""
        sums = jnp.concatenate([jnp.zeros_like(x[:1]), jnp.cumsum(x, axis=0)]) if every else x.sum(0, keepdims=True)
        if self.pool == "sum":
            return sums
        count = jnp.arange(len(sums)) if every else jnp.asarray([len(x)])
        return sums / jnp.maximum(count, 1).astype(x.dtype)[:, None, None]

    def weights(self, *, dim: int, labels: int) -> int:
        d = self.width
        return self.encoder.weights(dim, d) + 2 * labels * d + (2 * self.layers + 1) * d * d

    def stored_values(self, tokens: int) -> int:
        """Number of values in the tokens of one sequence."""
        return tokens * self.width

    def products(self, *, batch: int, context: int, dim: int, labels: int) -> list[Product]:
        """The matrix products of a forward pass: psi for every pair, the layers after the pool for the query alone."""
        d, layers = self.width, self.layers
        products = self.encoder.products((context + 1) * batch, dim, d)
        products += [Product("psi", layers, context * batch, d, d), Product("pool, query", 2, batch, d, d)]
        products += [Product("xi", layers - 1, batch, d, d)] if layers > 1 else []
        return [*products, Product("readout", 1, batch, d, labels)]


def _init_layer(key: Key[Array, ""], width: int) -> dict[str, Any]:
    return {"w": weight(key, width, width), "b": jnp.zeros(width)}
