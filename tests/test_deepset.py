"""The DeepSet: what it computes, that it is a function of a set and of every prefix, and that a run of it is a run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.evaluation.invariance import draw_orders, invariance_gap, permute_pairs
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.taps import axes, points
from ebbtide.models.deepset import DeepSet
from ebbtide.models.positions import Identical, Learned, LearnedUniform, NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import Regression
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Spec, from_json
from model_tools import BATCH, CONTEXT, DIM, LABELS, idle_taps, prompt_of

pytestmark = pytest.mark.usefixtures("quick_compile")

SHAPE = {"context": 6, "dim": 4, "labels": 0}
POOLS = ("mean", "sum")


def small(**changes: Any) -> DeepSet:
    return replace(DeepSet(layers=2, width=8), **changes)


def stirred(model: Any, dtype: Any = np.float32, **shape: int) -> Any:
    """Parameters of which none is 0."""
    params = model.init(root(0, Purpose.INIT), **(SHAPE | shape))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), dtype), params)


def functions(seed: int = 0, dtype: Any = np.float32, context: int = 6, batch: int = 5) -> FunctionPrompt:
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.normal(size=(context + 1, batch, 4)), dtype)
    return FunctionPrompt(
        inputs, jnp.asarray(rng.normal(size=(context + 1, batch)), dtype), jnp.ones((context, batch), bool), {}
    )


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("pool", POOLS)
def test_against_a_plain_network_of_every_prefix(pool, layers):
    model = small(pool=pool, layers=layers)
    with jax.enable_x64(True):
        params, prompt = stirred(model, np.float64), functions(dtype=np.float64)
        outputs = np.asarray(model.apply(params, prompt))
        p, x, y = jax.tree.map(np.asarray, params), np.asarray(prompt.inputs), np.asarray(prompt.responses)
    assert outputs.shape == (7, 5, 1)
    for b in range(5):
        for t in range(7):
            total = np.zeros(8)
            for i in range(t):
                h = x[i, b] @ p["exemplar"]["w"] + p["exemplar"]["b"] + y[i, b] * p["label"]["table"][0]
                for w in p["psi"]:
                    h = np.maximum(h, 0) @ w["w"] + w["b"]
                total += h
            pooled = total / max(t, 1) if pool == "mean" else total
            q = x[t, b] @ p["exemplar"]["w"] + p["exemplar"]["b"]
            z = np.maximum(pooled @ p["join"]["pool"] + q @ p["join"]["query"] + p["join"]["b"], 0)
            for w in p["xi"]:
                z = np.maximum(z @ w["w"] + w["b"], 0)
            expected = z @ p["readout"]["w"] + p["readout"]["b"]
            np.testing.assert_allclose(outputs[t, b], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_the_order_of_the_pairs_does_not_matter(pool, dtype, most):
    with jax.enable_x64(dtype is np.float64):
        model, prompt = DeepSet(layers=2, width=16, pool=pool), functions(dtype=dtype, batch=200)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.init(jax.random.key(0), **SHAPE))
        order = draw_orders(jax.random.key(1), 6, 200)
        here, there = model.apply(params, prompt), model.apply(params, permute_pairs(prompt, order))
        assert here.dtype == dtype and float(np.abs(np.asarray(here - there))[-1].max()) <= most
        assert float(np.abs(np.asarray(here - there))[:-1].max()) > 1e-3, "prefixes are other sets"


def test_a_prefix_ignores_what_comes_later():
    model, prompt = small(), functions()
    params = stirred(model)
    before = np.asarray(model.apply(params, prompt))
    moved = np.asarray(model.apply(params, prompt._replace(inputs=prompt.inputs.at[3].add(1.0))))
    said = np.asarray(model.apply(params, prompt._replace(responses=prompt.responses.at[3].add(1.0))))
    np.testing.assert_array_equal(before[:3], moved[:3])
    np.testing.assert_array_equal(before[:4], said[:4])
    for one, first in ((moved, 3), (said, 4)):
        assert (np.abs(before - one)[first:].max(axis=(1, 2)) > 1e-4).all()


def test_longer_prompts_are_answered_too():
    model = small()
    assert model.apply(stirred(model), functions(context=24)).shape == (25, 5, 1)


def test_labels_are_answered_from_the_set_of_pairs():
    model, prompt = small(), prompt_of()
    params = stirred(model, context=CONTEXT, dim=DIM, labels=LABELS)
    logits = model.apply(params, prompt)
    assert logits.shape == (BATCH, LABELS)
    swapped = prompt._replace(
        exemplars=prompt.exemplars[jnp.asarray([1, 0, 2, 3])], labels=prompt.labels[jnp.asarray([1, 0, 2])]
    )
    np.testing.assert_allclose(model.apply(params, swapped), logits, atol=1e-5)
    relabelled = model.apply(params, prompt._replace(labels=(prompt.labels + 1) % LABELS))
    assert np.abs(np.asarray(relabelled - logits)).max() > 1e-3


NAMES = ["hook_exemplar_embed", "hook_label_embed", "psi.0.hook_post", "psi.1.hook_post", "hook_pool"]
NAMES += ["xi.0.hook_post", "xi.1.hook_post", "hook_logits"]


def test_every_tap_can_replace_its_value():
    assert idle_taps(small(), stirred(small(), context=CONTEXT, dim=DIM, labels=LABELS)) == []


def test_its_points_are_named_and_have_the_axes_they_say():
    found = points(small(), {"context": CONTEXT, "dim": DIM, "labels": LABELS})
    assert list(found) == NAMES
    assert all(len(shape) == len(axes(name)) for name, shape in found.items())


def test_sizes_by_hand():
    spec = Spec(model=DeepSet(layers=3, width=64))
    sizes = spec.shape()
    ends = 64 * (sizes["dim"] + 1) + 64 * sizes["labels"] + 65 * sizes["labels"]
    assert spec.parameters() == ends + 7 * 64**2 + 6 * 64
    assert spec.model.weights(dim=sizes["dim"], labels=sizes["labels"]) == 64 * sizes["dim"] + (
        2 * 64 * sizes["labels"] + 7 * 64**2
    )


def test_weights_are_drawn_for_their_inputs_and_no_key_is_used_twice():
    params = DeepSet(layers=3, width=64).init(root(0, Purpose.INIT), **SHAPE)
    drawn = [np.asarray(one["w"]) for one in (*params["psi"], *params["xi"])]
    joined = [np.asarray(params["join"][name]) for name in ("pool", "query")]
    for w, fan_in in [(w, 64) for w in drawn] + [(w, 128) for w in joined]:
        np.testing.assert_allclose(w.std(), fan_in**-0.5, rtol=0.05)
    assert len({tuple(w.ravel()[:16].tolist()) for w in [*drawn, *joined]}) == 7


SPEC = Spec(
    task=Regression(context=6, noise=(0.1,)),
    source=Functions(dim=2),
    model=DeepSet(layers=2, width=32),
    optimizer=Adam(lr=3e-3),
    batch=32,
    sequences=9_600,
    evaluators=("train", "skewed"),
    evaluation_sequences=400,
)


def test_the_engine_trains_it():
    engine = Engine(SPEC)
    state, data, suite = engine.init(0), engine.data(0), engine.suite(0)
    state = engine.train(state, data, jnp.uint32(300))
    assert np.asarray(engine.measure(state.params, suite))[0, 2, 0] > 0.5


def test_a_spec_with_it_is_data():
    assert from_json(SPEC.to_json()) == SPEC
    SPEC.check()
    with pytest.raises(InputError, match=r"^task\.lengths = 'random'"):
        replace(SPEC, task=replace(SPEC.task, lengths="random")).check()
    with pytest.raises(InputError, match=r"model\.layers"):
        from_json(b'{"model":{"type":"deepset","layers":0}}')


# ---- positions of set models, and what is left over for longer prompts


def test_spare_positions_leave_the_others_as_they_were():
    plain, spare = Learned(), Learned(spare=4)
    one, other = (p.init(jax.random.key(0), 5, 8)["table"] for p in (plain, spare))
    assert other.shape == (9, 8)
    np.testing.assert_array_equal(other[:5], one)
    x = jnp.zeros((7, 2, 8))
    np.testing.assert_array_equal(spare.add({"table": other}, x)[:, 0], other[:7])
    with pytest.raises(InputError, match=r"tokens = 7: positions\.spare must be at least 2 larger"):
        plain.add({"table": one}, x)
    with pytest.raises(InputError, match=r"model\.positions\.spare"):
        Spec(model=Transformer(positions=Learned(spare=10**6))).check()
    assert Spec(model=Transformer(positions=Learned(spare=0))).digest() == Spec().digest()


def test_learned_positions_may_start_uniform_at_the_same_scale():
    """As in the public code of Singh et al. 2025: 32 vectors within 1/sqrt(32), of standard deviation .102."""
    public = LearnedUniform(init_sd=96**-0.5, spare=27)
    table = np.asarray(public.init(jax.random.key(0), 5, 64)["table"])
    assert table.shape == (32, 64)
    assert 0.175 < np.abs(table).max() <= 32**-0.5
    for rows in (table[:5], table[5:]):  # the spare ones as well
        assert rows.std() == pytest.approx(0.102, rel=0.06)
        assert np.quantile(rows, 0.75) == pytest.approx(32**-0.5 / 2, rel=0.15)
    x = jnp.zeros((7, 2, 64))
    np.testing.assert_array_equal(public.add({"table": jnp.asarray(table)}, x)[:, 1], table[:7])
    spec = Spec(model=Transformer(positions=public))
    spec.check()
    assert from_json(spec.to_json()) == spec


def test_identical_positions_tell_kinds_of_tokens_and_no_places():
    x = jnp.zeros((5, 1, 8))
    table = Identical().init(jax.random.key(0), 5, 8)["table"]
    role, token = (np.asarray(Identical(kinds=k).add({"table": table}, x))[:, 0] for k in ("role", "token"))
    np.testing.assert_array_equal(role, np.asarray(table)[[0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(token, np.asarray(table)[[0, 1, 0, 1, 0]])
    joint = Transformer(positions=Identical(kinds="token"), pairing="joint")
    with pytest.raises(InputError, match=r"model\.positions\.kinds = 'token'"):
        joint.check()
    replace(joint, positions=Identical()).check()


def test_the_gap_by_hand():
    model = Transformer(layers=1, width=8, heads=2, mask="none", pairing="joint", positions=Learned())
    params, prompt = stirred(model), functions()
    order = draw_orders(jax.random.key(3), 6, 5)
    turned = permute_pairs(prompt, order)
    for b in range(5):
        np.testing.assert_array_equal(turned.inputs[:6, b], prompt.inputs[np.asarray(order)[:, b], b])
        np.testing.assert_array_equal(turned.responses[:6, b], prompt.responses[np.asarray(order)[:, b], b])
    np.testing.assert_array_equal(turned.inputs[6], prompt.inputs[6])
    here, there = (np.asarray(model.apply(params, one))[-1, :, 0] for one in (prompt, turned))
    expected = (there - here) ** 2 / (np.asarray(prompt.responses)[-1] ** 2).mean()
    np.testing.assert_allclose(invariance_gap(model, params, prompt, order), expected, rtol=1e-5)
    assert expected.max() > 1e-4
    blind = replace(model, positions=NoPositions())
    assert np.asarray(invariance_gap(blind, stirred(blind), prompt, order)).max() < 1e-10
