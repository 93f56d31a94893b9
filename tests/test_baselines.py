"""Classical predictors: against other implementations, closed forms, limits and invariances."""

import math
from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
from scipy.linalg import lstsq
from scipy.stats import multivariate_normal
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from ebbtide.errors import InputError
from ebbtide.evaluation import baselines, baselines_convex
from ebbtide.evaluation.baselines import averaging, kernel_smoother, least_squares, linear_posterior, nearest, ridge
from ebbtide.evaluation.baselines_convex import lasso, logistic
from ebbtide.evaluation.bayes import finite_pool, mixed_ridge, pool_posterior, ridge_risk
from ebbtide.evaluation.concepts import concept_average, cue_frequencies, marginal
from ebbtide.evaluation.invariance import invariance_gap
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.verify import functions as verify_functions

pytestmark = pytest.mark.usefixtures("quick_compile")

SLOTS, BATCH, DIM = 12, 6, 5
each_seed = pytest.mark.parametrize("seed", [0, 1, 2])


def draw(seed: int, slots: int = SLOTS, batch: int = BATCH, dim: int = DIM, noise: float = 0.5, scale: float = 1.0):
    """Inputs, responses and weights of noisy linear functions."""
    random = np.random.default_rng(seed)
    x, w = random.normal(size=(slots, batch, dim)), scale * random.normal(size=(batch, dim))
    return x, np.einsum("sbd,bd->sb", x, w) + noise * random.normal(size=(slots, batch)), w


def fitted(model: Any, x: np.ndarray, y: np.ndarray, slot: int) -> np.ndarray:
    """Predictions of a model of scikit-learn at one slot."""
    return np.array([model.fit(x[:slot, b], y[:slot, b]).predict(x[slot, b][None])[0] for b in range(x.shape[1])])


PREDICTORS = {
    "ridge": lambda x, y: ridge(x, y, 0.3),
    "least squares": least_squares,
    "averaging": averaging,
    "nearest": nearest,
    "lasso": lambda x, y: lasso(x, y, 0.05),
    "logistic": lambda x, y: logistic(x, np.sign(y), 0.5),
    "smoother": lambda x, y: kernel_smoother(x, y, 0.7),
    "mixed ridge": lambda x, y: mixed_ridge(x, y, (0.1, 1.0), 1.0).predictions,
    "pool": lambda x, y: finite_pool(x, y, np.random.default_rng(9).normal(size=(7, x.shape[2])), 0.5),
}
each_predictor = pytest.mark.parametrize("predict", PREDICTORS.values(), ids=PREDICTORS)


@each_predictor
def test_a_slot_sees_the_pairs_before_it_and_nothing_else(predict):
    x, y, _ = draw(0)
    whole, other_y, other_x = predict(x, y), y.copy(), x.copy()
    other_y[7:] += 3
    other_x[8:] *= -2
    np.testing.assert_allclose(predict(other_x, other_y)[:8], whole[:8], atol=1e-9)
    np.testing.assert_allclose(predict(x[:8], y[:8]), whole[:8], atol=1e-9)


@each_predictor
def test_the_order_of_the_pairs_and_the_company_in_the_batch_do_not_matter(predict):
    x, y, _ = draw(1)
    whole, order = predict(x, y), np.append(np.random.default_rng(0).permutation(SLOTS - 1), SLOTS - 1)
    np.testing.assert_allclose(predict(x[order], y[order])[-1], whole[-1], atol=1e-7)
    np.testing.assert_allclose(predict(x[:, 2:3], y[:, 2:3]), whole[:, 2:3], atol=1e-9)


@each_predictor
def test_blocks_of_prompts_change_nothing(predict, monkeypatch):
    x, y, _ = draw(2)
    whole = predict(x, y)
    monkeypatch.setattr(baselines, "BLOCK", 1)
    np.testing.assert_allclose(predict(x, y), whole, atol=1e-9)


@each_predictor
def test_single_precision_is_computed_in_double(predict):
    x, y, _ = (values.astype(np.float32) for values in draw(3))
    np.testing.assert_array_equal(predict(x, y), predict(x.astype(np.float64), y.astype(np.float64)))
    assert predict(x, y).dtype == np.float64


