"""What two pure runs cost: models that train on data which one strategy alone can solve, and see nothing of the mixed
data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.theory import Facts
from ebbtide.errors import require
from ebbtide.evaluation.divergence import Curves

LAST = 3
"""Evaluations whose mean loss counts as the loss that a run ends with."""


class Course(NamedTuple):
    """The training loss of a pure run, mean over its members.

    Args:
        sequences: ends of the stretches between evaluations, increasing.
        loss: mean training loss of every stretch, nats a target.
        spent: cumulative loss at the end of every stretch, nats times sequences: the prequential codelength.
        begin, end: the loss of the first stretch, and of the last `LAST` together.
    """

    sequences: Float[np.ndarray, " stretch"]
    loss: Float[np.ndarray, " stretch"]
    spent: Float[np.ndarray, " stretch"]
    begin: float
    end: float

    def spent_at(self, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """The cumulative loss after so many sequences; after the run's end it grows by the loss that it ended with."""
        at = np.asarray(sequences, np.float64)
        known = np.interp(at, np.append(0.0, self.sequences), np.append(0.0, self.spent))
        return known + self.end * np.maximum(at - self.sequences[-1], 0.0)

    def loss_at(self, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """The loss after so many sequences, linear between the middles of the stretches."""
        middles = (np.append(0.0, self.sequences[:-1]) + self.sequences) / 2
        return np.interp(np.asarray(sequences, np.float64), middles, self.loss)

    def skill_at(self, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """The share of the first loss that is gone, 0 to 1: how far the strategy has been learned."""
        return np.clip(1 - self.loss_at(sequences) / self.begin, 0.0, 1.0)


def course_of(curves: Curves) -> Course:
    """The course of a run with these curves. Members that diverged do not count. Raises `InputError` where no training
    loss is known."""
    after = np.asarray(curves["sequences"], np.float64) > 0
    sequences = np.asarray(curves["sequences"], np.float64)[after]
    losses = np.asarray(curves["train_loss"], np.float64)[:, after]
    losses = losses[np.isfinite(losses).all(axis=1)]
    require(losses.size > 0, "train_loss", "nan", "must be known of one member of a pure run at least")
    loss = np.maximum(losses.mean(axis=0), 1e-12)
    spent = np.cumsum(loss * np.diff(sequences, prepend=0.0))
    return Course(sequences, loss, spent, float(loss[0]), float(loss[-LAST:].mean()))


class PureRuns(NamedTuple):
    """The courses of a model that can only learn in context, and of one that can only learn in weights."""

    in_context: Course
    in_weights: Course


def pure_runs(facts: Facts, theory: str) -> PureRuns:
    """The pure runs of a cell. Raises `InputError` where there are none."""
    for name in PureRuns._fields:
        require(name in facts.pure, "pure runs", sorted(facts.pure), f"must have {name} for the theory {theory}")
    return PureRuns(course_of(facts.pure["in_context"]), course_of(facts.pure["in_weights"]))
