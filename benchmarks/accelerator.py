"""All of ebbtide's measurements on accelerators: `sh benchmarks/accelerator.sh [FOLDER]`.

The sections run one after the other, the most important first, each in a process of its own with a time bound, so that
one that fails or hangs takes no other with it. What does not fit into the time is listed as skipped. FOLDER gets
`accelerator.json`, written anew after every section, and the table as `accelerator-table.txt`.
"""
# ruff: noqa: T201 - its output is a table

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
NEEDED = ("jax", "jaxtyping", "matplotlib", "msgspec", "numpy", "optax", "PIL", "rich", "safetensors", "scipy")
"""The packages that ebbtide imports."""
RESERVE = 0.1
"""The share of its time bound that a section keeps for what it has begun when it shall begin nothing more."""
OUTPUT = 20_000
"""The most characters kept of what a section printed, from its end."""
DONE, FAILED, LATE, SKIPPED = "done", "failed", "out of time", "skipped"
Row = dict[str, Any]
COLUMNS = {
    "section": "section",
    "config": "configuration",
    "what": "what",
    "members": "members",
    "devices": "devices",
    "precision": "precision",
    "value": "value",
    "unit": "unit",
    "compile_seconds": "compile s",
    "gigabytes": "memory GB",
}
"""The columns of the table: the field of a row, and its heading."""


class Section(NamedTuple):
    """A part of the measurements: the most seconds it may take, the fewest with which it is begun, the package it
    needs, environment variables, and its command where it is not one of `accelerator_sections`."""

    name: str
    seconds: float
    least: float
    package: str | None = None
    environment: dict[str, str] = {}  # noqa: RUF012 - read only
    command: tuple[str, ...] = ()


DETERMINISTIC = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true --xla_cpu_multi_thread_eigen=false"}
SECTIONS = (
    Section("machine", 60, 15),
    Section("loop-2L-shared", 125, 30),
    Section("loop-2L", 65, 25),
    Section("loop-12L", 85, 30),
    Section("whole", 75, 30),
    Section("verify", 60, 20),
    Section("bits", 60, 25, environment=DETERMINISTIC),
    Section("plain-jax", 40, 15),
    Section("plain-torch", 60, 15, package="torch", environment={"JAX_PLATFORMS": "cpu"}),
)


class Result(NamedTuple):
    """How a section ended, why if it did not end well, the seconds it took, the rows that it measured and the end of
    what it printed."""

    section: str
    status: str
    seconds: float
    reason: str
    rows: list[Row]
    output: str = ""


def run_section(section: Section, folder: Path, left: float, small: bool = False) -> Result:
    """The result of a section for which `left` seconds are left."""
    name = section.name
    if section.package and find_spec(section.package) is None:
        return Result(name, SKIPPED, 0.0, f"{section.package} is not installed", [])
    if left < section.least:
        return Result(name, SKIPPED, 0.0, f"{left:.0f} s are left, it needs {section.least:.0f}", [])
    limit = left if small else min(section.seconds, left)  # a trial ends well on a slow machine too
    data, log = folder / f"{name}.jsonl", folder / f"{name}.log"
    data.unlink(missing_ok=True)
    words = section.command or (sys.executable, str(HERE / "accelerator_sections.py"), name)
    options = ["--rows", str(data), "--seconds", str(limit * (1 - RESERVE)), *(["--small"] if small else [])]
    began = time.monotonic()
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*words, *options], stdout=out, stderr=out, env=_environment(section, small), start_new_session=True
        )
        try:
            code, status = child.wait(limit), DONE
        except subprocess.TimeoutExpired:
            code, status = None, LATE
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # the section and what it has started
                child.wait()
    if code:
        status = FAILED
    rows = [json.loads(line) for line in data.read_text().splitlines()] if data.exists() else []
    output = log.read_text(errors="replace").strip()[-OUTPUT:]
    last = output.splitlines()[-1][:300] if output else f"exit code {code}"
    reason = {DONE: "", LATE: f"stopped after {limit:.0f} s"}.get(status, last)
    for file in (data, log):
        file.unlink(missing_ok=True)
    return Result(name, status, time.monotonic() - began, reason, rows, output)


def _environment(section: Section, small: bool) -> dict[str, str]:
    """The environment of a section: this one, with flags for XLA added to those there are, and with times of compiling
    that are those of a first start unless sizes are tiny."""
    environment = {**os.environ, "EBBTIDE_KERNEL": "xla"}
    if not small:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    environment |= section.environment
    if flags := section.environment.get("XLA_FLAGS"):
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return environment


def run_sections(sections: Iterable[Section], folder: Path, seconds: float, small: bool = False) -> list[Result]:
    """The results of sections that may take `seconds` together; the file of data is written after each."""
    folder.mkdir(parents=True, exist_ok=True)
    results, end = [], time.monotonic() + seconds
    for section in sections:
        result = run_section(section, folder, end - time.monotonic(), small)
        print(f"{section.name}: {result.status} ({result.seconds:.0f} s) {result.reason}".rstrip(), flush=True)
        results.append(result)
        data = {"small": small, "sections": [one._asdict() for one in results]}
        (folder / "accelerator.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / "accelerator-table.txt").write_text(f"{table_of(results)}\n")
    return results


def table_of(results: Sequence[Result]) -> str:
    """All rows as one Markdown table; of a section that was skipped or did not end well a row that says why."""
    rows = []
    for result in results:
        rows += [{"section": result.section, **row} for row in result.rows]
        if result.status != DONE:
            rows.append({"section": result.section, "what": f"{result.status}: {result.reason}"})
    cells = [list(COLUMNS.values()), *([_cell(row.get(name)) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")


def main() -> int:
    """Runs the sections and prints the table; 1 where one failed or ran out of time."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("accelerator-results"))
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script itself, on a CPU too")
    parser.add_argument("--seconds", type=float, default=570.0, help="for all sections together (default: 570)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"some of: {', '.join(names)}")
    given = parser.parse_args()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"accelerator.sh: {sys.executable} lacks {', '.join(missing)}", file=sys.stderr)
        return 2
    chosen = [section for section in SECTIONS if not given.only or section.name in given.only]
    results = run_sections(chosen, given.folder, given.seconds, given.small)
    print(f"\n{table_of(results)}")
    return int(any(result.status in (FAILED, LATE) for result in results))


if __name__ == "__main__":
    sys.exit(main())
