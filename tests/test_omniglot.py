"""Omniglot: pixels, transforms and layouts on a small stand-in; the real files where there are any; a good message
where there are none."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

import drawn
from ebbtide.errors import InputError
from ebbtide.sources.drawings import DRAWERS, FILE, SIDE, overlap, read_drawings, shrink
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import RELEASED, as_released, released_script_order
from ebbtide.sources.omniglot import Omniglot, features_file
from ebbtide.training.spec import Spec

CHARACTERS = 6
PIXELS = Omniglot(
    features="pixels", side=28, standardise="none", classes=4, exemplars=15, holdout_classes=2, holdout_exemplars=5
)
EIGHT = replace(PIXELS, transforms=True, classes=32, holdout_classes=16)


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A data folder with six characters."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    drawn.write(tmp_path, CHARACTERS)
    return tmp_path


def built(source: Omniglot) -> np.ndarray:
    source.check()
    return np.asarray(source.build().features)


def test_pixels_are_bytes_in_the_bank_and_zero_to_one_when_looked_up(small):
    bank = PIXELS.build()
    PIXELS.check()
    assert PIXELS.sizes() == (4, 2, 15, 5, 28 * 28)
    assert bank.features.dtype == jnp.uint8 and bank.features.shape == (6, 20, 28 * 28)
    got = np.asarray(PIXELS.look_up(bank, jnp.arange(6), jnp.zeros(6, jnp.uint32)))
    assert got.dtype == np.float32 and got.min() == 0 and 0.5 < got.max() <= 1
    pixels = read_drawings(small / FILE).pixels(28).reshape(CHARACTERS, DRAWERS, -1)
    order = np.random.default_rng(1337).permutation(CHARACTERS)
    np.testing.assert_allclose(got, pixels[order, 0] / 255, rtol=1e-6)


def test_at_the_full_side_a_pixel_is_a_bit(small):
    full = built(replace(PIXELS, side=SIDE, class_order_seed=None))
    np.testing.assert_array_equal(full.reshape(CHARACTERS, DRAWERS, SIDE, SIDE), 255 * drawn.drawings().images())


@pytest.mark.parametrize("side", [28, 35, 50, 105])
def test_areas_are_averaged(side):
    """By hand where the side divides 105; the amount of ink is the same at every side."""
    images = drawn.drawings(2).images()
    small = shrink(images, side)
    np.testing.assert_allclose(small.mean((2, 3)) / 255, images.mean((2, 3)), atol=0.5 / 255)
    if 105 % side == 0:
        n = 105 // side
        blocks = images.reshape(2, DRAWERS, side, n, side, n).mean((3, 5))
        np.testing.assert_array_equal(small, np.rint(blocks.astype(np.float32) * 255))


@pytest.mark.parametrize("side", [28, 64, 104])
def test_every_old_pixel_is_shared_out_once(side):
    w = overlap(SIDE, side)
    np.testing.assert_allclose(w.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(w.sum(0), side / SIDE, rtol=1e-5)


def test_eight_classes_for_each_character_shuffled_as_one(small):
    x = built(EIGHT).reshape(48, DRAWERS, 28, 28)
    assert EIGHT.sizes() == (32, 16, 15, 5, 28 * 28)
    order = np.random.default_rng(1337).permutation(CHARACTERS)
    images = read_drawings(small / FILE).pixels(28)[order]
    np.testing.assert_array_equal(x, eight_transforms(images))


def test_transforms_and_smaller_sides_may_be_done_in_either_order():
    images = drawn.drawings(2).images()
    np.testing.assert_array_equal(eight_transforms(shrink(images, 50)), shrink(eight_transforms(images), 50))


@pytest.mark.parametrize("seed", [None, 0, 1337])
@pytest.mark.parametrize("layout", ["correct", "released_script"])
def test_held_out_classes_are_whole_characters(small, seed, layout):
    source = replace(EIGHT, class_order_seed=seed, layout=layout)
    source.check()
    order = source.order(48) // 8
    assert not set(order[:32]) & set(order[32:])
    with pytest.raises(InputError, match=r"whole characters of 8 classes each, e\.g\. 16") as caught:
        replace(source, holdout_classes=15).check()
    assert caught.value.field == "source.holdout_classes"


def test_held_out_characters_stay_when_training_has_fewer(small):
    np.testing.assert_array_equal(built(EIGHT)[32:], built(replace(EIGHT, classes=8))[8:])


def test_the_released_order_is_as_documented():
    """Row r, column i is flat entry 20 r + i of [character, drawing, transform]: character r // 8, drawing
    (20 (r % 8) + i) // 8, and the transform that has the number (20 (r % 8) + i) % 8 there."""
    order = released_script_order(1623, 20)
    assert order.shape == (12_984, 20, 3)
    r, i = np.arange(12_984)[:, None], np.arange(20)[None]
    np.testing.assert_array_equal(order[..., 0], np.broadcast_to(r // 8, (12_984, 20)))
    np.testing.assert_array_equal(order[..., 1], (20 * (r % 8) + i) // 8)
    np.testing.assert_array_equal(order[..., 2], np.array(RELEASED)[(20 * (r % 8) + i) % 8])
    assert len(np.unique(order.reshape(-1, 3), axis=0)) == 12_984 * 20  # every image is there, once


def test_the_consequences_of_the_released_order():
    """What a study of these files would see (and the correct order would not)."""
    order = released_script_order(1623, 20)
    character, drawing, transform = np.moveaxis(order, -1, 0)
    assert {len(set(row)) for row in drawing} == {3}  # 2.5 drawings' worth: two whole ones and a half, or so
    assert np.mean([np.unique(row, return_counts=True)[1].max() for row in drawing]) == 8
    assert all(set(row) == set(range(8)) for row in transform)  # all transforms in every "class"
    first = character[:1623]  # the file "norotate"
    assert set(first.ravel()) == set(range(203))
    held_rows = (np.arange(1600, 1623)[None] + 1623 * np.arange(8)[:, None]).ravel()
    held, train = set(character[held_rows].ravel()), set(np.delete(character, held_rows, axis=0).ravel())
    assert (len(held), len(held & train)) == (30, 14)
    five = drawing[:, :5]  # "five exemplars": one or two drawings
    assert {len(set(row)) for row in five} == {1, 2}
    assert all(len(set(row)) == 5 for row in transform[:, :5])


def test_the_scripts_numbers_of_transforms():
    """2 k + f there: turned by k * 90 degrees, then mirrored."""
    image = np.random.default_rng(0).integers(0, 2, (1, 1, 5, 5), dtype=np.uint8)
    eight = eight_transforms(image)
    for k in range(4):
        for f in range(2):
            turned = np.rot90(image[0, 0], k)
            np.testing.assert_array_equal(eight[RELEASED[2 * k + f], 0], np.fliplr(turned) if f else turned)


def test_rows_are_put_into_the_released_order():
    correct = np.arange(24 * 20).reshape(24, 20)
    character, drawing, transform = np.moveaxis(released_script_order(3, 20), -1, 0)
    np.testing.assert_array_equal(as_released(correct), correct[8 * character + transform, drawing])


def test_the_source_in_the_released_layout(small):
    source = replace(EIGHT, layout="released_script", class_order_seed=None)
    x = built(source).reshape(48, DRAWERS, 28, 28)
    eight = eight_transforms(read_drawings(small / FILE).pixels(28))
    np.testing.assert_array_equal(x, as_released(eight))
    first = built(replace(source, transforms=False, classes=6, holdout_classes=0))
    np.testing.assert_array_equal(first.reshape(6, DRAWERS, 28, 28), x[:6])


def features(folder: Path, name: str, classes: int) -> np.ndarray:
    raw = np.random.default_rng(0).normal(size=(classes, DRAWERS, 8)).astype(np.float16)
    np.savez(folder / name, features=raw)
    return raw


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"features": "hog"}, "omniglot_hog.npz"),
        ({"features": "hog", "pca": 64}, "omniglot_hog_pca64.npz"),
        ({"features": "hog", "pca": 64, "transforms": True}, "omniglot_hog_x8_pca64.npz"),
        ({"features": "hog", "layout": "released_script"}, "omniglot_hog_x8.npz"),
        ({"features": "resnet18"}, "omniglot_resnet18.npz"),
        ({"features": "pca64"}, "omniglot_features_pca64.npz"),
        ({"features": "pca64"}, "omniglot_efficientnet-lite0_pca64.npz"),
        ({"features": "full"}, "omniglot_features.npz"),
        ({"features": "full", "pca": 128}, "omniglot_efficientnet-lite0_pca128.npz"),
        ({"features": "pca64", "transforms": True}, "omniglot_efficientnet-lite0_x8_pca64.npz"),
    ],
)
def test_which_file_is_read(small, given, name):
    eight = "_x8" in name
    raw = features(small, name, 48 if eight else 6)
    source = replace(EIGHT, standardise="none", class_order_seed=None, **given)
    if not source.transforms:
        source = replace(source, transforms=given.get("transforms", False), classes=4, holdout_classes=2)
    if given.get("layout") or not eight:
        source = replace(source, transforms=False, classes=4 if not eight else 6, holdout_classes=0)
    x = built(source)
    expected = as_released(raw)[:6] if given.get("layout") else raw[: len(x)]
    np.testing.assert_array_equal(x, expected[: len(x)].astype(np.float32))


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"standardise": "norm"}, "source.standardise", "must be 'none'"),
        ({"pca": 64}, "source.pca", "must be 0 with features = 'pixels'"),
        ({"classes": 5}, "source.classes", "the file has 6 classes, 2 of them held out: at most 4"),
        ({"features": "hog", "pca": 64}, "source", "ebbtide data features --encoder hog --pca 64"),
        ({"features": "hog", "transforms": True}, "source", "ebbtide data features --encoder hog --augment"),
        ({"features": "pca64"}, "source", "ebbtide data features --encoder efficientnet-lite0 --pca 64"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(small, given, field, said):
    with pytest.raises(InputError) as caught:
        replace(PIXELS, **given).check()
    assert caught.value.field == field and said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_has_not_eight_classes_for_each_is_refused(small):
    features(small, features_file("hog", transforms=True), 47)
    with pytest.raises(InputError, match="47 classes: not eight for each character"):
        replace(EIGHT, features="hog").check()


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-100], lambda b: b"PK" + b[7:], lambda b: b"", lambda b: b.replace(b"drawer", b"drawir")]
)
def test_a_damaged_file_is_told_in_one_line(small, spoil):
    (small / FILE).write_bytes(spoil((small / FILE).read_bytes()))
    with pytest.raises(InputError, match="ebbtide data fetch omniglot") as caught:
        PIXELS.check()
        PIXELS.build()
    assert len(str(caught.value).splitlines()) == 1


