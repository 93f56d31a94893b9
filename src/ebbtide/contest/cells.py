"""Cells: the configurations of a sweep, each with the strategies of its members over training."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.theory import Facts


class Cell(NamedTuple):
    """One configuration of a sweep, and what its members did.

    Args:
        facts: what may be known of the cell without looking at its training.
        sequences: times of the evaluations or checkpoints, in sequences, increasing, all above 0.
        fractions: the share of each of `theory.STRATEGIES` in the behaviour of every member; nan for a member that has
            not finished.
    """

    facts: Facts
    sequences: Num[np.ndarray, " time"]
    fractions: Float[np.ndarray, "member time strategy"]
