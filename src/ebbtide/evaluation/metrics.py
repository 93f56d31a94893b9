"""Metrics of every evaluation sequence, each with its chance level."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ebbtide.compile import compile_fast
from ebbtide.models.model import AnyPrompt, cell_logits, cross_entropy, response_losses
from ebbtide.tasks.fewshot import METRICS
from ebbtide.tasks.prompt import CellPrompt, FunctionPrompt, Prompt

Group = int | Int[Array, ""]
"""Number of labels of a class that count as right."""


class Metric(NamedTuple):
    """A metric. `values(outputs, prompt, group)` is its value for every sequence, and can be compiled;
    `chance(prompt, outputs, group)` is the value of a uniform guess over `outputs` labels on the same sequences, or,
    for functions, of a constant prediction. Units are in `evaluation/units.py`."""

    values: Callable[[Array, AnyPrompt, Group], Float[Array, " batch"]]
    chance: Callable[[AnyPrompt, int, int], float]


def measure(
    names: tuple[str, ...], outputs: Float[Array, "*predicted batch labels"], prompt: AnyPrompt, group: Group = 1
) -> Float[Array, "metrics batch"]:
    """Values of the metrics `names` for every sequence."""
    return jnp.stack([TABLE[name].values(outputs, prompt, group) for name in names])


def per_sequence(
    logits: Float[Array, "batch labels"], prompt: Prompt, group: Group = 1
) -> Float[Array, "metrics batch"]:
    """Values of the few-shot metrics for every sequence, with z the logits, y the target, C the set of labels in
    context.

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
    """Chance levels of all few-shot metrics, means over these sequences: the values of a uniform guess over all n
    labels, and, for in-context accuracy, over the set C of labels in context. Loss log n (nats), accuracy 1/n,
    in-context accuracy and probability 1/|C| (0 where the target is not in C), context mass |C|/n."""
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
    """Training loss: cross-entropy of the query (nats), or for functions the mean over the predicted slots
    (`response_losses`)."""
    if isinstance(prompt, Prompt):
        return cross_entropy(outputs, prompt.target)
    return response_losses(outputs, prompt).mean(0)


