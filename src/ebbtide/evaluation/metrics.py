"""What is measured on every evaluation sequence."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ebbtide.compile import compile_fast
from ebbtide.models.model import cross_entropy
from ebbtide.tasks.prompt import Prompt

METRICS = ("loss", "accuracy", "in_context_accuracy", "in_context_probability", "context_mass")
"""Names of the metrics, in the order of the last axis of every metric array."""


def first_of_label(labels: Int[Array, "context batch"]) -> Bool[Array, "context batch"]:
    """True at the first context slot that shows each label."""
    same = labels[:, None, :] == labels[None, :, :]
    earlier = jnp.tril(jnp.ones(same.shape[:2], bool), -1)[:, :, None]
    return ~(same & earlier).any(axis=1)


def per_sequence(
    logits: Float[Array, "batch labels"], prompt: Prompt, group: int | Int[Array, ""] = 1
) -> Float[Array, "metrics batch"]:
    """The metrics of every sequence, with z the logits, y the target, C the set of labels in context.

    - loss: -log softmax(z)[y] over all labels (nats);
    - accuracy (open set): argmax over all labels is y, or, with `group` labels per class, any
      label of y's class;
    - in_context_accuracy: argmax over C is y (0 where y is not in C);
    - in_context_probability: softmax restricted to C, at y (0 where y is not in C);
    - context_mass: total softmax mass on C.

    All are nan where the logits hold a nan: a diverged model has no strategy.

    Source: the metrics of the public code of Singh et al. 2023 and 2025 (github.com/aadityasingh/icl-dynamics).
    """
    target, labels = prompt.target, prompt.labels
    loss = cross_entropy(logits, target)
    accuracy = jnp.argmax(logits, axis=-1) // group == target // group
    in_context = jnp.take_along_axis(logits.T, labels, axis=0)
    own = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    present = (labels == target).any(axis=0)
    best = jnp.take_along_axis(labels, jnp.argmax(in_context, axis=0)[None], axis=0)[0] == target
    shown = jnp.where(first_of_label(labels), in_context, -jnp.inf)
    context = jax.nn.logsumexp(shown, axis=0)
    probability = jnp.where(present, jnp.exp(own - context), 0.0)
    mass = jnp.exp(context - jax.nn.logsumexp(logits, axis=-1))
    values = jnp.stack([loss, accuracy * 1.0, best * 1.0, probability, mass])
    return jnp.where(jnp.isnan(loss), jnp.nan, values)


def mean_and_error(values: Float[Array, "*rows n"]) -> Float[Array, "*rows 2"]:
    """Mean over the last axis and its standard error, sd / sqrt(n)."""
    n = values.shape[-1]
    return jnp.stack([values.mean(-1), values.std(-1, ddof=1) / jnp.sqrt(n)], axis=-1)


def chance(prompt: Prompt, outputs: int, group: int = 1) -> dict[str, float]:
    """Chance levels on these very sequences: a uniform guess over all labels (open set), and over
    the labels in context (0 where the target is not among them)."""
    return {"accuracy": group / outputs, "in_context_accuracy": float(_guess(prompt.labels, prompt.target))}


@compile_fast
def _guess(labels: Int[Array, "context batch"], target: Int[Array, " batch"]) -> Float[Array, ""]:
    """How often a uniform guess among the labels in context is the target."""
    present = (labels == target).any(axis=0)
    return jnp.where(present, 1 / first_of_label(labels).sum(axis=0), 0.0).mean()
