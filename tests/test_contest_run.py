"""A contest from a sweep's folder to its own: what is found once is kept, and bad input costs one line."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from contest_tools import CLASSES, TIMES, Known, made_sweep
from ebbtide.cli import main
from ebbtide.contest import run
from ebbtide.contest.output import COLUMNS, table_rows, write_outputs
from ebbtide.contest.record import CONTEST, read_contest
from ebbtide.contest.run import run_contest
from ebbtide.errors import InputError
from ebbtide.pages.gather import gather
from ebbtide.pages.page import entries_page
from ebbtide.runs.signed import DamagedError

BY_NAME = "constant", "persistence", "logistic"


class OfClasses(Known, frozen=True):
    """The curves of the made sweep, by its classes."""

    def inputs(self, facts):
        return facts.config["source.classes"]


HELD = ["elsewhere", "later"]
RIGHT, WRONG = OfClasses(name="right", fall=1e3), OfClasses(name="wrong", rise=1e5, fall=10)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    return made_sweep(tmp_path_factory.mktemp("made") / "try").path


@pytest.fixture(scope="module")
def held(sweep, tmp_path_factory) -> Any:
    out = tmp_path_factory.mktemp("out") / "contest"
    return run_contest(sweep, [RIGHT, WRONG], HELD, out=out, resamples=20), out


def test_the_theory_that_made_the_curves_wins_where_cells_are_held_out(held):
    record, _ = held
    assert [split.name for split in record.splits] == HELD
    assert [cell.config for cell in record.cells] == [{"source.classes": float(n)} for n in CLASSES]
    for split in record.splits:
        assert not split.refused and {one.name for one in split.theories} == {"right", "wrong", *BY_NAME}
        assert split.ranking()[0].name == "right"
        beaten = {pair.second for pair in split.pairs if pair.first == "right" and pair.verdict == "holds"}
        assert "constant" in beaten and "wrong" in beaten
    assert record.splits[0].axis == "source.classes"


def test_every_score_stands_beside_the_number_of_free_parameters(held):
    rows = table_rows(held[0])
    scored = [row for row in rows if row["kind"]]
    assert {row["theory"]: row["free"] for row in scored}["right"] == 1
    assert all(row["free"] is not None and np.isfinite(row["divergence"]) for row in scored)
    assert [row["theory"] for row in rows].count("noise floor") == len(HELD)
    assert {row["skill"] for row in scored if row["theory"] == "constant"} == {0.0}


def test_the_folder_has_a_record_that_reads_back_a_table_and_figures(held):
    record, out = held
    assert read_contest(out) == record
    write_outputs(out, replace(record, splits=record.splits[:1]))
    assert (out / "table.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    files = {path.name for path in out.iterdir()}
    assert files == {CONTEST, "table.csv", "elsewhere.png", "elsewhere.svg"}
    assert (out / "elsewhere.png").read_bytes()[:4] == b"\x89PNG"


def test_a_page_tells_who_predicts_best_and_a_damaged_contest_is_one_row(held, tmp_path):
    record, out = held
    (entry,) = gather([str(out)], tmp_path)
    assert entry.kind == "contest" and record.sweep in entry.question and entry.figure.startswith(b"<?xml")
    assert [grid.title.partition(":")[0] for grid in entry.grids[::2]] == [f"Split {name}" for name in HELD]
    for split, grid in zip(record.splits, entry.grids[::2], strict=True):
        assert [row[0] for row in grid.rows] == [*(one.name for one in split.ranking()), "noise floor"]
        assert grid.rows[0][2] == split.ranking()[0].divergence
    assert len(entry.grids[1].rows) == len(record.splits[0].pairs)
    shutil.copytree(out, tmp_path / "spoilt")
    (tmp_path / "spoilt" / CONTEST).write_bytes((out / CONTEST).read_bytes()[:-9])
    page = entries_page("both", gather([str(out), "spoilt"], tmp_path)).decode()
    assert "right predicts held-out cells better than wrong" in page and page.count("Cannot be used: contest.json") == 2


def test_what_was_found_once_is_not_computed_again(held, sweep, monkeypatch):
    record, out = held
    before, told = (out / CONTEST).read_bytes(), []
    monkeypatch.setattr(run.judge, "score_theory", lambda *a: told.append(a))
    assert run_contest(sweep, [RIGHT, WRONG], HELD, out=out, resamples=20) == record
    assert not told and (out / CONTEST).read_bytes() == before


def test_an_interrupted_contest_goes_on_where_it_was(sweep, tmp_path, monkeypatch):
    """Stopped at the third theory, then continued: the first two are not fitted again, and nothing differs."""
    whole = run_contest(sweep, [RIGHT, WRONG], "later", resamples=20)
    score, fitted = run.judge.score_theory, []

    def stopping(theory, *rest):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(theory.name)
        return score(theory, *rest)

    monkeypatch.setattr(run.judge, "score_theory", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_contest(sweep, [RIGHT, WRONG], "later", out=tmp_path / "c", resamples=20)
    monkeypatch.setattr(
        run.judge, "score_theory", lambda theory, *rest: (fitted.append(theory.name), score(theory, *rest))[1]
    )
    assert run_contest(sweep, [RIGHT, WRONG], "later", out=tmp_path / "c", resamples=20) == whole
    assert sorted(fitted) == sorted(["right", "wrong", *BY_NAME])


def test_other_settings_of_a_theory_are_another_theory(held, sweep, monkeypatch):
    """It is the only one that is computed again."""
    _, out = held

    def refusing(*arguments):
        raise InputError("theory", "right", "is computed again")

    changed = replace(RIGHT, rise=9e3)
    monkeypatch.setattr(run.judge, "score_theory", refusing)
    found = run_contest(sweep, [changed, WRONG], "later", out=out, resamples=20).splits[0]
    assert [one.name for one in found.theories if one.refused] == ["right"]


def test_a_theory_that_says_nothing_of_such_cells_is_listed_with_its_reason(sweep):
    class Silent(OfClasses, frozen=True):
        def inputs(self, facts):
            raise InputError("task", "few_shot", "is not what this theory is about")

    record = run_contest(sweep, [Silent(name="silent")], "later", resamples=20)
    silent = record.splits[0].find("silent")
    assert silent is not None and silent.refused == "task = 'few_shot': is not what this theory is about"
    assert "silent" not in [one.name for one in record.splits[0].ranking()]
    assert [row["refused"] for row in table_rows(record) if row["theory"] == "silent"] == [silent.refused]


def test_a_record_that_does_not_fit_together_is_damaged(held, tmp_path):
    record, _ = held
    short = replace(record.cells[0], sequences=record.cells[0].sequences[1:])
    run.write_contest(tmp_path, replace(record, cells=[short, *record.cells[1:]]))
    with pytest.raises(DamagedError, match="do not fit together"):
        read_contest(tmp_path)


EXAMPLE = Path(__file__).parents[1] / "examples/contest_theory.py"
OWN = """
from contest_tools import Known
class Mine(Known, frozen=True):
    def inputs(self, facts):
        return facts.config["source.classes"]
    def fit(self, seen):
        return 1 / 0 if self.name == "broken" else super().fit(seen)
