"""Measures of attention heads and of a model's behaviour without them, for one model on one batch of prompts.

Source: Singh et al. 2024 (arXiv 2404.07129, Fig. 3-4, Tables 1-3) and 2025 (arXiv 2503.05631, Fig. 2, 3 and 14). All
are means over the prompts. Layers and heads count from 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.metrics import first_of_label, per_sequence
from ebbtide.mechanisms.intervene import answer, intervention_tap
from ebbtide.mechanisms.intervention import label_positions
from ebbtide.mechanisms.interventions import Ablate, AnyIntervention, Induction, KeepClean
from ebbtide.mechanisms.taps import record
from ebbtide.models.layers import EPSILON
from ebbtide.models.model import AnyPrompt, Params
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.fewshot import METRICS
from ebbtide.tasks.prompt import Prompt
from ebbtide.traced import kind_name

STRENGTHS = tuple(round(-1 + 0.25 * i, 2) for i in range(9))
"""Induction strengths of the copy curve."""
PARTS = ("as it is", "none", "queries", "keys", "values", "all")
"""Conditions of `composition_accuracy`: the inputs of the last layer's attention that the ablation of earlier heads
reaches."""


WIRING = (
    "previous-token heads gone, attention kept",
    "previous-token heads gone, values kept",
    "other heads gone, attention kept",
    "other heads gone, values kept",
)
"""Conditions of `wiring_accuracy`."""


class Measure(NamedTuple):
    """A measure: `compute` returns an array with the axes `axes`, named after what they count; `parts` names the
    entries of an axis `part`."""

    compute: Callable[[Transformer, Params, Prompt], Array]
    axes: tuple[str, ...]
    unit: str
    what: str
    parts: tuple[str, ...] = ()


def _patterns(
    model: Transformer, params: Params, prompt: Prompt, each: Callable[[Array], Array]
) -> Float[Array, "layer head"]:
    """One number for every head: `each` of its attention [batch, head, query, key]."""
    reduce = lambda name, value: each(value)  # noqa: E731
    recorded = record(model, params, prompt, "blocks.*.attn.hook_pattern", reduce=reduce)[1]
    return jnp.stack([recorded[f"blocks.{i}.attn.hook_pattern"] for i in range(model.layers)])


def _on_labels(model: Transformer, prompt: Prompt, pattern: Array) -> Float[Array, "batch head context"]:
    """Attention of the query on every label of the context."""
    return pattern[:, :, -1][..., label_positions(model, prompt)]


def induction_strength(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "layer head"]:
    """Attention of the query on the context labels that equal the target, minus its attention on the other labels."""
    sign = jnp.where(prompt.labels == prompt.target, 1.0, -1.0).T[:, None]
    return _patterns(model, params, prompt, lambda p: (_on_labels(model, prompt, p) * sign).sum(-1).mean(0))


def label_attention(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "layer head"]:
    """Attention of the query on all labels of the context together."""
    return _patterns(model, params, prompt, lambda p: _on_labels(model, prompt, p).sum(-1).mean(0))


def _label_rows(model: Transformer, prompt: Prompt, pattern: Array, back: int) -> Float[Array, " head"]:
    """Attention of the context's labels on the token `back` places before; nan where these rows are not computed."""
    labels = label_positions(model, prompt)
    if pattern.shape[-2] == 1:
        return jnp.full(pattern.shape[1], jnp.nan)
    rows = labels[1:] if back > 0 and model.pairing == "joint" else labels
    return pattern[:, :, rows, rows - back].mean((0, 2))


def previous_token_attention(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "layer head"]:
    """Attention of the context's label tokens on the previous token, their exemplar (nan in the last layer, where only
    the query's row is computed)."""
    return _patterns(model, params, prompt, lambda p: _label_rows(model, prompt, p, 1))


def self_attention(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "layer head"]:
    """Attention of the context's label tokens on themselves (nan in the last layer)."""
    return _patterns(model, params, prompt, lambda p: _label_rows(model, prompt, p, 0))


