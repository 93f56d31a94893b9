"""The best model of every member, and early stopping."""

from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from ebbtide.errors import require

TRAINING = -1
"""`stopped_at` of a member that has not stopped."""
LONGEST_WINDOW = 1000
"""Largest number of evaluations in a smoothing window: every checkpoint holds the window of each member."""


class EarlyStopping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Early stopping of a member whose smoothed metric has not risen for `patience` *sequences*.

    A stopped member keeps its model to the end of the run, which ends when all members have stopped. ICL may stay at
    chance for long before it emerges: a shorter patience stops such a run before it has learned.

    Args:
        patience: sequences without a rise after which a member stops.
        evaluator: the evaluator whose headline metric is watched.
        window: the number of last evaluations whose mean is the smoothed value (fewer at the start).
        margin: the amount by which the smoothed value must exceed its best value so far to count as a rise.

    >>> eb.EarlyStopping(patience=100_000, evaluator="icl").window
    3
    """

    patience: Annotated[int, msgspec.Meta(ge=1)]
    evaluator: str = "icl"
    window: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_WINDOW)] = 3
    margin: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def check(self, evaluators: tuple[str, ...]) -> None:
        """Raises `InputError` unless the evaluator is one of the run's."""
        allowed = f"must be one of the run's evaluators: {', '.join(evaluators)}"
        require(self.evaluator in evaluators, "stopping.evaluator", self.evaluator, allowed)


class Watch:
    """The best value and the early-stopping state of `members` members, updated at every evaluation.

    `arrays` and `Watch(..., arrays)` are inverses: the arrays are part of every checkpoint, so an interruption changes
    nothing. All counts are in sequences.
    """

    def __init__(self, members: int, stopping: EarlyStopping | None, arrays: dict[str, np.ndarray] | None = None):
        window = stopping.window if stopping else 1
        self.stopping = stopping
        self.best_value: Float32[np.ndarray, " members"] = np.full(members, -np.inf, np.float32)
        self.best_at: Int64[np.ndarray, " members"] = np.full(members, TRAINING, np.int64)
        self.recent: Float32[np.ndarray, "members window"] = np.full((members, window), np.nan, np.float32)
        self.top_value: Float32[np.ndarray, " members"] = np.full(members, -np.inf, np.float32)
        self.top_at: Int64[np.ndarray, " members"] = np.zeros(members, np.int64)
        self.stopped_at: Int64[np.ndarray, " members"] = np.full(members, TRAINING, np.int64)
        for name, array in (arrays or {}).items():
            if getattr(self, name).shape != array.shape:
                raise ValueError(f"watch.{name} has shape {array.shape}, the spec needs {getattr(self, name).shape}")
            setattr(self, name, np.array(array))

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state of the watch, each array with a leading axis over the members."""
        names = ("best_value", "best_at", "recent", "top_value", "top_at", "stopped_at")
        return {name: getattr(self, name).copy() for name in names}

    def update_best(self, values: Float[np.ndarray, " members"], at: int) -> Bool[np.ndarray, " members"]:
        """Mask of the members whose value at `at` sequences is their best so far (a nan is never best)."""
        found = ~self.stopped & (values > self.best_value)
        self.best_value[found], self.best_at[found] = values[found], at
        return found

    def update_stopping(self, values: Float[np.ndarray, " members"], at: int) -> None:
        """Adds the next value of every member in training, and stops those whose smoothed value has not risen for too
        long. A nan is no rise."""
        if self.stopping is None:
            return
        going = ~self.stopped
        self.recent[going] = np.concatenate([self.recent[going, 1:], values[going, None]], axis=1)
        smoothed = np.array([_mean(row) for row in self.recent], np.float32)
        high = smoothed > self.top_value + np.float32(self.stopping.margin)
        risen = going & high & ~np.isnan(values)  # where a low value leaves the window as a nan comes, the mean rises
        self.top_value[risen], self.top_at[risen] = smoothed[risen], at
        self.stopped_at[going & (at - self.top_at >= self.stopping.patience)] = at

    @property
    def stopped(self) -> Bool[np.ndarray, " members"]:
        """Mask of the members that have stopped."""
        return self.stopped_at != TRAINING


def _mean(row: Any) -> float:
    seen = row[~np.isnan(row)]
    return float(seen.mean(dtype=np.float32)) if len(seen) else float("nan")
