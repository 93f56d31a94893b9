"""The loop: members side by side, sampling included and nothing evaluated, for several numbers of members."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import jax
from msgspec.structs import replace

from accelerator_sections import Report, peak_gigabytes, precisions
from ebbtide.bench.configs import find_config
from ebbtide.compile import Precision
from ebbtide.training.limits import needed_bytes, physical_memory
from ebbtide.training.members import Members
from ebbtide.training.spec import Spec
from ebbtide.training.worker import out_of_memory

COUNTS = (64, 256, 1, 1024, 16, 8192)
"""Numbers of members, the most important first."""
COMPARED = (64, 1024)
"""Numbers of members that are measured on one device too where there are several."""


def measure_loop(report: Report, name: str) -> None:
    """The rows of one configuration. Members that are more than a number that did not fit into memory are not tried."""
    config, took, too_many = find_config(name), 0.0, float("inf")
    spec = spec_of_loop(config.at(config.batches[0]), report.small)
    for members, devices, precision in points(report.small):
        about: dict[str, Any] = {"config": name, "what": "loop", "members": members, "devices": devices}
        about["precision"] = precision
        if members > too_many or not report.fits(1.3 * took, **about):
            continue
        began = time.monotonic()
        try:
            report.row(**about, **pace(replace(spec, members=members, precision=precision), devices, report.seconds))
        except Exception as error:  # whatever a device raises at this point is a row; the other points go on
            if out_of_memory(error):
                too_many = min(members, too_many)
                report.row(**about, value="does not fit into memory; more members were not tried")
            else:
                report.failed(error, **about)
        finally:
            gc.collect()
        took = time.monotonic() - began


def spec_of_loop(spec: Spec, small: bool) -> Spec:
    """The spec without evaluators; with `small` cut to one narrow layer."""
    spec = replace(spec, evaluators=("train",), evaluation_sequences=2)
    if small:
        spec = replace(spec, batch=4, model=replace(spec.model, layers=1, width=8, heads=1))
    return spec


def points(small: bool) -> Iterator[tuple[int, int, Precision]]:
    """(members, devices, precision) of all rows."""
    here = jax.local_device_count()
    for members in (1, 4) if small else COUNTS:
        split = [here] if here > 1 and members % here == 0 else []
        alone = [1] if not split or members in COMPARED else []
        for devices in alone + split:
            for precision in precisions():
                yield members, devices, precision


def pace(spec: Spec, devices: int, seconds: float) -> dict[str, Any]:
    """Sequences per second, summed over the members; the seconds of compiling; the most memory of a device, where this
    is more than what was used before."""
    if jax.default_backend() == "cpu" and needed_bytes(spec) > physical_memory():
        raise MemoryError
    before = peak_gigabytes() or 0.0
    members = Members(spec, list(range(spec.members)), None, width=spec.members, devices=devices)
    first, second = train(members, 1), train(members, 1)
    rate, peak = pace_of(members, seconds), peak_gigabytes()
    return {
        "value": rate,
        "unit": "sequences/s",
        "compile_seconds": max(first - second, 0.0),
        "gigabytes": peak if peak is not None and peak > before else None,
    }


def pace_of(members: Members, seconds: float) -> float:
    """Sequences per second, summed over the members, of about so many seconds of training."""
    steps, took = 1, train(members, 1)
    while took < seconds / 2:
        steps = min(max(round(steps * seconds / max(took, 1e-6)), steps + 1), 20 * steps)
        took = train(members, steps)
    return steps * members.spec.batch * len(members.members) / took


def train(members: Members, steps: int) -> float:
    """Seconds of so many steps."""
    began = time.perf_counter()
    members.train(members.step + steps)
    return time.perf_counter() - began
