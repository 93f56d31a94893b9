"""The coopetition law: its mean field against the law of vectors, and its parameters from its own curves."""

import numpy as np
import pytest

from contest_curves import TIMES, curves_of
from ebbtide.contest import coopetition
from ebbtide.contest.coopetition import Coopetition, Law, solve
from ebbtide.contest.theory import GENERALISING, MEMORISING, NEITHER, Facts
from ebbtide.mechanisms.laws import Competition, descend
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.urns import Urns
from ebbtide.tasks.markov import Markov
from ebbtide.training.spec import Spec

THEORY = Coopetition(mu1=0.1, alpha=0.1, dims=4.0, scale=50.0)
ITEMS = [10.0, 20.0, 40.0, 80.0]


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """A coarser grid, around the theory above."""
    monkeypatch.setattr(coopetition, "MU1", np.geomspace(0.02, 0.5, 3))
    monkeypatch.setattr(coopetition, "ALPHA", np.geomspace(0.02, 0.5, 3))
    monkeypatch.setattr(coopetition, "SLOW", np.geomspace(20.0, 640.0, 6))


def test_the_solution_is_that_of_gradient_descent_on_the_law():
    """Both mechanisms, while either comes and while the first one goes."""
    law = Competition(dim=20, slow_dim=160, mu1=0.1, alpha=0.1)
    target = np.array(law.dims, np.float64)[:, None]
    descent = descend(law, np.stack([target, np.sqrt(target), target]), 1.0, 3000, every=1000)
    found = solve(Law(np.array([0.1]), np.array([0.1]), np.array([160.0])), 1.0 * descent.steps)
    assert found[:, :, 0] == pytest.approx(descent.losses[1:3, 0].T, abs=0.015)
    assert descent.losses[1, 0].min() < 0.01 < 0.2 < descent.losses[1, 0, -1]


def test_own_parameters_come_back_from_own_curves():
    found = Coopetition().fit(curves_of(THEORY, ITEMS))
    assert list(found.parameters().values()) == pytest.approx([0.1, 0.1, 4.0, 50.0], rel=0.1)
    noisy = found.fit(curves_of(THEORY, ITEMS, noise=0.03))
    assert np.abs(noisy.predict(20.0, TIMES) - THEORY.predict(20.0, TIMES)).max() < 0.1


def test_context_comes_first_and_memory_last_the_later_the_more_there_is_to_keep():
    few, many = (THEORY.predict(one, TIMES) for one in (10.0, 80.0))
    for one in (few, many):
        assert one.min() >= -1e-12 and one.sum(axis=1) == pytest.approx(1)
        assert one[0, NEITHER] > 0.95 and one[:, GENERALISING].max() > 0.5 and one[-1, MEMORISING] > 0.9
    assert (many[:, MEMORISING] > 0.5).argmax() > (few[:, MEMORISING] > 0.5).argmax()


def test_it_sees_how_much_there_is_to_memorise_and_nothing_else():
    assert THEORY.inputs(Facts("x", {})) == 1
    assert THEORY.inputs(Facts("x", {}, Spec(source=Gaussian(classes=200)))) == 200
    assert THEORY.inputs(Facts("x", {}, Spec(task=Markov(), source=Urns(pool=16)))) == 16
    assert not THEORY.needs_pure and THEORY.free == 4


def test_draws_are_curves_in_which_something_happens():
    random = np.random.default_rng(0)
    for _ in range(10):
        fractions = Coopetition().draw(random, ITEMS, TIMES[-1]).predict(ITEMS[2], TIMES)
        assert fractions[0, NEITHER] > 0.5 and fractions[-1, NEITHER] < 0.3
