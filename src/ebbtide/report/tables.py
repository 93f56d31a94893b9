"""What the terminal shows: tables of runs, curves and verdicts."""

from collections.abc import Callable, Iterable

import numpy as np
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ebbtide.errors import InputError
from ebbtide.runs.folder import DamagedError, Run, Unreadable

STYLE = {"holds": "bold green", "fails": "bold red", "undecided": "bold yellow"}
MARK = {"holds": "holds", "fails": "FAILS", "undecided": "undecided"}


def short(count: float) -> str:
    """12800 -> 12.8k, 1600000 -> 1.6M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def runs_table(runs: Iterable[Run | Unreadable], verdict: Callable[[Run], str]) -> Table:
    """One line a run: what it is, how far it is, where its strategies stand (mean over members), its
    verdict in a few words; of a damaged one, the reason."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("preset")
    table.add_column("status")
    for name in ("n", "sequences", "icl", "iwl", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for run in runs:
        try:
            if isinstance(run, Unreadable):
                raise DamagedError(run.reason)
            row = [*_row(run), verdict(run)]
        except (InputError, DamagedError) as error:
            reason = error.allowed if isinstance(error, InputError) else str(error)
            row = ["-", "damaged", *["-"] * 5, reason]
        table.add_row(*map(escape, [run.path.name, *row]))
    return table


def _row(run: Run) -> list[str]:
    label, spec, done = run.header.label, run.header.spec, run.sequences()
    row = [label.get("preset", "-"), run.status(), str(spec["members"])]
    return [*row, f"{short(done)}/{short(spec['sequences'])}", *_now(run)]


def _now(run: Run) -> list[str]:
    """Mean over members at the newest evaluation."""
    if run.sequences() == 0:
        return ["-"] * 3
    curves = run.metrics()
    wanted = ("icl", "iwl", "train_loss")
    return [f"{curves[n][:, -1].mean():.3f}" if n in curves else "-" for n in wanted]


def curves_table(run: Run, rows: int = 12) -> Table:
    """Mean over members of every evaluator's headline metric at some evaluations, log-like spread."""
    curves, names = run.metrics(), [one.name for one in run.header.instruments]
    count = len(curves["sequences"])
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(rows, count))})
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ["sequences", "steps", *names, "loss"]:
        table.add_column(column.replace("_", " "), justify="right")
    for i in shown:
        values = [f"{curves[name][:, i].mean():.3f}" for name in names]
        loss = curves["train_loss"][:, i].mean()
        steps = str(curves["steps"][i])
        table.add_row(short(float(curves["sequences"][i])), steps, *values, "-" if np.isnan(loss) else f"{loss:.3f}")
    table.add_section()
    table.add_row("chance", "", *[f"{run.chance()[name]:.3f}" for name in names], "", style="dim")
    errors = [f"{curves[f'{name}/error'].mean():.3f}" for name in names]
    table.add_row("± s.e.", "", *errors, "", style="dim")
    return table


def verdict_table(claims: Iterable[tuple[str, str, str, str, str, str]]) -> Table:
    """Rows (statement, estimated quantity, needed, estimate with interval, members, verdict)."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("claim")
    table.add_column("what is estimated")
    table.add_column("needed", justify="right")
    table.add_column("estimate [95 %]", justify="right")
    table.add_column("members", justify="right")
    table.add_column("verdict")
    for statement, metric, needed, estimate, members, verdict in claims:
        table.add_row(statement, metric, needed, estimate, members, Text(MARK[verdict], STYLE[verdict]))
    return table


def truth_table(table: dict[str, dict[str, tuple[float, float]]], title: str) -> Table:
    """Headline accuracy of every oracle on every evaluator."""
    out = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    out.add_column("oracle")
    for name in next(iter(table.values())):
        out.add_column(name, justify="right")
    for oracle, row in table.items():
        out.add_row(oracle, *[f"{mean:.2f}" for mean, _ in row.values()])
    return out
