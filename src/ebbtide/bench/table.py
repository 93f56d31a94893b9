"""The benchmark as a table for the terminal."""

import time

from rich.live import Live
from rich.table import Table
from rich.text import Text

from ebbtide.bench.records import Benchmark, Row
from ebbtide.terminal import Terminal

COLUMNS = (
    "config", "batch", "implementation", "members", "processes", "threads", "sequences/s", "GFLOP/s",
    "of ceiling", "of roofline", "to ebbtide", "compile s", "first step s", "peak MB", "evaluation etc.", "note",
)  # fmt: skip


class Status:
    """The current measurement, on standard error: a moving line on a terminal, else a line each. Use as a context
    manager; call it with a text."""

    def __init__(self) -> None:
        self._console = Terminal(stderr=True)
        self._began = time.monotonic()
        self._live = Live(Text("starting"), console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Status":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, text: str) -> None:
        text = f"{time.monotonic() - self._began:4.0f} s  {text}"
        if self._console.is_terminal:
            self._live.update(Text(text))
        else:
            self._console.print(Text(text), soft_wrap=True)


def show(found: Benchmark, console: Terminal) -> None:
    """Prints the machine, the rows, the skipped measurements, and the targets."""
    machine = found.machine
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "jax", "numpy", "torch") if machine[name])
    console.print(f"{machine['cpu']} ({machine['vector']}), {machine['cores']} cores; {versions}")
    for one in machine["ceilings"]:
        shape = " x ".join(map(str, one["shape"]))
        console.print(
            f"{one['config']}, batch {one['batch']}, threads {one['threads']}: "
            f"{one['gflops']:.0f} GFLOP/s ({one['library']}, {shape}; own shapes {one['own_shapes_gflops']:.0f}), "
            f"copies {one['copy_state_gb_per_second']:.1f} GB/s at the optimiser's size, "
            f"{one['copy_large_gb_per_second']:.1f} at 256 MB",
            style="dim",
            soft_wrap=True,
        )
    console.print(rows_table(found.rows))
    for one in found.skipped:
        console.print(f"skipped: {one.config}: {one.what}: {one.why}", style="dim", soft_wrap=True)
    console.print(targets_table(found))


def rows_table(rows: list[Row]) -> Table:
    """One row per measurement."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    text = ("config", "implementation", "note")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in text else "right")
    before = None
    for row in rows:
        if before not in (None, (row.config, row.batch)):
            table.add_section()
        before = (row.config, row.batch)
        table.add_row(
            row.config,
            str(row.batch),
            row.implementation,
            str(row.members),
            str(row.processes),
            str(row.threads),
            f"{row.sequences_per_second:,.0f}",
            _number(row.gflops),
            _percent(row.fraction_of_ceiling),
            _percent(row.fraction_of_roofline),
            "-" if row.ratio_to_ebbtide is None else f"{row.ratio_to_ebbtide:.2f}",
            _number(row.compile_seconds),
            _number(row.first_step_seconds),
            "-" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}",
            _percent(row.overhead_share, 1),
            row.note,
        )
    return table


def targets_table(found: Benchmark) -> Table:
    """One row per target: met, missed or not measured."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("", "config", "batch", "target", "measured", "asked"):
        table.add_column(column)
    colours = {"met": "green", "missed": "red", "not measured": "dim"}
    for one in found.targets:
        verdict, small = one.verdict(), (one.least or one.most or 0) < 10
        digits = 3 if small else 0
        value = "-" if one.value is None else f"{one.value:.{digits}f}"
        bound = f">= {one.least:g}" if one.least is not None else f"<= {one.most:g}"
        table.add_row(Text(verdict, colours[verdict]), one.config, str(one.batch), one.what, value, bound)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"