LINEAR = {k: PREDICTORS[k] for k in ("ridge", "least squares", "averaging", "lasso")}


@pytest.mark.parametrize("predict", LINEAR.values(), ids=LINEAR)
def test_rotated_or_mirrored_inputs_have_the_same_predictions(predict):
    x, y, _ = draw(4)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
    if predict is PREDICTORS["lasso"]:  # whose norm knows the axes
        turn = np.eye(DIM)[::-1] * np.array([1, -1, 1, -1, 1.0])
    np.testing.assert_allclose(predict(x @ turn, y), predict(x, y), atol=1e-9)
    np.testing.assert_allclose(predict(x, -y), -predict(x, y), atol=1e-9)


@each_seed
@pytest.mark.parametrize("penalty", [1e-9, 0.1, 3.0])
def test_ridge_is_scikit_learn_s(seed, penalty):
    x, y, _ = draw(seed)
    for slot in (1, 4, 5, 6, 11):
        theirs = fitted(Ridge(alpha=penalty, fit_intercept=False, solver="svd"), x, y, slot)
        np.testing.assert_allclose(ridge(x, y, penalty)[slot], theirs, atol=1e-11)
        dual = fitted(KernelRidge(alpha=penalty, kernel="linear"), x, y, slot) if penalty > 0.01 else theirs
        np.testing.assert_allclose(ridge(x, y, penalty)[slot], dual, atol=1e-12 if penalty > 0.01 else 1e-11)


@each_seed
def test_the_spread_is_the_quadratic_form(seed):
    x, y, _ = draw(seed)
    spread = linear_posterior(x, y, 0.2).spread
    for slot in range(SLOTS):
        for b in range(BATCH):
            system = x[:slot, b].T @ x[:slot, b] + 0.2 * np.eye(DIM)
            np.testing.assert_allclose(spread[slot, b], x[slot, b] @ np.linalg.inv(system) @ x[slot, b], rtol=1e-11)


@each_seed
@pytest.mark.parametrize("design", ["full", "subspace", "repeated", "zero"])
def test_least_squares_is_scipy_s_on_every_design(seed, design):
    x, y, _ = draw(seed)
    if design == "subspace":
        x = x @ np.diag([1.0, 1, 1, 0, 0]) @ np.random.default_rng(seed).normal(size=(DIM, DIM))
    if design == "repeated":
        x[1::2] = x[::2]
    if design == "zero":
        x[:, 0] = 0
    ours = least_squares(x, y)
    for slot in range(1, SLOTS):
        theirs = [x[slot, b] @ lstsq(x[:slot, b], y[:slot, b], cond=1e-12)[0] for b in range(BATCH)]  # pyright: ignore
        np.testing.assert_allclose(ours[slot], theirs, rtol=1e-8, atol=1e-9)
    if design in ("full", "zero"):
        np.testing.assert_allclose(ridge(x, y, 1e-10), ours, atol=1e-5)


@each_seed
@pytest.mark.parametrize("penalty", [0.001, 0.03, 0.5])
def test_the_lasso_is_scikit_learn_s(seed, penalty):
    x, y, _ = draw(seed)
    slots = (1, 7, 11)
    ours = lasso(x, y, penalty, slots)
    theirs = Lasso(alpha=penalty, fit_intercept=False, tol=1e-13, max_iter=100_000)
    for row, slot in enumerate(slots):
        np.testing.assert_allclose(ours[row], fitted(theirs, x, y, slot), atol=1e-7)


