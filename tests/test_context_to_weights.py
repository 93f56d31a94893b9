"""The measures of the study `context-to-weights`, on models whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.mechanisms.conversion import add_biases
from ebbtide.models.transformer import Transformer
from ebbtide.papers.context_to_weights import measures, study, through_training
from ebbtide.papers.context_to_weights.claims import DIM, FEATURES, NOISE, PAIRS, STEP, slope
from ebbtide.papers.context_to_weights.measures import compare_weights
from ebbtide.training.driver import train
from ebbtide.training.run import Run

pytestmark = pytest.mark.usefixtures("quick_compile")


def brief(spec: eb.Spec, folder) -> Run:
    """A run of a few steps."""
    assert isinstance(spec.model, Transformer)
    small = replace(spec.model, width=16, heads=2) if spec.model.width > 16 else spec.model
    spec = replace(spec, model=small, sequences=128, evaluation_sequences=20)
    return train(replace(spec, schedule=eb.Schedule(evaluations=2, checkpoints=2)), folder, processes=0)


@pytest.mark.parametrize("spec", [study.RECALL, study.INDUCTION], ids=["recall", "induction"])
def test_a_model_converted_answers_as_with_the_context_on_every_prompt(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "PROMPTS", 100)
    found = measures.measure_recall.__wrapped__(brief(spec, tmp_path / "run").snapshot(), 0)
    assert found.differing == 0 and found.error < 1e-5 < 1e-2 < found.dropped_error
    assert found.told == found.converted


@pytest.mark.thorough
def test_random_features_are_measured_at_every_number(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "FEW", 20)
    found, errors = measures.measure_features.__wrapped__(brief(study.BY_SOFTMAX, tmp_path / "run").snapshot(), 0)
    assert len(errors) == len(FEATURES) and found.error == errors[-1] < errors[0]


def test_the_function_in_the_biases_is_what_they_add_to_the_output(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "PROMPTS", 20)
    run = brief(study.REGRESSION, tmp_path / "run")
    found = measures.measure_weights.__wrapped__(run.snapshot(), 0)
    assert np.isfinite(found.rate) and 0 < found.error <= 1


def test_weights_that_are_a_step_are_recognised():
    step = np.random.default_rng(0).standard_normal((50, 4))
    found = compare_weights(0.7 * step, step)
    assert abs(found.rate - 0.7) < 1e-12 and found.error < 1e-12
    assert compare_weights(np.random.default_rng(1).standard_normal((50, 4)), step).error > 0.9


def test_the_best_rate_of_one_step_is_the_best():
    """Least squares of w'x on (1/N) X'y . x, for prompts of the task."""
    random, pairs, dim = np.random.default_rng(0), PAIRS, DIM
    w = random.standard_normal((200_000, dim)) / dim**0.5
    x = random.standard_normal((200_000, pairs, dim))
    y = np.einsum("bnd,bd->bn", x, w) + NOISE * random.standard_normal((200_000, pairs))
    step = np.einsum("bnd,bn->bd", x, y) / pairs
    assert abs((w * step).sum() / (step**2).sum() - STEP) < 5e-3


def test_the_slope_is_that_of_the_logs():
    assert abs(slope(tuple(3.0 * count**-0.5 for count in FEATURES)) + 0.5) < 1e-12


def test_with_the_own_state_answers_are_those_with_the_context(tmp_path):
    """And with another prompt's state those of the query put after the other context."""
    run = brief(through_training.TRANSIENT, tmp_path / "run")
    model, params = run.model(0)
    prompts = eb.prompts_of(run.spec, "train", 40)
    answers = through_training.answer_by_state(*add_biases(model, params), prompts)
    assert np.array_equal(answers.own, model.apply(params, prompts).argmax(-1))
    moved = jnp.concatenate([prompts.exemplars[:-1], jnp.roll(prompts.exemplars[-1:], -1, axis=1)])
    exchanged = model.apply(params, prompts._replace(exemplars=moved))
    assert np.array_equal(answers.next, exchanged.argmax(-1))


def test_shares_count_the_answers_of_each_state(tmp_path):
    """A model that always knows the label of training, whatever state it is given."""
    run = brief(through_training.TRANSIENT, tmp_path / "run")
    training, conflict = (eb.prompts_of(run.spec, name, 40) for name in ("train", "flip"))
    knows = through_training.Answers(training.target, np.roll(training.target, -1), training.target)
    own = through_training.Answers(conflict.own_label, conflict.own_label, conflict.own_label)
    assert through_training.shares(knows, training, own, conflict) == (1.0, 1.0, 1.0, 0.0, 1.0)


def test_the_state_is_measured_at_every_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(through_training, "PROMPTS", 40)
    found = through_training.measure_carried.__wrapped__(
        brief(through_training.TRANSIENT, tmp_path / "run").snapshot(), 0
    )
    assert found.sequences.tolist() == [0, 128] and found.carried.shape == (2,)
    assert through_training.fall(np.asarray([0.25, 0.9, 0.6])) == pytest.approx(0.3)
