"""Tables for the terminal: runs, curves and verdicts."""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float
from rich.table import Table
from rich.text import Text

from ebbtide.errors import InputError
from ebbtide.evaluation.divergence import Curves, diverged, diverged_at
from ebbtide.runs.folder import RunFolder, UnreadableRun
from ebbtide.runs.signed import DamagedError

STYLE = {"holds": "bold green", "fails": "bold red", "undecided": "bold yellow"}
MARK = {"holds": "holds", "fails": "FAILS", "undecided": "undecided"}


def short(count: float) -> str:
    """A count with a unit prefix: 12800 -> 12.8k, 1600000 -> 1.6M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def runs_table(runs: Iterable[RunFolder | UnreadableRun], verdict: Callable[[RunFolder], str]) -> Table:
    """One row per run: its name and spec, its progress, its latest metrics (mean over members) and its verdict; for a
    damaged run, the reason."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("preset")
    table.add_column("status")
    for name in ("n", "sequences", "icl", "iwl", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for run in runs:
        try:
            if isinstance(run, UnreadableRun):
                raise DamagedError(run.reason)
            row = [*_row(run), verdict(run)]
        except (InputError, DamagedError, OSError) as error:
            reason = error.allowed if isinstance(error, InputError) else str(error)
            reason = (error.strerror or "cannot be read") if isinstance(error, OSError) else reason
            row = ["-", "damaged", *["-"] * 5, reason]
        table.add_row(run.path.name, *row)
    return table


def _row(run: RunFolder) -> list[str]:
    label, spec, done = run.header.label, run.header.spec, run.sequences()
    curves = run.metrics() if done else None
    row = ["foreign" if run.header.foreign else label.get("preset", "-"), status(run, curves), str(spec["members"])]
    return [*row, f"{short(done)}/{short(spec['sequences'])}", *_now(curves)]


def status(run: RunFolder, curves: Curves | None) -> str:
    """`Run.status()`, unless members have diverged by these curves: `diverged`, `1 of 4 diverged`, and before the end
    of the run `interrupted, 1 of 4 diverged`."""
    return status_words(run.status(), diverged(curves) if curves else np.zeros(1, bool))


def status_words(now: str, lost: Bool[np.ndarray, " member"]) -> str:
    """`status` of a run whose `Run.status()` is `now` and of whose members those in `lost` have diverged."""
    if not lost.any():
        return now
    words = "diverged" if lost.all() else f"{lost.sum()} of {len(lost)} diverged"
    return words if now == "complete" else f"{now}, {words}"


def divergence(curves: Curves) -> str:
    """`members 1 and 3 at 128k sequences, member 2 at 256k (of 4)`; empty where no member has diverged."""
    at = diverged_at(curves) if curves else np.full(1, np.nan)
    if not np.isfinite(at).any():
        return ""
    groups = []
    for place in np.unique(at[np.isfinite(at)]):
        *others, last = [str(m) for m in np.flatnonzero(at == place)]
        who = f"members {', '.join(others)} and {last}" if others else f"member {last}"
        groups.append(f"{who} at {short(place)}{'' if groups else ' sequences'}")
    return f"{', '.join(groups)} (of {len(at)})"


def means(curves: Curves, name: str) -> Float[np.ndarray, " evaluation"]:
    """The mean of a curve over the members that have not diverged; over all where all have."""
    lost = diverged(curves)
    kept = np.where(np.isfinite(curves[name]), curves[name], np.nan)[~lost | lost.all()]
    return kept.mean(axis=0, dtype=np.float64)


def _written(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _now(curves: Curves | None) -> list[str]:
    """The mean over members at the newest evaluation."""
    curves = curves or {}
    return [_written(means(curves, n)[-1]) if n in curves else "-" for n in ("icl", "iwl", "train_loss")]


def curves_table(run: RunFolder, rows: int = 12) -> Table:
    """The headline metric of every evaluator, as the mean over the members that have not diverged, at `rows`
    evaluations spread evenly on a logarithmic scale."""
    curves, names = run.metrics(), [one.name for one in run.header.instruments]
    mean = {name: means(curves, name) for name in [*names, *(f"{n}/error" for n in names), "train_loss"]}
    count = len(curves["sequences"])
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(rows, count))})
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ["sequences", "steps", *names, "loss"]:
        table.add_column(column.replace("_", " "), justify="right")
    for i in shown:
        values = [_written(float(mean[name][i])) for name in [*names, "train_loss"]]
        table.add_row(short(float(curves["sequences"][i])), str(curves["steps"][i]), *values)
    table.add_section()
    table.add_row("chance", "", *[_written(run.chance().get(name, np.nan)) for name in names], "", style="dim")
    errors = [_written(float(mean[f"{name}/error"].mean())) for name in names]
    table.add_row("± s.e.", "", *errors, "", style="dim")
    return table


def verdict_table(claims: Iterable[tuple[str, str, str, str, str, str, bool]]) -> Table:
    """Rows (statement, estimated quantity, needed, estimate with interval, members above with the interval of their
    share, verdict, whether the claim holds only without a correction for the others: then it gets a star)."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("claim")
    table.add_column("what is estimated")
    table.add_column("needed", justify="right")
    table.add_column("median [95 %]", justify="right")
    table.add_column("members (share)", justify="right")
    table.add_column("verdict")
    for statement, metric, needed, estimate, members, verdict, alone in claims:
        word = Text(MARK[verdict] + (" *" if alone else ""), STYLE[verdict])
        table.add_row(statement, metric, needed, estimate, members, word)
    return table


def coverage_table(table: dict[str, dict[str, float]]) -> Table:
    """How often 95 % intervals cover what they are of (`verify.coverage`), by the number of members."""
    out = Table(box=None, header_style="bold", pad_edge=False, title="Coverage of 95 % intervals", title_justify="left")
    out.add_column("interval of, members")
    for name in next(iter(table.values())):
        out.add_column(name, justify="right")
    for words, row in table.items():
        out.add_row(words, *[f"{covered:.3f}" for covered in row.values()])
    return out


def truth_table(table: dict[str, dict[str, tuple[float, float]]], title: str) -> Table:
    """The headline accuracy of every oracle on every evaluator."""
    out = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    out.add_column("oracle")
    for name in next(iter(table.values())):
        out.add_column(name, justify="right")
    for oracle, row in table.items():
        out.add_row(oracle, *[f"{mean:.2f}" for mean, _ in row.values()])
    return out
