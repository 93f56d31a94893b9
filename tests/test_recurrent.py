"""The recurrent models against plain NumPy ones, their causality, their taps, their sizes, and that they learn."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.models.encoders import ResNet
from ebbtide.models.positions import Learned, NoPositions, Sinusoidal
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.labels import Shared
from ebbtide.tasks.prompt import Prompt
from ebbtide.training.engine import Engine
from ebbtide.training.fields import override
from ebbtide.training.optimizer import Adam, WeightDecay
from ebbtide.training.spec import Spec, from_builtins, from_json
from model_tools import BATCH, CONTEXT, DIM, LABELS, idle_taps, prompt_of, recorded
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")

KINDS = ("lstm", "rnn", "relu_rnn")
SHAPE = {"context": CONTEXT, "dim": DIM, "labels": LABELS}
TOKENS = 2 * CONTEXT + 1


def small(kind: str = "lstm", **changes: Any) -> Recurrent:
    return replace(Recurrent(layers=2, width=6), kind=kind, **changes)


def stirred(model: Recurrent, dtype: type = np.float32, dim: int = DIM) -> Any:
    """Parameters of which none is 0: a forgotten bias changes the result."""
    params = model.init(root(0, Purpose.INIT), context=CONTEXT, dim=dim, labels=LABELS)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), dtype), params)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def reference(model: Recurrent, params: Any, exemplars: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logits of one sequence, token by token through all layers, as the textbooks have it."""
    p = jax.tree.map(np.asarray, params)
    x = np.zeros((TOKENS, model.width))
    x[0::2] = exemplars @ p["exemplar"]["w"] + p["exemplar"]["b"]
    x[1::2] = p["label"]["table"][labels]
    match model.positions:
        case Learned():
            x = x + p["position"]["table"]
        case Sinusoidal(max_time=max_time):
            for t in range(TOKENS):
                for i in range(0, model.width, 2):
                    angle = t / max_time ** (i / model.width)
                    x[t, i] += np.sin(angle)
                    x[t, i + 1] += np.cos(angle)
    d = model.width
    h, c = np.zeros((2, model.layers, d))
    for token in x:
        below = token
        for i, w in enumerate(p["layers"]):
            if model.kind == "lstm":
                both = np.concatenate([below, h[i]]) @ np.concatenate([w["x"], w["h"]]) + w["b"]
                enter, new, keep, out = both[:d], both[d : 2 * d], both[2 * d : 3 * d], both[3 * d :]
                c[i] = sigmoid(keep + 1) * c[i] + sigmoid(enter) * np.tanh(new)
                h[i] = sigmoid(out) * np.tanh(c[i])
            else:
                driven = w["x"].T @ below + w["h"].T @ h[i] + w["b"]
                h[i] = np.tanh(driven) if model.kind == "rnn" else np.where(driven > 0, driven, 0)
            below = h[i]
    return h[-1] @ p["readout"]["w"] + p["readout"]["b"]


def double(prompt: Prompt) -> Prompt:
    """The same prompt with exemplars in float64."""
    return prompt._replace(exemplars=prompt.exemplars.astype(jnp.float64))


@pytest.mark.parametrize("positions", [Sinusoidal(), Learned(), NoPositions()])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_against_a_plain_recurrent_network(kind, layers, positions):
    model = small(kind, layers=layers, positions=positions)
    with jax.enable_x64(True):
        params, prompt = stirred(model, np.float64), double(prompt_of())
        logits = jax.jit(model.apply)(params, prompt)
        exemplars, labels = np.asarray(prompt.exemplars), np.asarray(prompt.labels)
    expected = [reference(model, params, exemplars[:, b], labels[:, b]) for b in range(BATCH)]
    np.testing.assert_allclose(logits, expected, rtol=1e-12, atol=1e-12)


def test_the_tokens_are_those_of_the_transformer():
    """The same weights make the same tokens: two models differ in what is between them and the read-out alone."""
    model, prompt = small(positions=Learned()), prompt_of()
    other = Transformer(layers=1, width=6, heads=1)
    params = stirred(model)
    theirs = other.init(root(0, Purpose.INIT), **SHAPE) | {n: params[n] for n in ("exemplar", "label", "position")}
    one, two = recorded(model, params, prompt), recorded(other, theirs, prompt)
    for name in ("hook_exemplar_embed", "hook_label_embed", "hook_embed"):
        np.testing.assert_array_equal(one[name], two[name])


