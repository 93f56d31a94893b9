"""Glyphs: pure functions of a seed, drawn as images that can be told apart about as well as Omniglot's."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.sources import strokes
from ebbtide.sources.components import principal_components
from ebbtide.sources.glyphs import COMPONENTS, Glyphs
from ebbtide.tasks.fewshot import METRICS, FewShot
from ebbtide.training import limits
from ebbtide.training.members import Members
from ebbtide.training.spec import from_json
from tiny import SPEC, check_both

SOURCE = Glyphs(classes=90, exemplars=15, holdout_classes=10, holdout_exemplars=5)
REDUCED = replace(SOURCE, features="pca64")
FEW = Glyphs(classes=8, exemplars=3, holdout_classes=2, holdout_exemplars=2)

PINNED = [[15193, 17300, 24883], [13212, 12114, 11255], [16792, 17927, 17674], [15873, 15007, 21357]]


@cache
def drawn() -> np.ndarray:
    """The images of the source that most tests look at."""
    return SOURCE.images()


def nearest_mean(x: np.ndarray) -> float:
    """Accuracy of the nearest mean of 15 exemplars on the other 5; chance is 1 / classes."""
    x = x.reshape(*x.shape[:2], -1).astype(float)
    means, queries = x[:, :15].mean(1), x[:, 15:]
    scores = queries @ means.T - 0.5 * (means**2).sum(-1)
    return float((scores.argmax(-1) == np.arange(len(means))[:, None]).mean())


def ink(images: np.ndarray) -> np.ndarray:
    """The fraction of every image that is ink."""
    return images.mean((-2, -1)) / 255


# ---- randomness


def test_glyphs_are_a_function_of_the_seed():
    np.testing.assert_array_equal(SOURCE.images(), drawn())
    other = replace(SOURCE, seed=1).images()
    assert (other != drawn()).any((-2, -1)).all()


def test_the_random_stream_is_pinned():
    """Ink of three trained and one held-out class, two drawings and a held-out one each; bytes may round otherwise."""
    images = Glyphs(classes=3, exemplars=2, holdout_classes=1, holdout_exemplars=1).images()
    np.testing.assert_allclose(images.sum((2, 3), dtype=int), PINNED, rtol=1e-3)


@pytest.mark.parametrize("counts", [{"classes": 95}, {"exemplars": 18}, {"classes": 200, "exemplars": 16}])
def test_more_classes_or_exemplars_leave_the_others_as_they_are_bit_for_bit(counts):
    source = replace(SOURCE, **counts)
    more = source.images()
    np.testing.assert_array_equal(more[:90, :15], drawn()[:90, :15])
    np.testing.assert_array_equal(more[source.classes :, :15], drawn()[90:, :15])
    np.testing.assert_array_equal(more[:90, source.exemplars :], drawn()[:90, 15:])


def test_more_held_out_ones_leave_the_others_as_they_are_bit_for_bit():
    more = replace(SOURCE, holdout_classes=13, holdout_exemplars=7).images()
    np.testing.assert_array_equal(more[:100, :20], drawn())


def test_all_drawings_differ():
    flat = drawn().reshape(-1, 28 * 28)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_the_side_does_not_change_the_drawing():
    """A drawing at 56 or 84 pixels, averaged over squares, is the drawing at 28 but for its softer edges; another
    drawing of the same class is several times as far from it."""
    small = FEW.images().astype(float)
    another = np.abs(small - np.roll(small, 1, axis=1)).mean()
    for times in (2, 3):
        large = replace(FEW, side=28 * times).images().reshape(10, 5, 28, times, 28, times).mean((3, 5))
        assert np.abs(large - small).mean() < another / 4


# ---- images


@pytest.mark.parametrize("side", [28, 41, 105])
def test_every_image_has_some_ink_and_not_too_much(side):
    images = replace(FEW, classes=48, side=side).images()
    assert images.shape == (50, 5, side, side) and images.dtype == np.uint8
    assert ink(images).min() > 0.015 and ink(images).max() < 0.25
    assert images.max((-2, -1)).min() > 200, "every drawing has a pixel nearly all ink"


def test_ink_of_all_images():
    """At the default: the mean is about Omniglot's 8 %."""
    assert ink(drawn()).min() > 0.015 and ink(drawn()).max() < 0.25
    assert 0.06 < ink(drawn()).mean() < 0.09


