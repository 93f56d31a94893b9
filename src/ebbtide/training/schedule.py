"""Learning-rate schedules, and the sequence counts at which a run is evaluated and checkpointed."""

from typing import Annotated, Literal

import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float, UInt

from ebbtide.errors import require

MOST_POINTS = 1_000_000

Steps = Annotated[int, msgspec.Meta(ge=0)]


class Constant(msgspec.Struct, frozen=True, tag="constant", forbid_unknown_fields=True):
    """Constant learning rate after linear warm-up: factor min(1, (t + 1) / warmup) at step t.

    Args:
        warmup: the length of the warm-up in *steps*; 0: none.

    >>> float(eb.Constant(warmup=10).factor(jax.numpy.uint32(4), total=100))
    0.5
    """

    warmup: Steps = 0

    def factor(self, step: UInt[Array, ""], total: int) -> Float[Array, ""]:
        return jnp.minimum(1.0, (step + 1) / max(self.warmup, 1))


class WarmupInverseSqrt(msgspec.Struct, frozen=True, tag="warmup_inverse_sqrt", forbid_unknown_fields=True):
    """Learning-rate factor with linear warm-up, then inverse square root: min(t / warmup, sqrt(warmup / t)) at step t,
    counted from 1 (Chan et al. 2022, arXiv 2205.05055: 4,000 steps of warm-up).

    Args:
        warmup: the length of the warm-up in *steps*.

    >>> float(eb.WarmupInverseSqrt(warmup=100).factor(jax.numpy.uint32(399), total=1000))
    0.5
    """

    warmup: Annotated[int, msgspec.Meta(ge=1)] = 4000

    def factor(self, step: UInt[Array, ""], total: int) -> Float[Array, ""]:
        t = step + 1.0
        return jnp.minimum(t / self.warmup, jnp.sqrt(self.warmup / t))


class Cosine(msgspec.Struct, frozen=True, tag="cosine", forbid_unknown_fields=True):
    """Learning-rate factor with linear warm-up, then half a cosine from 1 down to `final` at the last step.

    Args:
        warmup: the length of the warm-up in *steps*; 0: none.
        final: the factor at the last step, from 0 to 1.

    >>> float(eb.Cosine(final=0.1).factor(jax.numpy.uint32(0), total=100))
    1.0
    """

    warmup: Steps = 0
    final: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0

    def factor(self, step: UInt[Array, ""], total: int) -> Float[Array, ""]:
        rise = jnp.minimum(1.0, (step + 1) / max(self.warmup, 1))
        done = jnp.clip((step - self.warmup * 1.0) / max(total - 1 - self.warmup, 1), 0.0, 1.0)
        return rise * (self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * done)))


LearningRate = Constant | WarmupInverseSqrt | Cosine


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Further evaluations between two times of training. All counts are in *sequences* per member.

    Args:
        start: the first evaluation.
        end: the last evaluation, where it is a multiple of `every` after `start`.
        every: sequences from one evaluation to the next.
        keep: whether the checkpoint of each is kept.

    >>> eb.Window(start=1000, end=2000, every=500).points(batch=100)
    [1000, 1500, 2000]
    """

    start: Annotated[int, msgspec.Meta(ge=0)]
    end: Annotated[int, msgspec.Meta(ge=1)]
    every: Annotated[int, msgspec.Meta(ge=1)]
    keep: bool = False

    def points(self, batch: int) -> list[int]:
        """The sequence counts of the window, each rounded to the nearest whole batch."""
        return [round(x / batch) * batch for x in range(self.start, self.end + 1, self.every)]


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The times, in *sequences* per member, at which a run is evaluated and at which checkpoints are kept. Every time
    is rounded to the nearest whole batch.

    Args:
        evaluations: the number of evaluations, the first at 0, the last at the end.
        spacing: "linear", or "log": in equal ratios from `first` on.
        first: with "log" spacing, the first evaluation after 0, in sequences.
        checkpoints: the number of these evaluations whose checkpoints are kept, evenly chosen with the first and last.
        windows: further evaluations.

    >>> eb.Schedule(evaluations=3, checkpoints=2).points(sequences=6400, batch=32)
    [0, 3200, 6400]
    """

    evaluations: Annotated[int, msgspec.Meta(ge=2)] = 40
    spacing: Literal["linear", "log"] = "linear"
    first: Annotated[int, msgspec.Meta(ge=1)] = 1000
    checkpoints: Annotated[int, msgspec.Meta(ge=2)] = 6
    windows: tuple[Window, ...] = ()

    def check(self, sequences: int) -> None:
        """Raises `InputError` when the first log-spaced point or a window lies beyond the run, or a window is empty, or
        there are more than a million points."""
        total = 0
        for i, one in enumerate(self.windows):
            name = f"schedule.windows.{i}"
            allowed = f"must be from start = {one.start} to sequences = {sequences}"
            require(one.start <= one.end <= sequences, f"{name}.end", one.end, allowed)
            many = (one.end - one.start) // one.every
            require(many < MOST_POINTS, f"{name}.every", one.every, f"gives {many} points; at most {MOST_POINTS}")
            total += many + 1
        allowed = f"give {total:,} points together; at most {MOST_POINTS:,}"
        require(total <= MOST_POINTS, "schedule.windows", f"{len(self.windows)} windows", allowed)
        if self.spacing == "log":
            require(self.first < sequences, "schedule.first", self.first, f"must be below sequences = {sequences}")

    def points(self, sequences: int, batch: int) -> list[int]:
        """The sequence counts of all evaluations: increasing multiples of `batch`, with 0 and the end."""
        if self.spacing == "log":
            raw = np.concatenate([[0], np.geomspace(self.first, sequences, self.evaluations - 1)])
        else:
            raw = np.linspace(0, sequences, self.evaluations)
        dense = [x for window in self.windows for x in window.points(batch)]
        return sorted({round(x / batch) * batch for x in raw} | {0, sequences} | {x for x in dense if x <= sequences})

    def kept(self, sequences: int, batch: int) -> list[int]:
        """The sequence counts of the permanent checkpoints."""
        points = self.points(sequences, batch)
        chosen = np.linspace(0, len(points) - 1, min(self.checkpoints, len(points)))
        dense = {x for window in self.windows if window.keep for x in window.points(batch)}
        return sorted({points[round(i)] for i in chosen} | dense.intersection(points))