THEORY = Mine(name="mine", fall=1e3)
BROKEN = Mine(name="broken")
"""


def test_the_command_takes_theories_of_ones_own_and_prints_the_ranking(sweep, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(OWN)
    words = ["contest", str(sweep), "--out", str(tmp_path / "c"), "--split", "elsewhere", "--resamples", "20"]
    assert main([*words, "--theories", f"{tmp_path / 'mine.py'},{EXAMPLE}"]) == 0
    said = capsys.readouterr().out
    assert "4 cells, 5 members; resampled 20 times" in said
    assert "mine predicts held-out cells better than" in said and "noise floor" in said
    assert "refused   broken: theories = 'broken.fit': line 7: ZeroDivisionError: division by zero" in said
    found = read_contest(tmp_path / "c").splits[0].find("mine")
    assert found is not None and found.kind == "own"
    visits = read_contest(tmp_path / "c").splits[0].find("visits")
    assert visits is not None and not visits.refused and 3 < (visits.parameters[0].value or 0) < 3e4  # it was fitted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "sweep = 'nowhere': no sweep folder of this name"),
        (["SWEEP", "--split", "latter"], "split = 'latter': must be one of later, elsewhere, early, seeds"),
        (["SWEEP", "--theories", "bays"], "theories = 'bays': must be one of"),
        (["SWEEP", "--theories", "no.py"], "theories = 'no.py': no such file"),
        (["SWEEP", "--resamples", "3"], "resamples = 3: must be 20 at least"),
        (
            ["SWEEP", "--split", "elsewhere", "--axis", "model.width"],
            "axis = 'model.width': must be one of source.classes",
        ),
        (["SWEEP", "--out", "SWEEP"], "holds something else; name an empty or a new folder"),
    ],
)
def test_bad_input_costs_one_line_and_writes_nothing(words, told, sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["contest", *(str(sweep) if word == "SWEEP" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_fewer_than_two_members_are_refused(tmp_path):
    with pytest.raises(InputError, match="members = 1: must be two at least"):
        run_contest(made_sweep(tmp_path / "one", members=1).path, [RIGHT])


def test_the_made_sweep_has_the_curves_it_was_made_of(held):
    cell = held[0].cells[0]
    assert np.allclose(cell.sequences, TIMES, rtol=1e-3) and max(map(max, cell.members)) > 0.7
