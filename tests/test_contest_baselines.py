"""Baselines of the contest, the list of theories, and what a fit minimises."""

import numpy as np
import pytest

from contest_curves import TIMES, check_slope, curves_of
from ebbtide.contest.baselines import Axes, ConstantFractions, Logistic, Persistence, Place
from ebbtide.contest.fitting import join, logistic, loss_and_slope, minimise_value, softmax
from ebbtide.contest.registry import BASELINES, THEORIES, find
from ebbtide.contest.scores import divergence
from ebbtide.contest.theory import Drawn, Facts, Seen, Theory
from ebbtide.errors import InputError

GRID = [Place(f"pool = {pool}", {"pool": pool}) for pool in (4.0, 16.0, 64.0)]


def seen_at(place, shift=0.0):
    """A cell whose generalising fraction rises and falls, later by `shift` in log-time."""
    x = np.log(TIMES / 1e4) - shift
    return Seen(place, TIMES, softmax(np.stack([3 * x, 5 * x - 8, 0 * x], axis=1)))


def test_the_list_is_of_theories_and_names_are_told_apart(one_line):
    assert all(isinstance(one, Theory) for one in (*THEORIES, *BASELINES))
    assert all(isinstance(one, Drawn) for one in THEORIES)
    assert len({one.name for one in (*THEORIES, *BASELINES)}) == len(THEORIES) + len(BASELINES)
    with pytest.raises(InputError) as caught:
        find("logstic")
    one_line(caught, "theories", "logstic")
    assert "'logistic'" in str(caught.value)


def test_a_fit_minimises_the_score_of_the_contest():
    """Up to the floor, by which what is fitted has a slope everywhere."""
    seen = [seen_at(place, shift) for place, shift in zip(GRID, (0, 1, 2), strict=True)]
    rows, wrong = join(seen), np.tile([0.5, 0.3, 0.2], (3 * len(TIMES), 1))
    value, _ = loss_and_slope(rows, wrong)
    scores = [float(divergence(one.fractions, wrong[: len(TIMES)], TIMES)) for one in seen]
    assert value == pytest.approx(np.mean(scores), rel=0.02)
    assert loss_and_slope(rows, rows.fractions)[0] == pytest.approx(0, abs=1e-12)
    check_slope(lambda at: _as_vector(rows, at), wrong.ravel())


def _as_vector(rows, at):
    value, slope = loss_and_slope(rows, at.reshape(-1, 3))
    return value, slope.ravel()


def test_every_cell_counts_the_same_however_often_it_was_looked_at():
    once, often = seen_at(GRID[0]), seen_at(GRID[1])
    few = Seen(GRID[0], TIMES[::10], once.fractions[::10])
    weights = join([few, often]).weights
    assert weights[: len(few.sequences)].sum() == pytest.approx(0.5) and weights.sum() == pytest.approx(1)


def test_the_best_of_several_starts_is_taken():
    """Two valleys, the deeper one far from most starts."""

    def value(x):
        return float((x[0] ** 2 - 4) ** 2 + x[0])

    assert minimise_value(value, [(-5, 5)], [[3.0], [2.5], [1.0], [-1.0]])[0] == pytest.approx(-2.03, abs=0.01)
    assert logistic(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_no_constant_is_better_than_the_mean():
    seen = [seen_at(GRID[0]), seen_at(GRID[1], 3.0)]
    rows, best = join(seen), ConstantFractions().fit(seen).predict(GRID[0], TIMES[:1])[0]
    for shift in ([0.02, -0.02, 0], [-0.02, 0, 0.02], [0, 0.02, -0.02]):
        worse, good = (np.tile(one, (len(rows.cell), 1)) for one in (best + shift, best))
        assert loss_and_slope(rows, worse)[0] > loss_and_slope(rows, good)[0]


def test_persistence_keeps_the_last_value_of_the_nearest_cell():
    early = [Seen(one.inputs, TIMES[:20], one.fractions[:20]) for one in (seen_at(GRID[0]), seen_at(GRID[2], 2.0))]
    fitted = Persistence().fit(early)
    for place, own in ((GRID[0], early[0]), (GRID[2], early[1]), (Place("new", {"pool": 40.0}), early[1])):
        assert fitted.predict(place, TIMES) == pytest.approx(np.vstack([own.fractions, own.fractions[[-1] * 11]]))
    assert fitted.free == 0


def test_the_logistic_finds_its_own_curves_and_times_that_are_powers_of_an_axis():
    seen = [seen_at(place, np.log(place.config["pool"])) for place in GRID]
    fitted = Logistic().fit(seen)
    new = Place("new", {"pool": 1.0})
    expected = seen_at(new, 0.0).fractions
    assert np.abs(fitted.predict(new, TIMES) - expected).max() < 0.05
    assert fitted.free == 8 == len(fitted.parameters())
    assert fitted.fit(curves_of(fitted, GRID)).predict(new, TIMES) == pytest.approx(
        fitted.predict(new, TIMES), abs=0.02
    )


def test_the_logistic_of_one_cell_has_no_axes():
    fitted = Logistic().fit([seen_at(GRID[0])])
    assert fitted.free == 4
    assert np.abs(fitted.predict(Place("any", {}), TIMES) - seen_at(GRID[0]).fractions).max() < 0.02


def test_axes_are_logarithms_where_these_exist(one_line):
    axes = Axes.of([{"pool": 1.0, "noise": 0.0, "same": 3.0}, {"pool": 100.0, "noise": 1.0, "same": 3.0}])
    assert axes.names == ("pool", "noise") and axes.logs == (True, False)
    assert axes.values({"pool": 10.0, "noise": 0.5}) == pytest.approx([0, 0])
    with pytest.raises(InputError) as caught:
        axes.values({"pool": 10.0})
    one_line(caught, "axis", "noise")


def test_baselines_see_a_cells_place_and_nothing_else():
    facts = Facts("pool = 4", {"pool": 4.0}, None, {})
    for one in BASELINES:
        assert one.inputs(facts) == Place("pool = 4", {"pool": 4.0}) and not one.needs_pure
    assert ConstantFractions().fit([seen_at(GRID[0])]).parameters().keys() == {"generalising", "memorising", "neither"}