@pytest.mark.parametrize("motor", [0.0, 0.5, 2.0, 10.0])
def test_no_hand_is_so_unsteady_that_an_image_is_empty_or_full(motor):
    images = replace(SOURCE, motor=motor).images()
    assert ink(images).min() > 0.002 and ink(images).max() < 0.5
    assert images.max((-2, -1)).min() > 100


@pytest.mark.parametrize(("side", "motor"), [(28, 1.0), (28, 10.0), (41, 3.0), (105, 1.0)])
def test_no_ink_reaches_the_edge(side, motor):
    """Not even the soft edge of the widest pen: nothing is cut off."""
    images = replace(FEW, classes=48, side=side, motor=motor).images()
    for line in (images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]):
        assert line.max() == 0


def test_characters_have_one_to_four_strokes_with_the_probabilities_said():
    words = np.random.default_rng(0).integers(0, 2**32, (4000, strokes.SHAPE_WORDS), dtype=np.uint32)
    knots = strokes.shapes(words)
    repeats = (knots[:, 1:] == knots[:, :1]).all((2, 3)).sum(1)
    counts = np.bincount(strokes.STROKES - repeats, minlength=5) / len(words)
    expected = np.diff([0, *strokes.AMOUNT, 1])
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:], expected, atol=5 * np.sqrt(0.25 / len(words)))


def test_a_straight_line_by_hand():
    """From (0.2, 0.5) to (0.8, 0.5) with a pen 0.1 wide at 40 pixels: rows 19 and 20 have their middles half a
    pixel from the line, rows 18 and 21 one and a half, rows 17 and 22 two and a half, and the line is 4 wide."""
    x = np.linspace(0.2, 0.8, (strokes.KNOTS - 1) * strokes.STEPS + 1)
    path = np.stack([x, np.full_like(x, 0.5)], -1)
    image = strokes.render(np.broadcast_to(path, (1, strokes.STROKES, *path.shape)), np.asarray([0.1]), 40)[0]
    expected = np.zeros(40)
    expected[18:22] = 255
    np.testing.assert_array_equal(image[:, 20], expected)
    np.testing.assert_allclose(image.sum() / 255, 4 * 24 + np.pi * 2**2, rtol=0.03)


def test_a_pen_thinner_than_a_pixel_is_grey():
    """The ink of a line is its length times its width, whatever the number of pixels."""
    x = np.linspace(0.2, 0.8, (strokes.KNOTS - 1) * strokes.STEPS + 1)
    path = np.broadcast_to(np.stack([x, np.full_like(x, 0.51)], -1), (1, strokes.STROKES, len(x), 2))
    image = strokes.render(path, np.asarray([0.01]), 50)[0]
    assert image.max() == 128
    np.testing.assert_allclose(image.sum() / 255 / 50**2, 0.6 * 0.01, rtol=0.05)


def test_a_stroke_of_no_length_is_a_dot():
    """A disc of diameter 0.2 at 40 pixels, and no ink elsewhere."""
    points = np.full((1, strokes.STROKES, (strokes.KNOTS - 1) * strokes.STEPS + 1, 2), 0.5)
    image = strokes.render(points, np.asarray([0.2]), 40)[0]
    np.testing.assert_allclose(image.sum() / 255, np.pi * 4**2, rtol=0.03)
    np.testing.assert_array_equal(image, image.T)
    assert image[:15].max() == 0 and image[20, 20] == 255


# ---- classes


def test_without_noise_all_exemplars_of_a_class_are_the_same_image_and_no_two_classes_are():
    still = replace(SOURCE, motor=0.0).images()
    np.testing.assert_array_equal(still, np.broadcast_to(still[:, :1], still.shape))
    assert len(np.unique(still[:, 0].reshape(100, -1), axis=0)) == 100


def test_exemplars_are_nearer_to_their_class_than_to_others():
    """For every class the mean squared distance of its exemplars is below that to the next class's."""
    x = drawn().reshape(100, 20, -1) / 255
    within = ((x[:, :10] - x[:, 10:]) ** 2).sum(-1).mean(1)
    between = ((x[:, :10] - np.roll(x, 1, 0)[:, 10:]) ** 2).sum(-1).mean(1)
    assert within.mean() < 0.85 * between.mean()
    assert (within < between).mean() > 0.8


