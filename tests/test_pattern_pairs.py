"""Two patterns in context: what the task draws, the hinge loss of signs, and the model of one layer."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.metrics import measure
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.taps import record
from ebbtide.models.model import mean_loss, response_losses
from ebbtide.models.one_layer import OneLayer
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.sources.patterns import PatternBank, Patterns
from ebbtide.tasks.pattern_pairs import PatternPairs
from ebbtide.tasks.prompt import SignPrompt
from ebbtide.tasks.regression import Regression
from ebbtide.training.engine import Engine
from ebbtide.training.kernels import unsupported_reason
from ebbtide.training.optimizer import SGD
from ebbtide.training.spec import Spec, from_json

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Patterns(), PatternPairs(context=20)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=OneLayer(units=20),
    optimizer=SGD(lr=0.2),
    batch=64,
    sequences=6400,
    evaluators=TASK.evaluators(),
    evaluation_sequences=200,
    keep_best=None,
)


@lru_cache
def bank() -> PatternBank:
    return SOURCE.build()


def relevant() -> np.ndarray:
    return np.asarray(bank().relevant, np.float64)


def irrelevant() -> np.ndarray:
    return np.asarray(bank().irrelevant, np.float64)


@lru_cache
def draw(name: str = "train", coefficients: float = 1.0, n: int = 3000) -> SignPrompt:
    task, split = replace(TASK.variant(name), coefficients=coefficients), SOURCE.sizes().split()
    index, key = jnp.arange(n, dtype=jnp.uint32), root(2, Purpose.DATA)
    return compile_fast(lambda i: task.sample(key, i, SOURCE, bank(), split))(index)


def rules_of(name: str) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in np.asarray(draw(name).latent["rule"])}


def test_patterns_are_orthogonal_and_of_one_norm():
    every = np.concatenate([relevant(), irrelevant()])
    np.testing.assert_allclose(every @ every.T, 9 * np.eye(30), atol=1e-4)
    assert not np.array_equal(bank().relevant, replace(SOURCE, seed=1).build().relevant)


def test_trained_pairs_give_every_pattern_both_labels_equally_often():
    trained, unseen, turned = rules_of("train"), rules_of("unseen"), rules_of("reversed")
    assert trained == {(j, (j + 1) % 6) for j in range(6)}
    assert len(unseen) == 24 and not unseen & trained
    assert turned == {(b, a) for a, b in trained} and turned < unseen


def test_inputs_are_a_relevant_pattern_and_a_little_of_an_irrelevant_one():
    prompt = draw()
    x, pattern = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.latent["pattern"]).T
    own, other = x @ relevant().T / 9, x @ irrelevant().T / 9
    np.testing.assert_allclose(own, np.eye(6)[pattern], atol=1e-5)
    assert (np.sort(np.abs(other))[..., :-1] < 1e-5).all()
    weight = other.sum(-1)
    assert np.abs(weight).max() <= 0.5 and weight.std() == pytest.approx(0.5 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("name", ["train", "unseen", "outside"])
def test_labels_follow_the_rule_for_its_patterns_and_chance_for_others(name):
    prompt = draw(name)
    y, pattern, rule = np.asarray(prompt.responses), np.asarray(prompt.latent["pattern"]).T, prompt.latent["rule"]
    a, b = np.asarray(rule).T
    assert (y[pattern == a] == 1).all() and (y[pattern == b] == -1).all()
    other = (pattern != a) & (pattern != b)
    assert not other[-1].any()
    assert other[:-1].mean() == pytest.approx(0.2, abs=0.01)
    assert y[other].mean() == pytest.approx(0, abs=0.03)
    counts = np.bincount(((pattern - a) % (3 if name == "outside" else 6))[other])
    assert (y[-1] == 1).mean() == pytest.approx(0.5, abs=0.03)
    if name == "unseen":
        assert len(counts) == 6 and counts[1:].min() > 0.8 * counts[1:].mean()


@pytest.mark.parametrize("coefficients", [0.0, 1.0, 1.4])
def test_patterns_outside_are_orthogonal_sums_with_the_coefficients_asked_for(coefficients):
    prompt = draw("outside", coefficients, 300)
    x, pattern = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.latent["pattern"]).T
    k = x @ relevant().T / 9
    np.testing.assert_allclose(k.sum(-1), coefficients, atol=1e-4)
    gram = np.einsum("sbj,tbj->stb", k, k)
    np.testing.assert_allclose(gram, pattern[:, None] == pattern[None], atol=1e-4)
    assert np.linalg.norm(x @ irrelevant().T / 9, axis=-1).max() <= 0.5 + 1e-6


def test_the_size_of_labels_changes_responses_alone():
    small = compile_fast(
        lambda i: replace(TASK, label_norm=0.25).sample(
            root(2, Purpose.DATA), i, SOURCE, bank(), SOURCE.sizes().split()
        )
    )(jnp.arange(50, dtype=jnp.uint32))
    np.testing.assert_array_equal(small.responses, 0.25 * draw().responses[:, :50])
    np.testing.assert_array_equal(small.inputs, draw().inputs[:, :50])
    assert isinstance(small, SignPrompt)


def test_signs_are_trained_by_the_hinge_loss_whatever_their_size():
    prompt = draw()._replace(latent={})
    prompt = jax.tree.map(lambda x: x[:, :4], prompt)._replace(responses=jnp.full((21, 4), -0.25))
    score = jnp.asarray([[[-2.0], [-1.0], [0.5], [0.0]]])
    np.testing.assert_allclose(response_losses(score, prompt), [[0.0, 0.0, 1.5, 1.0]])
    assert float(mean_loss(score, prompt)) == pytest.approx(0.625)
    loss, accuracy = measure(TASK.metrics, score, prompt)
    np.testing.assert_allclose(loss, [0.0, 0.0, 1.5, 1.0])
    np.testing.assert_array_equal(accuracy, [1, 1, 0, 0])


def test_one_layer_computes_its_equation():
    model, prompt = OneLayer(units=4), jax.tree.map(lambda x: x[:, :3], draw()._replace(latent={}))
    params = {name: jax.random.normal(jax.random.key(i), (31, 31)) / 8 for i, name in enumerate("qkv")}
    params["o"] = jax.random.normal(jax.random.key(9), (4, 31))
    score, tapped = record(model, params, prompt, "hook_pattern")
    w = {name: np.asarray(one, np.float64) for name, one in params.items()}
    x, y = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses, np.float64)
    for i in range(3):
        p = np.append(x[:-1, i], y[:-1, i, None], axis=1)
        scores = (p @ w["k"].T) @ (w["q"] @ np.append(x[-1, i], 0))
        attention = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        hidden = np.maximum(w["o"] @ (w["v"] @ (attention @ p)), 0)
        assert float(score[0, i, 0]) == pytest.approx(hidden @ np.asarray([0.5, -0.5, 0.5, -0.5]), rel=1e-4)
        np.testing.assert_allclose(tapped["hook_pattern"][i], attention, rtol=1e-3, atol=1e-6)


def test_absent_pairs_are_not_seen():
    prompt = jax.tree.map(lambda x: x[:, :3], draw()._replace(latent={}))
    model = OneLayer(units=4)
    params = model.init(jax.random.key(0), context=20, dim=30, labels=0)
    short = prompt._replace(present=jnp.arange(20)[:, None] < jnp.full((1, 3), 7))
    inputs, responses = (jnp.concatenate([x[:7], x[-1:]]) for x in (prompt.inputs, prompt.responses))
    cut = SignPrompt(inputs, responses, prompt.present[:7], {})
    np.testing.assert_allclose(model.apply(params, short), model.apply(params, cut), rtol=1e-5)


def test_a_hundred_steps_of_descent_learn_unseen_pairs_and_patterns_outside():
    engine = Engine(SPEC)
    before = np.asarray(engine.measure(engine.init(0).params, engine.suite(0)))[:, 1, 0]
    state = engine.train(engine.init(0), engine.data(0), jnp.uint32(100))
    after = np.asarray(engine.measure(state.params, engine.suite(0)))[:, 1, 0]
    assert (before < 0.7).all() and (after > 0.95).all()


def test_members_may_differ_in_the_size_of_labels():
    spec = replace(SPEC, members=2, vary={"task.label_norm": [1.0, 0.25]})
    spec.check()
    engine = Engine(spec)
    sizes = [np.unique(np.abs(engine.suite(m).of("unseen").responses)) for m in range(2)]
    np.testing.assert_allclose(sizes, [[1.0], [0.25]])


def test_spec_survives_json_and_the_compiled_kernel_leaves_signs_to_xla():
    assert from_json(SPEC.to_json()) == SPEC
    sets = replace(SPEC, model=Transformer(layers=1, width=8, heads=2, pairing="joint", mask="none"))
    sets.check()
    reason = unsupported_reason(sets)
    assert reason is not None and "hinge" in reason


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SPEC, source=Functions()), "must be patterns"),
        (replace(SPEC, task=Regression(), evaluators=("train",)), "must be functions"),
        (replace(SPEC, source=Patterns(pairs=31)), "must be at most relevant x"),
        (replace(SPEC, source=Patterns(pairs=30)), "no pair is unseen"),
        (replace(SPEC, source=Patterns(pairs=13)), "a reversed pair is a trained one"),
        (replace(SPEC, source=Patterns(relevant=3, pairs=3)), "at least 4"),
        (replace(SPEC, task=replace(TASK, coefficients=1.5)), "root of source.relevant / 3, 1.41"),
        (replace(SPEC, task=replace(TASK, label_norm=0.0)), "must be larger than 0"),
        (replace(SPEC, model=Transformer()), "must be joint"),
    ],
)
def test_what_does_not_go_together_is_refused(spec, words):
    with pytest.raises(InputError, match=words):
        spec.check()


def test_one_layer_is_refused_for_labels():
    with pytest.raises(InputError, match="one score"):
        OneLayer().init(jax.random.key(0), context=4, dim=3, labels=2)
