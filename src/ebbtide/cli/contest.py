"""The command `contest`: the field's theories against a sweep."""

import itertools
import shlex
from argparse import Namespace
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
    """Holds a contest on a sweep and prints its table."""
    from ebbtide.contest.output import write_outputs
    from ebbtide.contest.run import run_contest

    sweep = _sweep_folder(options.sweep)
    out = Path(options.out or Path(RUNS) / f"contest-{sweep.name.removeprefix('sweep-')}")
    how: dict[str, Any] = {"axis": options.axis, "resamples": options.resamples, "out": out}
    try:
        with ProgressLine(console, _words) as line:
            record = run_contest(
                sweep,
                theories_named(options.theories),
                options.split.split(",") if options.split else None,
                report=line,
                say=lambda text: console.print(text, soft_wrap=True),
                **how,
            )
    except (Interrupted, KeyboardInterrupt):
        again = shlex.join(["ebbtide", "contest", options.sweep, *_given(options)])
        console.print(f"stopped; what was found is saved. Continue with:\n  {again}", soft_wrap=True)
        return 130
    write_outputs(out, record)
    print_contest(record)
    console.print(f"\ncontest {out}", soft_wrap=True)
    return 0


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
    words += [("--theories", options.theories)]
    given = [part for name, value in words if value for part in (name, value)]
    return given + ([] if options.resamples == 100 else ["--resamples", str(options.resamples)])


def _words(progress: Any) -> str:
    """`later: kinetics 43 %`, or the line of the pure runs' sweep."""
    if hasattr(progress, "what"):
        return f"{progress.what} {100 * progress.share:.0f} %" if progress.share else progress.what
    return f"pure runs: {progress_words(progress)}"


def print_contest(record: Any) -> None:
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
