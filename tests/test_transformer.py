"""The transformer against a plain NumPy one, its causality, its taps, its size and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.models.model import cross_entropy
from ebbtide.models.positions import Learned, NoPositions, Rotary, Sinusoidal
from ebbtide.models.transformer import Transformer
from model_tools import BATCH, CONTEXT, DIM, LABELS, idle_taps, prompt_of, recorded

pytestmark = pytest.mark.usefixtures("quick_compile")

POSITIONS = {"learned": Learned(), "sinusoidal": Sinusoidal(), "rotary": Rotary(max_time=50.0), "none": NoPositions()}
SMALL = Transformer(layers=2, width=8, heads=2, mlp_ratio=2)


def stirred(model: Transformer, seed: int = 1, dtype: type = np.float32):
    """Parameters of which none is 0 or 1: a forgotten bias or scale changes the result."""
    params = model.init(root(0, Purpose.INIT), context=CONTEXT, dim=DIM, labels=LABELS)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), dtype), params)


def norm(w, x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w["scale"] + w["offset"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotated(x, max_time):
    """x `[token, k]` as complex pairs, turned by position * max_time^(-2i/k)."""
    tokens, k = x.shape
    z = x[:, 0::2] + 1j * x[:, 1::2]
    z = z * np.exp(1j * np.arange(tokens)[:, None] * max_time ** (-2 * np.arange(k // 2) / k))
    return np.stack([z.real, z.imag], -1).reshape(tokens, k)


def reference(model: Transformer, params, exemplars: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logits of one sequence: every token through every layer, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, float), params)
    width, k = model.width, model.width // model.heads
    e, shown = exemplars @ p["exemplar"]["w"] + p["exemplar"]["b"], p["label"]["table"][labels]
    if model.pairing == "joint":
        x = np.array([*(e[:-1] + shown), e[-1]])
    else:
        x = np.zeros((2 * len(labels) + 1, width))
        x[0::2], x[1::2] = e, shown
    tokens = len(x)
    match model.positions:
        case Learned():
            x = x + p["position"]["table"]
        case Sinusoidal(max_time=max_time):
            for t in range(tokens):
                for i in range(0, width, 2):
                    angle = t / max_time ** (i / width)
                    x[t, i] += np.sin(angle)
                    x[t, i + 1] += np.cos(angle)
    for block in p["blocks"]:
        w, y, out = block["attn"], norm(block["norm1"], x), np.zeros_like(x)
        q, key, v = (y @ w[name] + w.get(f"{name}_b", 0) for name in "qkv")
        for h in range(model.heads):
            part = slice(h * k, (h + 1) * k)
            qh, kh = q[:, part], key[:, part]
            if isinstance(model.positions, Rotary):
                qh, kh = rotated(qh, model.positions.max_time), rotated(kh, model.positions.max_time)
            for t in range(tokens):
                score = qh[t] @ kh[: t + 1].T / np.sqrt(k)
                weight = np.exp(score - score.max())
                out[t, part] = weight / weight.sum() @ v[: t + 1, part]
        x = x + out @ w["o"] + w.get("o_b", 0)
        if model.mlp_ratio:
            mlp = block["mlp"]
            x = x + gelu(norm(block["norm2"], x) @ mlp["w_in"] + mlp["b_in"]) @ mlp["w_out"] + mlp["b_out"]
    return norm(p["norm"], x)[-1] @ p["readout"]["w"] + p["readout"]["b"]


@pytest.mark.parametrize("attention_bias", [False, True])
@pytest.mark.parametrize("mlp_ratio", [0, 2])
@pytest.mark.parametrize("positions", POSITIONS)
def test_against_a_plain_transformer(positions, mlp_ratio, attention_bias):
    model = replace(SMALL, positions=POSITIONS[positions], mlp_ratio=mlp_ratio, attention_bias=attention_bias)
    params, prompt = stirred(model), prompt_of()
    logits = jax.jit(model.apply)(params, prompt)
    exemplars, labels = np.asarray(prompt.exemplars, float), np.asarray(prompt.labels)
    expected = [reference(model, params, exemplars[:, b], labels[:, b]) for b in range(BATCH)]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [1, 3])
def test_against_a_plain_transformer_at_other_depths(layers):
    model = replace(SMALL, layers=layers)
    params, prompt = stirred(model), prompt_of()
    expected = reference(model, params, np.asarray(prompt.exemplars[:, 0], float), np.asarray(prompt.labels[:, 0]))
    np.testing.assert_allclose(jax.jit(model.apply)(params, prompt)[0], expected, rtol=1e-4, atol=1e-4)


# ---- an exemplar and its label as one token


JOINT = replace(SMALL, pairing="joint")


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("positions", POSITIONS)
def test_joint_pairs_against_a_plain_transformer(positions, layers):
    model = replace(JOINT, positions=POSITIONS[positions], layers=layers)
    params, prompt = stirred(model), prompt_of()
    logits = jax.jit(model.apply)(params, prompt)
    exemplars, labels = np.asarray(prompt.exemplars, float), np.asarray(prompt.labels)
    expected = [reference(model, params, exemplars[:, b], labels[:, b]) for b in range(BATCH)]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_joint_pairs_are_half_as_many_tokens():
    params = stirred(JOINT)
    seen = recorded(JOINT, params, prompt_of())
    tokens = CONTEXT + 1
    assert JOINT.tokens(CONTEXT) == tokens and SMALL.tokens(CONTEXT) == 2 * CONTEXT + 1
    assert params["position"]["table"].shape == (tokens, SMALL.width)
    assert seen["hook_embed"].shape == seen["blocks.0.hook_resid_post"].shape == (tokens, BATCH, SMALL.width)
    assert seen["blocks.0.attn.hook_pattern"].shape == (BATCH, 2, tokens, tokens)
    assert seen["blocks.1.attn.hook_pattern"].shape == (BATCH, 2, 1, tokens)
    embedded = seen["hook_embed"] - np.asarray(params["position"]["table"])[:, None]
    np.testing.assert_allclose(embedded[-1], seen["hook_exemplar_embed"][-1], atol=1e-6)
    pairs = seen["hook_exemplar_embed"][:-1] + seen["hook_label_embed"]
    np.testing.assert_allclose(embedded[:-1], pairs, atol=1e-6)


def test_joint_pairs_are_counted_as_what_they_are():
    sizes = {"batch": 4, "context": CONTEXT, "dim": DIM, "labels": LABELS}
    one, other = ({p.name: p for p in m.products(**sizes)} for m in (JOINT, SMALL))
    assert (one["k, v"].m, other["k, v"].m) == (4 * (CONTEXT + 1), 4 * (2 * CONTEXT + 1))
    assert one["scores"].n == one["z"].k == CONTEXT + 1 and one["exemplars"] == other["exemplars"]
    shape = {"context": CONTEXT, "dim": DIM, "labels": LABELS}
    assert SMALL.parameters(**shape) - JOINT.parameters(**shape) == CONTEXT * SMALL.width  # positions


@pytest.mark.parametrize("slot", [0, 1, CONTEXT - 1])
def test_joint_pairs_are_causal(slot):
    """What is in a pair, exemplar or label, reaches its token and later ones, and the query's logits."""
    params, prompt = stirred(JOINT), prompt_of()
    label = prompt.labels.at[slot].set((prompt.labels[slot] + 1) % LABELS)
    for changed in (prompt._replace(exemplars=prompt.exemplars.at[slot].add(1.0)), prompt._replace(labels=label)):
        one, other = (recorded(JOINT, params, p) for p in (prompt, changed))
        moved = np.abs(one["blocks.0.hook_resid_post"] - other["blocks.0.hook_resid_post"]).max(axis=(1, 2))
        assert (moved[:slot] == 0).all() and (moved[slot:] > 1e-4).all()
        assert (np.abs(one["hook_logits"] - other["hook_logits"]).max(-1) > 1e-4).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_one_layer_without_positions_sees_a_set_of_pairs(layers):
    """The order of joint pairs does not matter to it, and what is paired with what does: all that ICL needs. One
    layer over interleaved tokens sees a set of exemplars and a set of labels. Causal layers below see an order."""
    prompt, order = prompt_of(), jnp.asarray([2, 0, 1])
    moved = prompt._replace(labels=prompt.labels[order])
    pairs = moved._replace(exemplars=prompt.exemplars[jnp.asarray([2, 0, 1, 3])])
    for pairing in ("joint", "interleaved"):
        model = replace(JOINT, pairing=pairing, layers=layers, positions=NoPositions())
        params = stirred(model)
        plain, other, unpaired = (np.asarray(model.apply(params, p)) for p in (prompt, pairs, moved))
        assert np.allclose(plain, other, atol=1e-5) == (layers == 1)
        assert np.allclose(plain, unpaired, atol=1e-5) == (layers == 1 and pairing == "interleaved")