@pytest.mark.parametrize("design", ["few pairs", "equal columns", "opposite columns", "signs", "zero column"])
@pytest.mark.parametrize("penalty", [1e-6, 0.01, 0.3])
def test_the_lasso_meets_its_conditions_where_sweeps_are_slow_or_solutions_many(design, penalty):
    """|x_j'R|/t <= penalty, and = penalty sign(w_j) where w_j is not 0: tested on inputs e_j, which read w off."""
    x, y, _ = draw(5, slots=4 if design == "few pairs" else 8, batch=40)
    if design in ("equal columns", "opposite columns"):
        x[..., 1] = x[..., 0] * (1 if design == "equal columns" else -1)
    if design == "signs":
        x, y = np.sign(x), np.sign(y)
    if design == "zero column":
        x[..., 2] = 0
    pairs = len(x)
    w = np.stack(
        [
            lasso(np.concatenate([x, np.broadcast_to(e, (1, 40, DIM))]), np.concatenate([y, y[:1]]), penalty, [pairs])[
                0
            ]
            for e in np.eye(DIM)
        ],
        axis=-1,
    )
    slope = np.einsum("sbd,sb->bd", x, y - np.einsum("sbd,bd->sb", x, w)) / pairs
    assert np.abs(slope).max() <= penalty + 2e-6
    objective_gap = penalty * np.abs(w).sum(-1) - (slope * w).sum(-1)
    assert np.abs(objective_gap).max() < 1e-5


def test_a_large_penalty_leaves_nothing():
    x, y, _ = draw(0)
    assert np.abs(lasso(x, y, 1e3)).max() == 0 and np.abs(ridge(x, y, 1e12)).max() < 1e-9


@each_seed
@pytest.mark.parametrize("penalty", [0.01, 1.0, 10.0])
def test_logistic_regression_is_scikit_learn_s(seed, penalty):
    x, y, _ = draw(seed)
    labels = np.where(y > 0, 1.0, -1.0)
    slots = (8, 11)
    labels[0], labels[1] = 1, -1
    ours = logistic(x, labels, penalty, slots)
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-12, solver="newton-cholesky", max_iter=1000)
    for row, slot in enumerate(slots):
        for b in range(BATCH):
            theirs = model.fit(x[:slot, b], labels[:slot, b]).predict_proba(x[slot, b][None])[0, 1]
            np.testing.assert_allclose(ours[row, b], theirs, atol=1e-8)


@pytest.mark.parametrize("penalty", [1e-12, 1e-6, 1e-2])
def test_logistic_regression_of_separable_labels_is_finite_and_sure(penalty):
    x, y, _ = draw(0, slots=40, noise=0.0)
    said = logistic(x, np.sign(y), penalty)
    assert np.isfinite(said).all() and (said[0] == 0.5).all()
    far = np.abs(y[30:]) > 1
    assert ((said[30:] > 0.5) == (y[30:] > 0))[far].all()
    surer = logistic(1e3 * x, np.sign(y), penalty)
    assert np.isfinite(surer).all() and np.abs(surer[30:] - (y[30:] > 0))[far].max() < 0.01


@each_seed
@pytest.mark.parametrize("k", [1, 3, 20])
def test_nearest_is_scikit_learn_s_and_uses_what_there_is(seed, k):
    x, y, _ = draw(seed)
    for slot in (1, 2, 5, 11):
        theirs = fitted(KNeighborsRegressor(min(k, slot), algorithm="brute"), x, y, slot)
        np.testing.assert_allclose(nearest(x, y, k)[slot], theirs, atol=1e-12)


def test_the_nearest_of_a_repeated_input_is_its_response():
    x, y, _ = draw(0)
    x[-1] = x[3]
    np.testing.assert_array_equal(nearest(x, y, 1)[-1], y[3])


def test_averaging_is_least_squares_where_the_inputs_are_orthogonal():
    x, y, _ = draw(0, slots=DIM + 1)
    x[:DIM] = math.sqrt(DIM) * np.eye(DIM)[:, None]
    np.testing.assert_allclose(averaging(x, y)[-1], least_squares(x, y)[-1], atol=1e-12)


def test_the_smoother_goes_from_the_mean_to_the_most_alike():
    x, y, _ = draw(0)
    np.testing.assert_allclose(kernel_smoother(x, y, 0.0)[1:], (np.cumsum(y, 0) / np.arange(1, 13)[:, None])[:-1])
    alike = np.einsum("sbd,bd->sb", x[:-1], x[-1]).argmax(0)
    np.testing.assert_allclose(kernel_smoother(x, y, 1e6)[-1], np.take_along_axis(y, alike[None], 0)[0])


