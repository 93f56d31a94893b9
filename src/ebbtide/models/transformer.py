"""The one transformer: small, causal, pre-norm, token-major."""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, PyTree

from ebbtide.errors import require
from ebbtide.models.fence import fence
from ebbtide.models.positions import Learned, Positions
from ebbtide.tasks.prompt import Prompt

Params = PyTree[Float[Array, "..."]]
Tap = Callable[[str, Array], Array]
Size = Annotated[int, msgspec.Meta(ge=1)]


def untouched(name: str, value: Array) -> Array:
    """The tap that leaves every activation as it is."""
    return value


def cross_entropy(logits: Float[Array, "batch labels"], target: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """-log softmax(logits)[target] of every sequence, in nats."""
    chosen = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def _weight(key: Key[Array, ""], fan_in: int, fan_out: int) -> Float[Array, "fan_in fan_out"]:
    """LeCun normal: truncated at two standard deviations, variance 1 / fan_in."""
    return jax.nn.initializers.lecun_normal()(key, (fan_in, fan_out))


def _norm_init(width: int) -> dict[str, Array]:
    return {"scale": jnp.ones(width), "offset": jnp.zeros(width)}


class Transformer(msgspec.Struct, frozen=True, tag="transformer", forbid_unknown_fields=True):
    r"""Pre-norm causal transformer over interleaved tokens $e_1 l_1 \dots e_M l_M e_q$.

    $$x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)),$$
    then logits = LN(x_query) W + b, untied from the label table. The exemplar embedding is one linear
    layer; the label table has sd 0.02. Weights are LeCun normal, biases 0, LayerNorm eps 1e-5, GELU
    in its tanh form (Singh et al. 2023 and 2025: transience.md 4.2, 4.3 follow `attention_bias=False`;
    the paper's joint-ResNet model has biases). `mlp_ratio = 0` is the attention-only model.

    Activations are `[token, batch, d]`, the query token last. Only what the loss reads is computed:
    the last layer's queries, MLP and the read-out exist for the query token alone.

    Every named point of the forward pass goes through a `tap(name, value) -> value` (names as in
    TransformerLens), which may record the value or return another.
    """

    layers: Size = 2
    width: Size = 64
    heads: Size = 8
    mlp_ratio: Annotated[int, msgspec.Meta(ge=0)] = 4
    positions: Positions = Learned()
    attention_bias: bool = False

    def check(self) -> None:
        """Raises `InputError` when the heads do not divide the width."""
        allowed = f"must divide width = {self.width}"
        require(self.width % self.heads == 0, "model.heads", self.heads, allowed)
        rotary = self.positions.__struct_config__.tag == "rotary"
        even = (self.width // self.heads) % 2 == 0
        require(even or not rotary, "model.heads", self.heads, "rotary positions need an even width / heads")

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for prompts of `context` pairs, exemplars of `dim` features, `labels` outputs."""
        keys = iter(jax.random.split(key, 4 + 6 * self.layers))
        d = self.width
        table = 0.02 * jax.random.truncated_normal(next(keys), -2, 2, (labels, d))
        return {
            "exemplar": {"w": _weight(next(keys), dim, d), "b": jnp.zeros(d)},
            "label": {"table": table},
            "position": self.positions.init(next(keys), 2 * context + 1, d),
            "blocks": [self._init_block(keys) for _ in range(self.layers)],
            "norm": _norm_init(d),
            "readout": {"w": _weight(next(keys), d, labels), "b": jnp.zeros(labels)},
        }

    def _init_block(self, keys: Any) -> dict[str, dict[str, Array]]:
        d, hidden = self.width, self.width * self.mlp_ratio
        attention = {name: _weight(next(keys), d, d) for name in ("q", "k", "v", "o")}
        if self.attention_bias:
            attention |= {f"{name}_b": jnp.zeros(d) for name in ("q", "k", "v", "o")}
        block = {"norm1": _norm_init(d), "attn": attention}
        w_in, w_out = next(keys), next(keys)
        if hidden:
            mlp = {"w_in": _weight(w_in, d, hidden), "b_in": jnp.zeros(hidden)}
            mlp |= {"w_out": _weight(w_out, hidden, d), "b_out": jnp.zeros(d)}
            block |= {"norm2": _norm_init(d), "mlp": mlp}
        return block

    def apply(self, params: Params, prompt: Prompt, tap: Tap = untouched) -> Float[Array, "batch labels"]:
        """Logits of the query's label, all labels."""
        x = self._embed(params, prompt, tap)
        for i, block in enumerate(params["blocks"]):
            x = self._block(block, x, i, last=i == self.layers - 1, tap=tap)
        query = tap("ln_final.hook_normalized", _layer_norm(params["norm"], x[-1]))
        return tap("hook_logits", query @ params["readout"]["w"] + params["readout"]["b"])

    def loss(self, params: Params, prompt: Prompt) -> Float[Array, ""]:
        """Mean cross-entropy at the query position, over all labels (nats)."""
        return cross_entropy(self.apply(params, prompt), prompt.target).mean()

    def loss_and_grad(self, params: Params, prompt: Prompt) -> tuple[Float[Array, ""], Params]:
        """The one seam through which training sees a model."""
        return jax.value_and_grad(self.loss)(params, prompt)

    def _embed(self, params: Params, prompt: Prompt, tap: Tap) -> Float[Array, "tokens batch d"]:
        exemplars = _linear(prompt.exemplars, params["exemplar"]["w"], params["exemplar"]["b"])
        exemplars = tap("hook_exemplar_embed", exemplars)
        labels = tap("hook_label_embed", params["label"]["table"][prompt.labels])
        context, batch, d = labels.shape
        pairs = jnp.stack([exemplars[:-1], labels], axis=1).reshape(2 * context, batch, d)
        tokens = jnp.concatenate([pairs, exemplars[-1:]])
        return tap("hook_embed", self.positions.add(params["position"], tokens))

    def _block(self, block: Any, x: Float[Array, "tokens batch d"], i: int, *, last: bool, tap: Tap) -> Array:
        """One layer; the last one returns the query token alone."""
        normed = tap(f"blocks.{i}.ln1.hook_normalized", _layer_norm(block["norm1"], x))
        attended = self._attention(block["attn"], normed, i, last=last, tap=tap)
        x = tap(f"blocks.{i}.hook_resid_mid", (x[-1:] if last else x) + attended)
        if self.mlp_ratio:
            mlp = block["mlp"]
            normed = tap(f"blocks.{i}.ln2.hook_normalized", _layer_norm(block["norm2"], x))
            hidden = tap(f"blocks.{i}.mlp.hook_post", jax.nn.gelu(_linear(normed, mlp["w_in"], mlp["b_in"])))
            x = x + tap(f"blocks.{i}.hook_mlp_out", _linear_down(hidden, mlp["w_out"], mlp["b_out"]))
        return tap(f"blocks.{i}.hook_resid_post", fence(x))

    def _attention(
        self, w: Any, x: Float[Array, "tokens batch d"], i: int, *, last: bool, tap: Tap
    ) -> Float[Array, "rows batch d"]:
        """Causal softmax attention; the last layer asks for the query token's row only."""
        tokens, batch, d = x.shape
        k = d // self.heads

        def project(name: str, y: Array) -> Array:
            return _linear(y, w[name], w.get(f"{name}_b")).reshape(*y.shape[:2], self.heads, k)

        q = self.positions.rotate(project("q", x[-1:] if last else x), tokens - 1)
        key = tap(f"blocks.{i}.attn.hook_k", self.positions.rotate(project("k", x), tokens - 1))
        v = tap(f"blocks.{i}.attn.hook_v", project("v", x))
        q = tap(f"blocks.{i}.attn.hook_q", q)
        scores = jnp.einsum("qbhk,sbhk->bhqs", q, key) / jnp.sqrt(k).astype(x.dtype)
        if not last:
            causal = jnp.tril(jnp.ones((tokens, tokens), bool))
            scores = jnp.where(causal, scores, -1e20)
        pattern = tap(f"blocks.{i}.attn.hook_pattern", jax.nn.softmax(scores, axis=-1))
        z = tap(f"blocks.{i}.attn.hook_z", jnp.einsum("bhqs,sbhk->qbhk", pattern, v))
        return tap(f"blocks.{i}.hook_attn_out", _linear(z.reshape(-1, batch, d), w["o"], w.get("o_b")))


def _linear(
    x: Float[Array, "*rows d_in"], w: Float[Array, "d_in d_out"], b: Float[Array, " d_out"] | None
) -> Float[Array, "*rows d_out"]:
    """x w + b as one two-dimensional product: the form XLA's CPU back end multiplies fastest."""
    y = x.reshape(-1, x.shape[-1]) @ w
    return (y if b is None else y + b).reshape(*x.shape[:-1], w.shape[1])


def _linear_down(
    x: Float[Array, "*rows d_in"], w: Float[Array, "d_in d_out"], b: Float[Array, " d_out"]
) -> Float[Array, "*rows d_out"]:
    """The same where d_in > d_out. The gradient of w is made as its transpose, and turned after the
    fence: as a long thin product it is half as fast."""
    turned = fence(w.T)
    y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), turned, (((1,), (1,)), ((), ())))
    return (y + b).reshape(*x.shape[:-1], w.shape[1])


def _layer_norm(params: dict[str, Array], x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * params["scale"] + params["offset"]
