"""The command `contest`: the field's theories against a sweep."""

import itertools
import shlex
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ebbtide.cli.console import console
from ebbtide.cli.parser import RUNS
from ebbtide.cli.sweep import progress_words
from ebbtide.errors import Interrupted, require
from ebbtide.report.progress import ProgressLine
from ebbtide.sweeps.folder import SWEEP
from ebbtide.user_code import load, names_a_file, split_words

STYLE = {"holds": "green", "fails": "bold red", "undecided": "dim"}


def contest(options: Namespace) -> int:
    """Holds a contest on a sweep and prints its table; with --trust the confusion matrix of the theories, and exit code
    1 where they are not told apart."""
    sweep = _sweep_folder(options.sweep)
    out = Path(options.out or Path(RUNS) / f"contest-{sweep.name.removeprefix('sweep-')}")
    splits = options.split.split(",") if options.split else None
    one = splits is None or len(splits) == 1
    require(options.trust is None or one, "split", options.split, "must be one with --trust")

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    try:
        with ProgressLine(console, _words) as line:
            how: dict[str, Any] = {"axis": options.axis, "out": out, "report": line, "say": say}
            show = _work(options, sweep, splits, how)
    except (Interrupted, KeyboardInterrupt):
        say(
            "stopped; what was found is saved. Continue with:\n  "
            + shlex.join(["ebbtide", "contest", options.sweep, *_given(options)])
        )
        return 130
    return show()


def _work(options: Namespace, sweep: Path, splits: list[str] | None, how: dict[str, Any]) -> Callable[[], int]:
    """Computes what the options ask for; returns what shows it."""
    from ebbtide.contest.output import write_outputs
    from ebbtide.contest.run import run_contest, trust_contest

    theories = theories_named(options.theories)
    if options.trust is not None:
        split = splits[0] if splits else "elsewhere"
        return partial(print_trust, trust_contest(sweep, theories, split, draws=options.trust, **how))
    record = run_contest(sweep, theories, splits, resamples=options.resamples, **how)
    write_outputs(how["out"], record)
    return partial(print_contest, record, how["out"])


def theories_named(words: str | None) -> list[Any] | None:
    """The theories that `--theories` names, by their names or by Python files; None: all of ebbtide's."""
    if words is None:
        return None
    found: list[Any] = []
    for word in (one.strip() for one in words.split(",")):
        found += _theories_in(word) if names_a_file(word) else [word]
    return found


def _theories_in(words: str) -> list[Any]:
    """The theories in `FILE.py`, or the one in `FILE.py:NAME`: objects at its top, not classes."""
    from ebbtide.contest.theory import Theory

    module, name = load(words, "theories").module, split_words(words)[1]
    if name:
        require(hasattr(module, name), "theories", words, "has nothing of this name")
        return [getattr(module, name)]
    found = [one for one in vars(module).values() if not isinstance(one, type) and isinstance(one, Theory)]
    require(len(found) > 0, "theories", words, "has no theory at its top: an object with the methods of a Theory")
    return found


def _sweep_folder(word: str) -> Path:
    for path in (Path(word), Path(RUNS) / word):
        if (path / SWEEP).is_file():
            return path
    require(False, "sweep", word, f"no sweep folder of this name, here or in {RUNS}/")
    raise AssertionError


def _given(options: Namespace) -> list[str]:
    words = [("--out", options.out), ("--split", options.split), ("--axis", options.axis)]
    words += [("--theories", options.theories), ("--trust", options.trust and str(options.trust))]
    given = [part for name, value in words if value for part in (name, value)]
    return given + ([] if options.resamples == 100 else ["--resamples", str(options.resamples)])


def _words(progress: Any) -> str:
    """`later: kinetics 43 %`, or the line of the pure runs' sweep."""
    if hasattr(progress, "what"):
        return f"{progress.what} {100 * progress.share:.0f} %" if progress.share else progress.what
    return f"pure runs: {progress_words(progress)}"


