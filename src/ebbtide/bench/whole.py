"""Whole runs through the driver: pace with evaluations and checkpoints, time to the first step, memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

from msgspec.structs import replace

from ebbtide.bench.memory import MemoryWatch
from ebbtide.runs.writer import Writer
from ebbtide.training.driver import count_saves, train
from ebbtide.training.members import Members
from ebbtide.training.progress import Progress
from ebbtide.training.spec import Spec


def shorten(spec: Spec, sequences: float) -> tuple[Spec, int]:
    """The spec cut to about `sequences` per member with its own density of evaluations, and the number of whole
    intervals between evaluations in it: 0 where not even one fits."""
    interval = spec.sequences // (spec.schedule.evaluations - 1) // spec.batch * spec.batch
    intervals = int(sequences // interval)
    length = intervals * interval if intervals else max(int(sequences // spec.batch), 32) * spec.batch
    schedule = replace(spec.schedule, evaluations=max(intervals, 1) + 1, checkpoints=2)
    return replace(spec, sequences=length, schedule=schedule), intervals


def measure_run(spec: Spec, folder: str, processes: int, began: float, intervals: int) -> dict[str, Any]:
    """The measurements of a run trained as the command line does; `began` is when the process was requested (monotonic
    clock).

    The pace is measured from the first report to the end, with the last evaluation and checkpoint. In a run shorter
    than the interval between evaluations it is measured to the last report. The first report comes when the first steps
    are done: an upper bound of the time to the first step.
    """
    seen: list[tuple[float, int]] = []

    def report(progress: Progress) -> None:
        seen.append((time.monotonic(), progress.sequences))

    with MemoryWatch() as watch:
        train(spec, folder, processes=processes, report=report)
        end = (time.monotonic(), spec.sequences)
    first, last = seen[0], end if intervals else seen[-1]
    return {
        "sequences_per_second": spec.members * (last[1] - first[1]) / max(last[0] - first[0], 1e-9),
        "first_step_seconds": first[0] - began,
        "megabytes": watch.megabytes(),
    }


class Call(NamedTuple):
    """One call of a timed method: its start, its end and its arguments."""

    began: float
    ended: float
    arguments: tuple[Any, ...]


@contextmanager
def record_calls(owner: type, name: str) -> Iterator[list[Call]]:
    """The calls of a method while the block runs."""
    method, calls = getattr(owner, name), []

    def measured(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            calls.append(Call(began, time.perf_counter(), arguments))

    setattr(owner, name, measured)
    try:
        yield calls
    finally:
        setattr(owner, name, method)


def measure_member(spec: Spec, folder: str, intervals: int) -> dict[str, float]:
    """The measurements of a run of one member in this process, where nothing overlaps: its pace, and the seconds of one
    evaluation and of one checkpoint (state and commit), medians without the first, which compiles.

    The pace counts everything after the first training command; in a run shorter than the interval between evaluations
    it counts training commands only.
    """
    with (
        record_calls(Members, "train") as trained,
        record_calls(Members, "evaluate") as evaluations,
        record_calls(Members, "state") as states,
        record_calls(Writer, "commit") as commits,
    ):
        train(spec, folder, processes=0, progress=False)
        end = time.perf_counter()
    first, rest = trained[0], trained[1:]
    seconds = end - first.ended if intervals else sum(call.ended - call.began for call in rest)
    checkpoint = sum(median(call.ended - call.began for call in calls) for calls in (states, commits))
    return {
        "sequences_per_second": (spec.sequences - first.arguments[1] * spec.batch) / seconds,
        "evaluation": median(call.ended - call.began for call in evaluations[1:]),
        "checkpoint": checkpoint,
    }


def overhead_share(spec: Spec, sequences_per_second: float, costs: dict[str, float]) -> float:
    """The share of a member's time that evaluations and checkpoints take at the spec's own schedule, with rolling
    checkpoints."""
    training = spec.sequences / sequences_per_second
    saves = spec.schedule.checkpoints + count_saves(training, costs["checkpoint"])
    aside = spec.schedule.evaluations * costs["evaluation"] + saves * costs["checkpoint"]
    return aside / (aside + training)
