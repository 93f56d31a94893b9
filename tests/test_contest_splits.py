"""Splits: no time of a cell and member is both fitted and scored, and a split that leaves nothing is refused."""

import numpy as np
import pytest

from contest_tools import TIMES, made_cell
from ebbtide.contest.cells import Cell
from ebbtide.contest.splits import SPLITS, finished_members, make_split
from ebbtide.contest.theory import Facts
from ebbtide.errors import InputError

CELLS = [made_cell(value, rise=1e4, fall=4e3 * value, seed=int(value)) for value in (8, 16, 32, 64, 128)]


@pytest.mark.parametrize("name", SPLITS)
def test_no_time_of_a_member_is_both_fitted_and_scored(name):
    split = make_split(CELLS, name)
    shared = set(split.fitted_members) & set(split.scored_members)
    assert not shared or not any((one.fitted & one.scored).any() for one in split.parts)
    assert any(one.fitted.any() for one in split.parts) and any(one.scored.any() for one in split.parts)


def test_later_divides_log_time():
    for one in make_split(CELLS, "later").parts:
        assert np.log(TIMES[one.fitted].max()) <= np.log(1e3 * 1e6) / 2 + 1e-9 < np.log(TIMES[one.scored].min())


def test_elsewhere_fits_the_smaller_half_of_the_axis_whatever_the_order_of_cells():
    for cells in (CELLS, CELLS[::-1]):
        split = make_split(cells, "elsewhere")
        whole = {one.cell.facts.config["source.pool"]: (one.fitted.all(), one.scored.all()) for one in split.parts}
        assert whole == {8: (True, False), 16: (True, False), 32: (True, False), 64: (False, True), 128: (False, True)}
    assert "the axis source.pool" in split.words()


def test_early_hides_the_peak_and_all_that_follows():
    for one in make_split(CELLS, "early").parts[:3]:
        generalising = one.cell.fractions.mean(axis=0)[:, 0]
        assert generalising[one.fitted].max() < generalising[one.scored].max()
        assert generalising[one.scored][-1] < 0.1


def test_seeds_are_divided_and_not_times():
    split = make_split(CELLS, "seeds")
    assert (split.fitted_members.tolist(), split.scored_members.tolist()) == ([0, 1], [2, 3, 4])
    assert all(one.fitted.all() and one.scored.all() for one in split.parts)


def test_a_member_that_has_not_finished_in_one_cell_takes_part_in_none():
    gap = CELLS[1].fractions.copy()
    gap[2, 3:] = np.nan
    cells = [CELLS[0], CELLS[1]._replace(fractions=gap)]
    assert finished_members(cells).tolist() == [0, 1, 3, 4]
    assert make_split(cells, "later").fitted_members.tolist() == [0, 1, 3, 4]


TWO_AXES = [Cell(Facts("a", {"x": a, "y": b}), TIMES, CELLS[0].fractions) for a in (1, 2) for b in (1, 2)]


@pytest.mark.parametrize(
    ("cells", "name", "axis", "words"),
    [
        (CELLS, "latter", None, r"split = 'latter': must be one of later.*did you mean 'later'"),
        (CELLS, "later", "source.pool", "axis = 'source.pool': goes with the split elsewhere"),
        (CELLS, "elsewhere", "source.pol", "axis = 'source.pol': must be one of source.pool .did you mean"),
        (CELLS[:1], "elsewhere", None, "split = 'elsewhere': needs an axis"),
        (TWO_AXES, "elsewhere", None, "axis = None: must be one of x, y"),
        ([made_cell(members=1)], "later", None, "members = 1: must be two at least"),
        ([made_cell(fall=1e12)], "early", None, "split = 'early': has no cell in which"),
        ([made_cell(sequences=TIMES[:2])], "later", None, "split = 'later': leaves no cell with 2 times"),
        ([], "later", None, "cells = 0: must be one at least"),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line(cells, name, axis, words):
    with pytest.raises(InputError, match=words):
        make_split(cells, name, axis)