def test_the_smoother_shrinks_linear_functions_on_the_sphere_as_theory_says():
    """A_3(8) = coth 8 - 1/8 = .875."""
    random = np.random.default_rng(0)
    keys = random.normal(size=(40_001, 2, 3))
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    y = keys @ (np.array([2.0, -4.0, 1.0]) / math.sqrt(21))
    score = 8.0 * np.einsum("sbd,bd->sb", keys[:-1], keys[-1])
    np.testing.assert_allclose((np.exp(score) * y[:-1]).sum(0) / np.exp(score).sum(0), 0.875 * y[-1], atol=0.03)
    few = kernel_smoother(keys[-200:], y[-200:], 8.0)[-1]
    score = score[-199:]
    np.testing.assert_allclose(few, (np.exp(score) * y[-200:-1]).sum(0) / np.exp(score).sum(0), rtol=1e-12)


@each_seed
def test_the_risk_of_ridge_is_what_it_says(seed):
    x, y, _ = draw(seed, batch=4000, dim=4, noise=0.4, scale=0.7)
    excess = (y - ridge(x, y, (0.4 / 0.7) ** 2)) ** 2 - ridge_risk(x, 0.4, 0.7)
    assert (np.abs(excess.mean(1)) < 4 * excess.std(1) / math.sqrt(4000)).all()


def test_no_other_penalty_does_better():
    x, y, _ = draw(3, batch=3000, noise=0.4, scale=0.7)
    best = (y - ridge(x, y, (0.4 / 0.7) ** 2))[-1] ** 2
    for penalty in (0.01, 3.0):
        difference = (y - ridge(x, y, penalty))[-1] ** 2 - best
        mean, low, _ = paired_bootstrap(difference, seed=0, resamples=500)
        assert mean > 0 and low > 0


REFERENCE = {  # sigma: errors at penalties .2, 1.25, 5, 20; d = N = 20, prior variance 1/20 (Bai et al.'s setting)
    0.1: (0.115, 0.159, 0.267, 0.465),
    0.25: (0.405, 0.292, 0.350, 0.527),
    0.5: (1.439, 0.767, 0.647, 0.746),
    1.0: (5.58, 2.66, 1.83, 1.62),
}


def test_ridge_has_the_reference_errors_of_the_penalty_trade_off():
    batch = 1200
    x, clean, _ = draw(0, slots=21, batch=batch, dim=20, noise=0.0, scale=20**-0.5)
    noise = np.random.default_rng(1).normal(size=clean.shape)
    for column, penalty in enumerate((0.2, 1.25, 5.0, 20.0)):
        of_clean, of_noise = (clean - ridge(x, clean, penalty))[-1], (noise - ridge(x, noise, penalty))[-1]
        for sigma, row in REFERENCE.items():  # ridge is linear in the responses
            error = (of_clean + sigma * of_noise) ** 2
            assert abs(error.mean() - row[column]) < 4 * error.std() / math.sqrt(batch) + 0.005, (sigma, penalty)


def test_one_level_of_noise_is_ridge():
    x, y, _ = draw(0)
    one = mixed_ridge(x, y, [0.5], 2.0)
    np.testing.assert_allclose(one.predictions, ridge(x, y, 0.0625), rtol=1e-13)
    assert (one.posterior == 1).all()
    same = mixed_ridge(x, y, [0.5, 0.5], 2.0, [3.0, 1.0])
    np.testing.assert_allclose(same.predictions, ridge(x, y, 0.0625), rtol=1e-12)
    np.testing.assert_allclose(same.posterior, np.broadcast_to([0.75, 0.25], same.posterior.shape))


def cov(gram: Any, noise: float) -> Any:
    """Covariance of noisy responses."""
    return gram + noise**2 * np.eye(len(gram))


@each_seed
def test_the_posterior_of_the_levels_is_by_their_marginal_likelihoods(seed):
    x, y, _ = draw(seed)
    noises, prior, weights = (0.1, 0.5, 2.0), 0.8, (1.0, 2.0, 5.0)
    posterior = mixed_ridge(x, y, noises, prior, weights).posterior
    np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-12)
    for slot in (1, 4, 5, 11):
        for b in range(BATCH):
            seen = x[:slot, b]
            gram = prior**2 * seen @ seen.T
            log = [
                math.log(w) + multivariate_normal.logpdf(y[:slot, b], np.zeros(slot), cov(gram, s))
                for s, w in zip(noises, weights, strict=True)
            ]
            theirs = np.exp(np.array(log) - np.logaddexp.reduce(log))
            np.testing.assert_allclose(posterior[slot, b], theirs, rtol=1e-8, atol=1e-12)


