"""The encoders of exemplars against plain NumPy ones: values, gradients, sizes, what they cost, and that they learn."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.models.encoders import Linear, ResNet
from ebbtide.models.layers import EPSILON
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import load_state
from ebbtide.sources.features import Features
from ebbtide.tasks.prompt import Prompt
from ebbtide.training import limits
from ebbtide.training import spec as spec_module
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam, WeightDecay
from ebbtide.training.programs import Programs
from ebbtide.training.run import spec_of
from ebbtide.training.spec import Spec, from_json
from make_golden import GOLDEN
from tiny import check_both

pytestmark = pytest.mark.usefixtures("quick_compile")

PAPER = ResNet()
SMALL = ResNet(stem=3, stem_channels=16, channels=(16, 32))
TINY = ResNet(stem=3, stem_channels=4, channels=(4, 8), blocks=2)
WIDTH = 8


def key() -> Array:
    return root(0, Purpose.INIT)


def stirred(encoder: Linear | ResNet, dim: int, width: int = WIDTH, dtype: type = np.float64):
    """Parameters of which none is 0 or 1: a forgotten offset or scale changes the result."""
    rng = np.random.default_rng(1)
    params = encoder.init(key(), dim, width)
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), dtype), params)


def images(side: int, slots: int = 2, batch: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(slots, batch, side**2))


class Reference:
    """The network of He et al. in NumPy, one output pixel after the other; counts its multiplications."""

    def __init__(self, encoder: ResNet, params: Any):
        self.encoder, self.params = encoder, jax.tree.map(np.asarray, params)
        self.products = 0

    def __call__(self, exemplars: np.ndarray) -> np.ndarray:
        slots, batch, dim = exemplars.shape
        side = math.isqrt(dim)
        x = np.stack([row.reshape(side, side, 1) for one in exemplars for row in one])
        x = np.maximum(self.layer(self.params["stem"], x, self.encoder.stem_stride), 0)
        if self.encoder.pool:
            x = np.stack([self.windows(x, 3, 2, i, j).max((1, 2)) for i, j in self.pixels(x, 2)], 1)
            half = math.isqrt(x.shape[1])
            x = x.reshape(len(x), half, half, -1)
        blocks = iter(self.params["blocks"])
        for group, _ in enumerate(self.encoder.channels):
            for i in range(self.encoder.blocks):
                stride, block = (2 if group and i == 0 else 1), next(blocks)
                y = np.maximum(self.layer(block["conv1"], x, 1), 0)
                y = np.maximum(self.layer(block["conv2"], y, stride), 0)
                y = self.layer(block["conv3"], y, 1)
                assert ("shortcut" in block) == (i == 0)
                x = np.maximum(y + (self.layer(block["shortcut"], x, stride) if i == 0 else x), 0)
        x = x.mean((1, 2))
        if "out" in self.params:
            self.products += len(x) * self.params["out"]["w"].size
            x = x @ self.params["out"]["w"] + self.params["out"]["b"]
        return x.reshape(slots, batch, -1)

    def pixels(self, x: np.ndarray, stride: int) -> list[tuple[int, int]]:
        rows = range(0, x.shape[1], stride)
        return [(i, j) for i in rows for j in rows]

    def windows(self, x: np.ndarray, kernel: int, stride: int, i: int, j: int) -> np.ndarray:
        """Pixels around (i, j), zeros outside the image; what pads an odd number has the larger half behind."""
        n = x.shape[1]
        pad = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        padded = np.pad(x, ((0, 0), (pad // 2, kernel), (pad // 2, kernel), (0, 0)))
        return padded[:, i : i + kernel, j : j + kernel]

    def layer(self, w: Any, x: np.ndarray, stride: int) -> np.ndarray:
        kernel = w["w"].shape[0]
        rows = [np.einsum("nabc,abcd->nd", self.windows(x, kernel, stride, i, j), w["w"]) for i, j in
                self.pixels(x, stride)]  # fmt: skip
        side = math.isqrt(len(rows))
        self.products += len(x) * len(rows) * w["w"].size
        y = np.stack(rows, 1).reshape(len(x), side, side, -1)
        axes = (0, 1, 2) if self.encoder.norm == "batch" else (1, 2, 3)
        y = (y - y.mean(axes, keepdims=True)) / np.sqrt(y.var(axes, keepdims=True) + EPSILON)
        return y * w["scale"] + w["offset"]


VARIANTS = {
    "odd side": (TINY, 11),
    "even side": (TINY, 12),
    "no pool": (replace(TINY, pool=False), 7),
    "stem without stride": (replace(TINY, stem=2, stem_stride=1, pool=False), 6),
    "wide stem, one block": (replace(TINY, stem=7, blocks=1), 9),
    "projection to the width": (replace(TINY, channels=(4, 12)), 9),
    "layer norm": (replace(TINY, norm="layer"), 10),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_against_a_plain_resnet(variant):
    encoder, side = VARIANTS[variant]
    with jax.enable_x64(True):
        params, exemplars = stirred(encoder, side**2), images(side)
        reference = Reference(encoder, params)
        expected = reference(exemplars)
        made = jax.jit(encoder.apply)(params, jnp.asarray(exemplars))
        assert made.shape == (2, 3, WIDTH)
        np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-11)
    counted = sum(p.times * p.m * p.k * p.n for p in encoder.products(2 * 3, side**2, WIDTH))
    assert counted == reference.products
    assert ("out" in params) == (encoder.channels[-1] != WIDTH)


def test_linear_is_one_matrix():
    params, exemplars = stirred(Linear(), 5, dtype=np.float32), images(3)[..., :5]
    expected = exemplars @ np.asarray(params["w"], float) + np.asarray(params["b"], float)
    np.testing.assert_allclose(Linear().apply(params, jnp.asarray(exemplars, jnp.float32)), expected, rtol=1e-4)
    assert Linear().weights(5, WIDTH) == params["w"].size


def test_the_linear_encoder_draws_what_it_always_drew():
    """The weights that the golden run began with, recorded when there was no other encoder."""
    run = RunFolder(GOLDEN)
    first = next(manifest for _, manifest in run.manifests() if manifest.sequences == 0)
    stored, spec = load_state(run, first), spec_of(run)
    assert isinstance(spec.model.encoder, Linear)
    for member in range(spec.members):
        leaves = jax.tree_util.tree_leaves_with_path(Engine(spec).init(member).params)
        assert len(leaves) > 10
        for path, leaf in leaves:
            name = "params." + jax.tree_util.keystr(path, simple=True, separator=".")
            np.testing.assert_allclose(leaf, stored[name][member], rtol=1e-6, atol=1e-7, err_msg=name)


def count(params: Any) -> int:
    return sum(math.prod(p.shape) for p in jax.tree.leaves(params))


def shaped(encoder: ResNet, dim: int, width: int) -> Any:
    return jax.eval_shape(lambda: encoder.init(key(), dim, width))


@pytest.mark.parametrize(("encoder", "side", "width", "numbers"), [
    (PAPER, 105, 64, 22_176),
    (PAPER, 105, 32, 22_176 + 65 * 32),
    (SMALL, 28, 32, 3_920),
])  # fmt: skip
def test_parameter_counts(encoder, side, width, numbers):
    """22,176 is that of Chan et al.'s public code: 20,896 in matrices, 1,280 in scales and offsets."""
    params = shaped(encoder, side**2, width)
    assert count(params) == numbers
    matrices = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "w"]
    assert encoder.weights(side**2, width) == count(matrices)


