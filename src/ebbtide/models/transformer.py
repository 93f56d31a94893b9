"""The transformer: small, token-major; by default causal, pre-norm, with softmax attention."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Bool, Float, Key
from msgspec import UNSET, UnsetType

from ebbtide.errors import require
from ebbtide.models.cells import CellReadout, compute_outputs, init_outputs
from ebbtide.models.encoders import Encoder, Linear
from ebbtide.models.fence import fence
from ebbtide.models.layers import init_norm, layer_norm, linear, linear_down, weight
from ebbtide.models.linearized import BiasedSoftmax, Keys, Linearized, Queries
from ebbtide.models.model import (
    AnyPrompt,
    Model,
    Pairing,
    Params,
    Tap,
    init_tokens,
    tokens_of,
    untouched,
)
from ebbtide.models.positions import Identical, Learned, Positions
from ebbtide.models.product import Product
from ebbtide.tasks.prompt import FunctionPrompt

Size = Annotated[int, msgspec.Meta(ge=1)]


class Transformer(Model, frozen=True, tag="transformer", forbid_unknown_fields=True):
    r"""Transformer over the tokens of a prompt; by default pre-norm and causal, over interleaved tokens
    $e_1 l_1 \dots e_M l_M e_q$.

    $$x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)),$$
    then logits = LN(x_query) W + b, untied from the label table, whose entries have a standard deviation of 0.02.
    Weights are LeCun normal, biases 0, LayerNorm eps 1e-5, GELU in its tanh form.

    Args:
        layers: the number of layers.
        width: the width d of the residual stream.
        heads: the number of attention heads of a layer, a divisor of `width`.
        mlp_ratio: hidden units of the MLP, in units of `width`; 0: attention only.
        positions: the positional encoding.
        attention_bias: whether queries, keys, values and outputs have biases. False in the public code of Singh et al.
            2023 (frozen features) and 2025; True in the model that the transience paper trains with a ResNet, by the
            code of Chan et al. 2022.
        encoder: the embedding of exemplars.
        pairing: the tokens. "interleaved": exemplars and labels alternate. "copied": the same, and a label's token also
            has an embedding of its exemplar. "joint": one token for each pair, $e_1 + l_1, \dots, e_M + l_M, e_q$, as
            in Nguyen & Reddy (arXiv 2412.00104), so that one layer of attention can learn in context; over interleaved
            tokens that takes two. "states": a stream: exemplars alone, from each of which the next is predicted.
            "whole": the same, each of which sees all others too (`mask = "none"`).
        attention: the attention weights: "softmax"; "relu": relu(q.k) / n; "linear": q.k / n; the last two without
            1/sqrt(k), n the number of tokens attended to (Bai et al. 2023, arXiv 2306.04637). `Linearized`: a feature
            map in place of the softmax. `BiasedSoftmax`: the softmax, with biases that hold a context.
        mask: "causal", or "none": every token sees every other (over joint tokens, and a whole stream).
        norm: "pre"; "post": x = LN(x + f(x)) without a final norm; "none": no norms.
        activation: the MLP's activation.
        readout: the read-out of the cells of a `CellPrompt`; unset: one linear layer, as for labels.

    Activations are `[token, batch, d]`, the query token last. Only what the loss reads is computed: the last layer's
    queries, MLP and the read-out exist for the query token alone. For functions (`FunctionPrompt`) a model over joint
    tokens predicts the query's response, and any other model every response from the tokens before it.

    Every named point of the forward pass goes through a `tap(name, value) -> value` (names as in TransformerLens;
    hook_q and hook_k after rotation, in linearized attention before the feature map), which may record the value or
    return another: see `ebbtide.mechanisms`.

    >>> model = eb.Transformer(layers=2, width=16, heads=2)
    >>> model.parameters(context=2, dim=8, labels=64)
    8800
    """

    layers: Size = 2
    width: Size = 64
    heads: Size = 8
    mlp_ratio: Annotated[int, msgspec.Meta(ge=0)] = 4
    positions: Positions = Learned()
    attention_bias: bool = False
    encoder: Encoder = Linear()
    pairing: Pairing = "interleaved"
    attention: Literal["softmax", "relu", "linear"] | Linearized | BiasedSoftmax = "softmax"
    mask: Literal["causal", "none"] = "causal"
    norm: Literal["pre", "post", "none"] = "pre"
    activation: Literal["gelu", "relu"] = "gelu"
    readout: CellReadout | UnsetType = UNSET  # not None: absent from the JSON of specs without it

    def check(self) -> None:
        """Raises `InputError` when the heads do not divide the width."""
        allowed = f"must divide width = {self.width}"
        require(self.width % self.heads == 0, "model.heads", self.heads, allowed)
        rotary = self.positions.__struct_config__.tag == "rotary"
        even = (self.width // self.heads) % 2 == 0
        require(even or not rotary, "model.heads", self.heads, "rotary positions need an even width / heads")
        allowed = "must be causal over all but joint tokens: without a mask an input would see its own response"
        require(self.mask == "causal" or self.pairing in ("joint", "whole"), "model.mask", self.mask, allowed)
        require(
            self.mask == "none" or self.pairing != "whole", "model.mask", self.mask, "must be none for whole streams"
        )
        split = isinstance(self.positions, Identical) and self.positions.kinds == "token"
        allowed = f"must be role over {self.pairing} tokens: a pair is one of them"
        require(not split or self.by_turns, "model.positions.kinds", "token", allowed)
        if not isinstance(self.attention, str):
            self.attention.check(self.positions, self.mask)

    def check_cells(self, cells: int) -> None:
        if self.readout is not UNSET:
            self.readout.check(self.width, cells)

    @property
    def by_turns(self) -> bool:
        """Whether exemplars and labels are separate, alternating tokens."""
        return self.pairing in ("interleaved", "copied")

    def tokens(self, context: int) -> int:
        return (2 * context if self.by_turns else context) + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for prompts of `context` pairs, exemplars of `dim` features, `labels` outputs."""
        keys = jax.random.split(key, 4 + 6 * self.layers)
        sizes = {"tokens": self.tokens(context), "dim": dim, "width": self.width, "labels": labels}
        params = init_tokens(iter(keys[:3]), self.encoder, self.positions, self.pairing, **sizes)
        layers = jax.vmap(self._init_block)(keys[3:-1].reshape(self.layers, 6))  # one program for all of them
        params |= {"blocks": [jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(self.layers)]}
        params |= {"norm": init_norm(self.width)} if self.norm == "pre" else {}
        outputs = labels or (dim if self.pairing == "states" else 0)
        return params | {"readout": init_outputs(keys[-1], self.readout, self.width, outputs)}

    def _init_block(self, keys: Key[Array, " 6"]) -> dict[str, dict[str, Array]]:
        d, hidden = self.width, self.width * self.mlp_ratio
        square = jax.vmap(lambda key: weight(key, d, d))(keys[:4])
        attention = dict(zip("qkvo", square, strict=True))
        if self.attention_bias:
            attention |= {f"{name}_b": jnp.zeros(d) for name in "qkvo"}
        if not isinstance(self.attention, str):
            attention |= self.attention.init_biases(self.heads, d // self.heads)
        norms = self.norm != "none"
        block = {"norm1": init_norm(d), "attn": attention} if norms else {"attn": attention}
        if hidden:
            mlp = {"w_in": weight(keys[4], d, hidden), "b_in": jnp.zeros(hidden)}
            mlp |= {"w_out": weight(keys[5], hidden, d), "b_out": jnp.zeros(d)}
            block |= {"norm2": init_norm(d), "mlp": mlp} if norms else {"mlp": mlp}
        return block

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "*predicted batch labels"]:
        """Logits of the query's label [batch, labels]. For functions the outputs [slots, batch, labels or 1; over
        states dim], with one slot, the query, over joint tokens."""
        x = tokens_of(params, prompt, self.encoder, self.positions, tap, self.pairing)
        functions = isinstance(prompt, FunctionPrompt)
        every = functions and self.pairing != "joint"
        allowed = self._attention_mask(prompt, x.shape[0])
        for i, block in enumerate(params["blocks"]):
            x = self._block(block, x, i, last=i == self.layers - 1 and not every, tap=tap, allowed=allowed)
        query = x[::2] if every and self.by_turns else x if functions else x[-1]
        if self.norm == "pre":
            query = tap("ln_final.hook_normalized", layer_norm(params["norm"], query))
        return compute_outputs(params, self.readout, query, tap)

    def _attention_mask(
        self, prompt: AnyPrompt, tokens: int
    ) -> Bool[Array, "rows #tokens"] | Bool[Array, "batch 1 1 tokens"] | None:
        """A mask of the tokens that may be attended to: the past, or every pair that a prompt has; None: all tokens."""
        if self.mask == "causal":
            return jnp.tril(jnp.ones((tokens, tokens), bool))
        if isinstance(prompt, FunctionPrompt):
            there = jnp.concatenate([prompt.present, jnp.ones((1, prompt.present.shape[1]), bool)])
            return there.T[:, None, None, :]
        return None

    def weights(self, *, dim: int, labels: int) -> int:
        d = self.width
        ends = 2 * labels * d if self.readout is UNSET else self.readout.weights(d, labels)
        return self.encoder.weights(dim, d) + ends + self.layers * d * d * (4 + 2 * self.mlp_ratio)

    def stored_values(self, tokens: int) -> int:
        """The number of values in the tokens and attention patterns of one layer."""
        return tokens * (self.width + self.heads)

    def products(self, *, batch: int, context: int, dim: int, labels: int) -> list[Product]:
        """The matrix products of a forward pass; in the last layer queries, output, MLP and read-out are for the query
        token alone."""
        d, tokens = self.width, self.tokens(context)
        hidden, head = d * self.mlp_ratio, d // self.heads
        products = self.encoder.products((context + 1) * batch, dim, d)
        for layer in range(self.layers):
            queries = 1 if layer == self.layers - 1 else tokens
            products += [
                Product("q, o", 2, queries * batch, d, d),
                Product("k, v", 2, tokens * batch, d, d),
                Product("scores", batch * self.heads, queries, head, tokens),
                Product("z", batch * self.heads, queries, tokens, head),
            ]
            if hidden:
                wide = Product("mlp in", 1, queries * batch, d, hidden)
                products += [wide, Product("mlp out", 1, queries * batch, hidden, d)]
        return [*products, Product("readout", 1, batch, d, labels)]

    def _block(
        self, block: Any, x: Float[Array, "tokens batch d"], i: int, *, last: bool, tap: Tap, allowed: Array | None
    ) -> Array:
        """The tokens after one layer; after the last layer the query token alone."""

        def before(name: str, point: str, y: Array) -> Array:
            return tap(point, layer_norm(block[name], y)) if self.norm == "pre" else y

        def after(name: str, point: str, y: Array) -> Array:
            return tap(point, layer_norm(block[name], y)) if self.norm == "post" else y

        first, second = (f"blocks.{i}.ln{n}.hook_normalized" for n in (1, 2))
        x = tap(f"blocks.{i}.hook_resid_pre", x)
        attended = self._attention(block["attn"], before("norm1", first, x), i, last=last, tap=tap, allowed=allowed)
        x = tap(f"blocks.{i}.hook_resid_mid", after("norm1", first, (x[-1:] if last else x) + attended))
        if self.mlp_ratio:
            mlp, act = block["mlp"], jax.nn.relu if self.activation == "relu" else jax.nn.gelu
            normed = before("norm2", second, x)
            hidden = tap(f"blocks.{i}.mlp.hook_post", act(linear(normed, mlp["w_in"], mlp["b_in"])))
            out = tap(f"blocks.{i}.hook_mlp_out", linear_down(hidden, mlp["w_out"], mlp["b_out"]))
            x = after("norm2", second, x + out)
        return tap(f"blocks.{i}.hook_resid_post", fence(x))

    def _attention(
        self, w: Any, x: Float[Array, "tokens batch d"], i: int, *, last: bool, tap: Tap, allowed: Array | None
    ) -> Float[Array, "rows batch d"]:
        """The attention output of every token, in the last layer of the query token alone."""
        tokens, batch, d = x.shape
        k = d // self.heads

        def project(name: str, y: Array) -> Array:
            return linear(y, w[name], w.get(f"{name}_b")).reshape(*y.shape[:2], self.heads, k)

        def turn(y: Array) -> Array:
            return self.positions.rotate(y, tokens - 1) if isinstance(self.attention, str) else y

        def inside(name: str, value: Array) -> Array:
            return tap(f"blocks.{i}.attn.{name}", value)

        to_queries, to_keys, to_values = (tap(f"blocks.{i}.hook_{name}_input", x) for name in "qkv")
        q = turn(project("q", to_queries[-1:] if last else to_queries))
        key = inside("hook_k", turn(project("k", to_keys)))
        v = inside("hook_v", project("v", to_values))
        q = inside("hook_q", q)
        if last and self.mask == "causal":
            allowed = None  # the query token comes last and sees all
        if isinstance(self.attention, str):
            z = self._attend(q, key, v, allowed, inside)
        else:
            z = self.attention.attend(q, key, v, w, self.positions, allowed, inside)
        z = inside("hook_z", z)
        return tap(f"blocks.{i}.hook_attn_out", linear(z.reshape(-1, batch, d), w["o"], w.get("o_b")))

    def _attend(self, q: Queries, key: Keys, v: Keys, allowed: Array | None, tap: Tap) -> Queries:
        """The outputs of the heads, of attention without biases."""
        scores = jnp.einsum("qbhk,sbhk->bhqs", q, key)
        if self.attention == "softmax":
            scores = scores / jnp.sqrt(q.shape[-1]).astype(q.dtype)
        if allowed is not None:
            scores = jnp.where(allowed, scores, -1e20)
        scores = tap("hook_attn_scores", scores)
        pattern = tap("hook_pattern", self._attention_pattern(scores, allowed))
        return jnp.einsum("bhqs,sbhk->qbhk", pattern, v)

    def _attention_pattern(self, scores: Float[Array, "batch head rows tokens"], allowed: Array | None) -> Array:
        """The attention pattern: a softmax of the scores, or the scores divided by the number of tokens attended to."""
        if self.attention == "softmax":
            return jax.nn.softmax(scores, axis=-1)
        shape = scores.shape[-2:]
        there = jnp.ones(shape, bool) if allowed is None else allowed
        kept = jnp.where(there, jax.nn.relu(scores) if self.attention == "relu" else scores, 0.0)
        return kept / there.sum(-1, keepdims=True)
