"""The layout of a run's members over processes, `vmap` width and devices: given, default, or measured."""

import hashlib
import platform
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Annotated

import msgspec
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.machine import cache_folder, cores, processor
from ebbtide.runs.atomic import write_file
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import DamagedError
from ebbtide.training.device import Device, here
from ebbtide.training.device_memory import width_that_fits
from ebbtide.training.limits import PROCESS, check_processes, needed_bytes, physical_memory
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec
from ebbtide.training.team import Team, WorkerError

MEASURE_FROM_SECONDS = 300.0
"""Expected length of a run from which it is worth measuring layouts first."""
PROBE_SECONDS = 0.5
"""Seconds of training by which one layout is measured."""
LEAST_SPEEDUP = 1.1
"""A layout must be this many times faster than a simpler one to be chosen over it."""
MOST_PROCESSES = 1024
LONG_STEP_SECONDS = 0.1
"""Seconds from which a step counts as long. Layouts are not measured then: training members side by side saves the cost
of launching many small operations, which long steps do not have. A driver sends long steps one at a time."""
FLOPS_PER_CORE = 2e10
"""Floating-point operations per second and core, assumed when the length of a run is estimated."""
LARGEST_CACHED = 2**12
"""Largest number of bytes of a file in the user's cache that are read."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`processes` workers (0: this process) whose members are mapped `width` at a time by `vmap`, over `devices`
    devices; `chosen` says how the layout was chosen: given, default, measured or remembered."""

    processes: Count
    width: Annotated[int, msgspec.Meta(ge=1)] = 1
    devices: Annotated[int, msgspec.Meta(ge=1)] = 1
    chosen: str = "given"