def test_memory_is_counted_in_bytes(small):
    """A bank of pixels is checked as what it is: the numbers fit where four times as many would not."""
    assert PIXELS.item() == 1 and replace(PIXELS, features="hog").item() == 4


def test_new_fields_do_not_rename_runs():
    """The digest that this spec had before there were sides, transforms, layouts and components."""
    expected = "e8f5c47203c2b023f944691f2839f48bf7bfc1583fd95eef7929655063232e91"
    assert Spec(source=Omniglot()).digest() == expected


@pytest.mark.parametrize("features", ["pca64", "full", "pixels", "hog", "resnet18", "efficientnet-lite0"])
def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch, features, one_line):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Omniglot(features=features, standardise="none").check()
    one_line(caught, "source", "omniglot")
    assert "EBBTIDE_DATA" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_without_the_variable_the_cache_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("EBBTIDE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path / "ebbtide")):
        Omniglot().sizes()


def test_the_file_is_split_as_asked(real_data, monkeypatch):
    monkeypatch.setenv("EBBTIDE_DATA", str(real_data))
    source = Omniglot()
    source.check()
    assert source.sizes() == (1500, 100, 15, 5, 64)
    x = np.asarray(source.build().features)
    assert x.shape == (1600, 20, 64)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 8.0, rtol=1e-5)
    with pytest.raises(InputError, match="at most 1523"):
        Omniglot(classes=1524).check()


