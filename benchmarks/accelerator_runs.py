"""Whole runs on the accelerator: what they cost beside their loop, and whether they are right and repeat."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from accelerator_sections import Report

RUN_SECONDS = 6.0
"""Seconds that the loop alone would take for the sequences of the run."""


def measure_whole(report: Report) -> None:
    """What making, evaluating and fetching members takes, and the pace of a run over the pace of its loop."""
    import jax

    from accelerator_loop import pace_of
    from ebbtide.bench.whole import measure_run, shorten
    from ebbtide.training.members import Members

    small, here = report.small, 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    for count in (2,) if small else (64, 1024):
        spec, devices = quick(count, small), here if count % here == 0 else 1
        about: dict[str, Any] = {
            "config": "2L-shared",
            "members": count,
            "devices": devices,
            "precision": spec.product_precision(),
        }
        if not report.fits(0 if small else 25, **about, what="members"):
            return

        def make(spec: Any = spec, devices: int = devices) -> Members:
            made = Members(spec, list(range(spec.members)), None, width=spec.members, devices=devices)
            jax.block_until_ready([group.state for group in made.groups])
            return made

        members: list[Members] = []
        tasks: dict[str, Callable[[], Any]] = {
            "making": lambda members=members, make=make: members.append(make()),
            "evaluating": lambda members=members: members[0].evaluate(),
            "fetching": lambda members=members: members[0].state(),
        }
        for name, call in tasks.items():
            first = seconds_of(call)
            members[0].train(members[0].step + 1)  # JAX keeps what was fetched: only a new state is fetched again
            second = seconds_of(call)
            more = {} if name == "fetching" else {"compile_seconds": max(first - second, 0.0)}
            report.row(**about, what=f"{name} all members", value=second, unit="s", **more)
        rate = pace_of(members[0], report.seconds)
        report.row(**about, what="loop", value=rate, unit="sequences/s")
        members.clear()
        if count > 64 or not report.fits(0 if small else 25, **about, what="run"):
            continue
        short, intervals = shorten(spec, 64 if small else RUN_SECONDS * rate / count)
        with tempfile.TemporaryDirectory() as folder:
            found = measure_run(short, f"{folder}/run", 0, time.monotonic(), intervals)
        pace = found["sequences_per_second"]
        length = f"run of {short.sequences:,} sequences each"
        report.row(**about, what=f"{length}, after its first steps", value=pace, unit="sequences/s")
        report.row(**about, what=f"{length}, over its loop", value=pace / rate, unit="of the loop's pace")
        report.row(**about, what="start to first steps", value=found["first_step_seconds"], unit="s")


def quick(members: int, small: bool) -> Any:
    """The configuration 2L-shared with its evaluators; with `small` one narrow layer and few prompts."""
    from msgspec.structs import replace

    from ebbtide.bench.configs import find_config

    spec = replace(find_config("2L-shared").spec, members=members)
    if small:
        model = replace(spec.model, layers=1, width=8, heads=1)
        spec = replace(spec, model=model, batch=4, evaluators=("icl",), evaluation_sequences=8)
    return spec


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_verify(report: Report) -> None:
    """Whether the exact checks of `ebbtide verify` pass here."""
    if report.small:
        report.row(what="checks that pass", value="skipped: they are no smaller with --small")
        return
    from ebbtide.verify import checks

    found: list[Any] = []
    took = seconds_of(lambda: checks.run(found.append))
    report.row(what="checks that pass", value=sum(check.passed for check in found), unit=f"of {len(found)}")
    report.row(what="all checks", value=took, unit="s")
    for check in found:
        if not check.passed:
            report.row(what=f"check {check.name}", value=f"FAILS: {check.detail}")
    if not all(check.passed for check in found):
        raise SystemExit("a check of `ebbtide verify` fails here")


def measure_bits(report: Report) -> None:
    """Whether two runs in two processes are equal bit for bit, and a run that was stopped equals one that was not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [sys.executable, __file__, str(folder / "first"), *(["small"] if report.small else [])]
        subprocess.run(words, check=True)  # before this process takes the device's memory
        spec = train_short(folder / "second", report.small)
        train_short(folder / "stopped", report.small, until=spec.sequences * 3 // 8)  # between two evaluations
        train_short(folder / "stopped", report.small)
        first, second, stopped = (arrays_of(folder / one) for one in ("first", "second", "stopped"))
        about = {"config": "2L-shared", "members": spec.members, "unit": "same bits"}
        found = {"two runs in two processes": same_bits(first, second)}
        found["a run that was stopped, and one that was not"] = same_bits(second, stopped)
        for what, same in found.items():
            report.row(**about, what=what, value=same)
        if not all(found.values()):
            raise SystemExit("runs do not repeat bit for bit here")


def train_short(folder: Path, small: bool, until: int | None = None) -> Any:
    """Trains a short run, or goes on with it, and returns its spec."""
    import jax
    from msgspec.structs import replace

    from ebbtide.training.driver import train
    from ebbtide.training.schedule import Schedule

    on_cpu = jax.default_backend() == "cpu"
    spec = quick(2 if small else 8, small)
    spec = replace(
        spec, sequences=spec.batch * (32 if small else 4000), schedule=Schedule(evaluations=5, checkpoints=3)
    )
    train(spec, folder, processes=0, width=spec.members if on_cpu else None, deterministic=not on_cpu, until=until)
    return spec


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """The last state of a run, and its evaluations."""
    from ebbtide.runs.folder import RunFolder
    from ebbtide.runs.writer import restore

    run = RunFolder(folder)
    found = restore(run)
    assert found is not None
    return found[1] | {f"evaluations.{name}": array for name, array in run.arrays().items()}


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two sets of arrays have the same names and bits."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


if __name__ == "__main__":
    train_short(Path(sys.argv[1]), "small" in sys.argv[2:])
