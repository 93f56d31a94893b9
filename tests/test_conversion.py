"""Linearized attention against a plain recurrence, and contexts converted to biases: on which models, and exactly."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.errors import InputError
from ebbtide.kernel.native import unsupported_reason
from ebbtide.models.linearized import BiasedSoftmax, Linearized
from ebbtide.models.model import Shape
from ebbtide.models.positions import Identical, Learned, NoPositions, Rotary, Sinusoidal
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.training.fields import override
from ebbtide.training.spec import from_builtins
from ebbtide.verify import conversion as exact
from model_tools import CONTEXT, DIM, LABELS, idle_taps, prompt_of

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_every_two_values_of_the_grid_occur_together():
    """Layers, heads, positions, decay and feature map of the models that `ebbtide verify` converts."""
    rows = []
    for one in exact.grid():
        assert isinstance(one.attention, Linearized)
        own = one.attention.decay, replace(one.attention, decay=1.0)
        rows.append((one.layers, one.heads, one.positions, *own))
    for a, b in combinations(range(5), 2):
        first, second = ({row[i] for row in rows} for i in (a, b))
        assert min(len(first), len(second)) >= 2
        assert len({(row[a], row[b]) for row in rows}) == len(first) * len(second)


PLAIN = Transformer(
    layers=1, width=8, heads=2, mlp_ratio=0, norm="none", attention=Linearized(), positions=Rotary(30.0)
)
BIASED = replace(PLAIN, attention=Linearized(biases=True))
FEATURES = {
    "elu": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "exp": np.exp,
    "identity": lambda x: x,
}
SHAPE = Shape(context=CONTEXT, dim=DIM, labels=LABELS)


def parameters(model: Transformer, seed: int = 1):
    """Random parameters, of which none is 0."""
    shapes = jax.eval_shape(lambda key: model.init(key, **SHAPE), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32), shapes)


def turned(x, position, max_time):
    z = (x[0::2] + 1j * x[1::2]) * np.exp(1j * position * max_time ** (-np.arange(0, len(x), 2) / len(x)))
    return np.stack([z.real, z.imag], -1).reshape(-1)


def recurrence(model: Transformer, params, exemplars, labels) -> np.ndarray:
    """Logits of one sequence by the recurrence over the state [feature, head width] and the sum of features."""
    p = jax.tree.map(lambda a: np.asarray(a, float), params)
    x = np.zeros((2 * len(labels) + 1, model.width))
    x[0::2] = exemplars @ p["exemplar"]["w"] + p["exemplar"]["b"]
    x[1::2] = p["label"]["table"][labels]
    w, k, out = p["blocks"][0]["attn"], model.width // model.heads, np.zeros(model.width)
    for h in range(model.heads):
        part, own = slice(h * k, (h + 1) * k), model.attention
        assert isinstance(own, Linearized)
        decay = 1 - (1 - own.decay) / 2**h
        state = w["b_kv"][h] if "b_kv" in w else np.zeros((k, k))
        total = w["b_d"][h] if "b_d" in w else np.zeros(k)
        q, place = np.zeros(k), 0
        for t, token in enumerate(x):
            q, key = (FEATURES[own.features](token @ w[name][:, part]) for name in "qk")
            place = t if isinstance(model.positions, Rotary) else 0
            state = decay * state + np.outer(turned(key, place, 30.0), token @ w["v"][:, part])
            total = decay * total + key
        below = q @ total + 1e-6 if own.normalizer else np.sqrt(k)
        out[part] = turned(q, place, 30.0) @ state / below
    return (x[-1] + out @ w["o"]) @ p["readout"]["w"] + p["readout"]["b"]


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("positions", [Rotary(30.0), NoPositions()])
@pytest.mark.parametrize("own", [*exact.FEATURES.values(), Linearized("elu", decay=0.7)])
def test_linearized_attention_is_the_recurrence(own, positions, biases):
    model = replace(PLAIN, attention=replace(own, biases=biases), positions=positions)
    model.check()
    params, prompt = parameters(model), prompt_of()
    expected = recurrence(model, params, np.asarray(prompt.exemplars[:, 0], float), np.asarray(prompt.labels[:, 0]))
    np.testing.assert_allclose(model.apply(params, prompt)[0], expected, rtol=1e-4, atol=1e-4)


def test_what_is_tapped_is_what_is_used():
    model = replace(BIASED, layers=2, norm="pre", mlp_ratio=1)
    of_last_query = {"blocks.1.hook_q_input"}
    assert set(idle_taps(model, parameters(model))) <= of_last_query


def test_a_query_whose_features_are_all_zero_gives_numbers_and_finite_gradients():
    model = replace(PLAIN, attention=Linearized("relu2"))
    params = jax.tree.map(jnp.zeros_like, parameters(model))
    loss, grads = model.loss_and_grad(params, prompt_of())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves([loss, grads]))


def test_biases_of_zero_change_nothing():
    for model in (PLAIN, Transformer(layers=1, width=8, heads=2, positions=NoPositions())):
        params, prompt = parameters(model), prompt_of()
        wide, more = eb.add_biases(model, params, random_features=0 if model is PLAIN else 8)
        assert jax.tree.structure(more) == jax.tree.structure(parameters(wide))
        np.testing.assert_allclose(wide.apply(more, prompt), model.apply(params, prompt), rtol=1e-5, atol=1e-5)
        folded = eb.fold_context(wide, more, prompt_of(batch=1))
        again, same = eb.add_biases(wide, folded)
        assert again == wide
        jax.tree.map(np.testing.assert_array_equal, same, folded)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (replace(PLAIN, positions=Learned()), "model.positions = 'learned': must be rotary, none or identical"),
        (replace(PLAIN, positions=Sinusoidal()), "model.positions = 'sinusoidal'"),
        (replace(PLAIN, mask="none", pairing="joint"), "model.mask = 'none': must be causal"),
        (replace(PLAIN, attention="softmax"), "model.attention = 'softmax': must be linearized.*--approximate"),
        (replace(PLAIN, attention="linear"), "model.attention = 'linear': must be linearized"),
        (Recurrent(), "model = 'Recurrent': must be a transformer"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(model, named):
    with pytest.raises(InputError, match=named):
        eb.add_biases(model, {})


def test_what_goes_together_is_checked():
    refused = {
        "normalizer": replace(PLAIN, attention=Linearized("identity")),
        "decay": replace(PLAIN, mask="none", pairing="joint", attention=Linearized(decay=0.9)),
        r"model\.positions = 'rotary'": replace(PLAIN, attention=BiasedSoftmax()),
    }
    for words, model in refused.items():
        with pytest.raises(InputError, match=words):
            model.check()


def test_attention_is_a_word_or_a_struct_of_a_spec_and_old_specs_read_as_before():
    data = eb.Spec().builtins()
    assert data["model"]["attention"] == "softmax"
    override(eb.Spec, data, "model.attention", "linearized")
    override(eb.Spec, data, "model.attention.decay", "0.9")
    assert from_builtins(data).model == Transformer(attention=Linearized(decay=0.9))
    override(eb.Spec, data, "model.attention", "relu")
    assert from_builtins(data).model == Transformer(attention="relu")
    override(eb.Spec, data, "model.attention", "linearised")
    with pytest.raises(InputError, match=r"model\.attention = 'linearised'.*softmax.*did you mean 'linearized'"):
        from_builtins(data)


def test_a_context_is_of_one_prompt_and_needs_biases_to_hold_it():
    with pytest.raises(InputError, match=r"model\.attention.*must have biases"):
        eb.fold_context(PLAIN, parameters(PLAIN), prompt_of(batch=1))
    with pytest.raises(InputError, match="prompt = 5: must be one prompt"):
        eb.fold_context(BIASED, parameters(BIASED), prompt_of(batch=5))


@pytest.mark.parametrize("positions", [Rotary(), NoPositions(), Identical(), Identical(kinds="token")])
@pytest.mark.parametrize("pairing", ["interleaved", "copied", "joint"])
def test_few_shot_contexts_of_every_pairing_are_held_exactly(pairing, positions):
    kinds = positions.kinds if isinstance(positions, Identical) else "role"
    if kinds == "token" and pairing == "joint":
        pytest.skip("a pair is one token")
    model = replace(PLAIN, layers=2, norm="pre", pairing=pairing, positions=positions)
    prompt, (model, params) = prompt_of(batch=1), eb.add_biases(model, parameters(model))
    told, folded = model.apply(params, prompt), eb.fold_context(model, params, prompt)
    np.testing.assert_allclose(model.apply(folded, eb.query_alone(prompt)), told, rtol=1e-4, atol=1e-5)
    assert np.abs(model.apply(params, eb.query_alone(prompt)) - told).max() > 1e-2
    back = eb.fold_context(model, folded, prompt, undo=True)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), back, params)


def test_random_features_come_nearer_to_softmax_the_more_they_are():
    model = Transformer(layers=1, width=8, heads=2, mlp_ratio=0, positions=NoPositions())
    params, prompt = parameters(model), prompt_of(batch=1)
    told = model.apply(params, prompt)

    def error(features: int) -> float:
        gaps = []
        for seed in range(10):
            wide, more = eb.add_biases(model, params, random_features=features, seed=seed)
            folded = eb.fold_context(wide, more, prompt)
            gaps.append(float(jnp.linalg.norm(wide.apply(folded, eb.query_alone(prompt)) - told)))
        return float(np.mean(gaps))

    few, many = error(16), error(1024)
    assert 4 < few / many < 16  # 8 = (1024 / 16)^(1/2)


def test_the_compiled_kernel_refuses_these_models_by_name():
    assert unsupported_reason(replace(PLAIN, width=16), SHAPE) == "linearized attention is not served"
    wide = Transformer(width=16, heads=2, positions=NoPositions(), attention=BiasedSoftmax(8))
    assert unsupported_reason(wide, SHAPE) == "biases that hold a context are not served"


def test_a_conversion_that_forgets_the_rotation_would_have_been_noticed(monkeypatch):
    whole = Linearized.sums
    monkeypatch.setattr(Linearized, "sums", lambda own, key, v, positions: whole(own, key, v, NoPositions()))
    model = next(one for one in exact.grid() if isinstance(one.positions, Rotary))
    assert exact.measure(model, np.float32, exact.converted)[0] > 1e-2
