"""Optimisers against hand-written ones, and learning-rate schedules at hand-computed points."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.models.transformer import Transformer
from ebbtide.training.engine import Engine
from ebbtide.training.fields import override
from ebbtide.training.optimizer import SGD, Adam, WeightDecay
from ebbtide.training.schedule import Constant, Cosine, WarmupInverseSqrt
from ebbtide.training.spec import Spec, from_builtins
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")

TOTAL = 20


def start() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {"a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "b": jnp.asarray(rng.normal(size=4), jnp.float32)}


def trajectory(optimizer, steps: int) -> tuple[list[dict], list[dict]]:
    """Parameters after every step and the gradients, which do not depend on them."""
    params, rng = start(), np.random.default_rng(1)
    state, visited, grads = optimizer.init(params), [params], []
    update = jax.jit(optimizer.update, static_argnums=4)
    for t in range(steps):
        grads.append({k: jnp.asarray(rng.normal(size=p.shape) * 10.0**t, jnp.float32) for k, p in params.items()})
        params, state = update(grads[-1], state, params, jnp.uint32(t), TOTAL)
        visited.append(params)
    return visited, grads


@pytest.mark.parametrize("schedule", [Constant(), Constant(warmup=3), Cosine()])
def test_adam_against_numpy(schedule):
    lr, b1, b2, eps = 0.1, 0.8, 0.95, 1e-4
    visited, grads = trajectory(Adam(lr=lr, b1=b1, b2=b2, eps=eps, schedule=schedule), 5)
    for name, p in start().items():
        p, m, v = np.asarray(p, float), 0.0, 0.0
        for t in range(5):
            g = np.asarray(grads[t][name], float)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            rate = lr * float(schedule.factor(jnp.uint32(t), TOTAL))
            p = p - rate * (m / (1 - b1 ** (t + 1))) / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps)
            np.testing.assert_allclose(visited[t + 1][name], p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_against_numpy(momentum):
    visited, grads = trajectory(SGD(lr=0.1, momentum=momentum, schedule=Constant(warmup=2)), 4)
    for name, p in start().items():
        p, m = np.asarray(p, float), 0.0
        for t in range(4):
            m = momentum * m + np.asarray(grads[t][name], float)
            p = p - 0.1 * min(1, (t + 1) / 2) * m
            np.testing.assert_allclose(visited[t + 1][name], p, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", [Constant(), Constant(warmup=5), WarmupInverseSqrt(warmup=3), Cosine(warmup=2)])
@pytest.mark.parametrize("optimizer", [Adam, SGD])
def test_every_step_lowers_a_quadratic(optimizer, schedule):
    """Catches a wrong sign anywhere between the gradient and the parameters."""
    chosen = optimizer(lr=0.02, schedule=schedule)

    def loss(params):
        return sum((p**2).sum() for p in jax.tree.leaves(params))

    params = start()
    state, losses = chosen.init(params), [float(loss(params))]
    for t in range(4):
        params, state = chosen.update(jax.grad(loss)(params), state, params, jnp.uint32(t), TOTAL)
        losses.append(float(loss(params)))
    assert all(b < a - 1e-4 for a, b in pairwise(losses))


def test_the_learning_rate_may_be_a_traced_value():
    params, grads = start(), jax.tree.map(jnp.ones_like, start())

    @jax.jit
    def step(lr):
        optimizer = Adam(lr=lr)
        return optimizer.update(grads, optimizer.init(params), params, jnp.uint32(0), TOTAL)[0]

    fixed = Adam(lr=0.5)
    expected, _ = fixed.update(grads, fixed.init(params), params, jnp.uint32(0), TOTAL)
    for name, value in step(jnp.float32(0.5)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "total", "points"),
    [
        (Constant(), 10, {0: 1, 9: 1}),
        (Constant(warmup=4), 10, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 9: 1}),
        (WarmupInverseSqrt(warmup=4), 100, {0: 0.25, 3: 1, 15: 0.5, 99: 0.2}),
        (WarmupInverseSqrt(), 500_000, {0: 1 / 4000, 3999: 1, 499_999: np.sqrt(4000 / 500_000)}),
        (Cosine(), 5, {0: 1, 1: (1 + np.sqrt(0.5)) / 2, 2: 0.5, 4: 0}),
        (Cosine(final=0.2), 5, {0: 1, 2: 0.6, 4: 0.2}),
        (Cosine(warmup=2, final=0.1), 7, {0: 0.5, 1: 1, 2: 1, 4: 0.55, 6: 0.1}),
    ],
)
def test_schedules_at_hand_computed_points(schedule, total, points):
    for step, factor in points.items():
        assert float(schedule.factor(jnp.uint32(step), total)) == pytest.approx(factor, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("schedule", [Constant(warmup=9), WarmupInverseSqrt(warmup=9), Cosine(warmup=9, final=0.1)])
def test_schedules_rise_and_never_exceed_one(schedule):
    factors = np.array([float(schedule.factor(jnp.uint32(t), 40)) for t in range(40)])
    assert (np.diff(factors[:9]) > 0).all() and (np.diff(factors[9:]) <= 0).all()
    assert factors.min() > 0 and factors.max() == pytest.approx(1)


@pytest.mark.parametrize("optimizer", [Adam, SGD])
@pytest.mark.parametrize("lr", [0.0, -1e-3, float("nan")])
def test_impossible_learning_rates_are_refused(optimizer, lr, one_line):
    with pytest.raises(InputError) as caught:
        optimizer(lr=lr).check()
    one_line(caught, "optimizer.lr", lr)


# --- weight decay

TREE = {
    "exemplar": {"w": [3.0, 4.0]},
    "label": {"table": [1.0, 2.0]},
    "position": {"table": [0.5, 0.5]},
    "blocks": [{"attn": {"q": [1.0, -1.0]}, "mlp": {"w_in": [2.0, 0.0]}, "norm1": {"scale": [1.0, 1.0]}}],
    "norm": {"offset": [0.0, 0.0]},
    "readout": {"w": [6.0, 8.0]},
}
SELECTED = {
    "all": [
        "exemplar.w",
        "label.table",
        "position.table",
        "attn.q",
        "mlp.w_in",
        "norm1.scale",
        "norm.offset",
        "readout.w",
    ],
    "mlp": ["mlp.w_in"],
    "attention": ["attn.q"],
    "encoder": ["exemplar.w"],
    "embeddings": ["label.table", "position.table"],
}


def arrays(tree):
    numbers = lambda x: isinstance(x, list) and isinstance(x[0], float)  # noqa: E731
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree, is_leaf=numbers)


def flat(tree) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): np.asarray(leaf) for p, leaf in leaves}


@pytest.mark.parametrize("on", SELECTED)
@pytest.mark.parametrize("form", ["l2", "norms", "norms_qkv", "decoupled"])
def test_decay_pulls_what_it_should_as_it_should(form, on):
    """One step of gradient descent with zero and with constant gradients, against the equations."""
    c, lr, factor = 0.1, 0.5, 0.5  # warm-up: half of the rate at the first step
    params = arrays(TREE)
    optimizer = SGD(lr=lr, schedule=Constant(warmup=2), decay=WeightDecay(form, c, on))
    grads = jax.tree.map(jnp.ones_like, params)
    after, _ = optimizer.update(grads, optimizer.init(params), params, jnp.uint32(0), TOTAL)
    before, after = flat(params), flat(after)
    assert any(name.endswith(SELECTED[on][0]) for name in before)
    for name, w in before.items():
        decay_term = np.zeros_like(w)
        if any(name.endswith(one) for one in SELECTED[on]):
            norm = np.linalg.norm(w)
            decay_term = c * w if not form.startswith("norms") else c * w / norm if norm else decay_term
        np.testing.assert_allclose(after[name], w - lr * factor * (1 + decay_term), rtol=1e-6)


def test_queries_keys_and_values_have_one_norm_together_or_one_each():
    """The gradient of c * sum of norms, in float64 with q, k and v of a layer stacked into one array or not: the three
    are pulled about the root of 3 times as hard where each has a norm of its own, all else alike."""
    model = Transformer(layers=2, width=16, heads=2, attention_bias=True)
    params = model.init(jax.random.key(0), context=2, dim=8, labels=64)
    params = jax.tree.map(lambda w: w + 0.01, params)  # biases, too
    of_each, of_three = (flat(WeightDecay(form, 0.1).decay_term(params)) for form in ("norms", "norms_qkv"))
    arrays = {name: w.astype(float) for name, w in flat(params).items()}
    for name, w in arrays.items():
        stem, _, part = name.partition(".attn.")
        stacked = [w]
        if part.removesuffix("_b") in ("q", "k", "v"):
            stacked = [arrays[f"{stem}.attn.{one}{part[1:]}"] for one in "qkv"]
        np.testing.assert_allclose(of_three[name], 0.1 * w / np.linalg.norm(np.stack(stacked)), rtol=1e-5)
        np.testing.assert_allclose(of_each[name], 0.1 * w / np.linalg.norm(w), rtol=1e-5)
    ratio = np.abs(of_each["blocks.1.attn.q"]).max() / np.abs(of_three["blocks.1.attn.q"]).max()
    assert ratio == pytest.approx(np.sqrt(3), rel=0.05)


def test_coupled_decay_goes_through_adam_and_decoupled_does_not():
    """Adam divides a constant gradient by its own size: coupled decay alone moves by lr whatever its strength;
    decoupled decay moves by lr * c * p (Loshchilov & Hutter 2019)."""
    params = {"a": jnp.asarray([4.0])}
    zero = {"a": jnp.asarray([0.0])}

    def step(decay):
        optimizer = Adam(lr=0.1, decay=decay)
        return float(optimizer.update(zero, optimizer.init(params), params, jnp.uint32(0), TOTAL)[0]["a"][0])

    for c in (1e-3, 1e-1):
        assert step(WeightDecay("l2", c)) == pytest.approx(3.9, rel=1e-5)
        assert step(WeightDecay("decoupled", c)) == pytest.approx(4.0 * (1 - 0.1 * c), rel=1e-6)


def test_members_may_differ_in_their_decay():
    """Strength 0 is training without; another strength shrinks the weights."""
    decayed = replace(
        SPEC, optimizer=Adam(lr=3e-3, decay=WeightDecay()), vary={"optimizer.decay.coefficient": [0.0, 0.1]}
    )
    decayed.check()
    assert "optimizer.decay.coefficient" in decayed.variable()

    def trained(spec, member):
        engine = Engine(spec)
        return flat(engine.train(engine.init(member), engine.data(member), jnp.uint32(20)).params)

    plain, without, strong = trained(replace(SPEC, vary={}), 0), trained(decayed, 0), trained(decayed, 1)
    for name, w in plain.items():
        np.testing.assert_allclose(without[name], w, rtol=1e-4, atol=1e-5)
    same = flat(Engine(decayed).init(1).params)
    assert np.linalg.norm(strong["readout.w"]) < 0.9 * np.linalg.norm(same["readout.w"])


def test_a_field_of_the_decay_brings_it():
    data = msgspec.to_builtins(SPEC)
    override(Spec, data, "optimizer.decay.coefficient", "1e-4")
    override(Spec, data, "optimizer.decay.on", "mlp")
    assert from_builtins(data).optimizer.decay == WeightDecay("l2", 1e-4, "mlp")


def test_a_negative_decay_is_refused():
    with pytest.raises(InputError, match=r"optimizer\.decay\.coefficient = -1"):
        Adam(decay=WeightDecay(coefficient=-1.0)).check()
