"""Classification in context: what the task draws, its exact and classical predictors, and the model of one matrix."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import multivariate_normal

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.mixtures import bayes_posterior, linear_discriminant, total_variation
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.one_matrix import answer, descend, draw_sums, draw_worlds, pool_of, repeat_worlds
from ebbtide.models.one_matrix import OneMatrix
from ebbtide.sources.functions import Functions
from ebbtide.sources.mixtures import MixtureBank, Mixtures
from ebbtide.tasks.classification import Classification
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine
from ebbtide.training.spec import Spec, from_json
from ebbtide.verify.mixtures import MIXTURE_CHECKS

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Mixtures(dim=3, classes=3), Classification(context=12)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=OneMatrix(classes=3),
    optimizer=Adam(lr=2e-2, schedule=Cosine()),
    batch=64,
    sequences=64_000,
    evaluators=TASK.evaluators(),
    evaluation_sequences=300,
)


@lru_cache
def bank() -> MixtureBank:
    return SOURCE.build()


def training_root() -> np.ndarray:
    return np.asarray(bank().root, np.float64)


@lru_cache
def draw(shift: str = "none", n: int = 4000) -> FunctionPrompt:
    task, key, split = replace(TASK, shift=shift), root(2, Purpose.DATA), SOURCE.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, SOURCE, bank(), split))(jnp.arange(n, dtype=jnp.uint32))


def norms(prompt: FunctionPrompt) -> np.ndarray:
    """The norms of all means under the inverse covariance, [prompt, class]."""
    means, covariance = (np.asarray(prompt.latent[name], np.float64) for name in ("means", "covariance"))
    return np.einsum("pkd,pde,pke->pk", means, np.linalg.inv(covariance), means) ** 0.5


def test_both_covariances_have_the_same_eigenvalues_in_other_bases():
    values = [np.linalg.eigvalsh(np.asarray(one @ one, np.float64)) for one in bank()]
    np.testing.assert_allclose(values, np.tile([0.5, 1.0, 2.0], (2, 1)), rtol=1e-5)
    assert np.abs(np.asarray(bank().root - bank().other)).max() > 0.1
    assert not np.array_equal(bank().root, replace(SOURCE, seed=1).build().root)


def test_means_have_one_norm_and_the_size_of_a_standard_normal_first_mean():
    for shift in ("none", "covariance"):
        drawn = norms(draw(shift))
        np.testing.assert_allclose(drawn, np.tile(drawn[:, :1], 3), rtol=1e-4)
        assert (drawn**2).mean() == pytest.approx(0.5 + 1 + 2, rel=0.1)  # E m' Lambda^-1 m, m ~ N(0, I)
    free = norms(draw("norms"))
    assert (free**2).mean() == pytest.approx(3.5, rel=0.1)
    assert np.abs(np.corrcoef(free.T)[0, 1]) < 0.05
    means = np.asarray(draw().latent["means"], np.float64) @ np.linalg.inv(training_root())
    directions = means / np.linalg.norm(means, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.cov(directions[:, 2].T), np.eye(3) / 3, atol=0.03)


@pytest.mark.parametrize(("shift", "square_root"), [("none", "root"), ("covariance", "other")])
def test_inputs_lie_around_the_mean_of_their_label(shift, square_root):
    prompt, square_root = draw(shift), getattr(bank(), square_root)
    labels, means = np.asarray(prompt.responses), np.asarray(prompt.latent["means"])
    assert np.bincount(labels.ravel()) / labels.size == pytest.approx(np.full(3, 1 / 3), abs=0.01)
    rest = (np.asarray(prompt.inputs) - means[np.arange(4000), labels]).reshape(-1, 3)
    np.testing.assert_allclose(np.cov(rest.T), np.asarray(square_root @ square_root), atol=0.03)
    np.testing.assert_allclose(prompt.latent["covariance"][0], square_root @ square_root, atol=1e-5)


def test_bayes_is_the_ratio_of_densities():
    prompt = draw("norms", 20)
    means, covariance = (np.asarray(prompt.latent[name], np.float64) for name in ("means", "covariance"))
    query = np.asarray(prompt.inputs[-1], np.float64)
    density = np.array(
        [[multivariate_normal(m, c).pdf(x) for m in ms] for x, ms, c in zip(query, means, covariance, strict=True)]
    )
    exact = bayes_posterior(query, means, covariance)
    np.testing.assert_allclose(exact, density / density.sum(1, keepdims=True), rtol=1e-5)


def test_linear_discriminants_come_to_bayes_with_many_pairs():
    task, split = replace(TASK, context=1500), SOURCE.sizes().split()
    drawn = compile_fast(lambda i: task.sample(root(3, Purpose.DATA), i, SOURCE, bank(), split))
    prompt = drawn(jnp.arange(40, dtype=jnp.uint32))
    x, labels = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses)
    means, covariance = (np.asarray(prompt.latent[name], np.float64) for name in ("means", "covariance"))
    exact = bayes_posterior(x[-1], means, covariance)
    for known in (covariance, None):
        far = [
            total_variation(linear_discriminant(x[-n - 1 :], labels[-n - 1 :], 3, known), exact).mean()
            for n in (15, 1500)
        ]
        assert far[1] < 0.03 < far[0]
    with pytest.raises(InputError, match=r"^pairs = 5"):
        linear_discriminant(x[-6:], labels[-6:], 3)
    with pytest.raises(InputError, match=r"^labels = 2"):
        linear_discriminant(x, labels, 2)


def test_a_class_that_is_not_shown_has_the_mean_0():
    x, labels = np.ones((3, 1, 2)), np.array([[0], [0], [1]])
    given = linear_discriminant(x, labels, 2, np.eye(2)[None])
    np.testing.assert_allclose(given, bayes_posterior(x[-1], np.array([[[1.0, 1.0], [0.0, 0.0]]]), np.eye(2)[None]))


def test_one_matrix_is_the_formula():
    prompt, w = draw(n=5), np.random.default_rng(0).standard_normal((3, 3))
    logits = np.asarray(OneMatrix(classes=3).apply({"w": jnp.asarray(w)}, prompt))
    x, labels = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses)
    byhand = np.zeros((5, 3))
    for p in range(5):
        for i in range(12):
            byhand[p, labels[i, p]] += x[i, p] @ w @ x[-1, p] / 12
    np.testing.assert_allclose(logits, byhand[None], rtol=1e-4, atol=1e-4)


def test_sums_drawn_at_once_are_distributed_as_sums_of_drawn_pairs():
    """The first two moments of the sum of class 0, and its product with the query's logits."""
    prompt, random = draw(n=40_000), np.random.default_rng(1)
    worlds = draw_worlds(training_root(), 3, 40_000, random)
    mine = draw_sums(worlds, 12, random)
    own = np.asarray(prompt.responses)[:-1, :, None] == np.arange(3)
    theirs = np.einsum("spk,spd->pkd", own, np.asarray(prompt.inputs, np.float64)[:-1]) / 12
    for one, other in ((mine, theirs), (worlds.query[:, None], np.asarray(prompt.inputs)[-1][:, None])):
        np.testing.assert_allclose(np.cov(one[:, 0].T), np.cov(other[:, 0].T), atol=0.02 if one is mine else 0.06)
    means = np.asarray(prompt.latent["means"], np.float64)
    exact = bayes_posterior(np.asarray(prompt.inputs[-1], np.float64), means, (training_root() @ training_root())[None])
    assert exact.max(1).mean() == pytest.approx(worlds.bayes.max(1).mean(), abs=0.01)
    assert (theirs[:, 1] * means[:, 1]).sum(1).mean() == pytest.approx((mine * worlds.means)[:, 1].sum(1).mean(), 0.03)


