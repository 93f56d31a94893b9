"""Interventions: changes inside a forward pass, described as data that compose, for evaluation and for training.

Source: the "artificial optogenetics" of Singh et al. 2024 (arXiv 2404.07129) and 2025 (arXiv 2503.05631), for any
number of pairs. Layers and heads count from 0; `heads` = None means every head of the layer. Interventions are applied
in the order in which they are listed; a later one at the same point sees the value that the earlier ones left.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from ebbtide.errors import InputError, nearest, require
from ebbtide.mechanisms.taps import axes, matching, points, record
from ebbtide.models.layers import layer_norm
from ebbtide.models.model import Params, Shape, Tap, untouched
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import Prompt

Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Indices = Annotated[tuple[Index, ...], msgspec.Meta(min_length=1)]
Heads = Indices | None
Strength = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sizes = dict[str, tuple[int, ...]]
"""The points of a model in the order of the forward pass, with their shapes."""
NEVER = -1e20
"""The score of a token that may not be attended to, the same as that of a later token under the causal mask."""


class ForwardPass(NamedTuple):
    """The inputs of an intervention: the model, its parameters, the prompt, and the activations that it requested from
    the forward pass without interventions (`clean`)."""

    model: Transformer
    params: Params
    prompt: Prompt
    clean: dict[str, Array]

    def label_positions(self) -> Int[Array, " context"]:
        """The positions of the context's labels among the tokens."""
        return label_positions(self.model, self.prompt)


def label_positions(model: Transformer, prompt: Prompt) -> Int[Array, " context"]:
    """The positions of the context's labels among the tokens."""
    slots = jnp.arange(prompt.labels.shape[0])
    return 2 * slots + 1 if model.by_turns else slots


