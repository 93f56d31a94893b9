"""Theories that are told by pure runs: gate by regret, relative cost, learning kinetics."""

import numpy as np
import pytest
from scipy.special import erfc, lambertw

from contest_curves import TIMES, curves_of
from ebbtide.contest.gate import RegretGate, RelativeCost, turn_of
from ebbtide.contest.kinetics import Kinetics, solve
from ebbtide.contest.pure import PureRuns, course_of
from ebbtide.contest.theory import GENERALISING, MEMORISING, NEITHER, Facts
from ebbtide.errors import InputError
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import SGD, WeightDecay
from ebbtide.training.spec import Spec

SPEC = Spec(
    task=FewShot(labels=Shared(2), reserved_labels=0),
    model=Transformer(layers=2),
    optimizer=SGD(lr=0.1, decay=WeightDecay(coefficient=0.01, on="attention")),
)


def falling(time, end=0.0, members=2):
    """Curves of a run whose loss falls from ln 2 to `end` around a time."""
    at = np.linspace(0, TIMES[-1], 401)
    loss = end + (np.log(2) - end) / (1 + (at / time) ** 2)
    loss[0] = np.nan
    return {"sequences": at.astype(int), "train_loss": np.tile(loss, (members, 1))}


def facts(context=2e4, weights=2e5, context_end=0.1, spec=SPEC):
    pure = {"in_context": falling(context, context_end), "in_weights": falling(weights)}
    return Facts(f"{context:g}, {weights:g}", {"source.classes": weights}, spec, pure)


CELLS = [facts(weights=one) for one in (5e4, 1e5, 2e5, 4e5)]


@pytest.mark.parametrize("theory", [RegretGate(2e-4), RelativeCost(4.0), Kinetics(-1.0, 3.0)], ids=lambda one: one.name)
def test_own_parameters_come_back_from_own_curves(theory):
    inputs = [theory.inputs(one) for one in CELLS]
    found = type(theory)().fit(curves_of(theory, inputs))
    assert list(found.parameters().values()) == pytest.approx(list(theory.parameters().values()), rel=0.05)
    noisy = found.fit(curves_of(theory, inputs, noise=0.03))
    for one in inputs:
        assert np.abs(noisy.predict(one, TIMES) - theory.predict(one, TIMES)).max() < 0.1


@pytest.mark.parametrize("theory", [RegretGate(), RelativeCost(), Kinetics()], ids=lambda one: one.name)
def test_draws_are_fractions_in_which_something_happens(theory):
    inputs, random = [theory.inputs(one) for one in CELLS], np.random.default_rng(0)
    assert theory.needs_pure and theory.free == len(theory.parameters())
    for _ in range(10):
        fractions = theory.draw(random, inputs, TIMES[-1]).predict(inputs[2], TIMES)
        assert fractions.min() >= -1e-12 and fractions.sum(axis=1) == pytest.approx(1)
        assert fractions[0, NEITHER] > 0.9 and fractions[-1, NEITHER] < 0.3


@pytest.mark.parametrize("theory", [RegretGate(), RelativeCost(), Kinetics()], ids=lambda one: one.name)
def test_cells_without_pure_runs_are_refused(theory, one_line):
    with pytest.raises(InputError) as caught:
        theory.inputs(Facts("x", {}, SPEC))
    one_line(caught, "pure runs", [])


def test_a_run_is_read_as_what_it_spent():
    course = course_of(
        {"sequences": np.array([0, 10, 30]), "train_loss": np.array([[np.nan, 2.0, 1.0], [0, np.nan, 1]])}
    )
    assert course.spent.tolist() == [20.0, 40.0]
    assert course.spent_at(np.array([5, 30, 50])).tolist() == [10.0, 40.0, 40.0 + 20 * course.end]
    assert course.skill_at(np.array([1, 30])).tolist() == [0.0, 0.5]
    with pytest.raises(InputError):
        course_of({"sequences": np.array([0, 10]), "train_loss": np.full((1, 2), np.nan)})


