"""Named activations of a forward pass, recorded by glob."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import jax
from jaxtyping import Array, Float

from ebbtide.errors import nearest, require
from ebbtide.models.model import AnyPrompt, Model, Params, Shape, Tap, untouched
from ebbtide.tasks.prompt import Prompt

AXES: dict[str, tuple[str, ...]] = {
    "hook_exemplar_embed": ("slot", "batch", "width"),
    "hook_label_embed": ("slot", "batch", "width"),
    "hook_embed": ("position", "batch", "width"),
    "hook_resid_pre": ("position", "batch", "width"),
    "hook_resid_mid": ("position", "batch", "width"),
    "hook_resid_post": ("position", "batch", "width"),
    "hook_attn_out": ("position", "batch", "width"),
    "hook_mlp_out": ("position", "batch", "width"),
    "hook_normalized": ("position", "batch", "width"),
    "hook_q_input": ("position", "batch", "width"),
    "hook_k_input": ("position", "batch", "width"),
    "hook_v_input": ("position", "batch", "width"),
    "hook_q": ("position", "batch", "head", "head width"),
    "hook_k": ("position", "batch", "head", "head width"),
    "hook_v": ("position", "batch", "head", "head width"),
    "hook_z": ("position", "batch", "head", "head width"),
    "hook_attn_scores": ("batch", "head", "query", "key"),
    "hook_pattern": ("batch", "head", "query", "key"),
    "hook_post": ("position", "batch", "neuron"),
    "hook_pool": ("position", "batch", "width"),
    "hook_logits": ("batch", "label"),
}
"""The axes of every kind of point. In a last layer, where the loss reads the query token alone, the axis `query`, and
`position` of everything after the keys and values, hold that token only."""

Reduce = Callable[[str, Array], Any]


def kind(name: str) -> str:
    """The last part of a point's name, e.g. `hook_pattern` of `blocks.1.attn.hook_pattern`."""
    return name.rpartition(".")[2]


def ln_final(name: str) -> bool:
    """Whether a point belongs to the final norm, which exists for the query alone: [batch, width]."""
    return name.startswith("ln_final.")


def axes(name: str) -> tuple[str, ...]:
    """The axes of a point's value."""
    return ("batch", "width") if ln_final(name) else AXES.get(kind(name), ())


def points(model: Model, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Shapes, for one sequence, of every named activation of a model, in the order of the forward pass.

    Args:
        model: any model of ebbtide.
        shape: the sizes that the model must fit, e.g. `spec.shape()`.

    >>> spec, params = eb.model_at("runs/tiny")
    >>> list(eb.points(spec.model, spec.shape()))[0]
    'hook_exemplar_embed'
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def tap(name: str, value: Array) -> Array:
        shapes[name] = value.shape
        return value

    def run(key: Array, prompt: Prompt) -> Array:
        return model.apply(model.init(key, **shape), prompt, tap)

    jax.eval_shape(run, jax.random.key(0), _one_prompt(shape))
    return shapes


def _one_prompt(shape: Shape) -> Prompt:
    slots, context = shape["context"] + 1, shape["context"]
    number, whole = jax.numpy.float32, jax.numpy.int32

    def like(*size: int, kind: Any = whole) -> Any:
        return jax.ShapeDtypeStruct(size, kind)

    exemplars, one, slot = like(slots, 1, shape["dim"], kind=number), like(1), like(slots, 1)
    return Prompt(exemplars, like(context, 1), one, slot, like(slots, 1, kind=jax.numpy.uint32), slot, one)


def matching(glob: str, names: list[str], field: str = "point") -> list[str]:
    """The points that a glob matches, e.g. `blocks.*.attn.hook_pattern`. Raises `InputError` when there is none."""
    found = [name for name in names if fnmatchcase(name, glob)]
    allowed = f"names no point of this model{nearest(glob, names)}; a point is e.g. {names[0] if names else 'none'}"
    require(len(found) > 0, field, glob, allowed)
    return found


def record(
    model: Model,
    params: Params,
    prompt: AnyPrompt,
    *globs: str,
    reduce: Reduce | None = None,
    tap: Tap = untouched,
) -> tuple[Float[Array, "*predicted batch labels"], dict[str, Any]]:
    """Logits, and values by name at the points that `globs` match, from one forward pass.

    A pure function of arrays: it works under `jit`, `vmap`, `grad` and in a scan, and stores only the matched points.

    Args:
        model: any model of ebbtide.
        params: its parameters.
        prompt: a batch of prompts.
        globs: names of points (`points` lists them), e.g. "blocks.*.attn.hook_pattern".
        reduce: `reduce(name, value)` is returned in place of the value (a mean over the batch, say).
        tap: applied before recording, so that the recorded values are those with which the model continues.

    Raises:
        InputError: a glob that matches no point.

    >>> spec, params = eb.model_at("runs/tiny")
    >>> prompt = eb.prompts_of(spec, "icl", 5)
    >>> logits, cache = eb.record(spec.model, params, prompt, "blocks.*.attn.hook_pattern")
    >>> sorted(cache)
    ['blocks.0.attn.hook_pattern', 'blocks.1.attn.hook_pattern']
    """
    recorded: dict[str, Any] = {}
    names: list[str] = []

    def through(name: str, value: Array) -> Array:
        value = tap(name, value)
        names.append(name)
        if any(fnmatchcase(name, glob) for glob in globs):
            recorded[name] = value if reduce is None else reduce(name, value)
        return value

    logits = model.apply(params, prompt, through)
    for glob in globs:
        matching(glob, names)
    return logits, recorded
