"""The console on which commands print, and what several commands print on it."""

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from ebbtide.cli.parser import RUNS
from ebbtide.errors import InputError
from ebbtide.report import tables
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.terminal import Terminal

WIDE = 140
"""Columns where the output is not a terminal (a file or a pipe folds nothing)."""

console = Terminal()
if not console.is_terminal:
    console = Terminal(width=WIDE)


def print_verdict(folder: Path) -> None:
    """Prints where the verdict and the figure are."""
    files = f"\nverdict {folder / 'verdict.json'}\nfigure  {folder / 'figure.png'}"
    console.print(files, soft_wrap=True)


def claims_verdict(verdict: Any) -> Group:
    """The claims of a verdict with their answers, and how many of them may hold by chance."""
    from ebbtide.studies.claim import family_words

    rows = []
    for c in verdict.claims:
        estimate = "-" if c.estimate is None else f"{c.estimate:.3f}"
        if c.low is not None:
            estimate += f" [{c.low:.3f}, {c.high:.3f}]"
        statement = f"{c.statement} ({c.note})" if c.note else c.statement
        members = c.members_above() + (f" ({c.share_words()})" if c.share_words() else "")
        rows.append((statement, c.metric, c.needed(), estimate, members, c.verdict, c.only_alone()))
    basis = [
        words for words in (verdict.registered, verdict.trained_by and f"trained by {verdict.trained_by}") if words
    ]
    notes = [family_words(verdict.claims), *(["; ".join(basis)] if basis else [])]
    return Group(tables.verdict_table(rows), *map(Text, notes))


def tell_written(out: Path | None, text: str) -> None:
    """Prints a line on what was written to `out`; on the error stream where `out` is this process's standard output."""
    from ebbtide.runs.output import is_stdout

    to = Terminal(stderr=True) if out and is_stdout(out) else console
    to.print(text, soft_wrap=True)


def find_run(name: str) -> RunFolder:
    """The run folder of that name, here or in the default folder. Raises `InputError` when there is none."""
    for path in (Path(name), Path(RUNS) / name):
        if (path / "run.json").is_file():
            return RunFolder(path)
    raise InputError("run", name, f"no run folder of this name, here or in {RUNS}/")


def status_words(run: RunFolder) -> str:
    """The status of a run that is to be continued, with the members that diverged (`tables.status`). A damaged curve
    only takes these from it: continuing goes back to what is whole, or says in one line what is not."""
    try:
        curves = run.metrics() if run.sequences() else None
    except DamagedError:
        curves = None
    return tables.status(run, curves)


def print_diverged(curves: Any) -> None:
    """The members that diverged, and when."""
    if words := tables.divergence(curves):
        console.print(f"diverged   {words}; not finite from there on, and left out of all means", soft_wrap=True)