def test_more_motor_noise_moves_the_exemplars_of_a_class_apart():
    distances = []
    for motor in (0.0, 0.25, 0.5, 1.0, 2.0):
        x = replace(SOURCE, motor=motor).images() / 255
        distances.append(((x[:, :10] - x[:, 10:]) ** 2).sum((-2, -1)).mean())
    assert distances[0] == 0 and (np.diff(distances) > 0).all()


@pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.thorough) for one in (1, 2))])
@pytest.mark.parametrize(("motor", "least", "most"), [(0.5, 0.74, 0.94), (1.0, 0.36, 0.58), (1.5, 0.14, 0.34)])
def test_nearest_class_mean(seed, motor, least, most):
    """100 classes of pixels, chance 1 %. Bands: of seeds 0 to 3, 4 standard errors of 500 queries around."""
    x = replace(SOURCE, classes=100, holdout_classes=0, seed=seed, motor=motor).images()
    assert least < nearest_mean(x) < most


def test_held_out_classes_are_as_hard_as_the_others():
    """60 classes each: the held-out ones are drawn from the same distribution."""
    source = replace(SOURCE, classes=60, holdout_classes=60)
    x = source.images()
    trained, held_out = nearest_mean(x[:60]), nearest_mean(x[60:])
    assert abs(trained - held_out) < 5 * np.sqrt(2 * 0.25 / 60)


# ---- the bank


def test_pixels_are_bytes_in_the_bank_and_from_zero_to_one_in_look_up():
    bank = FEW.build()
    assert bank.features.dtype == jnp.uint8 and bank.features.shape == (10, 5, 784)
    assert FEW.sizes() == (8, 2, 3, 2, 784)
    classes, exemplars = jnp.asarray([[0, 9], [3, 3]]), jnp.asarray([[4, 0], [1, 2]], jnp.uint32)
    got = jax.jit(FEW.look_up)(bank, classes, exemplars)
    assert got.dtype == jnp.float32 and got.shape == (2, 2, 784)
    assert got.min() == 0 and 0.7 < got.max() <= 1
    np.testing.assert_allclose(got, FEW.images()[classes, exemplars].reshape(2, 2, 784) / 255, rtol=1e-6)


def test_pca64_is_standardised_on_what_is_trained_on_and_uncorrelated():
    x = np.asarray(REDUCED.build().features)
    assert x.shape == (100, 20, COMPONENTS) and x.dtype == np.float32 and REDUCED.sizes().dim == COMPONENTS
    train = x[:90, :15].reshape(-1, COMPONENTS).astype(float)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(train.T, bias=True), np.eye(COMPONENTS), atol=1e-4)
    assert np.isfinite(x).all()


def test_pca64_is_deterministic_and_held_out_ones_have_no_part_in_it():
    one = np.asarray(REDUCED.build().features)
    np.testing.assert_array_equal(one, REDUCED.build().features)
    fewer = np.asarray(replace(REDUCED, holdout_classes=3, holdout_exemplars=1).build().features)
    np.testing.assert_allclose(fewer, one[:93, :16], atol=1e-4)


def test_components_are_those_of_the_singular_value_decomposition():
    """An independent computation; the sign of an axis is that which makes its largest weight positive."""
    pixels = drawn().reshape(100, 20, -1)[:40]
    train = pixels[:30, :8].reshape(-1, 784).astype(float)
    _, _, axes = np.linalg.svd(train - train.mean(0), full_matrices=False)
    axes = axes[:10] * np.sign(np.take_along_axis(axes[:10], np.abs(axes[:10]).argmax(1)[:, None], 1))
    projected = (pixels - train.mean(0)) @ axes.T
    expected = projected / projected[:30, :8].std((0, 1))
    np.testing.assert_allclose(principal_components(pixels, 30, 8, 10), expected, atol=1e-3)