def print_contest(record: Any, out: Path) -> int:
    """Prints the ranking of every split, and which neighbours in it are told apart."""
    from ebbtide.contest.events import EVENTS
    from ebbtide.contest.output import BASELINE, table_rows

    left = record.of_members - record.members
    gone = f" ({left} of {record.of_members} have not finished in every cell)" if left else ""
    head = f": {len(record.cells)} cells, {record.members} members{gone}; resampled {record.resamples} times"
    console.print(Text(record.sweep, "bold"), head, soft_wrap=True)
    rows = table_rows(record)
    for split in record.splits:
        console.print(Text(f"\n{split.name}", "bold"), f": {split.words}", soft_wrap=True)
        if split.refused:
            console.print(split.refused, soft_wrap=True)
            continue
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("theory", "free", "divergence", "skill", "error", "coverage", *EVENTS, "better/worse"):
            table.add_column(name.replace("_", "-"), justify="left" if name == "theory" else "right", no_wrap=True)
        for row in (one for one in rows if one["split"] == split.name and not one["refused"]):
            table.add_row(*_cells(row, EVENTS))
        console.print(table)
        for pair in _neighbours(split):
            size = f"{pair.estimate:.3f} nats [{pair.low:.3f}, {pair.high:.3f}]"
            console.print(Text(f"{pair.verdict:9}", STYLE[pair.verdict]), f"{pair.statement()}: {size}", soft_wrap=True)
        for one in split.theories:
            if one.refused:
                console.print(f"refused   {one.name}: {one.refused}", soft_wrap=True)
    console.print(
        f"\ndivergence: KL of the strategy fractions in held-out cells, nats, with 95 % over resampled members; skill: "
        f"against {BASELINE}; times: |log10(predicted / observed)|, +n missed; better/worse: than how many, surely",
        style="dim",
        soft_wrap=True,
    )
    console.print(f"\ncontest {out}", soft_wrap=True)
    return 0


def print_trust(record: Any) -> int:
    """Prints the confusion matrix; exit code 1 where a theory was not named in as many of its draws as is asked."""
    from ebbtide.contest.trust import ASKED, DRAWS

    head = f": {record.draws} draws from every theory, split {record.split}: after whom they were named"
    console.print(Text(record.sweep, "bold"), head, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("drawn from", no_wrap=True)
    for name in record.contestants:
        table.add_column(name, justify="right")
    for row in record.rows:
        if not row.refused:
            counts = [str(row.named.get(name, 0) or "-") for name in record.contestants]
            table.add_row(row.theory, *counts, style="" if row.right() >= ASKED * record.draws else "bold red")
    console.print(table)
    for row in record.rows:
        if row.refused:
            console.print(f"refused   {row.theory}: {row.refused}", soft_wrap=True)
    for theory, other, count in record.confused():
        console.print(f"cannot be told apart: {theory} named {other} in {count} of {record.draws}", soft_wrap=True)
    asked = f"every theory named in {100 * ASKED:.0f} % of its draws"
    few = f" (of {record.draws} draws each, too few to be sure: --trust {DRAWS})" if record.draws < DRAWS else ""
    console.print(f"\n{asked}: {'yes' if record.trusted() else 'no'}{few}", soft_wrap=True)
    return 0 if record.trusted() else 1


def _neighbours(split: Any) -> list[Any]:
    names = [one.name for one in split.ranking()]
    wanted = set(itertools.pairwise(names))
    return [pair for pair in split.pairs if (pair.first, pair.second) in wanted]


def _cells(row: dict[str, Any], events: Any) -> list[str]:
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else ""
    counts = "" if row["better_than"] is None else f"{row['better_than']}/{row['worse_than']}"
    times = [_time(row[f"{name}_error"], row[f"{name}_missed"]) for name in events]
    return [
        row["theory"],
        "" if row["free"] is None else str(row["free"]),
        f"{row['divergence']:.3f}{interval}",
        *(_number(row[name]) for name in ("skill", "curve_error", "coverage")),
        *times,
        counts,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _time(error: float | None, missed: int | None) -> str:
    return _number(error) + (f" +{missed}" if missed else "")
