"""What is measured on every evaluation sequence: each metric with its unit and its chance level."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ebbtide.compile import compile_fast
from ebbtide.models.model import AnyPrompt, cross_entropy, response_losses
from ebbtide.tasks.fewshot import METRICS
from ebbtide.tasks.prompt import FunctionPrompt, Prompt

Group = int | Int[Array, ""]
"""How many labels of a class count as right."""


class Metric(NamedTuple):
    """`values(outputs, prompt, group)` is the metric of every sequence, and compiles; `chance(prompt, outputs, group)`
    what a uniform guess over `outputs` labels gets on these very sequences, or, of functions, a constant answer. `unit`
    is what an axis says."""

    values: Callable[[Array, AnyPrompt, Group], Float[Array, " batch"]]
    chance: Callable[[AnyPrompt, int, int], float]
    unit: str


def measure(
    names: tuple[str, ...], outputs: Float[Array, "*asked batch labels"], prompt: AnyPrompt, group: Group = 1
) -> Float[Array, "metrics batch"]:
    """The metrics `names` of every sequence."""
    return jnp.stack([TABLE[name].values(outputs, prompt, group) for name in names])


def per_sequence(
    logits: Float[Array, "batch labels"], prompt: Prompt, group: Group = 1
) -> Float[Array, "metrics batch"]:
    """The few-shot metrics of every sequence, with z the logits, y the target, C the set of labels in context.

    - loss: -log softmax(z)[y] over all labels (nats);
    - accuracy (open set): argmax over all labels is y, or, with `group` labels per class, any
      label of y's class;
    - in_context_accuracy: argmax over C is y (0 where y is not in C);
    - in_context_probability: softmax restricted to C, at y (0 where y is not in C);
    - context_mass: total softmax mass on C.

    All are nan where the logits hold a nan: a diverged model has no strategy.

    Source: the metrics of the public code of Singh et al. 2023 and 2025 (github.com/aadityasingh/icl-dynamics).
    """
    return measure(METRICS, logits, prompt, group)


def chance(prompt: Prompt, outputs: int, group: int = 1) -> dict[str, float]:
    """Chance levels of all few-shot metrics on these very sequences: of a uniform guess over all labels, and, for
    in-context accuracy, over the labels in context. With n labels and C those in context: loss log n (nats), accuracy
    1/n, in-context accuracy and probability 1/|C| (0 where the target is not in C), context mass |C|/n; means over
    the prompts."""
    return {name: TABLE[name].chance(prompt, outputs, group) for name in METRICS}


def first_of_label(labels: Int[Array, "context batch"]) -> Bool[Array, "context batch"]:
    """True at the first context slot that shows each label."""
    same = labels[:, None, :] == labels[None, :, :]
    earlier = jnp.tril(jnp.ones(same.shape[:2], bool), -1)[:, :, None]
    return ~(same & earlier).any(axis=1)


def mean_and_error(values: Float[Array, "*rows n"]) -> Float[Array, "*rows 2"]:
    """Mean over the last axis and its standard error, sd / sqrt(n)."""
    n = values.shape[-1]
    return jnp.stack([values.mean(-1), values.std(-1, ddof=1) / jnp.sqrt(n)], axis=-1)


def _loss(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """What training makes small: of functions the mean over the slots that are asked (squared error, or nats)."""
    if isinstance(prompt, Prompt):
        return cross_entropy(outputs, prompt.target)
    return response_losses(outputs, prompt).mean(0)


def _of_labels(
    values: Callable[[Array, Prompt, Group], Array],
) -> Callable[[Array, AnyPrompt, Group], Float[Array, " batch"]]:
    """A metric of few-shot prompts: nan where the logits hold a nan."""

    def known(logits: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
        assert isinstance(prompt, Prompt)
        loss = cross_entropy(logits, prompt.target)
        return jnp.where(jnp.isnan(loss), jnp.nan, values(logits, prompt, group) * 1.0)

    return known


def _accuracy(logits: Array, prompt: Prompt, group: Group) -> Bool[Array, " batch"]:
    return jnp.argmax(logits, axis=-1) // group == prompt.target // group


def _in_context(logits: Array, prompt: Prompt) -> Float[Array, "context batch"]:
    """The logits of the context's labels."""
    return jnp.take_along_axis(logits.T, prompt.labels, axis=0)


