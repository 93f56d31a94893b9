"""What the terminal shows."""

import io

import numpy as np
import pytest

from ebbtide.report import progress, tables
from ebbtide.report.progress import ProgressLine, line
from ebbtide.runs.writer import Writer
from ebbtide.terminal import Terminal
from ebbtide.training.progress import Progress
from tiny import header, write_run


def text(table) -> list[str]:
    console = Terminal(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue().splitlines()  # pyright: ignore


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (999, "999"), (12_800, "12.8k"), (1_600_000, "1.6M"), (2_500_000_000, "2.5G"), (87_654, "87.7k")],
)
def test_short(count, words):
    assert tables.short(count) == words


def test_curves_show_the_first_and_the_last_evaluation_and_chance(tmp_path):
    curve = np.linspace(0.5, 1.0, 33)
    run = write_run(tmp_path / "run", {"icl": [curve, curve - 0.2]}, [[np.nan, *np.linspace(4, 1, 32)]] * 2)
    lines = text(tables.curves_table(run, rows=5))
    assert len(lines) == 1 + 5 + 2
    assert lines[0].split() == ["sequences", "steps", "icl", "loss"]
    assert lines[1].split() == ["0", "0", "0.400", "-"] and lines[5].split() == ["1.02k", "64", "0.900", "1.000"]
    assert lines[6].split() == ["chance", "0.500"]


def test_runs_without_a_commit_or_without_some_evaluator_have_dashes(tmp_path):
    young = Writer(tmp_path / "young", header())
    young.close()
    run = write_run(tmp_path / "run", {"icl": [[0.5, 0.75]] * 2}, [[np.nan, 2.0]] * 2)
    lines = text(tables.runs_table([young.run, run], lambda one: "3 of 4 hold" if one is run else "-"))
    first, second = lines[1].split(), lines[2].split()
    assert first[0] == "young" and "interrupted" in first and first[-4:] == ["-"] * 4
    assert second[0] == "run" and {"complete", "0.750", "-", "2.000"} <= set(second)
    assert lines[2].rstrip().endswith("3 of 4 hold")


@pytest.mark.parametrize("verdict", ["holds", "fails", "undecided"])
def test_verdicts_are_words_not_only_colours(verdict):
    row = ("ICL rises", "peak", "> 0.25 in most", "0.400 [0.3, 0.5]", "6 of 6 (54 to 100 %)", verdict, False)
    (_, shown) = text(tables.verdict_table([row]))
    assert shown.split()[-1].lower() == verdict and "ICL rises" in shown and "> 0.25 in most" in shown
    (_, starred) = text(tables.verdict_table([(*row[:-1], True)]))
    assert starred.split()[-2:] == [shown.split()[-1], "*"]


def test_the_truth_table_has_a_row_for_every_oracle():
    lines = text(tables.truth_table({"ICL": {"icl": (1.0, 0.0)}, "IWL": {"icl": (0.5, 0.01)}}, "title"))
    assert [one.split() for one in lines] == [["title"], ["oracle", "icl"], ["ICL", "1.00"], ["IWL", "0.50"]]


@pytest.mark.parametrize(
    ("eta", "left"), [(5, "0:05 left"), (83, "1:23 left"), (3600, "1:00:00 left"), (59.7, "1:00 left")]
)
def test_the_progress_line(eta, left):
    shown = line(Progress(1_200_000, 3_000_000, 4, 88_000, eta, {"icl": 0.83, "iwl": 0.1, "loss": float("nan")}))
    assert shown == f"1.2M/3M sequences x 4 members, 88k/s, {left} | icl 0.830 iwl 0.100"


def test_where_there_is_no_terminal_a_line_comes_now_and_then(monkeypatch):
    console = Terminal(file=io.StringIO(), width=200)
    report = Progress(1, 2, 3, 4, 5, {})
    with ProgressLine(console) as shown:
        for _ in range(3):
            shown(report)
        monkeypatch.setattr(progress, "EVERY", -1.0)
        shown(report)
    assert console.file.getvalue().count("sequences x 3 members") == 2  # pyright: ignore