def test_the_mixture_has_the_reference_errors():
    """d = N = 8, prior variance 1/8, noise .1 or .5: (.150, .671), the right level's posterior .78 on average."""
    batch, rights = 2500, []
    for level, want in enumerate((0.150, 0.671)):
        x, y, _ = draw(level, slots=9, batch=batch, dim=8, noise=(0.1, 0.5)[level], scale=8**-0.5)
        found = mixed_ridge(x, y, (0.1, 0.5), 8**-0.5)
        error = (y - found.predictions)[-1] ** 2
        assert abs(error.mean() - want) < 4 * error.std() / math.sqrt(batch) + 0.004
        rights.append(found.posterior[-1, :, level].mean())
    assert abs(np.mean(rights) - 0.78) < 0.02


def test_a_pool_of_one_task_is_that_task():
    x, y, w = draw(0)
    np.testing.assert_allclose(finite_pool(x, y, w[:1], 0.3), x @ w[0], rtol=1e-12)


@each_seed
@pytest.mark.parametrize("noise", [0.5, 5.0])
def test_the_pool_s_posterior_is_bayes_rule(seed, noise):
    x, y, _ = draw(seed)
    pool = np.random.default_rng(seed).normal(size=(9, DIM))
    posterior = pool_posterior(x, y, pool, noise)
    np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(posterior[0], 1 / 9)
    log = np.array([[-0.5 * np.sum((y[:7, b] - x[:7, b] @ w) ** 2) / noise**2 for w in pool] for b in range(BATCH)])
    by_hand = np.exp(log - np.logaddexp.reduce(log, axis=1, keepdims=True))
    np.testing.assert_allclose(posterior[7], by_hand, rtol=1e-10, atol=1e-300)
    mean = np.einsum("bk,kd,bd->b", by_hand, pool, x[7])
    np.testing.assert_allclose(finite_pool(x, y, pool, noise)[7], mean, rtol=1e-10)


@pytest.mark.parametrize("noise", [1e-8, 1e-200])
def test_ten_thousand_tasks_and_next_to_no_noise(noise):
    random = np.random.default_rng(0)
    pool = random.normal(size=(10_000, DIM))
    x = random.normal(size=(6, 3, DIM))
    y = np.einsum("sbd,bd->sb", x, pool[:3])
    np.testing.assert_allclose(finite_pool(x, y, pool, noise)[2:], y[2:], atol=1e-9)
    astray = finite_pool(x, y + 100.0, pool, noise)  # no task fits: the nearest, not nan
    assert np.isfinite(astray).all()


def test_a_large_pool_from_the_prior_tends_to_ridge():
    x, y, _ = draw(0, slots=6, batch=40, dim=2, noise=1.0)
    gaps = []
    for tasks in (30, 20_000):
        pool = np.random.default_rng(1).normal(size=(tasks, 2))
        gaps.append(np.abs(finite_pool(x, y, pool, 1.0) - ridge(x, y, 1.0)).mean())
    assert gaps[1] < 0.03 < gaps[0]


def concepts(seed: int, number: int = 6):
    """log P(r | cue, concept) at every slot, the responses, the cues and the table."""
    random = np.random.default_rng(seed)
    table = random.dirichlet(np.full(4, 0.6), (number, 5))
    cues, truth = random.integers(0, 5, (SLOTS, 50)), random.integers(0, number, 50)
    responses = (np.log(table[truth, cues]) + random.gumbel(size=(SLOTS, 50, 4))).argmax(-1)
    return np.log(table)[:, cues].transpose(1, 2, 0, 3), responses, cues, table


