"""Commands that check and measure this installation: verify, bench."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.text import Text

from ebbtide.cli.console import console
from ebbtide.interrupts import raise_on_stop_signals
from ebbtide.report import tables
from ebbtide.terminal import Terminal


def verify(options: Namespace) -> int:
    """Runs the exact checks; exit code 1 if one fails."""
    from ebbtide.verify import checks, coverage

    def report(check: Any) -> None:
        mark = Text("ok  ", "green") if check.passed else Text("FAIL", "bold red")
        console.print(mark, Text(f"{check.name}: {check.detail}"), soft_wrap=True)

    passed, found = checks.run(report)
    for name, table in found.items():
        console.print()
        console.print(tables.truth_table(table, f"Accuracy of each oracle on each evaluator ({name})"))
    console.print()
    console.print(tables.coverage_table(coverage.table()))
    return 0 if passed else 1


def bench(options: Namespace) -> int:
    """Measures the reference configurations; exit code 130 when interrupted."""
    from ebbtide.bench.bench import measure
    from ebbtide.bench.configs import CONFIGS, find_config
    from ebbtide.bench.table import Status, show
    from ebbtide.runs.output import check_output

    configs = [find_config(options.config)] if options.config else list(CONFIGS.values())
    out = Path(options.json) if options.json else None
    if out:
        check_output(out, "json")
    try:
        with raise_on_stop_signals(), Status() as status:
            found = measure(configs, quick=options.quick, say=status)
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        return 130
    if out:
        found.write(out)
    show(found, Terminal(width=max(console.width, 200)))
    return 0
