"""The process of one section of `accelerator.py`: `python accelerator_sections.py NAME --rows FILE --seconds N`.

Every row is written as soon as it is measured: a section that is stopped loses only what it was measuring.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ebbtide.compile import PRODUCTS, Precision

HOMES = {
    "machine": "accelerator_machine",
    "loop": "accelerator_loop",
    "whole": "accelerator_runs",
    "verify": "accelerator_runs",
    "bits": "accelerator_runs",
    "plain": "accelerator_plain",
}
"""The module of a section, by the first part of its name."""
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32")
"""The precisions of products that are measured; a CPU has the first alone."""


class Report:
    """Writes rows to a file of JSON lines, and knows how much time is left and whether sizes shall be tiny."""

    def __init__(self, file: Path, seconds: float, small: bool):
        self.file, self.end, self.small = file, time.monotonic() + seconds, small
        self.seconds = 0.05 if small else 1.5
        """Seconds for which a pace is measured."""
        self.failures = 0

    def row(self, **fields: Any) -> None:
        """Adds a row; fields that are None are left out."""
        with self.file.open("a") as file:
            file.write(json.dumps({name: value for name, value in fields.items() if value is not None}) + "\n")

    def failed(self, error: Exception, **fields: Any) -> None:
        """Adds a row that says that what `fields` describe failed: the section goes on, and is told to have failed at
        its end."""
        self.failures += 1
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        self.row(**fields, value=f"failed: {words}")

    def left(self) -> float:
        """Seconds until nothing more shall be begun."""
        return self.end - time.monotonic()

    def fits(self, seconds: float, **fields: Any) -> bool:
        """Whether so many seconds are left; if not, a row says that what `fields` describe was skipped."""
        if self.left() >= seconds:
            return True
        self.row(**fields, value="skipped: no time left")
        return False


def seconds_per_call(call: Callable[[], Any], seconds: float, wait: Callable[[Any], Any]) -> float:
    """Seconds of one call, of many that are sent back to back: the median of five rounds that take about `seconds`.
    `wait` waits for a result."""

    def one_round(calls: int) -> float:
        began, result = time.perf_counter(), None
        for _ in range(calls):
            result = call()
        wait(result)
        return (time.perf_counter() - began) / calls

    one_round(1)
    calls = max(1, min(10_000, round(seconds / 5 / max(one_round(1), 1e-7))))
    return statistics.median(one_round(calls) for _ in range(5))


def precisions() -> tuple[Precision, ...]:
    """The precisions of products that this machine has."""
    import jax

    return PRECISIONS[: 1 if jax.default_backend() == "cpu" else None]


def precision_of_products(name: Precision) -> str | None:
    """The precision by its name in JAX; None on a CPU, which has one alone."""
    import jax

    return None if jax.default_backend() == "cpu" else PRODUCTS[name]


def peak_gigabytes() -> float | None:
    """The most memory of one device that this process has used so far, GB; None where the device does not say."""
    import jax

    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((one / 1e9 for one in found if one), default=None)


def main() -> None:
    """Runs one section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    from ebbtide.training.worker import end_with

    end_with(os.getppid())
    kind, _, rest = given.name.partition("-")
    section = getattr(import_module(HOMES[kind]), f"measure_{kind}")
    report = Report(given.rows, given.seconds, given.small)
    section(report, rest) if rest else section(report)
    if report.failures:
        raise SystemExit(f"{report.failures} of its measurements failed")


if __name__ == "__main__":
    main()