class Intervention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One change of a forward pass."""

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        """Raises `InputError` when the model has no such layer, head, point or neuron."""
        for name in ("layer", "head"):
            size = {"layer": model.layers, "head": model.heads}[name]
            index = getattr(self, name, 0)
            require(index < size, f"{field}.{name}", index, f"must be from 0 to {size - 1}")
        heads = getattr(self, "heads", None) or ()
        for head in heads:
            require(head < model.heads, f"{field}.heads", list(heads), f"must be from 0 to {model.heads - 1}")

    def clean(self) -> tuple[str, ...]:
        """Globs of the points whose values are needed from a forward pass without interventions."""
        return ()

    def tap(self, forward: ForwardPass) -> Tap:
        """The tap that makes the change."""
        raise NotImplementedError


class Ablate(Intervention, frozen=True, tag="ablate"):
    """Ablation: the values at the points that the glob `at` matches, at some `heads`, `neurons` or `positions` (None:
    all), are set to 0 or to their mean over the batch.

    To remove heads take at = blocks.0.attn.hook_z (their output) or hook_v.

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
    """Path patching: the values at the points that the glob `at` matches are those of the forward pass without
    interventions, such as patterns (blocks.1.attn.hook_pattern), values (hook_v), queries (hook_q) or keys (hook_k).

    With heads of an earlier layer ablated, the patched activations do not change, so only the direct effect of those
    heads is removed.

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
            return _at_heads(name, value, forward.clean[name], self.heads)

        return tap


class PreviousToken(Intervention, frozen=True, tag="previous_token"):
    """Some heads of a layer attend to the previous token with weight `strength` and to the token itself with the rest:
    from the label tokens of the context, or (`rows` = "all") from every token but the first. (In a last layer only the
    query's row exists, and it is no label.)

    >>> eb.PreviousToken(layer=0, heads=(1,), strength=0.5).rows
    'labels'
    """

    layer: Index = 0
    heads: Heads = None
    strength: Strength = 1.0
    rows: Literal["labels", "all"] = "labels"

    def tap(self, forward: ForwardPass) -> Tap:
        def new(pattern: Float[Array, "batch head query key"]) -> Array:
            own = _rows(pattern)
            keys = jnp.arange(pattern.shape[-1])
            before = self.strength * (keys == own[:, None] - 1) + (1 - self.strength) * (keys == own[:, None])
            chosen = own > 0 if self.rows == "all" else jnp.isin(own, forward.label_positions())
            return jnp.where(chosen[:, None], before.astype(pattern.dtype), pattern)

        return _on_pattern(self.layer, self.heads, new)


class Induction(Intervention, frozen=True, tag="induction"):
    """The query's attention in some heads is `strength` on those labels of the context that equal the target, shared
    equally, the rest on the other labels, and 0 elsewhere.

    The induction strength of such a head is 2 `strength` - 1 when two labels are shown. Where all labels of a context
    are the target, or none is, they share all attention equally.

    >>> eb.Induction(layer=1, strength=1.0).strength
    1.0
    """

    layer: Index = 1
    heads: Heads = None
    strength: Strength = 1.0

    def tap(self, forward: ForwardPass) -> Tap:
        right = (forward.prompt.labels == forward.prompt.target).T.astype(jnp.float32)
        good, bad = right.sum(-1, keepdims=True), (1 - right).sum(-1, keepdims=True)
        strength = jnp.where(bad == 0, 1.0, jnp.where(good == 0, 0.0, self.strength))
        share = strength * right / jnp.maximum(good, 1) + (1 - strength) * (1 - right) / jnp.maximum(bad, 1)
        return _on_pattern(self.layer, self.heads, lambda pattern: _query_attends(forward, pattern, share))


class MatchExemplars(Intervention, frozen=True, tag="match_exemplars"):
    """The query's attention in some heads is softmax(cosine(query exemplar, context exemplars) / `temperature`) over
    the labels of the context. Temperature 0: all attention on the nearest exemplar (the first of several equally near).

    >>> eb.MatchExemplars(temperature=0).layer
    1
    """

    layer: Index = 1
    heads: Heads = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.1

    def tap(self, forward: ForwardPass) -> Tap:
        x = forward.prompt.exemplars
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        near = jnp.einsum("sbd,bd->bs", x[:-1], x[-1])
        if self.temperature == 0:
            share = jax.nn.one_hot(jnp.argmax(near, axis=-1), near.shape[-1])
        else:
            share = jax.nn.softmax(near / self.temperature, axis=-1)
        return _on_pattern(self.layer, self.heads, lambda pattern: _query_attends(forward, pattern, share))


class Forbid(Intervention, frozen=True, tag="forbid"):
    """Some attention is forbidden: of the query to `exemplars` (only labels are left, itself excluded), or of label
    tokens, with `rows` = "all" of every token but the first, to the `previous` token.

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

    def tap(self, forward: ForwardPass) -> Tap:
        labels = forward.label_positions()

        def tap(name: str, scores: Array) -> Array:
            if name != f"blocks.{self.layer}.attn.hook_attn_scores":
                return scores
            own, keys = _rows(scores), jnp.arange(scores.shape[-1])
            if self.keys == "exemplars":
                never = (own == scores.shape[-1] - 1)[:, None] & ~jnp.isin(keys, labels)
            else:
                chosen = own > 0 if self.rows == "all" else jnp.isin(own, labels)
                never = chosen[:, None] & (keys == own[:, None] - 1)
            return _at_heads(name, scores, jnp.where(never, NEVER, scores), self.heads)

        return tap


class Temperature(Intervention, frozen=True, tag="temperature"):
    """The attention scores of some heads of a layer are divided by `temperature`.

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
            return _at_heads(name, scores, jnp.where(hidden, scores, scores / self.temperature), self.heads)

        return tap


class PerfectPrevious(Intervention, frozen=True, tag="perfect_previous"):
    """A layer whose queries and keys are computed as if the layers before it had replaced every token, but the first
    and the query, by the embedding of its previous token; its values come from the embeddings alone. Attention to the
    previous token and its copying are then both perfect.

    >>> eb.PerfectPrevious(layer=1).layer
    1
    """

    layer: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 1

    def tap(self, forward: ForwardPass) -> Tap:
        kept: dict[str, Array] = {}

        def normed(x: Array) -> Array:
            return layer_norm(forward.params["blocks"][self.layer]["norm1"], x)

        def tap(name: str, value: Array) -> Array:
            if name == "hook_embed":
                kept["embed"] = value
            if name in (f"blocks.{self.layer}.hook_q_input", f"blocks.{self.layer}.hook_k_input"):
                x = kept["embed"]
                return normed(jnp.concatenate([x[:1], x[:-2], x[-1:]]))
            if name == f"blocks.{self.layer}.hook_v_input":
                return normed(kept["embed"])
            return value

        return tap


class PerfectCopy(Intervention, frozen=True, tag="perfect_copy"):
    """The logits are the attention scores of one head from the query to the labels of the context, for a label shown
    several times the log-sum-exp of its scores; all other labels get `NEVER`.

    >>> eb.PerfectCopy(layer=1, head=3).head
    3
    """

    layer: Index = 1
    head: Index = 0

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


def intervention_tap(
    model: Any, params: Params, prompt: Any, interventions: tuple[AnyIntervention, ...], then: Tap = untouched
) -> Tap:
    """The tap of several interventions in their order, followed by `then`, which sees the changed values. Activations
    requested from the pass without interventions cost that pass. Raises `InputError` for a point, layer, head, neuron
    or position that the model does not have, or an unknown word."""
    check_used(interventions, model, params, prompt)
    if not interventions:
        return then
    wanted = [glob for one in interventions for glob in one.clean()]
    clean = record(model, params, prompt, *wanted)[1] if wanted else {}
    forward = ForwardPass(model, params, prompt, clean)
    taps = [*(one.tap(forward) for one in interventions), then]

    def tap(name: str, value: Array) -> Array:
        for one in taps:
            value = one(name, value)
        return value

    return tap


def answer(
    model: Any, params: Params, prompt: Any, interventions: tuple[AnyIntervention, ...] = ()
) -> Float[Array, "*asked batch labels"]:
    """The outputs of a transformer under interventions.

    Args:
        model: a `Transformer`.
        params: its parameters, e.g. from `model_at`.
        prompt: a batch of prompts, e.g. from `prompts_of`.
        interventions: applied in this order.

    Returns:
        Logits of the query [batch, labels]; for function tasks the outputs of every slot that is predicted.

    Raises:
        InputError: the model has no such point, layer, head, neuron or position.

    >>> spec, params = eb.model_at("runs/tiny")
    >>> prompt = eb.prompts_of(spec, "icl", 5)
    >>> ablated = jax.jit(lambda p: eb.answer(spec.model, p, prompt, (eb.Induction(layer=1),)))
    >>> ablated(params).shape  # [sequence, label]
    (5, 66)
    """
    return model.apply(params, prompt, intervention_tap(model, params, prompt, interventions))


def check_all(interventions: tuple[AnyIntervention, ...], model: Any, shape: Shape) -> None:
    """Raises `InputError` unless the model is a transformer that has everything that the interventions name."""
    if interventions:
        _check_kind(model)
        _check_each(interventions, model, points(model, shape))


def check_used(interventions: Any, model: Any, params: Params, prompt: Any) -> None:
    """`check_all` for a forward pass on these prompts, with interventions of any type. Nothing is computed."""
    several = isinstance(interventions, tuple | list)
    allowed = "must be a tuple of interventions, e.g. (eb.Ablate(at='blocks.0.attn.hook_z'),)"
    require(several, "interventions", interventions, allowed)
    if not interventions:
        return
    _check_kind(model)
    for i, one in enumerate(interventions):
        labels = isinstance(prompt, Prompt) or isinstance(one, Ablate | KeepClean | Temperature)
        what = type(one).__name__
        require(labels, f"interventions.{i}", what, "is of few-shot prompts: it speaks of labels and exemplars")
    _check_each(interventions, model, _sizes(model, params, prompt))


def _check_kind(model: Any) -> None:
    allowed = "only a transformer has points to intervene at"
    require(isinstance(model, Transformer), "interventions", model.__struct_config__.tag, allowed)


def _check_each(interventions: Sequence[Any], model: Transformer, sizes: Sizes) -> None:
    for i, one in enumerate(interventions):
        field = f"interventions.{i}"
        known = isinstance(one, AnyIntervention)
        require(known, field, one, "must be an intervention, e.g. eb.Ablate(at='blocks.0.attn.hook_z')")
        _check_values(one, field)
        one.check(model, sizes, field)


def _check_values(one: Intervention, field: str) -> None:
    """Raises `InputError` for a value that a spec could not have either: a struct made in Python accepts anything.
    NumPy and JAX numbers are numbers; a traced one (a strength under `vmap`, say) is not known yet."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tracer):
            return 0.5
        if isinstance(value, np.generic | np.ndarray | Array) and value.ndim == 0:
            return value.item()
        raise msgspec.ValidationError(f"Expected a number, got `{type(value).__name__}`")

    for one_of in msgspec.structs.fields(one):
        value = getattr(one, one_of.name)
        words = get_args(one_of.type) if get_origin(one_of.type) is Literal else ()
        try:
            msgspec.convert(msgspec.to_builtins(value, enc_hook=plain), one_of.type)
        except msgspec.ValidationError as error:
            said = str(error).partition(" - at ")[0].replace("`", "")
            allowed = f"must be one of {', '.join(words)}{nearest(str(value), words)}" if words else said
            raise InputError(f"{field}.{one_of.name}", value, allowed[:1].lower() + allowed[1:]) from error


def _sizes(model: Any, params: Params, prompt: Any) -> Sizes:
    """The points of a forward pass on these prompts with their shapes; nothing is computed."""
    found: Sizes = {}

    def tap(name: str, value: Array) -> Array:
        found[name] = value.shape
        return value

    jax.eval_shape(lambda params, prompt: model.apply(params, prompt, tap), params, prompt)
    return found


def axis_mask(value: Array, axis: int, indices: tuple[Any, ...]) -> Bool[Array, "..."]:
    """A mask that is true at `indices` of one axis, and broadcasts against `value`."""
    where = jnp.zeros(value.shape[axis], bool).at[jnp.array(indices)].set(True)
    return where.reshape([-1 if i == axis else 1 for i in range(value.ndim)])


def _at_heads(name: str, value: Array, new: Array, heads: Heads) -> Array:
    """`new` at some heads (None: at all), `value` at the others."""
    return new if heads is None else jnp.where(axis_mask(value, axes(name).index("head"), heads), new, value)


def _rows(pattern: Float[Array, "batch head query key"]) -> Int[Array, " query"]:
    """The positions of the tokens whose attention is computed: all of them, or the last alone."""
    queries, keys = pattern.shape[-2:]
    return jnp.arange(keys - queries, keys)


def _on_pattern(layer: int, heads: Heads, new: Callable[[Array], Array]) -> Tap:
    def tap(name: str, value: Array) -> Array:
        if name != f"blocks.{layer}.attn.hook_pattern":
            return value
        return _at_heads(name, value, new(value), heads)

    return tap


def _query_attends(
    forward: ForwardPass, pattern: Float[Array, "batch head query key"], share: Float[Array, "batch context"]
) -> Array:
    """The pattern with the query's attention replaced by `share` on the labels of the context."""
    row = jnp.zeros((pattern.shape[0], pattern.shape[-1])).at[:, forward.label_positions()].set(share)
    return pattern.at[:, :, -1].set(row[:, None].astype(pattern.dtype))