def test_a_gate_with_equal_costs_stays_at_one_half():
    same = PureRuns(course_of(falling(1e5)), course_of(falling(1e5)))
    assert RegretGate(1.0).preference(same, TIMES) == pytest.approx(0.5)
    other = PureRuns(same.in_context, course_of(falling(3e5)))
    assert RegretGate(1.0).preference(other, TIMES)[-1] == pytest.approx(1)


def test_the_turn_is_where_the_codelengths_cross():
    """The cheaper strategy is first and the one with the smaller loss in the end last, within the runs or beyond."""
    early, late = (RelativeCost().inputs(facts(weights=5e4, context_end=end)) for end in (0.1, 0.01))
    for runs, beyond in ((early, False), (late, True)):
        turn, context_first = turn_of(runs)
        context, weights = (one.spent_at(np.array([turn]))[0] for one in runs)
        assert context_first and context == pytest.approx(weights, rel=1e-3)
        assert (turn > TIMES[-1]) == beyond
        assert RelativeCost(3.0).preference(runs, np.array([turn, turn / 1e3, turn * 1e3])) == pytest.approx(
            [0.5, 1, 0], abs=1e-6
        )
    never = RelativeCost().inputs(facts(context_end=0.0))
    assert turn_of(never) == (np.inf, True)
    assert RelativeCost(3.0).preference(never, TIMES).tolist() == [1.0] * len(TIMES)
    swapped = PureRuns(early.in_weights, early.in_context)
    assert turn_of(swapped) == (pytest.approx(turn_of(early)[0]), False)


@pytest.mark.parametrize(("b0", "w0"), [(-1, 0), (0, 0), (0, 0.3), (-2, 0.1), (0, -0.3)])
def test_the_equations_diverge_when_the_closed_form_says(b0, w0):
    closed = np.exp(-b0) * np.sqrt(np.pi / 2) * np.exp(w0**2 / 2) * erfc(w0 / np.sqrt(2))
    assert solve(np.array([float(b0)]), w0, c2=0.0).tau[-1, 0] == pytest.approx(closed, rel=1e-4)


def test_noise_in_context_makes_acquisition_later():
    for b0, w0, factor in ((0.0, 0.0, 1.09), (-1.0, 0.0, 1.28), (-2.0, 0.1, 2.03)):
        noisy, clean = (solve(np.array([b0]), w0, c2).tau[-1, 0] for c2 in (0.5, 0.0))
        assert noisy / clean == pytest.approx(factor, abs=0.005)


def test_kinetics_reads_memory_from_the_loss_of_two_labels():
    """A loss of ln 2 is a score of 0 and half the probability on the wrong label."""
    theory = Kinetics(-1.0, 1.0)
    seen = theory.inputs(facts(weights=1e12))
    assert seen.score == pytest.approx(0, abs=1e-5)
    assert seen.residual[-1] == pytest.approx(0.5 * 0.1 * TIMES[-1] / (128 * 2), rel=1e-3)
    assert (seen.pairs, seen.decay) == (2, 0.01)


def test_icl_comes_when_memory_has_left_over_enough_and_then_balances_decay():
    theory = Kinetics(-1.0, 0.2)
    slow, fast = (theory.inputs(facts(weights=one)) for one in (1e5, 1e3))
    assert theory.onset(fast) == np.inf and theory.predict(fast, TIMES)[:, GENERALISING].max() < 0.2
    onset = theory.onset(slow)
    before, after = theory.predict(slow, np.array([onset / 2, onset * 1.5]))
    assert before[GENERALISING] < 0.1 and after[GENERALISING] > 0.3
    memory = np.interp(2 * onset, slow.sequences, slow.score)
    assert theory.context_score(slow, np.array([2 * onset])) == pytest.approx(lambertw(np.exp(-memory) / 0.01).real)


def test_without_decay_of_the_attention_icl_stays():
    kept = Spec(task=SPEC.task, model=SPEC.model, optimizer=SGD(lr=0.1, decay=WeightDecay(coefficient=0.01, on="mlp")))
    theory = Kinetics(-1.0, 1.0)
    ends = [theory.predict(theory.inputs(facts(spec=one)), np.array([1e8]))[0] for one in (SPEC, kept)]
    assert ends[0][MEMORISING] > 0.8 and ends[1][GENERALISING] > 0.9
