"""Measures of models that read words: accuracy on the cells of the stack, by place and by depth, on held-out words."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from ebbtide.analysis import predictions
from ebbtide.analysis.predictions import PROMPTS, Predictions, cache_per_prompt_set, map_members
from ebbtide.evaluation.words import Cells, cell_accuracy, next_cell_probs, read_words, stack_accuracy
from ebbtide.runs.folder import Snapshot
from ebbtide.sources.words import Words
from ebbtide.studies.evidence import Evidence
from ebbtide.tasks.parsing import Parsing

HELD_OUT = "held_out"
"""Evaluator whose words no training shows."""


class Accuracy(NamedTuple):
    """Shares from 0 to 1, of right values among the cells of the stack that are not empty: of all of them, and by their
    place from the bottom; and of stacks that are right as a whole, by the number of symbols on them, from 0."""

    cells: float
    places: Float[np.ndarray, " depth"]
    stacks: Float[np.ndarray, " depths"]


def accuracy_of(said: Cells, right: Cells) -> Accuracy:
    """The accuracy of answers."""
    full = right[..., 1:] > 0
    cells = float((said[..., 1:] == right[..., 1:])[full].mean())
    return Accuracy(cells, cell_accuracy(said, right), stack_accuracy(said, right))


def words_of(asked: Predictions) -> Words:
    """The source of the predictions' prompts."""
    source = asked.spec.source
    assert isinstance(source, Words)
    return source


def divergence(
    asked: Predictions, exact: Float[np.ndarray, "slots prompt *cells values"], logs: Float[np.ndarray, "..."]
) -> float:
    """KL(exact || model), nats a slot, summed over cells: mean over the slots from the start to the end of the word.
    `logs` are the model's log-probabilities."""
    inside = read_words(asked.inputs.argmax(-1), words_of(asked)).states > 0
    apart = exact * (np.log(np.maximum(exact, 1e-300)) - logs)
    return float(apart.reshape(*inside.shape, -1).sum(-1)[inside].mean())


@cache_per_prompt_set
def causal_probs(asked: Predictions) -> Float[np.ndarray, "slots prompt cells values"]:
    """Exact probabilities of every cell given the symbols up to the slot: 0 or 1, as the automaton says, or, where
    targets are shifted, those after the next symbol. No causal model has a lower expected loss."""
    source, task, symbols = asked.spec.source, asked.spec.task, asked.inputs.argmax(-1)
    assert isinstance(source, Words) and isinstance(task, Parsing)
    if task.shifted:
        return next_cell_probs(symbols, source)
    return np.eye(source.values)[read_words(symbols, source).cells()]


class Member(NamedTuple):
    """What is measured of a member at its last checkpoint, on held-out words: its accuracy; that of the most probable
    values by `causal_probs`; and KL(`causal_probs` || member), nats a slot, summed over cells, mean over the slots from
    the start to the end of the word."""

    own: Accuracy
    causal: Accuracy
    divergence: float


def measure_member(asked: Predictions) -> Member:
    """The `Member` of its predictions."""
    right, exact = asked.responses, causal_probs(asked)
    logs = log_softmax(asked.outputs[-1].reshape(*right.shape, -1), axis=-1)
    own, causal = accuracy_of(logs.argmax(-1), right), accuracy_of(exact.argmax(-1), right)
    return Member(own, causal, divergence(asked, exact, logs))


@lru_cache(maxsize=1024)
def _member_of(run: Snapshot, place: int) -> Member:
    return measure_member(predictions.predict_member(run, place, HELD_OUT, PROMPTS, True))


def members_of(evidence: Evidence, arm: str) -> list[Member | None]:
    """`Member` of every member of an arm; None for one that has not finished."""
    return map_members(evidence, arm, _member_of)


def cell_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Share of right values among the cells of the stack that are not empty."""
    return np.asarray([np.nan if one is None else one.own.cells for one in members_of(evidence, arm)])


def divergences(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """KL(`causal_probs` || member), nats a slot."""
    return np.asarray([np.nan if one is None else one.divergence for one in members_of(evidence, arm)])


def place_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, "member depth"]:
    """The same as `cell_accuracies`, by the place of the cell from the bottom of the stack; of no members there are two
    places, since places are compared with the next."""
    members = members_of(evidence, arm)
    depth = next((len(one.own.places) for one in members if one is not None), 2)
    return np.stack([np.full(depth, np.nan) if one is None else one.own.places for one in members])


def stack_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, "member depths"]:
    """Share of stacks that are right as a whole, by the number of symbols on them, from 0."""
    members = members_of(evidence, arm)
    depths = next((len(one.own.stacks) for one in members if one is not None), 1)
    return np.stack([np.full(depths, np.nan) if one is None else one.own.stacks for one in members])