def test_shapes_of_the_taps():
    shapes = {name: value.shape for name, value in recorded(small(), stirred(small()), prompt_of()).items()}
    assert shapes["hook_embed"] == shapes["layers.0.hook_h"] == shapes["layers.1.hook_h"] == (TOKENS, BATCH, 6)
    assert shapes["hook_logits"] == (BATCH, LABELS) and len(shapes) == 6


def test_every_tap_can_replace_its_value():
    assert idle_taps(small(), stirred(small())) == []


@pytest.mark.parametrize("slot", [0, 1, CONTEXT])
@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_causality(kind, slot):
    """An exemplar reaches its own token (2 * slot) and later ones, and nothing before."""
    model, prompt = small(kind), prompt_of()
    params = stirred(model)
    changed = prompt._replace(exemplars=prompt.exemplars.at[slot].add(1.0))
    one, other = (recorded(model, params, p)["layers.1.hook_h"] for p in (prompt, changed))
    moved = np.abs(one - other).max(axis=(1, 2))
    assert (moved[: 2 * slot] == 0).all() and (moved[2 * slot :] > 1e-5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_their_order_matter(kind):
    """Without positions too: a state knows what came first."""
    model, prompt = small(kind, positions=NoPositions()), prompt_of()
    params = stirred(model)
    order = jnp.asarray([1, 0, 2])
    moved = prompt._replace(exemplars=prompt.exemplars[jnp.asarray([1, 0, 2, 3])], labels=prompt.labels[order])
    relabelled = prompt._replace(labels=(prompt.labels + 1) % LABELS)
    plain = model.apply(params, prompt)
    for other in (moved, relabelled):
        assert np.abs(np.asarray(model.apply(params, other) - plain)).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_against_finite_differences(kind):
    """In float64, one entry of every tensor and one random direction in the whole space."""
    with jax.enable_x64(True):
        model, prompt = small(kind), double(prompt_of())
        params = stirred(model, np.float64)
        _, gradient = jax.jit(model.loss_and_grad)(params, prompt)
        leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, params))
        slopes = [np.asarray(s) for s in jax.tree.leaves(gradient)]
        compiled, rng, step = jax.jit(model.loss), np.random.default_rng(3), 1e-6
        shown = int(prompt.labels[0, 0])

        def slope(way: list[np.ndarray]) -> float:
            ends = [[jnp.asarray(p + s * w) for p, w in zip(leaves, way, strict=True)] for s in (step, -step)]
            high, low = (float(compiled(jax.tree.unflatten(tree, end), prompt)) for end in ends)
            return (high - low) / (2 * step)

        for i, leaf in enumerate(leaves):
            at = tuple(int(rng.integers(n)) for n in leaf.shape)
            at = (shown, at[1]) if leaf.shape == (LABELS, model.width) else at
            way = [np.zeros(p.shape) for p in leaves]
            way[i][at] = 1.0
            np.testing.assert_allclose(slopes[i][at], slope(way), rtol=1e-5, atol=1e-8)
        way = [rng.normal(size=p.shape) for p in leaves]
        along = sum(float((g * w).sum()) for g, w in zip(slopes, way, strict=True))
        assert abs(along) > 1e-3
        np.testing.assert_allclose(along, slope(way), rtol=1e-6)


def test_initial_weights():
    """Fan-in d for each matrix of the plain networks; 2 d for the LSTM's, which has x and h side by side."""
    for kind, fan_in in (("lstm", 128), ("rnn", 64)):
        params = jax.jit(lambda kind=kind: Recurrent(kind, layers=2).init(root(0, Purpose.INIT), **SHAPE))()
        drawn = [np.asarray(layer[name]) for layer in params["layers"] for name in ("x", "h")]
        for w in drawn:
            np.testing.assert_allclose(w.std(), fan_in**-0.5, rtol=0.05)
        assert len({tuple(w.ravel()[:16].tolist()) for w in drawn}) == len(drawn)  # no key is used twice
        assert not any(layer["b"].any() for layer in params["layers"])


