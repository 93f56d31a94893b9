"""Affine recurrences in context: what the task draws, of numbers, vectors and symbols, and predictors of it."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.recurrences import (
    COPY_BEFORE,
    COPY_LAST,
    LINE,
    MEAN,
    affine_ridge,
    modular_posterior,
    naive_predictions,
    pool_posterior,
)
from ebbtide.keys import Purpose, root
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.sources.recurrences import ModularRecurrences, Recurrences
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.recurrence import Recurrence
from ebbtide.training.engine import Engine
from ebbtide.training.kernels import unsupported_reason
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Seeds, Spec, from_json
from ebbtide.verify import recurrences as verified

pytestmark = pytest.mark.usefixtures("quick_compile")

NUMBERS, POOL, VECTORS = Recurrences(), Recurrences(pool=3, seed=5), Recurrences(dim=3)
SYMBOLS, FEW = ModularRecurrences(modulus=7), ModularRecurrences(modulus=7, pool=4, seed=5)
TASK = Recurrence(context=8)
SPEC = Spec(
    task=TASK,
    source=NUMBERS,
    model=Transformer(layers=2, width=16, heads=2, pairing="states"),
    optimizer=Adam(lr=3e-3),
    batch=32,
    sequences=9_600,
    evaluators=TASK.evaluators(),
    evaluation_sequences=300,
    keep_best=None,
)


@lru_cache
def draw(source: Any = NUMBERS, task: Recurrence = TASK, n: int = 3000) -> FunctionPrompt:
    key, split = root(2, Purpose.DATA), source.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, source, source.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def arrays(source: Any = NUMBERS, task: Recurrence = TASK) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    prompt = draw(source, task)
    latent = {name: np.asarray(one, np.float64) for name, one in prompt.latent.items()}
    return np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses, np.float64), latent


@pytest.mark.parametrize("source", [NUMBERS, POOL, VECTORS])
def test_every_term_follows_from_the_one_before_by_the_prompts_own_recurrence(source):
    x, y, latent = arrays(source)
    np.testing.assert_array_equal(x[1:], y[:-1])
    np.testing.assert_allclose(np.einsum("bij,sbj->sbi", latent["a"], x) + latent["b"], y, atol=1e-5)
    size = np.linalg.norm(latent["a"], axis=(1, 2)) / source.dim**0.5
    turned = np.einsum("bji,bjk->bik", latent["a"], latent["a"])
    np.testing.assert_allclose(turned, size[:, None, None] ** 2 * np.eye(source.dim), atol=1e-5)
    assert size.max() <= 1 and np.abs(latent["b"]).max() <= 1 and np.abs(x[0]).max() <= 1


def test_ranges_are_uniform_and_can_be_set():
    _, _, latent = arrays()
    for name in ("a", "b"):
        assert latent[name].std() == pytest.approx(3**-0.5, rel=0.03) and abs(latent[name].mean()) < 0.03
    other = Recurrences(slope=(0.5, 1.5), offset=(2.0, 2.0), start=(-3.0, -2.0))
    x, _, latent = arrays(other)
    assert 0.5 <= latent["a"].min() < 0.51 and 1.49 < latent["a"].max() <= 1.5
    assert (latent["b"] == 2).all() and -3 <= x[0].min() < -2.99 and -2.01 < x[0].max() <= -2


def test_random_turns_prefer_no_direction():
    a = arrays(VECTORS)[2]["a"] / np.linalg.norm(arrays(VECTORS)[2]["a"], axis=(1, 2), keepdims=True) * 3**0.5
    assert np.abs(a.mean(0)).max() < 0.04
    np.testing.assert_allclose((a**2).mean(0), 1 / 3, atol=0.03)


def test_noise_is_drawn_anew_for_every_term():
    x, y, latent = arrays(NUMBERS, replace(TASK, noise=0.2))
    noise = y - np.einsum("bij,sbj->sbi", latent["a"], x) - latent["b"]
    assert noise.std() == pytest.approx(0.2, rel=0.02) and abs((noise[1:] * noise[:-1]).mean()) < 0.001


def test_a_pool_is_drawn_once_and_fresh_prompts_are_outside_of_it():
    bank, (_, _, latent) = POOL.build(), arrays(POOL)
    member = latent["member"].astype(int)
    np.testing.assert_array_equal(latent["a"], np.asarray(bank.matrices)[member])
    np.testing.assert_array_equal(latent["b"], np.asarray(bank.offsets)[member])
    assert np.bincount(member).min() > 900
    fresh = arrays(POOL, TASK.variant("prior"))[2]
    assert (fresh["member"] == -1).all() and len(np.unique(fresh["a"])) > 2900
    assert not np.array_equal(bank.matrices, replace(POOL, seed=6).build().matrices)


def test_symbols_follow_the_recurrence_modulo_their_number():
    prompt = draw(SYMBOLS)
    x, y = np.asarray(prompt.inputs).argmax(-1), np.asarray(prompt.responses)
    a, b = np.asarray(prompt.latent["a"]), np.asarray(prompt.latent["b"])
    assert (np.asarray(prompt.inputs).sum(-1) == 1).all() and y.dtype == np.int32 and y.shape == (9, 3000)
    np.testing.assert_array_equal(x[1:], y[:-1])
    np.testing.assert_array_equal((a * x + b) % 7, y)
    pairs = np.bincount(7 * a + b, minlength=49)
    assert pairs.min() > 30 and (np.asarray(prompt.latent["member"]) == -1).all()


def test_a_pool_of_symbols_and_its_fresh_recurrences_have_none_in_common():
    pool = set(np.asarray(FEW.build().order[:4]).tolist())
    pairs = {}
    for name in ("train", "prior"):
        latent = draw(FEW, TASK.variant(name)).latent
        pairs[name] = set(np.asarray(7 * latent["a"] + latent["b"]).tolist())
    assert pairs["train"] == pool and len(pairs["prior"]) == 45 and not pairs["prior"] & pool
    assert set(np.asarray(draw(FEW).latent["member"]).tolist()) == {0, 1, 2, 3}


def test_an_example_depends_on_its_number_alone():
    for source in (NUMBERS, SYMBOLS):
        key, split = root(2, Purpose.DATA), source.sizes().split()
        sample = compile_fast(lambda i, s=source, k=key, p=split: TASK.sample(k, i, s, s.build(), p))
        some = sample(jnp.asarray([7, 3], jnp.uint32))
        np.testing.assert_allclose(draw(source).responses[:, jnp.asarray([7, 3])], some.responses, atol=1e-6)


def test_golden_prompts():
    np.testing.assert_allclose(draw().responses[:3, :2, 0], GOLDEN_NUMBERS, atol=1e-6)
    np.testing.assert_allclose(draw(VECTORS).responses[1, 0], GOLDEN_VECTOR, atol=1e-6)
    np.testing.assert_allclose(POOL.build().matrices[:, 0, 0], GOLDEN_POOL, atol=1e-6)
    np.testing.assert_array_equal(draw(SYMBOLS).responses[:, :2].T, GOLDEN_SYMBOLS)
    np.testing.assert_array_equal(FEW.build().order[:4], GOLDEN_ORDER)


GOLDEN_NUMBERS = [[0.7981430, -0.1767161], [0.8405611, 0.0971468], [0.8429228, 0.3296039]]
GOLDEN_VECTOR = [0.7741941, 0.9275470, -0.2606609]
GOLDEN_POOL = [-0.6696942, 0.4043963, -0.9025078]
GOLDEN_SYMBOLS = [[1] * 9, [3, 2, 5] * 3]
GOLDEN_ORDER = [35, 33, 30, 34]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": Functions()}, "source = 'functions': must be recurrences or modular_recurrences"),
        ({"task": Dynamics(), "evaluators": ("train",)}, "source = 'recurrences': must be functions"),
        ({"model": Transformer()}, "model.pairing = 'interleaved': must be states for the task recurrence"),
        (
            {"source": Recurrences(slope=(1.0, -1.0))},
            r"source.slope = \[1.0, -1.0\]: must be two numbers, the lower first",
        ),
        ({"source": Recurrences(start=(0.0, float("inf")))}, "source.start.1 = inf: must be a finite number"),
        ({"source": ModularRecurrences(modulus=3, pool=9)}, "source.pool = 9: must be below modulus.2 = 9"),
        ({"source": SYMBOLS, "task": replace(TASK, noise=0.1)}, "task.noise = 0.1: must be 0 for symbols"),
        ({"evaluators": ("wrong",)}, "must be one of train, prior"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, line):
    with pytest.raises(InputError, match=line) as found:
        replace(SPEC, **changes).check()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("source", [NUMBERS, VECTORS, SYMBOLS])
def test_specs_survive_json_and_the_compiled_kernel_serves_them(source):
    spec = replace(SPEC, source=source)
    spec.check()
    assert from_json(spec.to_json()) == spec
    assert unsupported_reason(spec) is None


def test_members_have_pools_of_their_own():
    spec = replace(SPEC, source=POOL, members=2, seeds=Seeds(world=3))
    first, second = (spec.world(m).source for m in range(2))
    assert first != second and replace(first, seed=0) == replace(second, seed=0)


@pytest.mark.parametrize("source", [NUMBERS, SYMBOLS])
def test_three_hundred_steps_learn_something(source):
    small = Transformer(layers=1, width=16, heads=2, pairing="states", mlp_ratio=2)
    engine = Engine(replace(SPEC, source=source, model=small, evaluators=("train",)))
    before = np.asarray(engine.measure(engine.init(0).params, engine.suite(0)))[:, 0, 0]
    state = engine.train(engine.init(0), engine.data(0), jnp.uint32(300))
    after = np.asarray(engine.measure(state.params, engine.suite(0)))[:, 0, 0]
    assert (after < 0.8 * before).all()


REFERENCE = {
    4: (0.132, 0.120, 0.081, 0.505, 0.94),
    5: (0.104, 0.086, 0.062, 0.385, 1.19),
    7: (0.073, 0.055, 0.043, 0.263, 1.62),
    9: (0.056, 0.041, 0.033, 0.199, 2.06),
}
"""Mean squared errors of the naive predictors of s_n, and its variance, by n: of a sampler of its own, with a, b and
s_0 uniform from -1 to 1, over 100,000 sequences."""


@pytest.mark.parametrize("n", REFERENCE)
def test_naive_predictors_err_as_an_independent_sampler_says(n):
    prompt = draw(NUMBERS, Recurrence(context=8), 60_000)
    x, y = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses, np.float64)[n - 1]
    errors = {name: ((one[n - 1] - y) ** 2).mean() for name, one in naive_predictions(x).items()}
    found = [*(errors[name] for name in (COPY_LAST, COPY_BEFORE, MEAN, LINE)), y.var()]
    np.testing.assert_allclose(found, REFERENCE[n], rtol=0.04)


def test_naive_predictors_err_by_their_multiple_of_the_last_difference():
    x, y, latent = arrays()
    a, d = latent["a"][:, 0], x[1:] - x[:-1]
    predicted = {name: one[1:] - y[1:] for name, one in naive_predictions(x).items()}
    for name, error in {COPY_LAST: -a * d, COPY_BEFORE: -(1 + a) * d, MEAN: -(a + 0.5) * d, LINE: (1 - a) * d}.items():
        np.testing.assert_allclose(predicted[name], error, atol=1e-5)


def exact_terms(dim: int, slots: int = 9, batch: int = 400) -> np.ndarray:
    """Terms in float64, and one more than slots."""
    random = np.random.default_rng(dim)
    a = np.linalg.qr(random.standard_normal((batch, dim, dim)))[0] * random.uniform(-1, 1, (batch, 1, 1))
    terms, b = [random.uniform(-1, 1, (batch, dim))], random.uniform(-1, 1, (batch, dim))
    for _ in range(slots):
        terms.append(np.einsum("bij,bj->bi", a, terms[-1]) + b)
    return np.stack(terms)


@pytest.mark.parametrize("dim", [1, 2])
def test_least_squares_is_exact_once_the_recurrence_is_determined(dim):
    terms = exact_terms(dim)
    error = np.abs(affine_ridge(terms[:-1], 1e-12) - terms[1:]).max(-1)
    assert np.median(error[dim]) > 0.05
    assert np.quantile(error[dim + 1 :], 0.95) < 1e-6


def test_the_posterior_of_a_pool_knows_its_recurrence_from_the_second_term_on():
    x, y, latent = arrays(POOL)
    bank = POOL.build()
    found = pool_posterior(x, np.asarray(bank.matrices), np.asarray(bank.offsets), 1e-3)
    np.testing.assert_allclose(found.posterior.sum(-1), 1, rtol=1e-12)
    member = latent["member"].astype(int)
    own = found.posterior[:, np.arange(3000), member]
    np.testing.assert_allclose(own[0], 1 / 3, rtol=1e-12)
    assert np.median(own[1]) > 0.999 and (own[1:] > 0.999).mean() > 0.99
    assert ((found.predictions - y) ** 2)[1:].mean() < 1e-3 < ((found.predictions - y) ** 2)[0].mean()


def test_the_posterior_of_a_pool_is_bayes_rule():
    random = np.random.default_rng(0)
    a, b, terms = random.standard_normal((4, 2, 2)), random.standard_normal((4, 2)), random.standard_normal((3, 1, 2))
    after = np.einsum("jik,nk->nji", a, terms[:, 0]) + b
    density = np.exp(-((after[:2] - terms[1:]) ** 2).sum(-1).sum(0) / (2 * 0.7**2))
    found = pool_posterior(terms, a, b, 0.7)
    np.testing.assert_allclose(found.posterior[2, 0], density / density.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.predictions[2, 0], density @ after[2] / density.sum(), rtol=1e-12)


@pytest.mark.parametrize("source", [SYMBOLS, FEW])
def test_the_posterior_of_symbols_is_calibrated_and_soon_sure(source):
    prompt = draw(source)
    pool = np.stack(np.divmod(np.asarray(source.build().order[: source.sizes().classes]), 7), axis=-1)
    y = np.asarray(prompt.responses)
    found = modular_posterior(np.asarray(prompt.inputs).argmax(-1), 7, pool)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
    said = np.take_along_axis(found, y[..., None], axis=-1)[..., 0]
    for level in np.unique(said.round(9)):
        asked = np.isclose(found, level)
        right = (asked & (y[..., None] == np.arange(7))).sum() / asked.sum()
        assert right == pytest.approx(level, abs=3.5 * (level * (1 - level) / asked.sum()) ** 0.5 + 1e-9)
    assert (said[3:] == 1).mean() > 0.95 and said.min() > 0


def test_where_no_recurrence_is_left_every_symbol_is_as_likely():
    found = modular_posterior(np.asarray([[0], [2], [2]]), 3, np.asarray([[0, 1]]))
    np.testing.assert_allclose(found[:, 0], [[0, 1, 0], [1 / 3] * 3, [1 / 3] * 3])


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run: without the type checker that tests have, which would be first to complain."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("predict", "line"),
    [
        (lambda: naive_predictions(np.zeros((3, 2))), "shape of terms"),
        (lambda: affine_ridge(np.full((3, 2, 1), np.nan)), "must be finite numbers"),
        (lambda: affine_ridge(np.zeros((3, 2, 1)), 0.0), "penalty = 0.0: must be a number above 0"),
        (lambda: pool_posterior(np.zeros((3, 2, 1)), np.zeros((4, 2, 2)), np.zeros((4, 1)), 1.0), "shape of matrices"),
        (lambda: pool_posterior(np.zeros((3, 2, 1)), np.zeros((4, 1, 1)), np.zeros((4, 2)), 1.0), "shape of offsets"),
        (lambda: pool_posterior(np.zeros((3, 2, 1)), np.zeros((4, 1, 1)), np.zeros((4, 1)), 0.0), "noise = 0.0"),
        (lambda: modular_posterior(np.asarray([[7]]), 7), "symbols = 7: must be from 0 to 6"),
        (lambda: modular_posterior(np.asarray([[1]]), 7, np.asarray([[1]])), "shape of pool"),
    ],
)
def test_predictors_refuse_bad_input_in_one_line(predict, line):
    with pytest.raises(InputError, match=line) as found:
        predict()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("check", verified.RECURRENCE_CHECKS)
def test_identities_hold_to_rounding(check):
    found = check()
    assert found.passed, found.detail


def test_a_wrong_identity_would_have_been_noticed(monkeypatch):
    draw, p = verified._draw, verified.PRIME

    def grown(dim: int) -> Any:
        a, b, s = draw(dim)
        return a, b, s * (1 + 1e-6 * np.arange(len(s)) ** 2)[:, None, None]

    monkeypatch.setattr(verified, "_draw", grown)
    monkeypatch.setattr(verified, "modular_posterior", lambda s, _: modular_posterior(s, p)[..., ::-1])
    assert not any(check().passed for check in verified.RECURRENCE_CHECKS)