def _in_context_accuracy(logits: Array, prompt: Prompt, group: Group) -> Bool[Array, " batch"]:
    best = jnp.argmax(_in_context(logits, prompt), axis=0)
    return jnp.take_along_axis(prompt.labels, best[None], axis=0)[0] == prompt.target


def _context(logits: Array, prompt: Prompt) -> Float[Array, " batch"]:
    """The logarithm of the sum of exp(z) over the set of labels in context."""
    shown = jnp.where(first_of_label(prompt.labels), _in_context(logits, prompt), -jnp.inf)
    return jax.nn.logsumexp(shown, axis=0)


def _in_context_probability(logits: Array, prompt: Prompt, group: Group) -> Float[Array, " batch"]:
    own = jnp.take_along_axis(logits, prompt.target[:, None], axis=-1)[:, 0]
    present = (prompt.labels == prompt.target).any(axis=0)
    return jnp.where(present, jnp.exp(own - _context(logits, prompt)), 0.0)


def _context_mass(logits: Array, prompt: Prompt, group: Group) -> Float[Array, " batch"]:
    return jnp.exp(_context(logits, prompt) - jax.nn.logsumexp(logits, axis=-1))


def _query_loss(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """The loss of the last slot, which has the whole context."""
    assert isinstance(prompt, FunctionPrompt)
    return response_losses(outputs, prompt)[-1]


def _explained(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """1 - query_loss / what a constant answer gets, the mean square of the queries' responses, or the logarithm of the
    number of labels. 1 is perfect, 0 knows nothing."""
    assert isinstance(prompt, FunctionPrompt)
    losses = response_losses(outputs, prompt)
    labels = jnp.issubdtype(prompt.responses.dtype, jnp.integer)
    nothing = jnp.log(outputs.shape[-1] * 1.0) if labels else (prompt.responses[-1] ** 2).mean()
    return 1 - losses[-1] / nothing


def _guess(prompt: AnyPrompt, outputs: int, group: int) -> float:
    """How often a uniform guess among the labels in context is the target."""
    assert isinstance(prompt, Prompt)
    return float(_guessed(prompt.labels, prompt.target))


@compile_fast
def _guessed(labels: Int[Array, "context batch"], target: Int[Array, " batch"]) -> Float[Array, ""]:
    present = (labels == target).any(axis=0)
    return jnp.where(present, 1 / first_of_label(labels).sum(axis=0), 0.0).mean()


def _guessed_mass(prompt: AnyPrompt, outputs: int, group: int) -> float:
    assert isinstance(prompt, Prompt)
    return float(first_of_label(prompt.labels).sum(axis=0).mean()) / outputs


def _guessed_loss(prompt: AnyPrompt, outputs: int, group: int) -> float:
    """In nats; nan where responses are real numbers: no guess among them is uniform."""
    return float(np.log(outputs)) if outputs else float("nan")


TABLE: dict[str, Metric] = {
    "loss": Metric(_loss, _guessed_loss, "loss"),
    "accuracy": Metric(_of_labels(_accuracy), lambda prompt, outputs, group: group / outputs, "accuracy"),
    "in_context_accuracy": Metric(_of_labels(_in_context_accuracy), _guess, "accuracy"),
    "in_context_probability": Metric(_of_labels(_in_context_probability), _guess, "probability"),
    "context_mass": Metric(_of_labels(_context_mass), _guessed_mass, "probability"),
    "query_loss": Metric(_query_loss, _guessed_loss, "loss"),
    "explained": Metric(_explained, lambda prompt, outputs, group: 0.0, "share of the response explained"),
}
"""All metrics by name: a task names those it records."""