def test_a_constant_coordinate_is_zero_not_infinite():
    """Fewer directions than components: the variance along the others is nothing."""
    pixels = np.zeros((6, 2, 9), np.uint8)
    pixels[:, :, 0] = np.arange(12).reshape(6, 2)
    made = principal_components(pixels, 6, 2, 4)
    assert np.isfinite(made).all() and np.abs(made[..., 1:]).max() < 1e-3
    np.testing.assert_allclose(made[..., 0].std(), 1, rtol=1e-6)


# ---- specs


@pytest.mark.parametrize(
    ("source", "field", "value"),
    [
        (replace(FEW, classes=0), "classes", 0),
        (replace(FEW, exemplars=0), "exemplars", 0),
        (replace(FEW, holdout_classes=-1), "holdout_classes", -1),
        (replace(FEW, holdout_exemplars=2**31 + 1), "holdout_exemplars", 2**31 + 1),
        (replace(FEW, side=27), "side", 27),
        (replace(FEW, side=106), "side", 106),
        (replace(FEW, side=57, features="pca64"), "side", 57),
        (replace(FEW, motor=-0.1), "motor", -0.1),
        (replace(FEW, motor=float("nan")), "motor", float("nan")),
        (replace(FEW, motor=11.0), "motor", 11.0),
        (replace(FEW, features="pca64"), "features", "pca64"),
        (replace(FEW, classes=64, motor=0.0, features="pca64"), "features", "pca64"),
    ],
)
def test_what_cannot_be_drawn_is_refused(source, field, value, one_line):
    with pytest.raises(InputError) as caught:
        source.check()
    one_line(caught, f"source.{field}", value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"source": {"type": "glyphs", "features": "pca63"}}', "source.features"),
        ('{"source": {"type": "glyphs", "moter": 1}}', "source.moter"),
        ('{"source": {"type": "glyphs", "side": 28.5}}', "source.side"),
        ('{"source": {"type": "glyphs", "seed": -1}}', "source.seed"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text, field):
    with pytest.raises(InputError) as caught:
        from_json(text.encode())
    assert caught.value.field == field and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("source", [Glyphs(), replace(FEW, side=105), replace(FEW, motor=0.0), REDUCED])
def test_what_can_be_drawn_is_accepted(source):
    source.check()


def test_a_pixel_takes_one_byte(monkeypatch):
    """12,800 classes of 20 drawings at 28 pixels are 201 MB: as floats they would not fit into half a gigabyte."""
    monkeypatch.setattr(limits, "physical_memory", lambda: 2**29)
    large = replace(SPEC, source=Glyphs(classes=12_672, exemplars=15, holdout_classes=128, holdout_exemplars=5))
    assert 12_800 * 20 * 784 < limits.needed_bytes(large) < 1.1 * 12_800 * 20 * 784
    check_both(large)
    with pytest.raises(InputError, match="need at least") as caught:
        check_both(replace(large, source=replace(large.source, side=105)))
    assert caught.value.field in ("source.side", "source.classes")


def test_images_whose_components_are_taken_count():
    pixels, reduced = (replace(SPEC, source=replace(SOURCE, features=name)) for name in ("pixels", "pca64"))
    images, features = 100 * 20 * 784, 100 * 20 * 64 * limits.FLOAT
    assert images + features < limits.needed_bytes(reduced) < limits.needed_bytes(pixels) + features


def test_a_model_learns_classes_by_heart_from_pixels_and_the_hand_may_differ_between_members():
    """Chance is 1 in 34 labels; the second member sees drawings without noise."""
    source = Glyphs(classes=32, exemplars=2, holdout_classes=8, holdout_exemplars=2)
    spec = replace(SPEC, source=source, task=FewShot(p_bursty=0.0), vary={"source.motor": [1.0, 0.0]})
    spec = replace(spec, sequences=1280, evaluators=("iwl",), keep_best=None)
    spec.check()
    made = Members(spec, [0, 1], None)
    for one, motor in zip([group.data for group in made.groups], (1.0, 0.0), strict=True):
        np.testing.assert_array_equal(one.bank.features, replace(source, motor=motor).build().features)
    before = made.evaluate()["values"][:, 0, METRICS.index("accuracy"), 0]
    made.train(80)
    after = made.evaluate()["values"][:, 0, METRICS.index("accuracy"), 0]
    assert (before < 0.3).all() and (after > 0.9).all()
