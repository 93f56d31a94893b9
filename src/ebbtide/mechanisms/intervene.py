"""Forward passes under interventions, for evaluation and for training, and the check that a model has what they name.

Interventions are applied in the order in which they are listed; a later one at the same point sees the value that the
earlier ones left.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import jax
import msgspec
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ebbtide.errors import InputError, nearest, require
from ebbtide.mechanisms.intervention import ForwardPass, Intervention, Sizes
from ebbtide.mechanisms.interventions import AnyIntervention
from ebbtide.mechanisms.taps import points, record
from ebbtide.models.model import Params, Shape, Tap, untouched
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import Prompt
from ebbtide.traced import kind_name


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
) -> Float[Array, "*predicted batch labels"]:
    """Outputs of a transformer under interventions.

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


def check_all(interventions: tuple[AnyIntervention, ...], model: Any, shape: Shape, prompt_type: type) -> None:
    """Raises `InputError` unless the model is a transformer that has everything that the interventions name, and the
    prompts of this type have labels where an intervention speaks of them."""
    if interventions:
        _check_kind(model)
        _check_prompts(interventions, prompt_type)
        _check_each(interventions, model, points(model, shape))


def check_used(interventions: Any, model: Any, params: Params, prompt: Any) -> None:
    """`check_all` for a forward pass on these prompts, with interventions of any type. Nothing is computed."""
    several = isinstance(interventions, tuple | list)
    allowed = "must be a tuple of interventions, e.g. (eb.Ablate(at='blocks.0.attn.hook_z'),)"
    require(several, "interventions", interventions, allowed)
    if not interventions:
        return
    _check_kind(model)
    _check_prompts(interventions, type(prompt))
    _check_each(interventions, model, _sizes(model, params, prompt))


def _check_kind(model: Any) -> None:
    allowed = "only a transformer has points to intervene at"
    require(isinstance(model, Transformer), "interventions", kind_name(model), allowed)


def _check_prompts(interventions: Sequence[Any], prompt_type: type) -> None:
    for i, one in enumerate(interventions):
        labels = prompt_type is Prompt or not (isinstance(one, Intervention) and one.needs_labels())
        what = type(one).__name__
        require(labels, f"interventions.{i}", what, "is of few-shot prompts: it speaks of labels and exemplars")


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
            reason = str(error).partition(" - at ")[0].replace("`", "")
            allowed = f"must be one of {', '.join(words)}{nearest(str(value), words)}" if words else reason
            raise InputError(f"{field}.{one_of.name}", value, allowed[:1].lower() + allowed[1:]) from error


def _sizes(model: Any, params: Params, prompt: Any) -> Sizes:
    """Shapes of all points of a forward pass on these prompts; nothing is computed."""
    sizes: Sizes = {}

    def tap(name: str, value: Array) -> Array:
        sizes[name] = value.shape
        return value

    jax.eval_shape(lambda params, prompt: model.apply(params, prompt, tap), params, prompt)
    return sizes