@each_seed
def test_the_average_over_concepts_is_bayes_rule(seed):
    log_likelihood, responses, cues, table = concepts(seed)
    found = concept_average(log_likelihood, responses)
    np.testing.assert_allclose(np.exp(found.predictive).sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(found.predictive[0], marginal(log_likelihood)[0], rtol=1e-10)
    np.testing.assert_allclose(np.exp(marginal(log_likelihood)), table.mean(0)[cues], rtol=1e-10)
    for b in range(0, 50, 10):
        joint = table[:, cues[:7, b], responses[:7, b]].prod(1)
        posterior = joint / joint.sum()
        np.testing.assert_allclose(np.exp(found.posterior[7, b]), posterior, rtol=1e-10)
        np.testing.assert_allclose(np.exp(found.predictive[7, b]), posterior @ table[:, cues[7, b]], rtol=1e-10)
        np.testing.assert_allclose(np.exp(found.map_predictive[7, b]), table[joint.argmax(), cues[7, b]], rtol=1e-10)


@each_seed
@pytest.mark.parametrize("number", [1, 2, 32])
def test_averaging_regrets_at_most_the_logarithm_of_the_number_of_concepts(seed, number):
    log_likelihood, responses, _, _ = concepts(seed, number)
    any_response = np.random.default_rng(seed).integers(0, 4, responses.shape)
    for said in (responses, any_response, any_response * 0):  # surely: on sequences of no concept too
        predictive = concept_average(log_likelihood, said).predictive
        mine = np.take_along_axis(predictive, said[..., None], 2).sum(0)
        theirs = np.take_along_axis(log_likelihood, said[..., None, None], 3)[..., 0].sum(0)
        assert (theirs - mine).max() <= math.log(number) + 1e-10


def test_concepts_may_exclude_responses():
    with np.errstate(divide="ignore"):
        table = np.log(np.array([[1.0, 0.0], [0.5, 0.5]]))
    log_likelihood = np.broadcast_to(table, (3, 1, 2, 2)).copy()
    found = concept_average(log_likelihood, np.array([[0], [1], [1]]))
    np.testing.assert_allclose(np.exp(found.posterior[:, 0]), [[0.5, 0.5], [2 / 3, 1 / 3], [0, 1]])
    with pytest.raises(InputError, match="must leave a concept possible, and does not in 1 of 1 prompts"):
        concept_average(log_likelihood[:, :, :1], np.array([[1], [1], [1]]))


def test_frequencies_count_the_same_cue_before():
    cues, responses = np.array([[7], [7], [2], [7]]), np.array([[1], [0], [2], [1]])
    third = [1 / 3] * 3
    np.testing.assert_allclose(cue_frequencies(cues, responses, 3, 0.0)[:, 0], [third, [0, 1, 0], third, [0.5, 0.5, 0]])
    np.testing.assert_allclose(cue_frequencies(cues, responses, 3, 1.0)[3, 0], [2 / 5, 2 / 5, 1 / 5])
    log_likelihood, many, cue, _ = concepts(0)
    np.testing.assert_allclose(cue_frequencies(cue, many, 4).sum(-1), 1, rtol=1e-12)
    assert log_likelihood.shape[:2] == many.shape


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run: without the type checker that tests have, which would be first to complain."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


X, Y, W = draw(0)
NAN = np.where(np.arange(BATCH) == 2, np.nan, Y)
LOG, SAID, CUES, _ = concepts(0)
BAD = {
    "ridge 0": (lambda: ridge(X, Y, 0.0), "penalty = 0.0: must be a number above 0; without one use least_squares"),
    "ridge nan": (lambda: ridge(X, Y, math.nan), "penalty = nan"),
    "shapes": (lambda: averaging(X, Y[:-1]), r"shape of y = \[11, 6\]: must be \[slots, batch\] = \[12, 6\]"),
    "axes": (lambda: nearest(X[0], Y), "shape of x"),
    "nan": (lambda: least_squares(X, NAN), "y = nan: must hold finite numbers"),
    "k": (lambda: nearest(X, Y, 0), "k = 0"),
    "scale": (lambda: kernel_smoother(X, Y, math.inf), "scale = inf"),
    "lasso": (lambda: lasso(X, Y, -1.0), "penalty = -1.0"),
    "slot": (lambda: lasso(X, Y, 1.0, [12]), "slots = 12: must be from 0 to 11"),
    "labels": (lambda: logistic(X, Y * 0 + 0.5, 1.0), "y = 0.5: labels must be -1 or"),
    "logistic": (lambda: logistic(X, np.sign(Y), 0.0), "penalty = 0.0.*separable"),
    "noise": (lambda: ridge_risk(X, 0.0, 1.0), "noise = 0.0.*least_squares"),
    "prior": (lambda: ridge_risk(X, 1.0, 0.0), "prior = 0.0"),
    "underflow": (lambda: ridge_risk(X, 1e-200, 1.0), "noise / prior = 1e-200"),
    "levels": (lambda: mixed_ridge(X, Y, [], 1.0), r"noises = \[\]"),
    "level": (lambda: mixed_ridge(X, Y, [0.1, 0.0], 1.0), "noise = 0.0"),
    "weights": (lambda: mixed_ridge(X, Y, [0.1, 1.0], 1.0, [1.0]), r"weights = \[1.0\]: must be 2"),
    "weight": (lambda: mixed_ridge(X, Y, [0.1], 1.0, [0.0]), "weights = 0.0"),
    "pool": (lambda: finite_pool(X, Y, W[:, 1:], 1.0), r"shape of pool = \[6, 4\].*dim = 5"),
    "no pool": (lambda: finite_pool(X, Y, W[:0], 1.0), r"shape of pool = \[0, 5\]"),
    "pool nan": (lambda: pool_posterior(X, Y, W * np.nan, 1.0), "pool = nan"),
    "pool noise": (lambda: pool_posterior(X, Y, W, 0.0), "noise = 0.0"),
    "responses": (lambda: concept_average(LOG, SAID + 1), "responses = 4: must be from 0 to 3"),
    "likelihood": (lambda: marginal(-LOG * math.inf), "log_likelihood = inf"),
    "likelihood axes": (lambda: marginal(LOG[0]), "shape of log_likelihood"),
    "cues": (lambda: cue_frequencies(CUES[1:], SAID, 4), "shape of responses"),
    "number": (lambda: cue_frequencies(CUES, SAID, 0), "number = 0"),
    "smoothing": (lambda: cue_frequencies(CUES, SAID, 4, -1.0), "smoothing = -1.0"),
    "no prompts": (lambda: paired_bootstrap(Y[0, :0], 0), r"shape of values = \[0\]"),
    "resamples": (lambda: paired_bootstrap(Y[0], 0, 0), "resamples = 0"),
    "confidence": (lambda: paired_bootstrap(Y[0], 0, 10, 1.0), "level = 1.0"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1 and len(caught.value.allowed) > 5


def test_a_wrong_predictor_would_have_been_noticed(monkeypatch):
    """A test of the checks that `ebbtide verify` makes (test_oracles.py)."""
    monkeypatch.setattr(verify_functions, "ridge", lambda x, y, penalty: ridge(x, y, penalty * (1 + 1e-6)))
    monkeypatch.setattr(
        verify_functions, "finite_pool", lambda x, y, pool, noise: finite_pool(x, y, pool[::-1] * 1.001, noise)
    )
    monkeypatch.setattr(verify_functions, "concept_average", lambda log, said: concept_average(log, said[::-1]))
    monkeypatch.setattr(verify_functions, "kernel_smoother", lambda x, y, scale: kernel_smoother(x, y, scale * 1.001))
    monkeypatch.setattr(verify_functions, "invariance_gap", lambda *of: invariance_gap(*of) + 1e-20)
    said = verify_functions._predict
    monkeypatch.setattr(verify_functions, "_predict", lambda x, w: said(x, w) * (1 + 1e-6))
    assert not any(check().passed for check in verify_functions.FUNCTION_CHECKS)


def test_the_path_of_the_lasso_needs_no_sweeps_in_general(monkeypatch):
    x, y, _ = draw(0)
    whole = lasso(x, y, 1e-3)
    monkeypatch.setattr(baselines_convex, "MOST_ROUNDS", 0)
    np.testing.assert_array_equal(lasso(x, y, 1e-3), whole)
