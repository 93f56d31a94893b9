"""The study of Gaussian mixtures: descents that can be followed by hand, and distances from Bayes."""

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, fresh_prompts
from ebbtide.errors import InputError
from ebbtide.models.one_matrix import OneMatrix
from ebbtide.papers.gmm_convergence import attention, descent
from ebbtide.papers.gmm_convergence.figure import draw_descents
from ebbtide.papers.gmm_convergence.study import GMM_CONVERGENCE, QUICK
from ebbtide.papers.registry import find_study
from ebbtide.studies.registration import verdict_seed
from ebbtide.studies.study import setup

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = descent.Descents(
    dim=2, classes=(2, 3), pairs=20, steps=400, every=20, prompts=300, large=300, seeds=2, train_pairs=(40, 160)
)


def test_the_line_ends_where_rounding_begins_and_nothing_is_no_line():
    steps = np.arange(0, 400, 10)
    exact = np.exp(-0.1 * steps)
    slope, straight = descent.fit_line(steps, np.maximum(exact, 1e-13))
    assert slope == pytest.approx(-0.1) and straight == pytest.approx(1)
    assert descent.fit_line(steps, np.exp(-((steps / 20.0) ** 0.5)))[1] < 0.95
    assert descent.fit_line(steps, np.ones(40)) == (0.0, 0.0)


def test_slopes_of_powers_are_their_exponents():
    pairs = (10, 40, 90)
    errors = np.array([[one**-0.5 for one in pairs], [7 / one for one in pairs]])
    np.testing.assert_allclose(descent.log_slope(pairs, errors), [-0.5, -1])


def test_a_small_descent_is_straight_and_longer_tests_and_trainings_are_better():
    arrays = descent.compute(SMALL)
    scalars = descent.summarise(SMALL, arrays)
    for classes in SMALL.classes:
        assert (np.diff(arrays[f"{classes}/distance"][:, :10]) < 0).all()
        assert (scalars[f"{classes} classes: straightness"] > 0.97).all()
        assert (np.diff(arrays[f"{classes}/test"][:, ::2]) < 0).all()
        assert (arrays[f"{classes}/train"][:, 1] < arrays[f"{classes}/train"][:, 0]).all()
        assert (arrays[f"{classes}/accuracy/train"] <= arrays[f"{classes}/bayes/train"][:, None] + 1e-12).all()
        assert arrays[f"{classes}/accuracy/train"][:, 0] == pytest.approx(1 / classes, abs=0.08)
        np.testing.assert_allclose(arrays[f"{classes}/error/norms"][:, 0], arrays[f"{classes}/guess/norms"])
    first = descent.compute(replace(SMALL, seed=1, seeds=2))
    for name in arrays:  # a seed's numbers do not depend on the others
        if name != "steps":
            np.testing.assert_array_equal(arrays[name][1], first[name][0])
    drawn = draw_descents(SMALL, arrays)
    assert set(drawn) == {"figure.png", "figure.svg"} and drawn["figure.png"][:4] == b"\x89PNG"


def test_a_setting_that_cannot_be_computed_is_refused_in_one_line():
    for field, setting in (
        ("every", replace(SMALL, every=30)),
        ("test_pairs", replace(SMALL, test_pairs=(20, 10))),
        ("train_pairs", replace(SMALL, train_pairs=(20,))),
    ):
        with pytest.raises(InputError, match=rf"^{field} = "):
            setting.check()


def test_errors_are_0_at_bayes_and_1_at_a_guess_and_the_best_matrix_is_the_model_of_one_matrix():
    prompts = fresh_prompts(QUICK, "train", 500)
    source = QUICK.source
    w = attention.best_matrix(source, 40)  # pyright: ignore[reportArgumentType] - the source of this spec
    logits = OneMatrix().apply({"w": jnp.asarray(w, jnp.float32)}, prompts.prompt)
    asked = Predictions(np.zeros(1, int), np.asarray(logits, np.float64)[None], prompts, QUICK)
    exact = attention.exact_probabilities(asked)
    assert attention._distance(asked, exact) == 0
    assert attention._distance(asked, np.full_like(exact, 0.5)) == 1
    best = attention.YARDSTICKS[attention.MATRIX](asked)
    ours = np.exp(np.asarray(logits[0], np.float64))
    np.testing.assert_allclose(best, ours / ours.sum(1, keepdims=True), atol=1e-4)
    far = {name: attention._distance(asked, one(asked)) for name, one in attention.YARDSTICKS.items()}
    assert 0 < far[attention.KNOWN] < min(far[attention.ESTIMATED], far[attention.LOGISTIC], far[attention.MATRIX])
    assert max(far.values()) < 0.3


def test_seeds_are_those_of_the_names_and_the_arms_can_be_trained():
    assert find_study("gmm-convergence") is GMM_CONVERGENCE
    plan = setup(GMM_CONVERGENCE, "descent", "quick").plan()
    seeds = plan.seed_words()
    assert str(verdict_seed("gmm-convergence/descent", "quick", round=1)) in seeds
    for preset in ("quick", "cpu", "paper"):
        sweep = setup(GMM_CONVERGENCE, "attention", preset).plan()
        sweep.check()
        for spec in sweep.specs().values():  # pyright: ignore[reportAttributeAccessIssue] - a sweep
            spec.check()
            assert spec.seeds.world == spec.seeds.init