def logit_attribution(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "layer head"]:
    r"""Direct logit attribution in nats: the direct contribution of a head's output at the query to the logit of the
    target, minus its contribution to the mean logit of the other labels in context: $(z_h W_O^h - \mathrm{mean})\,
    \odot s / \sigma \cdot (w_y - \bar w_{C \setminus y})$, with the scale $\sigma$ of the final norm kept at its value.
    0 where no other label is in context."""
    last, d = model.layers - 1, model.width
    globs = ("blocks.*.attn.hook_z", f"blocks.{last}.hook_resid_post")
    _, recorded = record(model, params, prompt, *globs)
    final = recorded[f"blocks.{last}.hook_resid_post"][-1]
    scale = jax.lax.rsqrt(final.var(-1, keepdims=True) + EPSILON) * params["norm"]["scale"]
    other = first_of_label(prompt.labels) & (prompt.labels != prompt.target)
    columns = params["readout"]["w"].T
    count = other.sum(0)[:, None]
    mean = (columns[prompt.labels] * other[..., None]).sum(0) / jnp.maximum(count, 1)
    toward = jnp.where(count > 0, columns[prompt.target] - mean, 0.0) * scale
    contributions = []
    for i in range(model.layers):
        z = recorded[f"blocks.{i}.attn.hook_z"][-1]
        out = jnp.einsum("bhk,hkd->bhd", z, params["blocks"][i]["attn"]["o"].reshape(model.heads, -1, d))
        out = out - out.mean(-1, keepdims=True)
        contributions.append(jnp.einsum("bhd,bd->bh", out, toward).mean(0))
    return jnp.stack(contributions)


def accuracy(
    model: Transformer, params: Params, prompt: Prompt, interventions: tuple[AnyIntervention, ...] = ()
) -> Float[Array, ""]:
    """In-context accuracy under interventions."""
    return _metric_mean(answer(model, params, prompt, interventions), prompt, "in_context_accuracy")


def _metric_mean(logits: Float[Array, "batch labels"], prompt: Prompt, metric: str) -> Float[Array, ""]:
    return per_sequence(logits, prompt)[METRICS.index(metric)].mean()


def _metric_with_heads(
    model: Transformer,
    params: Params,
    prompt: Prompt,
    kept: Float[Array, "layer head"],
    metric: str,
    interventions: tuple[AnyIntervention, ...] = (),
) -> Float[Array, ""]:
    """A metric with the output of every head multiplied by its entry in `kept` (1: kept, 0: ablated), which may be
    traced: here heads are chosen by what they do."""

    def ablate(name: str, value: Array) -> Array:
        if not name.endswith(".attn.hook_z"):
            return value
        return value * kept[int(name.split(".")[1])][:, None]

    tap = intervention_tap(model, params, prompt, interventions, ablate)
    return _metric_mean(model.apply(params, prompt, tap), prompt, metric)


def accuracy_without_head(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "layer head"]:
    """Accuracy over all labels with one head ablated."""

    def without(layer: int, head: int) -> Array:
        kept = jnp.ones((model.layers, model.heads)).at[layer, head].set(0)
        return _metric_with_heads(model, params, prompt, kept, "accuracy")

    return jnp.stack([jnp.stack([without(i, h) for h in range(model.heads)]) for i in range(model.layers)])


def accuracy_of_single_head(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, " head"]:
    """Accuracy over all labels with all heads of the last layer ablated but one."""

    def alone(head: int) -> Array:
        kept = jnp.ones((model.layers, model.heads)).at[-1].set(0).at[-1, head].set(1)
        return _metric_with_heads(model, params, prompt, kept, "accuracy")

    return jnp.stack([alone(h) for h in range(model.heads)])


