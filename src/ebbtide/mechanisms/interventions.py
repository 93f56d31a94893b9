"""Interventions: what is changed inside a forward pass, as data that compose, in evaluation and through training.

Source: the "artificial optogenetics" of Singh et al. 2024 (arXiv 2404.07129) and 2025 (2503.05631), for any
number of pairs. Layers and heads count from 0; `heads` = None is every head of the layer. They are applied in the order
in which they are listed; one at a point sees what those before it made of the value.
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
"""The score of a token that may not be attended to, as that of a later token."""


class Scene(NamedTuple):
    """What an intervention may look at: the model, its parameters, the prompt, and what it asked to keep of the
    forward pass without interventions."""

    model: Transformer
    params: Params
    prompt: Prompt
    clean: dict[str, Array]

    def label_positions(self) -> Int[Array, " context"]:
        """Where the labels of the context are among the tokens."""
        return label_positions(self.model, self.prompt)


def label_positions(model: Transformer, prompt: Prompt) -> Int[Array, " context"]:
    """Where the labels of the context are among the tokens."""
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
        """Globs of the points whose values it needs from a pass without interventions."""
        return ()

    def tap(self, scene: Scene) -> Tap:
        """The tap that makes the change."""
        raise NotImplementedError


class Ablate(Intervention, frozen=True, tag="ablate"):
    """The values at the points that the glob `at` names, at some `heads`, `neurons` or `positions` (None: all), are 0,
    or their mean over the sequences at hand. To remove heads: at = blocks.0.attn.hook_z (their output) or hook_v."""

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

    def tap(self, scene: Scene) -> Tap:
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
                    where = where & along(value, names.index(axis), indices)
            return jnp.where(where, new, value)

        return tap


class KeepClean(Intervention, frozen=True, tag="keep_clean"):
    """The values at the points that the glob `at` names are those of the pass without interventions: patterns
    (blocks.1.attn.hook_pattern), values (hook_v), queries (hook_q), keys (hook_k). With heads of an earlier layer
    ablated, what is kept does not feel it: only their direct effect is removed."""

    at: str
    heads: Heads = None

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        super().check(model, sizes, field)
        for name in matching(self.at, list(sizes), f"{field}.at"):
            has = self.heads is None or "head" in axes(name)
            require(has, f"{field}.heads", list(self.heads or ()), f"{name} has no heads")

    def clean(self) -> tuple[str, ...]:
        return (self.at,)

    def tap(self, scene: Scene) -> Tap:
        def tap(name: str, value: Array) -> Array:
            if not fnmatchcase(name, self.at):
                return value
            return _at_heads(name, value, scene.clean[name], self.heads)

        return tap


class PreviousToken(Intervention, frozen=True, tag="previous_token"):
    """Heads of a layer attend to the token before with `strength`, to the token itself with the rest: from the label
    tokens of the context, or (`rows` = "all") from every token but the first. (In a last layer there is only the
    query token's row, which is none of the labels'.)"""

    layer: Index = 0
    heads: Heads = None
    strength: Strength = 1.0
    rows: Literal["labels", "all"] = "labels"

    def tap(self, scene: Scene) -> Tap:
        def new(pattern: Float[Array, "batch head query key"]) -> Array:
            own = _rows(pattern)
            keys = jnp.arange(pattern.shape[-1])
            before = self.strength * (keys == own[:, None] - 1) + (1 - self.strength) * (keys == own[:, None])
            chosen = own > 0 if self.rows == "all" else jnp.isin(own, scene.label_positions())
            return jnp.where(chosen[:, None], before.astype(pattern.dtype), pattern)

        return _on_pattern(self.layer, self.heads, new)


class Induction(Intervention, frozen=True, tag="induction"):
    """The query's attention in some heads is `strength` on the labels of the context that are the target, shared
    equally, the rest on the other labels, and 0 elsewhere. What is called induction strength is 2 `strength` - 1 when
    two labels are shown. Where all labels of a context are the target, or none is, they share all of it."""

    layer: Index = 1
    heads: Heads = None
    strength: Strength = 1.0

    def tap(self, scene: Scene) -> Tap:
        right = (scene.prompt.labels == scene.prompt.target).T.astype(jnp.float32)
        good, bad = right.sum(-1, keepdims=True), (1 - right).sum(-1, keepdims=True)
        strength = jnp.where(bad == 0, 1.0, jnp.where(good == 0, 0.0, self.strength))
        share = strength * right / jnp.maximum(good, 1) + (1 - strength) * (1 - right) / jnp.maximum(bad, 1)
        return _on_pattern(self.layer, self.heads, lambda pattern: _query_attends(scene, pattern, share))


class MatchExemplars(Intervention, frozen=True, tag="match_exemplars"):
    """The query's attention in some heads is softmax(cosine(query exemplar, context exemplars) / `temperature`) over
    the labels of the context: a perfect match of what is seen. Temperature 0: all on the nearest (the first of
    several that are equally near)."""

    layer: Index = 1
    heads: Heads = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.1

    def tap(self, scene: Scene) -> Tap:
        x = scene.prompt.exemplars
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        near = jnp.einsum("sbd,bd->bs", x[:-1], x[-1])
        if self.temperature == 0:
            share = jax.nn.one_hot(jnp.argmax(near, axis=-1), near.shape[-1])
        else:
            share = jax.nn.softmax(near / self.temperature, axis=-1)
        return _on_pattern(self.layer, self.heads, lambda pattern: _query_attends(scene, pattern, share))


class Forbid(Intervention, frozen=True, tag="forbid"):
    """Tokens may not attend to some: the query to `exemplars` (then only labels are left, and itself is not), or label
    tokens, or with `rows` = "all" every token but the first, to the `previous` token."""

    layer: Index = 0
    heads: Heads = None
    keys: Literal["exemplars", "previous"] = "exemplars"
    rows: Literal["labels", "all"] = "labels"

    def check(self, model: Transformer, sizes: Sizes, field: str) -> None:
        super().check(model, sizes, field)
        apart = self.keys == "previous" or model.by_turns
        require(apart, f"{field}.keys", self.keys, "needs model.pairing = 'interleaved' or 'copied'")

    def tap(self, scene: Scene) -> Tap:
        labels = scene.label_positions()

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
    """The attention scores of some heads of a layer are divided by `temperature`."""

    layer: Index = 1
    heads: Heads = None
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    def tap(self, scene: Scene) -> Tap:
        def tap(name: str, scores: Array) -> Array:
            if name != f"blocks.{self.layer}.attn.hook_attn_scores":
                return scores
            hidden = scores <= NEVER
            return _at_heads(name, scores, jnp.where(hidden, scores, scores / self.temperature), self.heads)

        return tap


class PerfectPrevious(Intervention, frozen=True, tag="perfect_previous"):
    """A layer reads its queries and keys as if the layers before it had replaced every token but the first and the
    query's by the embedding of the token before, and its values from the embeddings alone: attention to the previous
    token and copying of it, both perfect."""

    layer: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 1

    def tap(self, scene: Scene) -> Tap:
        kept: dict[str, Array] = {}

        def normed(x: Array) -> Array:
            return layer_norm(scene.params["blocks"][self.layer]["norm1"], x)

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
    """The logits are the attention scores of one head from the query to the labels of the context; of a label shown
    several times log-sum-exp of its scores; all other labels never."""

    layer: Index = 1
    head: Index = 0

    def tap(self, scene: Scene) -> Tap:
        kept: dict[str, Array] = {}

        def tap(name: str, value: Array) -> Array:
            if name == f"blocks.{self.layer}.attn.hook_attn_scores":
                kept["scores"] = value[:, self.head, -1][:, scene.label_positions()]
            if name == "hook_logits":
                labels = scene.prompt.labels.T
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


def intervened(
    model: Any, params: Params, prompt: Any, interventions: tuple[AnyIntervention, ...], then: Tap = untouched
) -> Tap:
    """The tap of these interventions, one after the other, and of `then`, which sees what they made. What they keep of
    a pass without interventions costs that pass. Raises `InputError` for what changes nothing or cannot be done: a
    point, layer, head, neuron or position that the model does not have, an unknown word."""
    check_used(interventions, model, params, prompt)
    if not interventions:
        return then
    wanted = [glob for one in interventions for glob in one.clean()]
    clean = record(model, params, prompt, *wanted)[1] if wanted else {}
    scene = Scene(model, params, prompt, clean)
    taps = [*(one.tap(scene) for one in interventions), then]

    def tap(name: str, value: Array) -> Array:
        for one in taps:
            value = one(name, value)
        return value

    return tap


def answer(
    model: Any, params: Params, prompt: Any, interventions: tuple[AnyIntervention, ...] = ()
) -> Float[Array, "*asked batch labels"]:
    """The outputs of a model with interventions."""
    return model.apply(params, prompt, intervened(model, params, prompt, interventions))


def check_all(interventions: tuple[AnyIntervention, ...], model: Any, shape: Shape) -> None:
    """Raises `InputError` unless the model is a transformer that has what the interventions name."""
    if interventions:
        _check_kind(model)
        _check_each(interventions, model, points(model, shape))


def check_used(interventions: Any, model: Any, params: Params, prompt: Any) -> None:
    """`check_all` for a forward pass on these prompts, of interventions that may be anything. Nothing is computed."""
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
    """Raises `InputError` for a value that a spec could not have either: made in Python, a struct takes any. Numbers of
    NumPy and JAX are numbers; one that is being traced (a strength under `vmap`, say) is not known yet."""

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
    """The points of a forward pass on these prompts; nothing is computed."""
    found: Sizes = {}

    def tap(name: str, value: Array) -> Array:
        found[name] = value.shape
        return value

    jax.eval_shape(lambda params, prompt: model.apply(params, prompt, tap), params, prompt)
    return found


def along(value: Array, axis: int, indices: tuple[Any, ...]) -> Bool[Array, "..."]:
    """True at `indices` of one axis; broadcasts against `value`."""
    where = jnp.zeros(value.shape[axis], bool).at[jnp.array(indices)].set(True)
    return where.reshape([-1 if i == axis else 1 for i in range(value.ndim)])


def _at_heads(name: str, value: Array, new: Array, heads: Heads) -> Array:
    """`new` at some heads (None: everywhere), else `value`."""
    return new if heads is None else jnp.where(along(value, axes(name).index("head"), heads), new, value)


def _rows(pattern: Float[Array, "batch head query key"]) -> Int[Array, " query"]:
    """The positions of the tokens that ask: all of them, or the last alone."""
    queries, keys = pattern.shape[-2:]
    return jnp.arange(keys - queries, keys)


def _on_pattern(layer: int, heads: Heads, new: Callable[[Array], Array]) -> Tap:
    def tap(name: str, value: Array) -> Array:
        if name != f"blocks.{layer}.attn.hook_pattern":
            return value
        return _at_heads(name, value, new(value), heads)

    return tap


def _query_attends(
    scene: Scene, pattern: Float[Array, "batch head query key"], share: Float[Array, "batch context"]
) -> Array:
    """The pattern with the query's row on the labels of the context, as `share` says."""
    row = jnp.zeros((pattern.shape[0], pattern.shape[-1])).at[:, scene.label_positions()].set(share)
    return pattern.at[:, :, -1].set(row[:, None].astype(pattern.dtype))
