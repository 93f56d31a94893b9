"""The hierarchical Bayesian theory: its exact predictors, its limits, and its parameters from its own curves."""

import numpy as np
import pytest
from msgspec.structs import replace

from contest_curves import TIMES, curves_of
from ebbtide.contest import predictors
from ebbtide.contest.bayes import Bayes
from ebbtide.contest.predictors import Costs, _memory_loss, costs, fit_context, share_between
from ebbtide.contest.theory import GENERALISING, MEMORISING, NEITHER, Facts
from ebbtide.errors import InputError
from ebbtide.sources.chains import Chains
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.urns import Urns
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Fixed, PerSequence, Polysemy
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.regression import Regression
from ebbtide.training.spec import Spec

THEORY = Bayes("mdl", a=0.4, b=0.3, g=0.01)
POOLS = [Costs(np.array([0.5, 0.2, 2.0]), np.array([6.0, bits, 0.0])) for bits in (200.0, 800.0, 3200.0, 12800.0)]
NOISE = 2.0
SOURCE = Gaussian(classes=12, exemplars=4, dim=6, noise=NOISE, holdout_classes=2, holdout_exemplars=2)
TASK = FewShot(context=2, burst=1, labels=Fixed())


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch, quick_compile):
    monkeypatch.setattr(predictors, "PROMPTS", 1024)


@pytest.mark.usefixtures("quick_compile")
class TestCosts:
    def test_the_softmax_over_the_context_is_the_posterior_of_gaussian_classes(self, draw):
        """Fitted to prompts, its sharpness is that of the exact posterior, D / (2 (1 - r^2)) for a mean square of 1."""
        source = Gaussian(classes=64, exemplars=4, dim=6, noise=NOISE, holdout_classes=2)
        task = replace(TASK, exemplar_draw="without_replacement")
        prompt = draw(task, source, sequences=4000)
        r = 1 / (1 + NOISE**2)
        loss, sharpness = fit_context(prompt, 66, r)
        assert sharpness == pytest.approx(6 / (2 * (1 - r**2)), rel=0.35)
        assert 0.4 < loss < np.log(2)
        features = np.asarray(source.build().features)[:64, :4]
        assert share_between(features) == pytest.approx(r, abs=0.05)

    def test_losses_and_bits_follow_from_the_spec(self):
        spec = Spec(task=TASK, source=SOURCE)
        found, by_code = costs(spec, "mdl"), costs(spec, "code")
        assert found.losses[MEMORISING] == 0 and found.losses[NEITHER] == pytest.approx(np.log(14))
        assert 0 < found.losses[GENERALISING] < np.log(2)
        assert found.losses.tolist() == by_code.losses.tolist()
        numbers, labels = 12 * 4 * 6, 12 * 4 * np.log2(12)
        assert found.bits[MEMORISING] - labels == pytest.approx(numbers * found.bits[GENERALISING] / 2)
        assert 0.7 * 32 * numbers < by_code.bits[MEMORISING] - by_code.bits[GENERALISING] < 33 * numbers
        assert found.bits[NEITHER] == by_code.bits[NEITHER] == 0

    def test_the_loss_of_memory_depends_on_labels_and_exemplars(self, draw):
        stored, endless = np.asarray(SOURCE.build().features)[:12, :4], replace(SOURCE, infinite=True)
        prompt = draw(TASK, endless, sequences=400)
        means = np.asarray(endless.build().features)[:12]
        assert _memory_loss(replace(TASK, labels=Polysemy(3)), SOURCE, stored, prompt) == pytest.approx(np.log(3))
        assert _memory_loss(replace(TASK, labels=PerSequence(5)), SOURCE, stored, prompt) == pytest.approx(np.log(5))
        assert 0.1 < _memory_loss(TASK, endless, means, prompt) < np.log(12)
        sharp = replace(endless, noise=0.01)
        assert _memory_loss(TASK, sharp, means, draw(TASK, sharp, sequences=400)) < 1e-6

    def test_streams_of_a_pool_have_the_costs_of_their_predictors(self, one_line, monkeypatch):
        monkeypatch.setattr(predictors, "pool_losses", lambda spec: np.array([1.9, 1.5, np.log(spec.outputs())]))
        for source, numbers, each in ((Urns(states=8, pool=16), 16 * 7, 8), (Chains(states=4, pool=3), 3 * 12, 5)):
            found = costs(Spec(task=Markov(context=31), source=source), "mdl")
            assert found.losses.tolist() == [1.9, 1.5, np.log(source.states)]
            assert found.bits == pytest.approx([each / 2, numbers * each / 2, 0], rel=0.02)
        with pytest.raises(InputError) as caught:
            costs(Spec(task=Markov(), source=Chains()), "mdl")
        one_line(caught, "source.pool", 0)

    def test_other_cells_are_refused(self, one_line):
        for facts in (Facts("x", {}), Facts("x", {}, Spec(task=Regression()))):
            with pytest.raises(InputError) as caught:
                THEORY.inputs(facts)
            assert caught.value.field in ("spec", "task") and "\n" not in str(caught.value)


def test_own_parameters_come_back_from_own_curves():
    found = Bayes("mdl").fit(curves_of(THEORY, POOLS))
    assert (found.a, found.b) == (pytest.approx(0.4, abs=0.01), pytest.approx(0.3, abs=0.01))
    assert found.g == pytest.approx(0.01, rel=0.05)
    noisy = found.fit(curves_of(THEORY, POOLS, noise=0.05))
    assert noisy.turn(POOLS[1]) == pytest.approx(THEORY.turn(POOLS[1]), rel=0.1)


def test_the_turn_is_where_both_strategies_weigh_the_same():
    for one in POOLS:
        at = THEORY.predict(one, np.array([THEORY.turn(one), THEORY.onset(one)]))
        assert at[0, MEMORISING] == pytest.approx(at[0, GENERALISING])
        assert at[1, NEITHER] == pytest.approx(at[1, GENERALISING])


def test_the_turn_is_a_power_of_the_number_of_tasks():
    """b / (1 - a), where the gap of the losses is flat and the generalising strategy simple."""
    bits = np.array([1e6, 1e8])
    turns = [THEORY.turn(Costs(np.array([0.5, 0.2, 2.0]), np.array([1.0, one, 0.0]))) for one in bits]
    slope = np.log(turns[1] / turns[0]) / np.log(bits[1] / bits[0])
    assert slope == pytest.approx(0.3 / (1 - 0.4), rel=0.01)


def test_what_never_pays_never_comes():
    worse = Costs(np.array([0.2, 0.5, 2.0]), np.array([6.0, 800.0, 0.0]))
    assert np.isnan(THEORY.turn(worse))
    assert THEORY.predict(worse, np.array([1e9]))[0, MEMORISING] < 1e-6


def test_draws_are_curves_in_which_something_happens():
    random = np.random.default_rng(0)
    for _ in range(20):
        drawn = Bayes("mdl").draw(random, POOLS, TIMES[-1])
        assert 0.009 <= drawn.onset(POOLS[2]) / TIMES[-1] <= 0.11
        assert drawn.turn(POOLS[0]) < drawn.turn(POOLS[3])
