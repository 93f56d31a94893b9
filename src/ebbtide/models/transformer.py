"""The one transformer: small, causal, pre-norm, token-major."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require
from ebbtide.models.encoders import Encoder, Linear
from ebbtide.models.fence import fence
from ebbtide.models.layers import layer_norm, linear, linear_down, norm_init, weight
from ebbtide.models.model import Model, Pairing, Params, Tap, init_readout, init_tokens, read_out, tokens_of, untouched
from ebbtide.models.positions import Learned, Positions
from ebbtide.models.product import Product
from ebbtide.tasks.prompt import Prompt

Size = Annotated[int, msgspec.Meta(ge=1)]


class Transformer(Model, frozen=True, tag="transformer", forbid_unknown_fields=True):
    r"""Pre-norm causal transformer over interleaved tokens $e_1 l_1 \dots e_M l_M e_q$, or joint ones.

    $$x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)),$$
    then logits = LN(x_query) W + b, untied from the label table. The exemplar embedding is what `encoder` says, one
    linear layer by default; the label table has sd 0.02. Weights are LeCun normal, biases 0, LayerNorm eps 1e-5,
    GELU in its tanh form (Singh et al. 2023 and 2025: transience.md 4.2, 4.3 follow `attention_bias=False`;
    the paper's joint-ResNet model has biases). `mlp_ratio = 0` is the attention-only model.

    `pairing = "joint"` makes one token of a pair, $e_1 + l_1, \dots, e_M + l_M, e_q$: the sum of two linear embeddings
    is one of the two side by side, as in Nguyen & Reddy (arXiv 2412.00104), with a label of zeros for the query. There
    one layer of attention can learn in context. Over interleaved tokens it takes two: the first to tell a label's
    token which exemplar it follows.

    Activations are `[token, batch, d]`, the query token last. Only what the loss reads is computed:
    the last layer's queries, MLP and the read-out exist for the query token alone.

    Every named point of the forward pass goes through a `tap(name, value) -> value` (names as in TransformerLens;
    hook_q and hook_k after rotation), which may record the value or return another: see `ebbtide.mechanisms`.
    """

    layers: Size = 2
    width: Size = 64
    heads: Size = 8
    mlp_ratio: Annotated[int, msgspec.Meta(ge=0)] = 4
    positions: Positions = Learned()
    attention_bias: bool = False
    encoder: Encoder = Linear()
    pairing: Pairing = "interleaved"

    def check(self) -> None:
        """Raises `InputError` when the heads do not divide the width."""
        allowed = f"must divide width = {self.width}"
        require(self.width % self.heads == 0, "model.heads", self.heads, allowed)
        rotary = self.positions.__struct_config__.tag == "rotary"
        even = (self.width // self.heads) % 2 == 0
        require(even or not rotary, "model.heads", self.heads, "rotary positions need an even width / heads")

    def tokens(self, context: int) -> int:
        return (context if self.pairing == "joint" else 2 * context) + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for prompts of `context` pairs, exemplars of `dim` features, `labels` outputs."""
        keys = iter(jax.random.split(key, 4 + 6 * self.layers))
        sizes = {"tokens": self.tokens(context), "dim": dim, "width": self.width, "labels": labels}
        params = init_tokens(keys, self.encoder, self.positions, **sizes)
        params |= {"blocks": [self._init_block(keys) for _ in range(self.layers)], "norm": norm_init(self.width)}
        return params | {"readout": init_readout(next(keys), self.width, labels)}

    def _init_block(self, keys: Any) -> dict[str, dict[str, Array]]:
        d, hidden = self.width, self.width * self.mlp_ratio
        attention = {name: weight(next(keys), d, d) for name in ("q", "k", "v", "o")}
        if self.attention_bias:
            attention |= {f"{name}_b": jnp.zeros(d) for name in ("q", "k", "v", "o")}
        block = {"norm1": norm_init(d), "attn": attention}
        w_in, w_out = next(keys), next(keys)
        if hidden:
            mlp = {"w_in": weight(w_in, d, hidden), "b_in": jnp.zeros(hidden)}
            mlp |= {"w_out": weight(w_out, hidden, d), "b_out": jnp.zeros(d)}
            block |= {"norm2": norm_init(d), "mlp": mlp}
        return block

    def apply(self, params: Params, prompt: Prompt, tap: Tap = untouched) -> Float[Array, "batch labels"]:
        """Logits of the query's label, all labels."""
        x = tokens_of(params, prompt, self.encoder, self.positions, tap, self.pairing)
        for i, block in enumerate(params["blocks"]):
            x = self._block(block, x, i, last=i == self.layers - 1, tap=tap)
        query = tap("ln_final.hook_normalized", layer_norm(params["norm"], x[-1]))
        return read_out(params, query, tap)

    def weights(self, *, dim: int, labels: int) -> int:
        d = self.width
        return self.encoder.weights(dim, d) + 2 * labels * d + self.layers * d * d * (4 + 2 * self.mlp_ratio)

    def held(self, tokens: int) -> int:
        """Tokens and attention patterns."""
        return tokens * (self.width + self.heads)

    def products(self, *, batch: int, context: int, dim: int, labels: int) -> list[Product]:
        """The last layer's queries, output, MLP and the read-out are for the query token alone."""
        d, tokens = self.width, self.tokens(context)
        hidden, head = d * self.mlp_ratio, d // self.heads
        found = self.encoder.products((context + 1) * batch, dim, d)
        for layer in range(self.layers):
            asked = 1 if layer == self.layers - 1 else tokens
            found += [
                Product("q, o", 2, asked * batch, d, d),
                Product("k, v", 2, tokens * batch, d, d),
                Product("scores", batch * self.heads, asked, head, tokens),
                Product("z", batch * self.heads, asked, tokens, head),
            ]
            if hidden:
                wide = Product("mlp in", 1, asked * batch, d, hidden)
                found += [wide, Product("mlp out", 1, asked * batch, hidden, d)]
        return [*found, Product("readout", 1, batch, d, labels)]

    def _block(self, block: Any, x: Float[Array, "tokens batch d"], i: int, *, last: bool, tap: Tap) -> Array:
        """One layer; the last one returns the query token alone."""
        x = tap(f"blocks.{i}.hook_resid_pre", x)
        normed = tap(f"blocks.{i}.ln1.hook_normalized", layer_norm(block["norm1"], x))
        attended = self._attention(block["attn"], normed, i, last=last, tap=tap)
        x = tap(f"blocks.{i}.hook_resid_mid", (x[-1:] if last else x) + attended)
        if self.mlp_ratio:
            mlp = block["mlp"]
            normed = tap(f"blocks.{i}.ln2.hook_normalized", layer_norm(block["norm2"], x))
            hidden = tap(f"blocks.{i}.mlp.hook_post", jax.nn.gelu(linear(normed, mlp["w_in"], mlp["b_in"])))
            x = x + tap(f"blocks.{i}.hook_mlp_out", linear_down(hidden, mlp["w_out"], mlp["b_out"]))
        return tap(f"blocks.{i}.hook_resid_post", fence(x))

    def _attention(
        self, w: Any, x: Float[Array, "tokens batch d"], i: int, *, last: bool, tap: Tap
    ) -> Float[Array, "rows batch d"]:
        """Causal softmax attention; the last layer asks for the query token's row only."""
        tokens, batch, d = x.shape
        k = d // self.heads

        def project(name: str, y: Array) -> Array:
            return linear(y, w[name], w.get(f"{name}_b")).reshape(*y.shape[:2], self.heads, k)

        asks, shown, said = (tap(f"blocks.{i}.hook_{name}_input", x) for name in "qkv")
        q = self.positions.rotate(project("q", asks[-1:] if last else asks), tokens - 1)
        key = tap(f"blocks.{i}.attn.hook_k", self.positions.rotate(project("k", shown), tokens - 1))
        v = tap(f"blocks.{i}.attn.hook_v", project("v", said))
        q = tap(f"blocks.{i}.attn.hook_q", q)
        scores = jnp.einsum("qbhk,sbhk->bhqs", q, key) / jnp.sqrt(k).astype(x.dtype)
        if not last:
            causal = jnp.tril(jnp.ones((tokens, tokens), bool))
            scores = jnp.where(causal, scores, -1e20)
        scores = tap(f"blocks.{i}.attn.hook_attn_scores", scores)
        pattern = tap(f"blocks.{i}.attn.hook_pattern", jax.nn.softmax(scores, axis=-1))
        z = tap(f"blocks.{i}.attn.hook_z", jnp.einsum("bhqs,sbhk->qbhk", pattern, v))
        return tap(f"blocks.{i}.hook_attn_out", linear(z.reshape(-1, batch, d), w["o"], w.get("o_b")))
