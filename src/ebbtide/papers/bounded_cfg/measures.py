"""Measures of models that read words: accuracy on the cells of the stack, by place and by depth, on held-out words."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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


@cache_per_prompt_set
def best_causal(asked: Predictions) -> Accuracy:
    """The accuracy of the best answers that can be given from the symbols up to the slot: those of the automaton, or,
    where targets are shifted, the most probable value of every cell after the next symbol."""
    source, task, symbols = asked.spec.source, asked.spec.task, asked.inputs.argmax(-1)
    assert isinstance(source, Words) and isinstance(task, Parsing)
    said = next_cell_probs(symbols, source).argmax(-1) if task.shifted else read_words(symbols, source).cells()
    return accuracy_of(said, asked.responses)


def measure_accuracy(asked: Predictions) -> Accuracy:
    """The accuracy of a member's answers at its last checkpoint."""
    logits = asked.outputs[-1].reshape(*asked.responses.shape, -1)
    return accuracy_of(logits.argmax(-1), asked.responses)


class Member(NamedTuple):
    """The accuracy of a member, and the best that a causal model could have on the same words."""

    own: Accuracy
    best: Accuracy


@lru_cache(maxsize=1024)
def _member_of(run: Snapshot, place: int) -> Member:
    asked = predictions.predict_member(run, place, HELD_OUT, PROMPTS, True)
    return Member(measure_accuracy(asked), best_causal(asked))


def members_of(evidence: Evidence, arm: str) -> list[Member | None]:
    """`Member` of every member of an arm; None for one that has not finished."""
    return map_members(evidence, arm, _member_of)


def cell_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Share of right values among the cells of the stack that are not empty."""
    return np.asarray([np.nan if one is None else one.own.cells for one in members_of(evidence, arm)])


def best_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """The same of the best causal answers."""
    return np.asarray([np.nan if one is None else one.best.cells for one in members_of(evidence, arm)])


def place_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, "member depth"]:
    """The same as `cell_accuracies`, by the place of the cell from the bottom of the stack."""
    members = members_of(evidence, arm)
    depth = next((len(one.own.places) for one in members if one is not None), 1)
    return np.stack([np.full(depth, np.nan) if one is None else one.own.places for one in members])


def stack_accuracies(evidence: Evidence, arm: str) -> Float[np.ndarray, "member depths"]:
    """Share of stacks that are right as a whole, by the number of symbols on them, from 0."""
    members = members_of(evidence, arm)
    depths = next((len(one.own.stacks) for one in members if one is not None), 1)
    return np.stack([np.full(depths, np.nan) if one is None else one.own.stacks for one in members])
