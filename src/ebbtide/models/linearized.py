"""Linearized attention (kernel attention), and the biases of an attention layer that hold a context."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Bool, Float

from ebbtide.errors import require
from ebbtide.models.model import Tap
from ebbtide.models.positions import Positions

SMALLEST = 1e-6
"""Added to the normaliser: features may all be 0, as those of relu2 are for a query without a positive number."""
Keys = Float[Array, "tokens batch heads k"]
Queries = Float[Array, "rows batch heads k"]
Mask = Bool[Array, "rows #tokens"] | Bool[Array, "batch 1 1 tokens"] | None


class Linearized(msgspec.Struct, frozen=True, tag="linearized", forbid_unknown_fields=True):
    r"""Attention in which a feature map $\phi$ takes the place of the softmax, so that a layer is a recurrence over a
    state of fixed size:

    $$o_i = \frac{\sum_{j \le i} \gamma^{i-j} (R_i\phi(q_i))'R_j\phi(k_j)\, v_j + \gamma^i (R_i\phi(q_i))'b_{KV}}
                 {\sum_{j \le i} \gamma^{i-j} \phi(q_i)'\phi(k_j) + \gamma^i \phi(q_i)'b_D},$$

    with positions i from 1, where R turns the features by rotary positions. The normaliser below the line takes the
    features as they are, not turned. The biases hold a context in place of its tokens (`fold_context`; Chen et al.
    2024, arXiv 2406.02847).

    Args:
        features: the feature map, of each number of a query or key: "elu": elu(x) + 1 (Katharopoulos et al. 2020, arXiv
            2006.16236); "relu2": relu(x)^2; "exp": exp(x); "identity": x.
        normalizer: whether there is a normaliser. Without one the sum is divided by sqrt(k), k the width of a head.
            Must be False with "identity", whose sum below the line may be 0.
        decay: $\gamma$ of the first head, by which a token's weight falls at every later token; head h = 0, 1, ... has
            1 - (1 - decay) 2^-h. 1: none. Retention (Sun et al. 2023, arXiv 2307.08621) has 1 - 2^-5, no normaliser,
            and norms and gates that are not here (from memory).
        biases: whether there are the biases $b_{KV}$ (`b_kv`, [head, feature, head width]) and, with a normaliser,
            $b_D$ (`b_d`, [head, feature]), which are 0 at first and parameters like others: training changes them.

    >>> model = eb.Transformer(attention=eb.Linearized(decay=1 - 2**-5), positions=eb.Rotary())
    >>> model.attention.decays(3)
    [0.96875, 0.984375, 0.9921875]
    """

    features: Literal["elu", "relu2", "exp", "identity"] = "elu"
    normalizer: bool = True
    decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    biases: bool = False

    def check(self, positions: Positions, mask: str) -> None:
        """Raises `InputError` for fields that do not go together."""
        allowed = "must be false with features = identity: the sum of products may be 0"
        require(not (self.normalizer and self.features == "identity"), "model.attention.normalizer", True, allowed)
        allowed = "must be 1 without a causal mask: a later token has no distance in the past"
        require(self.decay == 1 or mask == "causal", "model.attention.decay", self.decay, allowed)

    def init_biases(self, heads: int, k: int) -> dict[str, Array]:
        """Biases of 0 of a layer with heads of width k; none where the attention has none."""
        every = {"b_kv": jnp.zeros((heads, k, k)), "b_d": jnp.zeros((heads, k))}
        return {name: every[name] for name in (["b_kv"] + ["b_d"] * self.normalizer) * self.biases}

    def map(self, x: Float[Array, "*rows k"]) -> Float[Array, "*rows k"]:
        """The features phi(x) of queries or keys."""
        maps = {"elu": lambda y: jax.nn.elu(y) + 1, "relu2": lambda y: jax.nn.relu(y) ** 2, "exp": jnp.exp}
        return maps[self.features](x) if self.features in maps else x

    def decays(self, heads: int) -> list[float]:
        """The decay of every head, per token."""
        return [1 - (1 - self.decay) * 2.0**-h for h in range(heads)]

    def decayed(self, heads: int, tokens: Float[Array, "*shape"]) -> Float[Array, "heads *shape"]:
        """gamma^tokens, of every head."""
        rates = jnp.asarray(self.decays(heads), tokens.dtype).reshape(-1, *(1 for _ in tokens.shape))
        return rates**tokens

    def attend(
        self, q: Queries, key: Keys, v: Keys, w: dict[str, Array], positions: Positions, mask: Mask, tap: Tap
    ) -> Queries:
        """The outputs of the heads for the queries, which are those of the last tokens. `tap` is given the last part of
        each point's name: scores are the products of the turned features."""
        (rows, _, heads, k), tokens = q.shape, len(key)
        features, stored = self.map(q), self.map(key)
        turned = positions.rotate(features, tokens - 1)
        scores = tap("hook_attn_scores", jnp.einsum("qbhk,sbhk->bhqs", turned, positions.rotate(stored, tokens - 1)))
        at = jnp.arange(tokens - rows, tokens, dtype=q.dtype)
        kept = jnp.ones((rows, tokens), q.dtype)
        if self.decay < 1:
            kept = self.decayed(heads, jnp.maximum(at[:, None] - jnp.arange(tokens, dtype=q.dtype), 0))
        if mask is not None:
            kept = jnp.where(mask, kept, 0)
        below = jnp.asarray(k, q.dtype) ** 0.5
        if self.normalizer:
            below = (jnp.einsum("qbhk,sbhk->bhqs", features, stored) * kept).sum(-1, keepdims=True) + SMALLEST
        if "b_d" in w:
            since = self.decayed(heads, at + 1)
            below = below + jnp.einsum("qbhk,hk,hq->bhq", features, w["b_d"], since)[..., None]
        pattern = tap("hook_pattern", scores * kept / below)
        z = jnp.einsum("bhqs,sbhk->qbhk", pattern, v)
        if "b_kv" in w:
            held = jnp.einsum("qbhf,hfk,hq->bhqk", turned, w["b_kv"], self.decayed(heads, at + 1))
            z = z + (held / below).transpose(2, 0, 1, 3)
        return z

    def sums(self, key: Keys, v: Keys, positions: Positions) -> dict[str, Array]:
        """What the keys and values of one prompt's context add to the biases of 0."""
        features = self.map(key)
        ages = jnp.arange(len(key) - 1, -1, -1, dtype=key.dtype)
        return _sums(positions.rotate(features, -1), features, v, self.decayed(key.shape[2], ages))

    def carry(self, biases: dict[str, Array], tokens: int, positions: Positions) -> dict[str, Array]:
        """Biases that are so many tokens older (below 0: younger)."""
        moved = {}
        for name, bias in biases.items():
            turned = bias  # [head, feature, head width], turned by its features
            if name == "b_kv":
                turned = positions.rotate(bias.transpose(2, 0, 1)[None], -tokens)[0].transpose(1, 2, 0)
            age = self.decayed(len(bias), jnp.asarray(tokens, bias.dtype))
            moved[name] = turned * age.reshape(-1, *(1 for _ in bias.shape[1:]))
        return moved