def test_the_paper_s_images_shrink_from_105_to_4():
    sides = {p.name: round(math.sqrt(p.m)) for p in PAPER.products(1, 105**2, 64)}
    assert sides == {"stem": 53, "conv1": 4, "conv2": 4, "conv3": 4, "shortcut": 4}
    assert PAPER.stored_values(105**2) == 53 * 53 * 64
    assert [p.m for p in PAPER.products(1, 105**2, 64) if p.name == "shortcut"] == [27**2, 14**2, 7**2, 4**2]


def test_initial_weights():
    params = jax.jit(lambda: PAPER.init(key(), 105**2, 64))()
    np.testing.assert_allclose(np.std(params["stem"]["w"]), 49**-0.5, rtol=0.05)
    for block in params["blocks"]:
        for name, layer in block.items():
            assert (layer["scale"] == (0 if name == "conv3" else 1)).all() and not layer["offset"].any()
            np.testing.assert_allclose(np.std(layer["w"]), math.prod(layer["w"].shape[:-1]) ** -0.5, rtol=0.35)
    drawn = [np.asarray(p).ravel()[:16] for p in jax.tree.leaves(params) if np.std(p) > 0]
    assert len(drawn) == 1 + 8 * 3 + 4 == len({tuple(p.tolist()) for p in drawn})  # no key is used twice


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_what_an_image_s_code_depends_on(norm):
    """Never on the order of the images; on the other images only through the statistics of a batch."""
    encoder, exemplars = replace(TINY, norm=norm), images(9, slots=1, batch=4)
    with jax.enable_x64(True):
        params, apply = stirred(encoder, 81), jax.jit(encoder.apply)
        codes = np.asarray(apply(params, jnp.asarray(exemplars)))
        turned = np.asarray(apply(params, jnp.asarray(exemplars[:, ::-1])))
        np.testing.assert_allclose(turned[:, ::-1], codes, rtol=1e-9, atol=1e-12)
        other = exemplars.copy()
        other[0, 3] = images(9, seed=5)[0, 0]
        moved = np.abs(np.asarray(apply(params, jnp.asarray(other))) - codes).max(-1)[0]
    assert moved[3] > 1e-3
    assert (moved[:3] > 1e-3).all() if norm == "batch" else (moved[:3] < 1e-12).all()


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_gradient_against_finite_differences(norm):
    """In float64, through the whole model: one entry of every tensor, and one random direction."""
    with jax.enable_x64(True):
        model = Transformer(layers=1, width=WIDTH, heads=2, encoder=replace(TINY, norm=norm, channels=(4, 12)))
        rng, context, batch, side, labels = np.random.default_rng(3), 2, 4, 9, 5
        params = model.init(key(), context=context, dim=side**2, labels=labels)
        params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape)), params)
        shown, target = rng.integers(0, labels, (context, batch)), rng.integers(0, labels, batch)
        slot = jnp.zeros((context + 1, batch), jnp.int32)
        one = jnp.asarray(target, jnp.int32)
        exemplars = jnp.asarray(images(side, context + 1, batch))
        prompt = Prompt(exemplars, jnp.asarray(shown, jnp.int32), one, slot, slot.astype(jnp.uint32), slot, one)
        _, gradient = jax.jit(model.loss_and_grad)(params, prompt)
        loss = jax.jit(model.loss)
        leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, params["exemplar"]))
        slopes = [np.asarray(s) for s in jax.tree.leaves(gradient["exemplar"])]

        def value(leaves: list[np.ndarray]) -> float:
            return float(
                loss(params | {"exemplar": jax.tree.unflatten(tree, [jnp.asarray(p) for p in leaves])}, prompt)
            )

        def slope(way: list[np.ndarray], step: float = 1e-6) -> float:
            ends = [value([p + s * w for p, w in zip(leaves, way, strict=True)]) for s in (step, -step)]
            return (ends[0] - ends[1]) / (2 * step)

        for i, leaf in enumerate(leaves):
            way = [np.zeros(p.shape) for p in leaves]
            at = tuple(int(rng.integers(n)) for n in leaf.shape)
            way[i][at] = 1.0
            np.testing.assert_allclose(slopes[i][at], slope(way), rtol=1e-4, atol=1e-8)
        way = [rng.normal(size=p.shape) for p in leaves]
        along = sum(float((g * w).sum()) for g, w in zip(slopes, way, strict=True))
        assert abs(along) > 1e-2
        np.testing.assert_allclose(along, slope(way, 1e-7), rtol=1e-5)