def _of_labels(
    values: Callable[[Array, Prompt, Group], Array],
) -> Callable[[Array, AnyPrompt, Group], Float[Array, " batch"]]:
    """`values` for few-shot prompts, with nan where the logits hold a nan."""

    def known(logits: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
        assert isinstance(prompt, Prompt)
        loss = cross_entropy(logits, prompt.target)
        return jnp.where(jnp.isnan(loss), jnp.nan, values(logits, prompt, group) * 1.0)

    return known


def _accuracy(logits: Array, prompt: Prompt, group: Group) -> Bool[Array, " batch"]:
    return jnp.argmax(logits, axis=-1) // group == prompt.target // group


def _in_context(logits: Array, prompt: Prompt) -> Float[Array, "context batch"]:
    """Logits of the context's labels."""
    return jnp.take_along_axis(logits.T, prompt.labels, axis=0)


def _in_context_accuracy(logits: Array, prompt: Prompt, group: Group) -> Bool[Array, " batch"]:
    best = jnp.argmax(_in_context(logits, prompt), axis=0)
    return jnp.take_along_axis(prompt.labels, best[None], axis=0)[0] == prompt.target


def _context_logit(logits: Array, prompt: Prompt) -> Float[Array, " batch"]:
    """Logarithm of the sum of exp(z) over the set of labels in context."""
    shown = jnp.where(first_of_label(prompt.labels), _in_context(logits, prompt), -jnp.inf)
    return jax.nn.logsumexp(shown, axis=0)


def _in_context_probability(logits: Array, prompt: Prompt, group: Group) -> Float[Array, " batch"]:
    own = jnp.take_along_axis(logits, prompt.target[:, None], axis=-1)[:, 0]
    present = (prompt.labels == prompt.target).any(axis=0)
    return jnp.where(present, jnp.exp(own - _context_logit(logits, prompt)), 0.0)


def _context_mass(logits: Array, prompt: Prompt, group: Group) -> Float[Array, " batch"]:
    return jnp.exp(_context_logit(logits, prompt) - jax.nn.logsumexp(logits, axis=-1))


def _query_loss(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """Loss of the last slot, which is predicted from the whole context."""
    assert isinstance(prompt, FunctionPrompt)
    return response_losses(outputs, prompt)[-1]


def _explained(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """1 - query_loss / loss of a constant prediction (the mean square of the queries' responses, or the logarithm of
    the number of labels). 1: perfect, 0: no better than a constant."""
    assert isinstance(prompt, FunctionPrompt)
    losses = response_losses(outputs, prompt)
    labels = jnp.issubdtype(prompt.responses.dtype, jnp.integer)
    nothing = jnp.log(outputs.shape[-1] * 1.0) if labels else (prompt.responses[-1] ** 2).mean()
    return 1 - losses[-1] / nothing


def _sign_accuracy(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """1 where the score of the query has the sign of its response, else 0; a score of 0 counts as wrong, nan stays."""
    assert isinstance(prompt, FunctionPrompt)
    score = outputs[-1, :, 0]
    return jnp.where(jnp.isnan(score), jnp.nan, (score * prompt.responses[-1] > 0) * 1.0)


def _right_cells(outputs: Array, prompt: AnyPrompt) -> tuple[Bool[Array, "slots batch cells"], Array]:
    """Where the most probable value of a cell is the right one; and 0 for every sequence, nan where its outputs hold
    one."""
    assert isinstance(prompt, CellPrompt)
    return cell_logits(outputs, prompt).argmax(-1) == prompt.responses, outputs.sum((0, 2)) * 0.0


def _cell_accuracy(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """Share of right values among the cells, the first left out, that are not empty (0); 1 where all are."""
    assert isinstance(prompt, CellPrompt)
    right, nan = _right_cells(outputs, prompt)
    full = prompt.responses[..., 1:] > 0
    count = full.sum((0, 2))
    return jnp.where(count > 0, (right[..., 1:] & full).sum((0, 2)) / jnp.maximum(count, 1), 1.0) + nan


def _configuration(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """Share of slots with all cells right, among those whose first cell is not 0."""
    assert isinstance(prompt, CellPrompt)
    right, nan = _right_cells(outputs, prompt)
    counted = prompt.responses[..., 0] > 0
    return (right.all(-1) & counted).sum(0) / counted.sum(0) + nan


def _valid(outputs: Array, prompt: AnyPrompt, group: Group) -> Float[Array, " batch"]:
    """Share of slots whose most probable answer is a valid one, among those that have any."""
    assert isinstance(prompt, FunctionPrompt)
    valid = jnp.moveaxis(prompt.latent["valid"], 1, 0)
    right = jnp.take_along_axis(valid, outputs.argmax(-1)[..., None], axis=-1)[..., 0]
    return right.sum(0) / valid.any(-1).sum(0) + outputs.sum((0, 2)) * 0.0


def _chance_cells(prompt: AnyPrompt, outputs: int) -> tuple[float, int]:
    """Probability that a uniform guess of one cell is right, and the number of cells."""
    assert isinstance(prompt, CellPrompt)
    cells = prompt.responses.shape[-1]
    return cells / outputs, cells


def _chance_cell(prompt: AnyPrompt, outputs: int, group: int) -> float:
    return _chance_cells(prompt, outputs)[0]


def _chance_configuration(prompt: AnyPrompt, outputs: int, group: int) -> float:
    one, cells = _chance_cells(prompt, outputs)
    return one**cells


def _chance_valid(prompt: AnyPrompt, outputs: int, group: int) -> float:
    """Share of valid answers, mean over the slots that have any, and over the prompts."""
    assert isinstance(prompt, FunctionPrompt)
    valid = prompt.latent["valid"]
    return float((valid.sum((1, 2)) / valid.any(-1).sum(1)).mean()) / outputs


def _chance_in_context(prompt: AnyPrompt, outputs: int, group: int) -> float:
    """Probability that a uniform guess among the labels in context is the target, mean over the prompts."""
    assert isinstance(prompt, Prompt)
    return float(_chance_in_context_mean(prompt.labels, prompt.target))


@compile_fast
def _chance_in_context_mean(labels: Int[Array, "context batch"], target: Int[Array, " batch"]) -> Float[Array, ""]:
    present = (labels == target).any(axis=0)
    return jnp.where(present, 1 / first_of_label(labels).sum(axis=0), 0.0).mean()


def _chance_mass(prompt: AnyPrompt, outputs: int, group: int) -> float:
    assert isinstance(prompt, Prompt)
    return float(first_of_label(prompt.labels).sum(axis=0).mean()) / outputs


def _chance_loss(prompt: AnyPrompt, outputs: int, group: int) -> float:
    """Cross-entropy of a uniform guess over the labels, nats; nan where responses are real numbers."""
    if isinstance(prompt, CellPrompt):
        return -float(np.log(_chance_cells(prompt, outputs)[0]))
    return float(np.log(outputs)) if outputs else float("nan")


TABLE: dict[str, Metric] = {
    "loss": Metric(_loss, _chance_loss),
    "accuracy": Metric(_of_labels(_accuracy), lambda prompt, outputs, group: group / outputs),
    "in_context_accuracy": Metric(_of_labels(_in_context_accuracy), _chance_in_context),
    "in_context_probability": Metric(_of_labels(_in_context_probability), _chance_in_context),
    "context_mass": Metric(_of_labels(_context_mass), _chance_mass),
    "query_loss": Metric(_query_loss, _chance_loss),
    "sign_accuracy": Metric(_sign_accuracy, lambda prompt, outputs, group: 0.5),
    "cell_accuracy": Metric(_cell_accuracy, _chance_cell),
    "configuration": Metric(_configuration, _chance_configuration),
    "valid": Metric(_valid, _chance_valid),
    "explained": Metric(_explained, lambda prompt, outputs, group: 0.0),
}
"""All metrics by name; a task names the ones that it records."""
