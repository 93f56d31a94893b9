"""Transformers with written-down weights compute what they say, to rounding; with wrong weights they do not."""

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.evaluation.baselines import ridge
from ebbtide.mechanisms.construction import Head, Layer, Unit, construct_model
from ebbtide.models.transformer import Transformer
from ebbtide.verify.constructions import lasso_descent, ridge_descent, selection, smoother
from ebbtide.verify.functions import descent

pytestmark = pytest.mark.usefixtures("quick_compile")

N, BATCH, DIM = 6, 5, 3
RATE = 0.05


@pytest.fixture(scope="module")
def prompts() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    x = random.standard_normal((N + 1, BATCH, DIM))
    w = random.standard_normal((BATCH, DIM))
    return x, np.einsum("sbd,bd->sb", x, w)[:-1] + 0.5 * random.standard_normal((N, BATCH))


def said(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return (x[-1] * w).sum(-1)


def test_ridge_descent_takes_the_steps_and_a_wrong_rate_does_not(prompts):
    x, y = prompts
    exact = said(x, descent(x, y, 3, RATE, 0.7))
    np.testing.assert_allclose(ridge_descent(DIM, N, 3, RATE, 0.7).answer(x, y), exact, atol=1e-14)
    unaware_of_the_query = ridge_descent(DIM, N, 3, RATE * N / (N + 1), 0.7).answer(x, y)
    assert np.abs(unaware_of_the_query - exact).max() > 1e-2
    assert np.abs(ridge_descent(DIM, N, 3, RATE, 0.0).answer(x, y) - exact).max() > 1e-2, "the penalty counts too"


def test_the_query_input_of_other_prompts_and_the_order_of_pairs_change_nothing(prompts):
    x, y = prompts
    model = ridge_descent(DIM, N, 3, RATE, 0.7)
    turned = np.concatenate([x[:-1][::-1], x[-1:]])
    np.testing.assert_allclose(model.answer(turned, y[::-1]), model.answer(x, y), atol=1e-14)
    far = x.copy()
    far[-1] *= 1e3
    np.testing.assert_allclose(model.answer(far, y), 1e3 * model.answer(x, y), rtol=1e-12)


def test_a_singular_design_and_more_dimensions_than_pairs_are_no_special_case():
    random = np.random.default_rng(4)
    x = random.standard_normal((4, BATCH, 5))
    x[2] = x[1]  # three pairs in five dimensions, two of them alike
    y = random.standard_normal((3, BATCH))
    exact = ridge(x, np.concatenate([y, np.zeros((1, BATCH))]), 2.0)[-1]
    np.testing.assert_allclose(ridge_descent(5, 3, 200, 0.08, 2.0).answer(x, y), exact, atol=1e-12)


def test_the_smoother_weighs_pairs_by_likeness_and_not_by_order(prompts):
    x, y = prompts
    weight = np.exp(1.5 * np.einsum("sbd,bd->sb", x[:-1], x[-1]))
    exact = (weight * y).sum(0) / weight.sum(0)
    model = smoother(DIM, N, 1.5)
    np.testing.assert_allclose(model.answer(x, y), exact, atol=1e-14)
    turned = np.concatenate([x[:-1][::-1], x[-1:]])
    np.testing.assert_allclose(model.answer(turned, y[::-1]), exact, atol=1e-14)
    assert np.abs(smoother(DIM, N, 1.5 * 2**0.5).answer(x, y) - exact).max() > 1e-2, "the scale counts"


def test_lasso_descent_takes_the_steps_of_ista_and_makes_exact_zeros(prompts):
    x, y = prompts
    exact = said(x, descent(x, y, 4, 0.3, 0.4, sparse=True))
    ours = lasso_descent(DIM, N, 4, 0.3, 0.4).answer(x, y)
    np.testing.assert_allclose(ours, exact, atol=1e-14)
    assert np.abs(lasso_descent(DIM, N, 4, 0.27, 0.4).answer(x, y) - exact).max() > 1e-3
    assert (lasso_descent(DIM, N, 4, 0.3, 1e3).answer(x, y) == 0).all()


def test_selection_takes_the_fit_that_is_better_on_the_held_pairs(prompts):
    x, y = prompts
    each = [(RATE, 0.1), (RATE / 2, 10.0)]
    fits = [descent(x, y[:-2], 3, *one) for one in each]
    losses = [np.square(np.einsum("sbd,bd->sb", x[-3:-1], w) - y[-2:]).sum(0) for w in fits]
    first = losses[0] < losses[1]
    assert 0 < first.sum() < BATCH, "both are chosen somewhere"
    best = np.where(first, said(x, fits[0]), said(x, fits[1]))
    words = {"rates": (RATE, RATE / 2), "penalties": (0.1, 10.0), "held": 2}
    ours = selection(DIM, N, 3, **words, by="validation", margin=1e-6).answer(x, y)
    np.testing.assert_allclose(ours, best, atol=1e-12)
    half = selection(DIM, N, 3, **words, by="validation", margin=1e9).answer(x, y)
    np.testing.assert_allclose(half, (said(x, fits[0]) + said(x, fits[1])) / 2, atol=1e-6)


def test_selection_by_labels_tests_whether_all_responses_are_labels(prompts):
    x, y = prompts
    y = y.copy()
    y[:, :3] = np.sign(y[:, :3])
    y[0, 2] += 0.05  # half of the margin: halfway between the two
    fits = [said(x, descent(x, y, 3, *one)) for one in ((RATE, 0.1), (RATE / 2, 10.0))]
    share = np.array([1.0, 1.0, 0.5, 0.0, 0.0])
    words = {"rates": (RATE, RATE / 2), "penalties": (0.1, 10.0), "held": 0}
    ours = selection(DIM, N, 3, **words, by="labels", margin=0.1).answer(x, y)
    np.testing.assert_allclose(ours, share * fits[0] + (1 - share) * fits[1], atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ridge_descent(3, 4, 2, 0.0, 1.0), r"rate = 0.0: must be a number above 0, the step size"),
        (lambda: ridge_descent(3, 4, 0, 0.1, 1.0), r"steps = 0: must be at least 1"),
        (lambda: ridge_descent(3, 4, 2, 0.1, -1.0), r"penalty = -1.0: must be a number from 0 on"),
        (lambda: lasso_descent(3, 4, 2, 0.1, 0.0), r"penalty = 0.0: .*use ridge_descent"),
        (lambda: smoother(3, 4, 0.0), r"scale = 0.0: must be a number above 0: at 0 it is the plain mean"),
        (
            lambda: selection(3, 4, 2, (0.1, 0.1), (1.0, 2.0), by="validation", held=4, margin=1.0),
            r"held = 4: must be from 1 to context - 1 = 3",
        ),
        (
            lambda: selection(3, 4, 2, (0.1, 0.1), (1.0, 0.0), by="labels", held=0, margin=1.0),
            r"penalties = 0.0: must be a number above 0",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_what_does_not_fit_into_a_layer_is_refused(prompts):
    x, y = prompts
    with pytest.raises(InputError, match="shape of y"):
        ridge_descent(DIM, N, 1, RATE, 1.0).answer(x, y[1:])
    model = Transformer(layers=1, width=4, heads=2, mlp_ratio=0, pairing="joint", mask="none", norm="none")
    wide = Head([(slice(0, 3), slice(0, 3), 1.0)], [])
    for layer, message in (
        (Layer([wide]), "compared coordinates = 3: must be at most 2"),
        (Layer([Head([], [(slice(0, 3), slice(0, 3), 1.0)])]), "moved coordinates = 3"),
        (Layer([Head([], [])] * 3), "heads of a layer = 3"),
        (Layer([], [Unit([], 0.0, [])]), "model.mlp_ratio"),
    ):
        with pytest.raises(InputError, match=message):
            construct_model(model, [layer], x=slice(0, 2), y=2, marks=np.zeros((3, 4)), reads=[])