def test_weight_decay_on_the_encoder_is_on_the_resnet_and_nothing_else():
    model = Transformer(layers=1, width=WIDTH, heads=2, encoder=TINY)
    shapes = jax.eval_shape(lambda: model.init(key(), context=2, dim=81, labels=5))
    params = jax.tree.map(lambda p: jnp.ones(p.shape), shapes)
    pull = WeightDecay(coefficient=0.5, on="encoder").decay_term(params)
    assert {float(p.min()) for p in jax.tree.leaves(pull["exemplar"])} == {0.5}
    assert {float(p.max()) for p in jax.tree.leaves(pull["exemplar"])} == {0.5}
    rest = {name: part for name, part in pull.items() if name != "exemplar"}
    assert not any(p.any() for p in jax.tree.leaves(rest))


# ---- in a run


SIDE = 8


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> Features:
    """Twelve classes of pictures: a class is a pattern of black and white, an exemplar a shift by a pixel or none."""
    rng = np.random.default_rng(0)
    patterns = (rng.uniform(size=(12, SIDE, SIDE)) < 0.5).astype(np.float32)
    shifted = np.stack([np.roll(patterns, (i, j), (1, 2)) for i in (0, 1) for j in (0, 1)], 1)
    path = tmp_path_factory.mktemp("pixels") / "pixels.npz"
    np.savez(path, features=shifted.reshape(12, 4, SIDE**2))
    return Features(path=str(path), classes=8, exemplars=3, holdout_classes=4, holdout_exemplars=1, standardise="none")


def run_of(pixels: Features, **changes: Any) -> Spec:
    encoder = ResNet(stem=3, stem_channels=8, channels=(16,), blocks=1)
    model = Transformer(layers=1, width=16, heads=2, encoder=encoder)
    plain = Spec(source=pixels, model=model, optimizer=Adam(lr=1e-2), batch=32, sequences=3200, evaluators=("iwl",))
    return replace(plain, **changes)