def choose(
    spec: Spec,
    *,
    processes: int | None = None,
    width: int | None = None,
    devices: int | None = None,
    deterministic: bool = False,
    device: Device | None = None,
    say: Callable[[str], None] = lambda text: None,
    stop: threading.Event | None = None,
) -> Layout:
    """The layout for a run of `spec` on this machine; arguments that are given are kept. `device`: the kind of device
    that computes it (None: that of this process).

    On the CPU: one process per core and one member at a time, unless a measurement shows another layout to be faster.
    Layouts are measured once per machine and shape of spec and cached; only where nothing is given, the run is expected
    to be long and its steps short, and not with `deterministic` (no bit may depend on a measurement). On accelerators:
    all members side by side, or as many as fit into memory, over all devices, in this process. Raises `InputError` for
    impossible counts, and `Interrupted` when `stop` is set during a measurement.
    """
    members, given = spec.members, (processes, width, devices)
    for name, value, least in (("processes", processes, 0), ("width", width, 1), ("devices", devices, 1)):
        require(value is None or value >= least, name, value, f"must be {least} or larger")
    require((processes or 0) <= MOST_PROCESSES, "processes", processes, f"must be at most {MOST_PROCESSES}")
    import jax

    on_cpu = (device or here()) == "cpu"
    if processes is None:
        most = max(members // (width or 1), 1)  # more would leave none with `width` members
        fit = max((physical_memory() - needed_bytes(spec)) // PROCESS, 1)
        processes = min(cores(), most, fit) if on_cpu and (devices in (None, 1) or here() != "cpu") else 0
    if devices is None:
        devices = 1 if on_cpu else min(jax.local_device_count(), members)
    most = jax.local_device_count() if processes == 0 else 1
    require(devices <= most, "devices", devices, f"must be at most {most}: the devices this process has")
    if width is None:
        width = 1 if on_cpu and devices == 1 else width_that_fits(spec, devices)
    allowed = f"must be a multiple of devices = {devices}: as many on each"
    require(width % devices == 0, "width", width, allowed)
    share = -(-members // max(processes, 1))
    plain = Layout(min(processes, members), min(width, -(-share // devices) * devices), devices, "default")
    if given[0] is not None:
        check_processes(spec, plain.processes)
    if given != (None, None, None):
        return replace(plain, chosen="given")
    if not on_cpu or deterministic or members == 1:
        return plain
    if expected_seconds(spec) < MEASURE_FROM_SECONDS or step_seconds(spec) > LONG_STEP_SECONDS:
        return plain
    return _recall_layout(spec, plain, say, stop)


def expected_seconds(spec: Spec) -> float:
    """The estimated length of a run with all cores at work, good to a factor of a few."""
    return core_seconds(spec) * spec.members / min(cores(), spec.members)


def core_seconds(spec: Spec) -> float:
    """The estimated time that one core needs for one member, from its matrix products."""
    one = spec.model.products(batch=1, **spec.shape())
    return sum(product.flops() for product in one) * spec.sequences / FLOPS_PER_CORE


def step_seconds(spec: Spec) -> float:
    """The estimated time that one core needs for one step of one member."""
    return core_seconds(spec) / spec.steps()


def candidates(members: int, cores: int) -> Iterator[Layout]:
    """The layouts that are measured on a CPU, simple ones first."""
    for processes in sorted({1, min(cores, members)}, reverse=True):
        share = -(-members // processes)
        for width in sorted({1, min(share, 4)}):
            yield Layout(processes, width, 1, "measured")


def fastest(rates: dict[Layout, float]) -> Layout:
    """The first layout that no other beats by the factor `LEAST_SPEEDUP`."""
    top = max(rates.values())
    return next(layout for layout, rate in rates.items() if rate * LEAST_SPEEDUP >= top)


def pace(spec: Spec, layout: Layout, stop: threading.Event | None = None) -> float:
    """Sequences per second, summed over the members, of a short training in this layout."""
    team = Team(spec.members, layout, stop=stop)
    try:
        team.start(spec.builtins(), None)
        at = steps = 1
        took = 0.0
        _train(team, at)  # compiles
        while took < PROBE_SECONDS:
            steps *= 4
            at += steps
            took = _train(team, at)
        return steps * spec.batch * spec.members / took
    finally:
        team.close()


def _train(team: Team, step: int) -> float:
    """Seconds until all workers have reached `step`."""
    began = time.perf_counter()
    team.try_training(step)
    return time.perf_counter() - began


def _recall_layout(
    spec: Spec, plain: Layout, say: Callable[[str], None], stop: threading.Event | None = None
) -> Layout:
    file = cache_folder() / f"layout-{_key(spec)}.json"
    try:
        known = msgspec.json.decode(read_bounded(file.parent, file.name, LARGEST_CACHED), type=Layout)
        if 1 <= known.processes <= spec.members and known.width <= spec.members and known.devices == 1:
            return replace(known, chosen="remembered")
    except (OSError, DamagedError, msgspec.MsgspecError):
        pass  # never measured here, or the file is damaged: measure
    say("measuring how to lay out the members (once for this machine and shape)")
    short = replace(spec, keep_best=None, stopping=None)
    rates = {}
    for layout in candidates(spec.members, cores()):
        try:
            rates[layout] = pace(short, layout, stop)
        except WorkerError:  # it may not fit into memory
            rates[layout] = 0.0
    best = fastest(rates)
    for layout, one in rates.items():
        mark = " <- chosen" if layout == best else ""
        say(f"  {layout.processes} processes, width {layout.width}: {one:,.0f} sequences/s{mark}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, msgspec.json.encode(best), "cache")
    except OSError:
        pass  # a cache is a convenience
    return best


def _key(spec: Spec) -> str:
    """The cache key of the best layout: the machine, the version of JAX, and the shape of the program."""
    shape = replace(
        spec,
        seeds=Seeds(),
        schedule=Schedule(),
        sequences=spec.batch,
        vary={name: [] for name in spec.vary},
        evaluators=(),
        evaluation_sequences=2,
        keep_best=None,
        stopping=None,
    )
    return measured_key(shape)


def measured_key(shape: Spec, *more: str) -> str:
    """The cache key of a measurement on this machine, with this version of JAX, for this shape of a program."""
    machine = [platform.machine(), processor(), str(cores()), version("jax"), *more]
    return hashlib.sha256("\n".join(machine).encode() + shape.to_json()).hexdigest()[:16]
