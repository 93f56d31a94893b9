"""All kinds of interventions: ablation, activation patching, and clamped attention.

Source: the "artificial optogenetics" of Singh et al. 2024 (arXiv 2404.07129) and 2025 (arXiv 2503.05631), for any
number of pairs.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float

from ebbtide.errors import require
from ebbtide.mechanisms.intervention import (
    NEVER,
    ForwardPass,
    Heads,
    Index,
    Indices,
    Intervention,
    Sizes,
    Strength,
    axis_mask,
    pattern_tap,
    query_positions,
    replace_at_heads,
    replace_query_attention,
)
from ebbtide.mechanisms.taps import axes, matching
from ebbtide.models.layers import layer_norm
from ebbtide.models.model import Tap
from ebbtide.models.transformer import Transformer


class Ablate(Intervention, frozen=True, tag="ablate"):
    """Ablation: values of the forward pass are set to 0, or to their mean over the batch.

    Args:
        at: a glob of points, e.g. `blocks.0.attn.hook_z` (the output of heads) or `blocks.*.attn.hook_v`.
        heads: the heads; None: all.
        neurons: the neurons of the MLP; None: all.
        positions: the tokens' positions; None: all.
        how: "zero" or "mean".

    >>> eb.Ablate(at="blocks.1.attn.hook_z", heads=(0, 2), how="mean").how
    'mean'
    """

    at: str
    heads: Heads = None
    neurons: Indices | None = None
    positions: Indices | None = None
    how: Literal["zero", "mean"] = "zero"

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        for name in matching(self.at, list(sizes), f"{field}.at"):
            size = dict(zip(axes(name), sizes[name], strict=True))
            for plural in ("heads", "neurons", "positions"):
                chosen, axis = getattr(self, plural), plural[:-1]
                if chosen is not None:
                    allowed = f"{name} has no {plural}" if axis not in size else f"must be from 0 to {size[axis] - 1}"
                    inside = axis in size and bool(max(chosen) < size[axis])
                    require(inside, f"{field}.{plural}", [int(index) for index in chosen], allowed)

    def tap(self, forward: ForwardPass) -> Tap:
        chosen = {"head": self.heads, "neuron": self.neurons, "position": self.positions}

        def tap(name: str, value: Array) -> Array:
            if not fnmatchcase(name, self.at):
                return value
            names = axes(name)
            new = jnp.zeros_like(value)
            if self.how == "mean":
                new = jnp.broadcast_to(value.mean(names.index("batch"), keepdims=True), value.shape)
            where = jnp.ones(value.shape, bool)
            for axis, indices in chosen.items():
                if indices is not None and axis in names:
                    where = where & axis_mask(value, names.index(axis), indices)
            return jnp.where(where, new, value)

        return tap


class KeepClean(Intervention, frozen=True, tag="keep_clean"):
    """Path patching: activations keep the values of the forward pass without interventions. With heads of an earlier
    layer ablated, only the direct effect of those heads is then removed.

    Args:
        at: a glob of points, e.g. `blocks.1.attn.hook_pattern` (attention), hook_v, hook_q or hook_k.
        heads: the heads; None: all.

    >>> eb.KeepClean(at="blocks.1.attn.hook_pattern").heads is None
    True
    """

    at: str
    heads: Heads = None

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        super().check(model, sizes, field)
        for name in matching(self.at, list(sizes), f"{field}.at"):
            has = self.heads is None or "head" in axes(name)
            require(has, f"{field}.heads", list(self.heads or ()), f"{name} has no heads")

    def clean(self) -> tuple[str, ...]:
        return (self.at,)

    def tap(self, forward: ForwardPass) -> Tap:
        def tap(name: str, value: Array) -> Array:
            if not fnmatchcase(name, self.at):
                return value
            return replace_at_heads(name, value, forward.clean[name], self.heads)

        return tap


class PreviousToken(Intervention, frozen=True, tag="previous_token"):
    """Clamped attention to the previous token. (In the last layer of a model of labels only the query's row exists, and
    the query is no label.)

    Args:
        layer: the layer, from 0.
        heads: the heads; None: all.
        strength: the weight on the previous token, from 0 to 1; the rest is on the token itself.
        rows: the attending tokens: "labels" of the context, or "all" tokens but the first.

    >>> eb.PreviousToken(layer=0, heads=(1,), strength=0.5).rows
    'labels'
    """

    layer: Index = 0
    heads: Heads = None
    strength: Strength = 1.0
    rows: Literal["labels", "all"] = "labels"

    def needs_labels(self) -> bool:
        return self.rows == "labels"

    def tap(self, forward: ForwardPass) -> Tap:
        def new(pattern: Float[Array, "batch head query key"]) -> Array:
            own = query_positions(pattern)
            keys = jnp.arange(pattern.shape[-1])
            before = self.strength * (keys == own[:, None] - 1) + (1 - self.strength) * (keys == own[:, None])
            chosen = own > 0 if self.rows == "all" else jnp.isin(own, forward.label_positions())
            return jnp.where(chosen[:, None], before.astype(pattern.dtype), pattern)

        return pattern_tap(self.layer, self.heads, new)


class Induction(Intervention, frozen=True, tag="induction"):
    """Clamped attention of the query to the labels of the context: `strength` on those that equal the target, shared
    equally, the rest on the other labels, and 0 elsewhere.

    Args:
        layer: the layer, from 0.
        heads: the heads; None: all.
        strength: the weight on the target's labels, from 0 to 1.

    The induction strength of such a head is 2 `strength` - 1 when two labels are shown. Where all labels of a context
    are the target, or none is, they share all attention equally.

    >>> eb.Induction(layer=1, strength=1.0).strength
    1.0
    """

    layer: Index = 1
    heads: Heads = None
    strength: Strength = 1.0

    def needs_labels(self) -> bool:
        return True

    def tap(self, forward: ForwardPass) -> Tap:
        right = (forward.prompt.labels == forward.prompt.target).T.astype(jnp.float32)
        good, bad = right.sum(-1, keepdims=True), (1 - right).sum(-1, keepdims=True)
        strength = jnp.where(bad == 0, 1.0, jnp.where(good == 0, 0.0, self.strength))
        share = strength * right / jnp.maximum(good, 1) + (1 - strength) * (1 - right) / jnp.maximum(bad, 1)
        return pattern_tap(self.layer, self.heads, lambda pattern: replace_query_attention(forward, pattern, share))


class MatchExemplars(Intervention, frozen=True, tag="match_exemplars"):
    """Clamped attention of the query to the labels of the context: softmax(cosine(query exemplar, context exemplars) /
    `temperature`).

    Args:
        layer: the layer, from 0.
        heads: the heads; None: all.
        temperature: at least 0; 0: all attention on the nearest exemplar (the first of several equally near).

    >>> eb.MatchExemplars(temperature=0).layer
    1
    """

    layer: Index = 1
    heads: Heads = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.1

    def needs_labels(self) -> bool:
        return True

    def tap(self, forward: ForwardPass) -> Tap:
        x = forward.prompt.exemplars
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        near = jnp.einsum("sbd,bd->bs", x[:-1], x[-1])
        if self.temperature == 0:
            share = jax.nn.one_hot(jnp.argmax(near, axis=-1), near.shape[-1])
        else:
            share = jax.nn.softmax(near / self.temperature, axis=-1)
        return pattern_tap(self.layer, self.heads, lambda pattern: replace_query_attention(forward, pattern, share))


class Forbid(Intervention, frozen=True, tag="forbid"):
    """Forbidden attention: the scores of some pairs of tokens are those of a token under the causal mask.

    Args:
        layer: the layer, from 0.
        heads: the heads; None: all.
        keys: "exemplars": the query attends to labels only; "previous": tokens do not attend to the previous one.
        rows: with "previous", the attending tokens: "labels", or "all" tokens but the first.

    >>> eb.Forbid(layer=0, keys="previous").rows
    'labels'
    """

    layer: Index = 0
    heads: Heads = None
    keys: Literal["exemplars", "previous"] = "exemplars"
    rows: Literal["labels", "all"] = "labels"

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        super().check(model, sizes, field)
        apart = self.keys == "previous" or model.by_turns
        require(apart, f"{field}.keys", self.keys, "needs model.pairing = 'interleaved' or 'copied'")

    def needs_labels(self) -> bool:
        return self.keys == "exemplars" or self.rows == "labels"

    def tap(self, forward: ForwardPass) -> Tap:
        labels = forward.label_positions()

        def tap(name: str, scores: Array) -> Array:
            if name != f"blocks.{self.layer}.attn.hook_attn_scores":
                return scores
            own, keys = query_positions(scores), jnp.arange(scores.shape[-1])
            if self.keys == "exemplars":
                never = (own == scores.shape[-1] - 1)[:, None] & ~jnp.isin(keys, labels)
            else:
                chosen = own > 0 if self.rows == "all" else jnp.isin(own, labels)
                never = chosen[:, None] & (keys == own[:, None] - 1)
            return replace_at_heads(name, scores, jnp.where(never, NEVER, scores), self.heads)

        return tap


class Temperature(Intervention, frozen=True, tag="temperature"):
    """Attention scores divided by a temperature.

    Args:
        layer: the layer, from 0.
        heads: the heads; None: all.
        temperature: above 0; above 1 attention is more even.

    >>> eb.Temperature(layer=1, temperature=2.0).heads is None
    True
    """

    layer: Index = 1
    heads: Heads = None
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    def tap(self, forward: ForwardPass) -> Tap:
        def tap(name: str, scores: Array) -> Array:
            if name != f"blocks.{self.layer}.attn.hook_attn_scores":
                return scores
            hidden = scores <= NEVER
            return replace_at_heads(name, scores, jnp.where(hidden, scores, scores / self.temperature), self.heads)

        return tap


class PerfectPrevious(Intervention, frozen=True, tag="perfect_previous"):
    """Perfect attention to the previous token, and perfect copying of that token, by the layers before `layer`: the
    queries and keys of this layer are computed as if every token but the first and the query had been replaced by the
    embedding of its previous token, and its values from the embeddings alone.

    Args:
        layer: the layer, from 1.

    >>> eb.PerfectPrevious(layer=1).layer
    1
    """

    layer: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 1

    def needs_labels(self) -> bool:
        return True

    def tap(self, forward: ForwardPass) -> Tap:
        kept: dict[str, Array] = {}

        def normalise(x: Array) -> Array:
            return layer_norm(forward.params["blocks"][self.layer]["norm1"], x)

        def tap(name: str, value: Array) -> Array:
            if name == "hook_embed":
                kept["embed"] = value
            if name in (f"blocks.{self.layer}.hook_q_input", f"blocks.{self.layer}.hook_k_input"):
                x = kept["embed"]
                return normalise(jnp.concatenate([x[:1], x[:-2], x[-1:]]))
            if name == f"blocks.{self.layer}.hook_v_input":
                return normalise(kept["embed"])
            return value

        return tap


class PerfectCopy(Intervention, frozen=True, tag="perfect_copy"):
    """Perfect copying: the logits are the attention scores of one head from the query to the labels of the context, for
    a label that occurs several times the log-sum-exp of its scores; all other labels get `NEVER`.

    Args:
        layer: the layer, from 0.
        head: the head, from 0.

    >>> eb.PerfectCopy(layer=1, head=3).head
    3
    """

    layer: Index = 1
    head: Index = 0

    def needs_labels(self) -> bool:
        return True

    def tap(self, forward: ForwardPass) -> Tap:
        kept: dict[str, Array] = {}

        def tap(name: str, value: Array) -> Array:
            if name == f"blocks.{self.layer}.attn.hook_attn_scores":
                kept["scores"] = value[:, self.head, -1][:, forward.label_positions()]
            if name == "hook_logits":
                labels = forward.prompt.labels.T
                same = labels[:, :, None] == labels[:, None, :]
                scores = jnp.where(same, kept["scores"][:, None, :], NEVER)
                rows = jnp.arange(value.shape[0])[:, None]
                return jnp.full_like(value, NEVER).at[rows, labels].set(jax.nn.logsumexp(scores, axis=-1))
            return value

        return tap


AnyIntervention = (
    Ablate
    | KeepClean
    | PreviousToken
    | Induction
    | MatchExemplars
    | Forbid
    | Temperature
    | PerfectPrevious
    | PerfectCopy
)