def loss_of_strongest_heads(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, " kept"]:
    """Loss with none of the heads of the last layer, then with its 1, 2, ... strongest induction heads, at last with
    all of them; the others are ablated."""
    rank = jnp.argsort(jnp.argsort(-induction_strength(model, params, prompt)[-1]))

    def with_strongest(count: int) -> Array:
        kept = jnp.ones((model.layers, model.heads)).at[-1].set(1.0 * (rank < count))
        return _metric_with_heads(model, params, prompt, kept, "loss")

    return jnp.stack([with_strongest(count) for count in range(model.heads + 1)])


def wiring_accuracy(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, " part"]:
    """Accuracy over all labels with some heads of the layers before the last ablated (`WIRING`): the previous-token
    heads, whose labels attend to their exemplar more than half as much as those of the head that does so most; or all
    other heads. The ablation reaches the last layer's values alone, whose attention is that of the intact model; or its
    attention alone, whose values are those of the intact model (Singh et al. 2024, Table 1). With one layer: the intact
    accuracy, four times."""
    last = model.layers - 1
    everything = jnp.ones((model.layers, model.heads))
    if last == 0:
        return jnp.tile(_metric_with_heads(model, params, prompt, everything, "accuracy"), len(WIRING))
    attention = previous_token_attention(model, params, prompt)[:last]
    previous = (attention > 0.5 * attention.max()) * 1.0

    def without(heads: Float[Array, "layer head"], clean: str) -> Array:
        same = (KeepClean(at=f"blocks.{last}.attn.{clean}"),)
        return _metric_with_heads(model, params, prompt, everything.at[:last].set(1 - heads), "accuracy", same)

    groups = (previous, 1 - previous)
    return jnp.stack([without(heads, clean) for heads in groups for clean in ("hook_pattern", "hook_v")])


def composition_accuracy(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, " part"]:
    """In-context accuracy of the intact model, then with the heads of all layers before the last ablated, where the
    ablation reaches none of the inputs of the last layer's attention, only its queries, keys or values, or all three:
    the strength of Q-, K- and V-composition (Singh et al. 2025, section 4.1). With one layer: the intact accuracy, six
    times."""
    last = model.layers - 1
    gone = tuple(Ablate(at=f"blocks.{i}.attn.hook_z") for i in range(last))

    def feeling(*names: str) -> Array:
        kept = tuple(KeepClean(at=f"blocks.{last}.attn.hook_{n}") for n in "qkv" if n not in names)
        return accuracy(model, params, prompt, (*gone, *kept))

    parts = [feeling(), feeling("q"), feeling("k"), feeling("v"), feeling("q", "k", "v")]
    return jnp.stack([accuracy(model, params, prompt), *parts])


def copy_curve(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, "head strength"]:
    """In-context accuracy with all heads of the last layer ablated but one, whose induction strength is clamped to -1,
    -.75 ... 1: it shows whether the head copies the label that it attends to (Singh et al. 2025, Fig. 2b). The layer's
    values are those of the intact model; earlier heads and embeddings still reach the read-out."""
    last = model.layers - 1

    def clamped_accuracy(head: int, strength: float) -> Array:
        others = tuple(h for h in range(model.heads) if h != head)
        gone = (Ablate(at=f"blocks.{last}.attn.hook_z", heads=others),) if others else ()
        clamp = Induction(layer=last, heads=(head,), strength=(1 + strength) / 2)
        return accuracy(model, params, prompt, (clamp, *gone))

    return jnp.stack([jnp.stack([clamped_accuracy(h, s) for s in STRENGTHS]) for h in range(model.heads)])


def target_probability(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, " prompt"]:
    """Probability of the target among the labels in context, for every prompt. Figures show this vector in the plane of
    the leading joint principal components of all members (`linear.joint_plane`)."""
    logits = model.apply(params, prompt)
    return per_sequence(logits, prompt)[METRICS.index("in_context_probability")]