# ---- taps


def test_attention_patterns():
    """The first layer attends backwards only; the last has the query's row alone; rows sum to 1."""
    seen = recorded(SMALL, stirred(SMALL), prompt_of())
    tokens = 2 * CONTEXT + 1
    first, last = seen["blocks.0.attn.hook_pattern"], seen["blocks.1.attn.hook_pattern"]
    assert first.shape == (BATCH, 2, tokens, tokens) and last.shape == (BATCH, 2, 1, tokens)
    np.testing.assert_array_equal(first, np.tril(first))
    assert (first[..., *np.tril_indices(tokens)] > 0).all() and (last > 0).all()
    np.testing.assert_allclose(first.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(last.sum(-1), 1, rtol=1e-5)


def test_shapes_of_the_taps():
    seen = recorded(SMALL, stirred(SMALL), prompt_of())
    tokens, d = 2 * CONTEXT + 1, SMALL.width
    shapes = {name: value.shape for name, value in seen.items()}
    assert shapes["hook_exemplar_embed"] == (CONTEXT + 1, BATCH, d)
    assert shapes["hook_label_embed"] == (CONTEXT, BATCH, d)
    assert shapes["hook_embed"] == shapes["blocks.0.hook_resid_post"] == (tokens, BATCH, d)
    assert shapes["blocks.0.attn.hook_k"] == shapes["blocks.0.attn.hook_q"] == (tokens, BATCH, 2, d // 2)
    assert shapes["blocks.1.attn.hook_k"] == shapes["blocks.1.attn.hook_v"] == (tokens, BATCH, 2, d // 2)
    assert shapes["blocks.1.attn.hook_q"] == shapes["blocks.1.attn.hook_z"] == (1, BATCH, 2, d // 2)
    assert shapes["blocks.1.hook_resid_post"] == shapes["blocks.1.hook_mlp_out"] == (1, BATCH, d)
    assert shapes["blocks.1.mlp.hook_post"] == (1, BATCH, 2 * d)
    assert shapes["ln_final.hook_normalized"] == (BATCH, d) and shapes["hook_logits"] == (BATCH, LABELS)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("slot", [0, 1, CONTEXT])
def test_causality(slot, positions):
    """An exemplar reaches its own token (2 * slot) and later ones, and nothing before."""
    model = replace(SMALL, positions=POSITIONS[positions])
    params, prompt = stirred(model), prompt_of()
    changed = prompt._replace(exemplars=prompt.exemplars.at[slot].add(1.0))
    name = "blocks.0.hook_resid_post"
    one, other = (recorded(model, params, p)[name] for p in (prompt, changed))
    np.testing.assert_array_equal(one[: 2 * slot], other[: 2 * slot])
    assert (np.abs(one - other).max(axis=(1, 2)) > 1e-4).tolist() == [t >= 2 * slot for t in range(2 * CONTEXT + 1)]


def test_the_order_of_the_context_matters_only_through_positions():
    prompt = prompt_of()
    swapped = prompt._replace(exemplars=prompt.exemplars[jnp.asarray([1, 0, 2, 3])], labels=prompt.labels[::-1])
    swapped = swapped._replace(labels=prompt.labels[jnp.asarray([1, 0, 2])])
    for positions, same in ((NoPositions(), True), (Learned(), False), (Sinusoidal(), False), (Rotary(), False)):
        model = replace(SMALL, layers=1, positions=positions)
        params = stirred(model)
        one, other = model.apply(params, prompt), model.apply(params, swapped)
        assert np.allclose(one, other, atol=1e-5) == same


def test_an_identity_tap_changes_no_bit():
    params, prompt = stirred(SMALL), prompt_of()
    tapped = jax.jit(lambda p, x: SMALL.apply(p, x, lambda name, value: value))(params, prompt)
    np.testing.assert_array_equal(tapped, jax.jit(SMALL.apply)(params, prompt))


def test_every_tap_can_replace_its_value():
    assert idle_taps(SMALL, stirred(SMALL)) == []


def test_cutting_all_attention_out_leaves_the_query_alone():
    """With every attention output replaced by 0 the context cannot matter."""
    params = stirred(SMALL)

    def cut(name, value):
        return jnp.zeros_like(value) if name.endswith("hook_attn_out") else value

    one, other = prompt_of(), prompt_of(seed=1)
    other = other._replace(exemplars=other.exemplars.at[-1].set(one.exemplars[-1]))
    np.testing.assert_array_equal(SMALL.apply(params, one, cut), SMALL.apply(params, other, cut))
    assert not np.allclose(SMALL.apply(params, one), SMALL.apply(params, other))


def count(params) -> int:
    return sum(p.size for p in jax.tree.leaves(params))


def shaped(model: Transformer, **sizes: int):
    return jax.eval_shape(lambda: model.init(root(0, Purpose.INIT), **sizes))


def test_parameter_counts_of_the_papers():
    deep = Transformer(layers=12, width=64, heads=8, positions=Sinusoidal())
    assert count(shaped(deep, context=8, dim=512, labels=1623)) == 839_063
    assert count(shaped(deep, context=8, dim=512, labels=12_800)) == 2_280_896
    # The original keeps 32 rows of learned positions; ours has one per token, 2 * 2 + 1.
    pairs = Transformer(layers=2, width=64, heads=8, mlp_ratio=0, positions=Learned())
    assert count(shaped(pairs, context=2, dim=512, labels=12_800)) == 1_719_232 - (32 - 5) * 64
    # Joint-ResNet model: four biases of 64 per layer more in attention.
    biased = replace(deep, attention_bias=True)
    assert count(shaped(biased, context=8, dim=512, labels=1623)["blocks"]) == 599_808


@pytest.mark.parametrize("labels", [64, 1600])
def test_initial_loss_is_about_log_n(labels):
    """Logits have unit variance at the start, which adds about 1/2 to log n."""
    model = Transformer()
    prompt = prompt_of(context=2, dim=16, labels=labels, batch=512)
    params = model.init(root(0, Purpose.INIT), context=2, dim=16, labels=labels)
    excess = float(jax.jit(model.loss)(params, prompt)) - np.log(labels)
    assert 0.2 < excess < 0.8


def test_initial_weights():
    params = Transformer().init(root(0, Purpose.INIT), context=2, dim=256, labels=500)
    block = params["blocks"][0]
    for w, fan_in in ((params["exemplar"]["w"], 256), (block["attn"]["q"], 64), (block["mlp"]["w_out"], 256)):
        np.testing.assert_allclose(np.std(w), fan_in**-0.5, rtol=0.05)
        assert np.abs(w).max() < 2.3 * fan_in**-0.5
    table = params["label"]["table"]
    assert np.abs(table).max() <= 0.04 and 0.015 < np.std(table) < 0.02
    np.testing.assert_allclose(np.std(params["position"]["table"]), 0.1, rtol=0.2)
    for bias in (params["exemplar"]["b"], block["mlp"]["b_in"], block["mlp"]["b_out"], params["readout"]["b"]):
        assert not bias.any()


def test_all_initial_weights_differ():
    """No two tensors share a key (one public code base gives positions and labels the same one)."""
    leaves = jax.tree.leaves(SMALL.init(root(0, Purpose.INIT), context=2, dim=8, labels=5))
    drawn = [np.asarray(p).ravel()[:16] for p in leaves if np.std(p) > 0]
    assert len(drawn) == 2 + 2 * 6 + 2
    assert len({tuple(np.argsort(p).tolist()) for p in drawn}) == len(drawn)


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.asarray([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]))
    np.testing.assert_allclose(cross_entropy(logits + 3, jnp.asarray([2, 1])), -np.log([0.7, 0.25]), rtol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_gradient_against_finite_differences(positions):
    """In float64, one entry of every tensor and one random direction in the whole space."""
    with jax.enable_x64(True):
        model = replace(SMALL, positions=POSITIONS[positions], attention_bias=True)
        params, prompt = stirred(model, dtype=np.float64), prompt_of()
        prompt = prompt._replace(exemplars=prompt.exemplars.astype(jnp.float64))
        loss, gradient = jax.jit(model.loss_and_grad)(params, prompt)
        leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, params))
        slopes = [np.asarray(s) for s in jax.tree.leaves(gradient)]
        compiled = jax.jit(model.loss)

        def value(leaves) -> float:
            return float(compiled(jax.tree.unflatten(tree, [jnp.asarray(p) for p in leaves]), prompt))

        np.testing.assert_allclose(loss, value(leaves), rtol=1e-12)
        rng, step = np.random.default_rng(3), 1e-5
        shown = int(prompt.labels[0, 0])

        def slope(way: list[np.ndarray]) -> float:
            ends = (value([p + s * w for p, w in zip(leaves, way, strict=True)]) for s in (step, -step))
            return (next(ends) - next(ends)) / (2 * step)

        for i, leaf in enumerate(leaves):
            at = tuple(int(rng.integers(n)) for n in leaf.shape)
            if leaf.shape == (LABELS, model.width):
                at = (shown, at[1])
            way = [np.zeros(p.shape) for p in leaves]
            way[i][at] = 1.0
            np.testing.assert_allclose(slopes[i][at], slope(way), rtol=1e-5, atol=1e-8)
        way = [rng.normal(size=p.shape) for p in leaves]
        along = sum(float((g * w).sum()) for g, w in zip(slopes, way, strict=True))
        assert abs(along) > 1e-2
        np.testing.assert_allclose(along, slope(way), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "heads"),
    [(Transformer(width=64, heads=7), 7), (Transformer(width=12, heads=4, positions=Rotary()), 4)],
)
def test_impossible_heads_are_refused(model, heads, one_line):
    with pytest.raises(InputError) as caught:
        model.check()
    one_line(caught, "model.heads", heads)