def test_characters_can_be_told_apart_on_held_out_drawings(real_data, monkeypatch):
    """Nearest class mean, 15 drawings for the means, 5 held out; trained and held-out classes. Chance is
    0.07 % and 1 %; a wrong layout of the file (drawings and classes mixed) would be at chance."""
    monkeypatch.setenv("EBBTIDE_DATA", str(real_data))
    x = np.asarray(Omniglot().build().features)
    for part, least in ((x[:1500], 0.5), (x[1500:], 0.8)):
        means, queries = part[:, :15].mean(1), part[:, 15:]
        scores = queries @ means.T - 0.5 * (means**2).sum(-1)
        accuracy = (scores.argmax(-1) == np.arange(len(part))[:, None]).mean()
        assert accuracy > least


def test_real_pixels_and_all_their_transforms(real_data, monkeypatch):
    """12,984 classes; among 20 characters, drawings at 28 x 28 are nearest their own mean (chance 1/20)."""
    monkeypatch.setenv("EBBTIDE_DATA", str(real_data))
    if not (real_data / FILE).is_file():
        pytest.skip(f"no {FILE}: run ebbtide data fetch omniglot")
    source = replace(EIGHT, classes=12_800, holdout_classes=184)
    source.check()
    assert source.sizes() == (12_800, 184, 15, 5, 784)
    x = np.asarray(replace(source, classes=160).build().features)[:160]
    np.testing.assert_array_equal(x.reshape(160, 20, 28, 28), eight_transforms(x[::8].reshape(20, 20, 28, 28)))
    upright = x[::8].astype(np.float32) / 255
    means, queries = upright[:, :15].mean(1), upright[:, 15:]
    scores = queries @ means.T - 0.5 * (means**2).sum(-1)
    assert (scores.argmax(-1) == np.arange(20)[:, None]).mean() > 0.4