def probe_accuracy(model: Transformer, params: Params, prompt: Prompt) -> Float[Array, " point"]:
    """Accuracy of a linear probe for the target at the query's token, after the embedding and after every layer: ridge
    (penalty 1) fitted to one half of the prompts, tested on the other (`linear.ridge_probe` in JAX)."""
    last = [f"blocks.{i}.hook_resid_post" for i in range(model.layers)]
    recorded = record(model, params, prompt, "hook_embed", "blocks.*.hook_resid_post")[1]
    half = prompt.target.shape[0] // 2
    coded = jax.nn.one_hot(prompt.target, params["readout"]["w"].shape[1])

    def read(x: Float[Array, "batch width"]) -> Array:
        mean, base = x[:half].mean(0), coded[:half].mean(0)
        fit, wanted = x[:half] - mean, coded[:half] - base
        w = jnp.linalg.solve(fit.T @ fit + jnp.eye(x.shape[1]), fit.T @ wanted)
        return (jnp.argmax((x[half:] - mean) @ w + base, axis=-1) == prompt.target[half:]).mean()

    return jnp.stack([read(recorded[name][-1]) for name in ("hook_embed", *last)])


HEADS = ("layer", "head")
MEASURES = {
    "induction_strength": Measure(induction_strength, HEADS, "attention", "query on the target's labels - on others"),
    "label_attention": Measure(label_attention, HEADS, "attention", "query on all labels of the context"),
    "previous_token": Measure(
        previous_token_attention, HEADS, "attention", "labels on the token before (their exemplar)"
    ),
    "self_attention": Measure(self_attention, HEADS, "attention", "labels on themselves"),
    "logit_attribution": Measure(logit_attribution, HEADS, "nats", "head's direct effect: target - other labels"),
    "without_head": Measure(accuracy_without_head, HEADS, "accuracy", "accuracy without the head"),
    "only_head": Measure(accuracy_of_single_head, ("head",), "accuracy", "accuracy with one head of the last layer"),
    "strongest_heads": Measure(
        loss_of_strongest_heads, ("kept",), "nats", "loss with the 0, 1, ... strongest heads of the last layer"
    ),
    "wiring": Measure(
        wiring_accuracy, ("part",), "accuracy", "earlier heads gone, by kind; what of the last layer feels it", WIRING
    ),
    "composition": Measure(
        composition_accuracy, ("part",), "accuracy", "earlier heads gone; what of the last layer feels it", PARTS
    ),
    "linear_probe": Measure(probe_accuracy, ("point",), "accuracy", "the target read linearly off the query's token"),
    "outputs": Measure(
        target_probability, ("prompt",), "probability", "the target among the labels in context, prompt by prompt"
    ),
    "copy_curve": Measure(copy_curve, ("head", "strength"), "accuracy", "one head, its induction strength held"),
}


def find_measure(name: str) -> Measure:
    """The measure of this name. Raises `InputError` for an unknown name."""
    require(name in MEASURES, "measure", name, f"must be one of {', '.join(MEASURES)}{nearest(name, MEASURES)}")
    return MEASURES[name]


def measure(name: str, model: Any, params: Params, prompt: AnyPrompt) -> Array:
    """The value of a measure for a model on few-shot prompts, an array with the axes of the measure.

    Args:
        name: a measure (the message for an unknown name lists them).
        model: a `Transformer`.
        params: its parameters, e.g. from `model_at`.
        prompt: a batch of few-shot prompts, e.g. from `prompts_of`.

    Raises:
        InputError: an unknown measure, another kind of model or of prompts.

    Source: Singh et al. 2024 (arXiv 2404.07129) and 2025 (arXiv 2503.05631).

    >>> spec, params = eb.model_at("runs/tiny")
    >>> eb.measure("induction_strength", spec.model, params, eb.prompts_of(spec, "icl", 5)).shape  # [layer, head]
    (2, 2)
    """
    chosen = find_measure(name)
    transformer = isinstance(model, Transformer)
    require(transformer, "measure", name, f"is of transformers; the model is {kind_name(model)}")
    if not isinstance(prompt, Prompt):
        allowed = f"must be few-shot prompts: {name} speaks of labels in context"
        raise InputError("prompt", type(prompt).__name__, allowed)
    return chosen.compute(model, params, prompt)