def test_mirrored_sums_have_opposite_deviations():
    random = np.random.default_rng(2)
    worlds = repeat_worlds(draw_worlds(training_root(), 2, 50, random))
    sums = draw_sums(worlds, 10**8, random, mirrored=True)
    first, second = sums[:50] - worlds.means[:50] / 2, sums[50:] - worlds.means[50:] / 2
    np.testing.assert_allclose(first, -second, atol=1e-6)
    assert np.abs(first).max() > 1e-5


def test_gradient_and_hessian_are_those_of_the_loss():
    random = np.random.default_rng(3)
    worlds = draw_worlds(training_root(), 3, 50, random)
    pool, w = pool_of(worlds, draw_sums(worlds, 20, random)), random.standard_normal((3, 3))
    tiny = 1e-6 * np.eye(9).reshape(9, 3, 3)
    slopes = [(pool.loss(w + e) - pool.loss(w - e)) / 2e-6 for e in tiny]
    np.testing.assert_allclose(pool.gradient(w).ravel(), slopes, atol=1e-8)
    curves = [((pool.gradient(w + e) - pool.gradient(w - e)) / 2e-6).ravel() for e in tiny]
    np.testing.assert_allclose(pool.hessian(w), curves, atol=1e-8)
    optimum = pool.optimum()
    assert np.abs(pool.gradient(optimum)).max() < 1e-12
    course = descend(pool, 0.05, np.array([0, 10, 100]))
    assert not course.matrices[0].any()
    assert (np.diff([pool.loss(one) for one in (*course.matrices, optimum)]) < 0).all()


def test_training_comes_to_the_optimum_of_the_population():
    """Stochastic descent on fresh prompts and Newton's method on a pool answer alike."""
    engine = Engine(replace(SPEC, seeds=replace(SPEC.seeds, init=1)))
    state = engine.train(engine.init(0), engine.data(0), jnp.uint32(1000))
    random = np.random.default_rng(4)
    worlds = draw_worlds(training_root(), 3, 20_000, random)
    sums = draw_sums(worlds, 12, random)
    optimum, trained = pool_of(worlds, sums).optimum(), np.asarray(state.params["w"], np.float64)
    mine, best = (answer(w, sums, worlds.query) for w in (trained, optimum))
    assert total_variation(mine, best).mean() < 0.02 < total_variation(best, worlds.bayes).mean()
    measured = np.asarray(engine.measure(state.params, engine.suite(0)))[:, 2, 0]
    assert measured[0] > 0.1 > measured[2]  # under the other covariance the matrix is of no use


def test_specs():
    assert from_json(SPEC.to_json()) == SPEC and SPEC.shape() == {"context": 12, "dim": 3, "labels": 3}
    for field, spec in (
        ("source", replace(SPEC, source=Functions())),
        ("model.classes", replace(SPEC, model=OneMatrix())),
        ("evaluators", replace(SPEC, evaluators=("train", "noisy"))),
    ):
        with pytest.raises(InputError, match=rf"^{field} = "):
            spec.check()


def test_taps_are_used():
    model, prompt = OneMatrix(classes=3), draw(n=5)
    params = {"w": jax.random.normal(jax.random.key(0), (3, 3))}
    seen: dict[str, jax.Array] = {}
    logits = model.apply(params, prompt, lambda name, value: seen.setdefault(name, value))
    for at in seen:
        changed = model.apply(params, prompt, lambda name, value, at=at: value + 1.0 * (name == at))
        assert np.abs(changed - logits).max() > 0.1, at
    assert list(seen) == ["hook_class_sums", "hook_logits"]


@pytest.mark.parametrize("check", MIXTURE_CHECKS, ids=lambda check: check.__name__)
def test_exact_checks_pass(check):
    result = check()
    assert result.passed, result