class BiasedSoftmax(msgspec.Struct, frozen=True, tag="biased_softmax", forbid_unknown_fields=True):
    r"""Softmax attention with biases that hold a context approximately. Its kernel exp(q'k / sqrt(k)) is the mean of
    products of positive random features of each head, $\phi(x) = \exp(\omega'x - |x|^2/2) / \sqrt m$, of the query and
    the key divided by k^(1/4) (Choromanski et al. 2021, arXiv 2009.14794; algorithm ICLAA of Chen et al. 2024, arXiv
    2406.02847).

    Args:
        features: the number m of random features of a head.
        seed: of the random vectors $\omega$, which are standard normal.

    >>> eb.Transformer(attention=eb.BiasedSoftmax(features=128), positions=eb.NoPositions()).attention.seed
    0
    """

    features: Annotated[int, msgspec.Meta(ge=1, le=2**16)] = 64
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0

    def check(self, positions: Positions, mask: str) -> None:
        """Raises `InputError` for rotary positions."""
        tag = positions.__struct_config__.tag
        allowed = "must not be rotary with biased_softmax: random features of turned keys cannot be turned further"
        require(tag != "rotary", "model.positions", tag, allowed)

    def init_biases(self, heads: int, k: int) -> dict[str, Array]:
        """Biases of 0 of a layer with heads of width k."""
        return {"b_kv": jnp.zeros((heads, self.features, k)), "b_d": jnp.zeros((heads, self.features))}

    def map(self, x: Keys) -> Float[Array, "tokens batch heads features"]:
        """The random features of queries or keys: the product of two of them is exp(q'k / sqrt(k)) on average."""
        k = x.shape[-1]
        shape = x.shape[2], self.features, k
        directions = jax.random.normal(jax.random.key(self.seed), shape, jnp.float32).astype(x.dtype)
        x = x / k**0.25
        exponents = jnp.einsum("tbhk,hfk->tbhf", x, directions) - (x**2).sum(-1, keepdims=True) / 2
        return jnp.exp(exponents) / self.features**0.5

    def attend(
        self, q: Queries, key: Keys, v: Keys, w: dict[str, Array], positions: Positions, mask: Mask, tap: Tap
    ) -> Queries:
        """The outputs of the heads for the queries, which are those of the last tokens."""
        scores = jnp.einsum("qbhk,sbhk->bhqs", q, key) / q.shape[-1] ** 0.5
        scores = tap("hook_attn_scores", scores if mask is None else jnp.where(mask, scores, -1e20))
        largest = jnp.maximum(scores.max(-1, keepdims=True), 0)
        weights, scale = jnp.exp(scores - largest), jnp.exp(-largest)
        features = self.map(q)
        held = scale * jnp.einsum("qbhf,hfk->bhqk", features, w["b_kv"])
        below = weights.sum(-1, keepdims=True) + scale * jnp.einsum("qbhf,hf->bhq", features, w["b_d"])[..., None]
        pattern = tap("hook_pattern", weights / below)
        return jnp.einsum("bhqs,sbhk->qbhk", pattern, v) + (held / below).transpose(2, 0, 1, 3)

    def sums(self, key: Keys, v: Keys, positions: Positions) -> dict[str, Array]:
        """What the keys and values of one prompt's context add to the biases."""
        features = self.map(key)
        return _sums(features, features, v, jnp.ones((key.shape[2], len(key)), key.dtype))

    def carry(self, biases: dict[str, Array], tokens: int, positions: Positions) -> dict[str, Array]:
        """The biases as they are: they do not age."""
        return biases


def _sums(
    turned: Float[Array, "tokens 1 heads features"],
    features: Float[Array, "tokens 1 heads features"],
    v: Float[Array, "tokens 1 heads k"],
    kept: Float[Array, "heads tokens"],
) -> dict[str, Array]:
    kv = jnp.einsum("thf,thk,ht->hfk", turned[:, 0], v[:, 0], kept)
    return {"b_kv": kv, "b_d": jnp.einsum("thf,ht->hf", features[:, 0], kept)}
