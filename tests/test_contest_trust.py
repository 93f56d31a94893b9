"""The confusion matrix: curves are named after the theory that made them, and one in disguise is told."""

import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from contest_tools import Known, made_cell
from ebbtide.cli import main
from ebbtide.contest import identity, trust
from ebbtide.contest.baselines import ConstantFractions
from ebbtide.contest.trust import JITTER, MEMBERS, PROMPTS, drawn_cells, measure_trust, read_trust
from ebbtide.errors import InputError
from ebbtide.user_code import CodeFile

CELLS = [made_cell(value, fall=4e3 * value) for value in (8.0, 16.0, 32.0, 64.0)]


class Drawing(Known, frozen=True):
    def draw(self, random, inputs, last):
        return replace(self, late=float(random.uniform(-0.5, 0.5)))


SOON, LATE = Drawing(name="soon", fall=1e3), Drawing(name="late", fall=2e4)


def test_theories_that_differ_are_named_after_their_own_curves(tmp_path):
    record = measure_trust("made", CELLS, [SOON, LATE, ConstantFractions()], "elsewhere", draws=10, folder=tmp_path)
    assert record.trusted() and not record.confused()
    assert record.contestants == ["soon", "late", "constant"]
    assert [(row.theory, row.right()) for row in record.rows] == [("soon", 10), ("late", 10)]
    assert read_trust(tmp_path) == record


def test_a_theory_in_disguise_is_told_as_what_cannot_be_told_apart():
    """Two names for the same curves: one of the two is named always, and the matrix says so."""
    record = measure_trust("made", CELLS, [SOON, replace(SOON, name="same"), LATE], "elsewhere", draws=10)
    assert not record.trusted()
    assert record.confused() == [("same", "soon", 10)]


def test_what_was_drawn_is_not_drawn_again_unless_something_differs(tmp_path, monkeypatch):
    first = measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=3, folder=tmp_path)
    told, score = [], trust.judge.held_out_divergence
    monkeypatch.setattr(trust.judge, "held_out_divergence", lambda *a: told.append(a) or score(*a))
    assert measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=3, folder=tmp_path) == first and not told
    measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=2, folder=tmp_path)
    assert len(told) == 2 * 2 * 2


def test_what_was_drawn_is_drawn_again_where_code_or_pure_runs_differ(tmp_path, monkeypatch):
    """A matrix in a folder belongs to the theories' code and to all that is known of the cells."""
    first = measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=1, folder=tmp_path)
    curve = np.full((1, len(CELLS[0].sequences)), 0.5)
    pure = [cell._replace(facts=cell.facts._replace(pure={"in_context": {"icl": curve}})) for cell in CELLS]
    assert measure_trust("made", pure, [SOON, LATE], "elsewhere", draws=1, folder=tmp_path).identity != first.identity
    edited = CodeFile(Path(__file__), "0" * 64, sys.modules[__name__])
    monkeypatch.setattr(identity, "file_of", lambda kind: edited)
    changed = measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=1, folder=tmp_path)
    assert changed.identity not in ("", first.identity)


def test_theories_that_are_in_no_file_are_drawn_anew_every_time(tmp_path, monkeypatch):
    def nowhere(kind):
        raise InputError("theory", kind.__name__, "is in no file")

    monkeypatch.setattr(identity, "file_of", nowhere)
    first = measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=1, folder=tmp_path)
    told, score = [], trust.judge.held_out_divergence
    monkeypatch.setattr(trust.judge, "held_out_divergence", lambda *a: told.append(a) or score(*a))
    assert measure_trust("made", CELLS, [SOON, LATE], "elsewhere", draws=1, folder=tmp_path) == first and told
    assert first.identity == ""


def test_drawn_members_are_early_or_late_and_seen_through_prompts():
    cell = CELLS[0]._replace(sequences=np.array([1e4, 1e4 * np.exp(1e-3)]))
    made = [drawn_cells(SOON, [8.0], [cell], np.random.default_rng(i))[0].fractions for i in range(200)]
    fractions = np.stack(made)[:, :, 0, 0]
    assert fractions.shape == (200, MEMBERS) and np.all(
        np.abs(PROMPTS * fractions - np.round(PROMPTS * fractions)) < 1e-9
    )
    told = SOON.predict(8.0, 1e4 * np.exp(JITTER * np.array([0.0, -1, 1])))[:, 0]
    spread = np.sqrt(((told[2] - told[1]) / 2) ** 2 + told[0] * (1 - told[0]) / PROMPTS)
    assert fractions.std() == pytest.approx(spread, rel=0.15)
    assert fractions.mean() == pytest.approx(told[0], abs=0.02)


def test_a_theory_that_says_nothing_of_the_cells_has_no_row_of_draws():
    class Silent(Drawing, frozen=True):
        def inputs(self, facts):
            raise InputError("task", "few_shot", "is not what this theory is about")

    record = measure_trust("made", CELLS, [SOON, LATE, Silent(name="silent")], "elsewhere", draws=2)
    assert record.rows[2].refused.startswith("task = 'few_shot'") and "silent" not in record.contestants
    with pytest.raises(InputError, match="theories = 1: of these say anything"):
        measure_trust("made", CELLS, [SOON, Silent(name="silent")], "elsewhere", draws=2)


def test_more_than_one_split_is_refused_with_trust(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sweep.json").write_text("{}")
    assert main(["contest", "s", "--trust", "2", "--split", "later,early"]) == 2
    assert "split = 'later,early': must be one with --trust" in capsys.readouterr().err
