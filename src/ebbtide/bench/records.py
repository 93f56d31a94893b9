"""The results of a benchmark: the machine, rows, skipped measurements, and targets met or missed. Written as JSON."""

from pathlib import Path
from typing import Any

import msgspec

from ebbtide.runs.output import write_output


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `sequences_per_second` is summed over members and processes; the fractions are per core in use
    (per process); `ratio_to_ebbtide` is this pace over that of ebbtide's loop on one thread, the median over rounds of
    the ratio within a round. None: not measured."""

    config: str
    implementation: str
    batch: int
    threads: int
    processes: int
    sequences_per_second: float
    fraction_of_roofline: float
    members: int = 1
    gflops: float | None = None
    fraction_of_ceiling: float | None = None
    ratio_to_ebbtide: float | None = None
    compile_seconds: float | None = None
    first_step_seconds: float | None = None
    peak_memory_mb: float | None = None
    overhead_share: float | None = None
    note: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """A measurement that was skipped, and why."""

    config: str
    what: str
    why: str


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One target with the measured `value` (None: not measured); `least` or `most` is the bound."""

    config: str
    batch: int
    what: str
    value: float | None
    least: float | None = None
    most: float | None = None

    def verdict(self) -> str:
        """met, missed or not measured."""
        if self.value is None:
            return "not measured"
        above = self.least is None or self.value >= self.least
        below = self.most is None or self.value <= self.most
        return "met" if above and below else "missed"


class Benchmark(msgspec.Struct):
    """Everything that one call of the benchmark measured."""

    machine: dict[str, Any]
    rows: list[Row]
    targets: list[Target]
    skipped: list[Skipped]

    def write(self, path: Path) -> None:
        """Writes the JSON file (see `write_output`), every target with its verdict."""
        data = msgspec.to_builtins(self)
        data["targets"] = [
            {**target, "verdict": one.verdict()} for target, one in zip(data["targets"], self.targets, strict=True)
        ]
        write_output(path, msgspec.json.format(msgspec.json.encode(data), indent=1), "json")
