"""What a member costs, from what was measured on this machine: by finished tasks and by short trainings."""

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.machine import cache_folder, peak_memory
from ebbtide.runs.atomic import write_file
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import UNREADABLE, DamagedError
from ebbtide.sources.features import without_file
from ebbtide.sweeps.plan import Estimate
from ebbtide.training import kernels, limits
from ebbtide.training.driver import SLICE_SECONDS, Progress, train
from ebbtide.training.layout import LARGEST_CACHED, core_seconds, measured_key
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec

START_SECONDS = 12.0
"""Importing, compiling and drawing the evaluation prompts, where that was never measured."""
SLICES = 6
"""Training commands of about a second after which the pace is believed."""
BASE_BYTES = 450e6
"""Memory of a worker beside what the spec needs: libraries, compiler and code."""


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measurement: sequences per second of one member on one core, seconds from starting a task to its first
    step, peak bytes of the process."""

    rate: float
    start: float
    memory: float

    def sensible(self) -> bool:
        """Whether this can be a measurement."""
        return all(math.isfinite(x) and x > 0 for x in (self.rate, self.start, self.memory))


def estimate_cost(spec: Spec, correction: float = 1.0) -> Estimate:
    """The cost of one member of `spec`: measured where this machine has trained this shape before. A guess is
    `correction` times what the size of the model says."""
    known = _read(spec)
    if known is not None:
        return Estimate(spec.sequences / known.rate, known.start, known.memory, "measured")
    one = _one_member(spec)
    return Estimate(correction * core_seconds(one), START_SECONDS, BASE_BYTES + 3 * limits.needed(one), "guessed")


def correction_factor(specs: Iterable[Spec]) -> float:
    """By what factor guesses are short of what was measured, the median over those of `specs` that were (1 where none
    was): what is guessed beside them is likely to be off by as much."""
    pairs = [(spec, _read(spec)) for spec in specs]
    found = [one.sequences / known.rate / core_seconds(_one_member(one)) for one, known in pairs if known]
    return statistics.median(found) if found else 1.0


def _one_member(spec: Spec) -> Spec:
    """One member of a spec; its exemplars are of a stand-in where this machine has not the file they come from."""
    one = replace(spec, members=1, vary={})
    try:
        one.source.sizes()
    except InputError:
        return replace(one, source=without_file(one.source))
    return one


def remember(spec: Spec, cost: Cost) -> None:
    """Keeps a measurement for later plans; a cache that cannot be written is no error."""
    if cost.sensible():
        with contextlib.suppress(OSError):
            _file(spec).parent.mkdir(parents=True, exist_ok=True)
            write_file(_file(spec), msgspec.json.encode(cost), "cache")


def measure(spec: Spec) -> None:
    """Trains one member of `spec` for some seconds on one core and remembers what that cost."""

    def enough(progress: Progress) -> None:
        seen.append(progress.rate)
        if len(seen) == SLICES:
            raise _Enough

    seen: list[float] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        train(replace(spec, members=1, vary={}), Path(folder) / "run", processes=1, report=enough)
    if seen:
        start = max(time.monotonic() - began - len(seen) * SLICE_SECONDS, 0.1)
        remember(spec, Cost(seen[-1], start, peak_memory(of_children=True)))


class _Enough(Exception):
    pass


def _read(spec: Spec) -> Cost | None:
    try:
        file = _file(spec)
        found = msgspec.json.decode(read_bounded(file.parent, file.name, LARGEST_CACHED), type=Cost)
    except (OSError, DamagedError, *UNREADABLE):
        return None
    return found if found.sensible() else None


def _file(spec: Spec) -> Path:
    """Evaluations take time: how often they come is part of the shape. The length is not: a long run has the pace
    of a short one."""
    shape = replace(spec, members=1, vary={}, seeds=Seeds(), schedule=Schedule(), sequences=spec.batch)
    apart = spec.sequences / max(len(spec.schedule.points(spec.sequences, spec.batch)) - 1, 1)
    return cache_folder() / f"cost-{measured_key(shape, f'{apart:.1e}', kernels.asked())}.json"