def test_the_engine_trains_it(pixels):
    """It tells its classes apart by their pixels: the loss falls far below that of guessing among the labels."""
    spec = run_of(pixels)
    spec.check()
    engine = Engine(spec)
    state, data = engine.init(0), engine.data(0)
    untrained = np.asarray(state.params["exemplar"]["stem"]["w"])
    losses = []
    for _ in range(4):
        state = engine.train(state, data, jnp.uint32(25))
        losses.append(float(state.summed) / float(state.counted))
        state = state._replace(summed=jnp.float32(0), counted=jnp.uint32(0))
    guessing = math.log(spec.outputs())
    assert losses[-1] < 0.6 * guessing and losses[-1] < 0.7 * losses[0]
    assert np.abs(np.asarray(state.params["exemplar"]["stem"]["w"]) - untrained).max() > 1e-2


def test_a_spec_with_a_resnet_is_data(pixels):
    spec = run_of(pixels)
    assert from_json(spec.to_json()) == spec
    assert spec.digest() != run_of(pixels, model=replace(spec.model, encoder=Linear())).digest()
    plain = Spec(model=Transformer(encoder=Linear()))
    assert plain.digest() == Spec().digest()


def test_images_must_be_square(one_line):
    spec = Spec(model=Transformer(encoder=TINY))
    dim = spec.source.sizes().dim - 1
    with pytest.raises(InputError) as caught:
        replace(spec, source=replace(spec.source, dim=dim)).check()
    one_line(caught, "model.encoder", "resnet")
    assert f"{dim} features" in str(caught.value)


@pytest.mark.parametrize("change", ['"channels":[]', '"channels":[6]', '"norm":"none"', '"blocks":0', '"stem":0'])
def test_impossible_encoders_are_refused(change):
    field = "model.encoder." + change.split('"')[1]
    with pytest.raises(InputError) as caught:
        from_json(b'{"model":{"type":"transformer","encoder":{"type":"resnet",%s}}}' % change.encode())
    assert caught.value.field.startswith(field) and len(str(caught.value).splitlines()) == 1


def test_an_evaluation_takes_no_more_images_at_a_time_than_it_may_hold(pixels, monkeypatch):
    """In even parts, none smaller than a batch. Where images do not see each other the values are the same."""
    encoder = ResNet(stem=3, stem_channels=8, channels=(16,), blocks=1, norm="layer")
    spec = run_of(pixels, evaluation_sequences=100, evaluators=("icl", "iwl"), batch=10)
    spec = replace(spec, model=replace(spec.model, encoder=encoder))
    each = 4 * (spec.task.context + 1) * encoder.stored_values(SIDE**2)
    whole, values = Engine(spec), []
    for room, part in [(100, 100), (99, 50), (26, 25), (12, 10), (3, 10)]:
        monkeypatch.setattr(spec_module, "MOST_HELD", each * room)
        assert spec.evaluation_part() == part
        own = Programs(spec, False)  # compiled anew: the number of images that it may hold has changed
        values.append(own.measure(whole.init(0).params, whole.suite(0).prompts))
    for one in values[1:]:
        np.testing.assert_allclose(one, values[0], rtol=1e-4, atol=1e-5)
    assert replace(spec, evaluation_sequences=997).evaluation_part() == 997  # it has no even parts
    linear = replace(spec, model=replace(spec.model, encoder=Linear()), evaluation_sequences=10**9)
    assert linear.evaluation_part() == 10**9


def test_memory_that_no_machine_has_is_refused_at_once(pixels, one_line):
    """The stem's images of one evaluator's prompts are the largest arrays there are."""
    spec = run_of(pixels, evaluation_sequences=1000)
    assert (
        limits.needed_bytes(spec) > 4 * 1000 * 3 * spec.model.encoder.stored_values(SIDE**2) == 4 * 1000 * 3 * 4 * 4 * 8
    )
    stem = replace(spec.model.encoder, stem_channels=4096, stem_stride=1)
    spec = replace(spec, model=replace(spec.model, encoder=stem), evaluation_sequences=10**9)
    with pytest.raises(InputError) as caught:
        check_both(spec)
    one_line(caught, "evaluation_sequences", 10**9)
    blocks = replace(spec.model.encoder, blocks=65)
    with pytest.raises(InputError) as caught:
        check_both(replace(spec, model=replace(spec.model, encoder=blocks)))
    one_line(caught, "model.encoder.blocks", 65)
