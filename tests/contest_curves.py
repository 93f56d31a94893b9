"""Cells of the contest, made up."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebbtide.contest.theory import Seen, Theory

TIMES = np.geomspace(1e3, 1e6, 31)


def curves_of(theory: Theory, inputs: Sequence[Any], noise: float = 0.0, seed: int = 0) -> list[Seen]:
    """What a theory that is fitted predicts of some cells, as if it had been seen, with noise on every fraction."""
    random, seen = np.random.default_rng(seed), []
    for one in inputs:
        fractions = theory.predict(one, TIMES)
        fractions = np.clip(fractions + noise * random.standard_normal(fractions.shape), 0, 1)
        seen.append(Seen(one, TIMES, fractions / fractions.sum(axis=1, keepdims=True)))
    return seen


def check_slope(objective: Any, at: np.ndarray, tolerance: float = 1e-4) -> None:
    """Checks an objective's slope against differences of its values."""
    _, slope = objective(at)
    for i, one in enumerate(1e-6 * np.eye(len(at))):
        difference = (objective(at + one)[0] - objective(at - one)[0]) / 2e-6
        assert abs(difference - slope[i]) < tolerance * max(1, abs(slope[i])), (i, difference, slope[i])
