"""The cost of a member, from measurements on this machine: finished tasks and short trainings."""

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
from ebbtide.sweeps.plan import Estimate
from ebbtide.training import kernels, limits
from ebbtide.training.driver import SLICE_SECONDS, train
from ebbtide.training.layout import LARGEST_CACHED, core_seconds, measured_key
from ebbtide.training.progress import Progress
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec

START_SECONDS = 12.0
"""Seconds for importing, compiling and drawing the evaluation prompts, where this was never measured."""
SLICES = 6
"""Training commands of about a second after which the measured pace is used."""
BASE_BYTES = 450e6
"""Bytes of memory of a worker beside the spec's arrays: libraries, compiler and code."""


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measurement: sequences per second of one member on one core, seconds from the start of a task to its first
    step, peak bytes of the process."""

    rate: float
    start: float
    memory: float

    def sensible(self) -> bool:
        """Whether the numbers can be a measurement."""
        return all(math.isfinite(x) and x > 0 for x in (self.rate, self.start, self.memory))


def estimate_cost(spec: Spec, correction: float = 1.0) -> Estimate:
    """The cost of one member of `spec`: measured where this machine has trained this shape before, else `correction`
    times the estimate from the size of the model."""
    known = _read(spec)
    if known is not None:
        return Estimate(spec.sequences / known.rate, known.start, known.memory, "measured")
    one = _one_member(spec)
    return Estimate(correction * core_seconds(one), START_SECONDS, BASE_BYTES + 3 * limits.needed_bytes(one), "guessed")


def correction_factor(specs: Iterable[Spec]) -> float:
    """The median ratio of measured to estimated time over those of `specs` that were measured (1 where none was):
    estimates of the others are likely to be off by the same factor."""
    pairs = [(spec, _read(spec)) for spec in specs]
    found = [one.sequences / known.rate / core_seconds(_one_member(one)) for one, known in pairs if known]
    return statistics.median(found) if found else 1.0


def _one_member(spec: Spec) -> Spec:
    """One member of a spec, with the source's stand-in where its data file is missing."""
    one = replace(spec, members=1, vary={})
    try:
        one.source.sizes()
    except InputError:
        return replace(one, source=one.source.stand_in())
    return one


def remember(spec: Spec, cost: Cost) -> None:
    """Caches a measurement for later plans. A cache that cannot be written is no error."""
    if cost.sensible():
        with contextlib.suppress(OSError):
            _file(spec).parent.mkdir(parents=True, exist_ok=True)
            write_file(_file(spec), msgspec.json.encode(cost), "cache")


def measure(spec: Spec) -> None:
    """Trains one member of `spec` for some seconds on one core and caches its cost."""

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
    """The cache file for the shape of a spec. The shape includes how often evaluations come, because they take time,
    but not the length of the run, which does not change the pace."""
    shape = replace(spec, members=1, vary={}, seeds=Seeds(), schedule=Schedule(), sequences=spec.batch)
    apart = spec.sequences / max(len(spec.schedule.points(spec.sequences, spec.batch)) - 1, 1)
    return cache_folder() / f"cost-{measured_key(shape, f'{apart:.1e}', kernels.requested_kernel())}.json"