# ---- sizes


@pytest.mark.parametrize(("kind", "each"), [("lstm", 8 * 64**2 + 4 * 64), ("rnn", 2 * 64**2 + 64)])
def test_sizes_by_hand(kind: Any, each):
    spec = Spec(model=Recurrent(kind, layers=12))
    sizes = spec.shape()
    ends = 64 * (sizes["dim"] + 1) + 64 * sizes["labels"] + 65 * sizes["labels"]
    assert spec.parameters() == ends + 12 * each
    assert spec.model.weights(dim=sizes["dim"], labels=sizes["labels"]) == spec.parameters() - (
        64 + sizes["labels"] + 12 * (each % 64**2)  # biases
    )


def test_models_can_be_matched_in_size():
    """An LSTM of 18 layers, a plain network of 73, have about as much between tokens and read-out as 12 blocks."""
    spec = Spec(model=Transformer(layers=12))
    ends = Spec(model=Recurrent(layers=1)).parameters() - (8 * 64**2 + 4 * 64)
    middle = spec.parameters() - ends
    wanted: list[tuple[Any, int]] = [("lstm", 18), ("rnn", 73)]
    for kind, layers in wanted:
        found = replace(spec, model=Recurrent(kind, layers=layers)).parameters() - ends
        assert abs(found / middle - 1) < 0.05


# ---- in a run


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_trains_it(kind):
    """The loss falls well below that of guessing: the classes become known."""
    model = Recurrent(kind, layers=2, width=16)
    task = replace(SPEC.task, labels=Shared(4))
    spec = replace(SPEC, task=task, model=model, optimizer=Adam(lr=1e-2), sequences=16 * 400)
    spec.check()
    engine = Engine(spec)
    state, data = engine.init(0), engine.data(0)
    losses = []
    for _ in range(4):
        state = engine.train(state, data, jnp.uint32(100))
        losses.append(float(state.summed) / float(state.counted))
        state = state._replace(summed=jnp.float32(0), counted=jnp.uint32(0))
    assert losses[0] < 1.5 * math.log(4) and losses[-1] < 0.8 * losses[0]
    assert np.isfinite(engine.measure(state.params, engine.suite(0))).all()


def test_it_takes_a_resnet_and_its_weight_decay():
    model = Recurrent("rnn", layers=1, width=8, encoder=ResNet(stem=3, stem_channels=4, channels=(4,), blocks=1))
    params, prompt = stirred(model, dim=36), prompt_of(dim=36)
    loss, gradient = jax.jit(model.loss_and_grad)(params, prompt)
    assert np.isfinite(loss) and all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient["exemplar"]))
    pull = WeightDecay(coefficient=1.0, on="encoder").decay_term(params)
    np.testing.assert_array_equal(pull["exemplar"]["stem"]["w"], params["exemplar"]["stem"]["w"])
    assert not any(p.any() for p in jax.tree.leaves([pull["layers"], pull["label"], pull["readout"]]))


def test_a_spec_with_it_is_data():
    spec = Spec(model=Recurrent("rnn"))
    assert from_json(spec.to_json()) == spec and spec.digest() != Spec(model=Recurrent()).digest() != Spec().digest()
    data = msgspec.to_builtins(Spec())
    for name, text in (("model", "recurrent"), ("model.kind", "rnn")):  # as on the command line
        override(Spec, data, name, text)
    assert from_builtins(data) == spec


REFUSED = [
    ("model.kind", b'"kind":"gru"'),
    ("model.layers", b'"layers":0'),
    ("model.heads", b'"heads":2'),
    ("model.positions", b'"positions":{"type":"rotary"}'),
]


@pytest.mark.parametrize(("field", "text"), REFUSED)
def test_impossible_networks_are_refused_in_one_line(field, text):
    with pytest.raises(InputError) as caught:
        from_json(b'{"model":{"type":"recurrent",%s}}' % text)
    assert caught.value.field == field and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), [("layers", 1025), ("width", 1_000_000_000)])
def test_sizes_that_no_machine_has_are_refused_at_once(one_line, name, value):
    with pytest.raises(InputError) as caught:
        Spec(model=replace(Recurrent(), **{name: value})).check()
    one_line(caught, f"model.{name}", value)
