"""Omniglot as a source: pixels, transforms, the released layout; the real file where there is one, a good message
where there is none."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from drawings_tools import make_drawings
from ebbtide.errors import InputError
from ebbtide.models.transformer import Transformer
from ebbtide.sources.drawings import DRAWERS, SIDE, overlap, read_drawings, shrink
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import SCRIPT, released_script_order, shuffle_characters, to_released_order
from ebbtide.sources.omniglot import Omniglot
from ebbtide.training.limits import needed_bytes
from ebbtide.training.spec import Spec


@pytest.mark.parametrize("features", ["pca64", "full"])
def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch, features, one_line):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Omniglot(features=features).check_data()
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
    source.check_data()
    assert source.sizes() == (1500, 100, 15, 5, 64)
    x = np.asarray(source.build().features)
    assert x.shape == (1600, 20, 64)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 8.0, rtol=1e-5)
    with pytest.raises(InputError, match="at most 1523"):
        Omniglot(classes=1524).check_data()


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


DRAWINGS = make_drawings(9)
PIXELS: dict[str, Any] = {"features": "pixels", "standardise": "none"}
SMALL: dict[str, Any] = PIXELS | {"classes": 6, "holdout_classes": 3}
EIGHT: dict[str, Any] = PIXELS | {"classes": 56, "holdout_classes": 16, "side": 28, "transforms": True}
IN_ORDER: dict[str, Any] = {"class_order_seed": None, "exemplars": DRAWERS, "holdout_exemplars": 0}


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Path:
    """A data folder with nine made-up characters."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    (tmp_path / "omniglot.npz").write_bytes(DRAWINGS.to_npz())
    return tmp_path


def omniglot(*settings: dict[str, Any], **more: Any) -> Omniglot:
    """The source with some settings; later ones override earlier ones."""
    merged: dict[str, Any] = {}
    for one in (*settings, more):
        merged |= one
    return Omniglot(**merged)


def rows(source: Omniglot) -> np.ndarray:
    source.check_data()
    return np.asarray(source.build().features)


@pytest.mark.parametrize(
    ("source", "digest"),
    [
        (Omniglot(), "e8f5c47203c2b023f944691f2839f48bf7bfc1583fd95eef7929655063232e91"),
        (
            Omniglot(features="full", classes=1600, exemplars=20, holdout_classes=23, holdout_exemplars=0),
            "9b15492286f935dcc1c41661452a76fe3038ea3a36010ae6f35cd9c13f814278",
        ),
    ],
)
def test_specs_of_before_have_the_digests_they_had(source, digest):
    """Pinned before pixels, transforms and layouts were fields."""
    assert Spec(source=source).digest() == digest


@pytest.mark.parametrize("kind", ["pixels", "hog", "efficientnet-lite0", "resnet18", "pca64"])
@pytest.mark.parametrize("transforms", [False, True])
def test_each_kind_says_which_command_makes_it(tmp_path, monkeypatch, kind, transforms, one_line):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Omniglot(features=kind, standardise="none", transforms=transforms).check_data()
    one_line(caught, "source", "omniglot")
    text = str(caught.value)
    assert ("ebbtide data fetch omniglot" if kind == "pixels" else "ebbtide data features --encoder") in text
    assert ("--augment" in text) == (transforms and kind != "pixels")


def test_pixels_are_bytes_in_the_bank_and_numbers_at_look_up(drawn):
    source = omniglot(SMALL, IN_ORDER)
    bank = source.build()
    assert bank.features.dtype == np.uint8 and source.sizes() == (6, 3, 20, 0, SIDE * SIDE)
    classes, exemplars = jnp.asarray([[0, 8], [3, 3]]), jnp.asarray([[0, 19], [4, 5]], jnp.uint32)
    x = source.look_up(bank, classes, exemplars)
    assert x.dtype == np.float32 and set(np.unique(x)) == {0.0, 1.0}
    images = DRAWINGS.images()
    np.testing.assert_array_equal(x[0, 1].reshape(SIDE, SIDE), images[8, 19])
    np.testing.assert_array_equal(x[1, 0].reshape(SIDE, SIDE), images[3, 4])


def test_pixels_are_not_standardised(drawn):
    with pytest.raises(InputError, match="pixels are kept as bytes: must be 'none'"):
        Omniglot(features="pixels", classes=6, holdout_classes=3).check()


def test_memory_counts_a_byte_a_pixel(drawn):
    spec = Spec(source=omniglot(SMALL), evaluators=(), keep_best=None)
    fewer = Spec(source=omniglot(SMALL, classes=5), evaluators=(), keep_best=None)
    outputs = [one.task.outputs(one.source) for one in (spec, fewer)]  # pyright: ignore
    assert isinstance(spec.model, Transformer)
    weights = 3 * 2 * spec.model.width + spec.batch
    assert needed_bytes(spec) - needed_bytes(fewer) == 20 * SIDE * SIDE + 4 * weights * (outputs[0] - outputs[1])


@pytest.mark.parametrize("side", [28, 35, 52, 104])
def test_a_smaller_image_keeps_the_share_of_ink(side):
    images = DRAWINGS.images()
    small = shrink(images, side)
    assert small.shape == (9, DRAWERS, side, side) and small.dtype == np.uint8
    np.testing.assert_allclose(small.mean((2, 3)) / 255, images.mean((2, 3)), atol=0.5 / 255)
    w = overlap(SIDE, side)
    np.testing.assert_allclose(w.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(w.sum(0), side / SIDE, atol=1e-5)  # every old pixel counts the same


def test_a_third_of_the_side_is_the_mean_of_three_by_three():
    images = DRAWINGS.images()
    blocks = images.reshape(9, DRAWERS, 35, 3, 35, 3).mean((3, 5))
    np.testing.assert_allclose(shrink(images, 35), blocks * 255, atol=0.51)


def test_shrinking_and_transforming_commute():
    images = DRAWINGS.images(slice(0, 2))
    a, b = eight_transforms(shrink(images, 28)), shrink(eight_transforms(images), 28)
    assert np.abs(a.astype(int) - b.astype(int)).max() <= 1  # rounding


def test_transforms_are_classes_in_the_order_of_the_paper(drawn):
    """Class 8 c + 4 f + k, in the file's order; each transform of one drawing made anew here."""
    x = rows(omniglot(EIGHT, IN_ORDER, side=SIDE)).reshape(72, DRAWERS, SIDE, SIDE)
    for c, f, k, e in [(0, 0, 1, 0), (4, 1, 0, 3), (8, 1, 3, 19)]:
        image = DRAWINGS.images([c])[0, e]
        expected = np.rot90(np.fliplr(image) if f else image, k)
        np.testing.assert_array_equal(x[8 * c + 4 * f + k, e], 255 * expected)


def test_characters_are_shuffled_whole():
    order = shuffle_characters(np.arange(72), 8, 1337)
    apart = order.reshape(9, 8)
    assert (apart % 8 == np.arange(8)).all()
    np.testing.assert_array_equal(apart[:, 0] // 8, np.random.default_rng(1337).permutation(9))
    np.testing.assert_array_equal(shuffle_characters(np.arange(20), 8, None), np.arange(20))
    assert sorted(shuffle_characters(np.arange(20), 8, 0)) == list(range(20))


@pytest.mark.parametrize("layout", ["correct", "released_script"])
@pytest.mark.parametrize("seed", [None, 0, 1337])
def test_no_character_is_both_trained_on_and_held_out(drawn, layout, seed):
    source = omniglot(EIGHT, layout=layout, class_order_seed=seed)
    source.check_data()
    character = source.order(72) // 8
    assert not set(character[:56]) & set(character[72 - 16 :])
    held = rows(source)[56:]
    assert len(held) == 16 and not {row.tobytes() for row in held[:, 0]} & {
        row.tobytes() for row in rows(source)[:56].reshape(-1, 28 * 28)
    }


@pytest.mark.parametrize(("holdout", "example"), [(12, 16), (1, 8), (9, 16), (63, 64)])
def test_a_character_cut_in_two_is_refused(drawn, holdout, example):
    with pytest.raises(InputError, match=f"whole characters of 8 classes each, e.g. {example}$"):
        omniglot(EIGHT, holdout_classes=holdout, classes=1).check_data()


def test_all_characters_of_the_paper_fit(real_data, monkeypatch):
    """12,800 + 184 classes of the 12,984: 1,600 and 23 characters."""
    if not (real_data / "omniglot.npz").is_file():
        pytest.skip("no omniglot.npz beside the features (get it with: ebbtide data fetch omniglot)")
    monkeypatch.setenv("EBBTIDE_DATA", str(real_data))
    paper: dict[str, Any] = {"classes": 12_800, "holdout_classes": 184, "side": 28, "transforms": True}
    source = omniglot(PIXELS, paper)
    source.check_data()
    assert source.sizes() == (12_800, 184, 15, 5, 784)
    with pytest.raises(InputError, match="at most 12800"):
        omniglot(PIXELS, paper, classes=12_801).check_data()


CHARACTERS = 1623
RELEASED = released_script_order(CHARACTERS, 20)
"""[row, column, (character, drawing, transform)] of all 12,984 rows."""


def test_the_released_script_as_it_is_written():
    """Entry 20 r + i of the array [character, drawing, transform] flattened as 160 c + 8 e + t."""
    r, i = np.meshgrid(np.arange(8 * CHARACTERS), np.arange(20), indexing="ij")
    flat = 20 * r + i
    np.testing.assert_array_equal(RELEASED[..., 0], r // 8)
    np.testing.assert_array_equal(RELEASED[..., 1], (20 * (r % 8) + i) // 8)
    np.testing.assert_array_equal(RELEASED[..., 2], (20 * (r % 8) + i) % 8)
    c, e, t = np.moveaxis(RELEASED, -1, 0)
    np.testing.assert_array_equal(160 * c + 8 * e + t, flat)


def test_what_a_class_of_the_released_script_is():
    """Two and a half drawings of one character under all eight transforms; eight neighbours share a character."""
    for row in RELEASED[:64]:
        assert len(set(row[:, 0])) == 1 and set(row[:, 2]) == set(range(8))
        counts = np.bincount(row[:, 1])
        assert sorted(counts[counts > 0]) == [4, 8, 8]  # two drawings and a half, of 8 transforms each
    assert all(len(set(RELEASED[8 * g : 8 * g + 8, :, 0].ravel())) == 1 for g in range(CHARACTERS))


def test_what_follows_for_the_files_of_the_released_script():
    """(a) its "norotate" file, the first 1,623 rows, has 203 characters; (b) its held-out rows lie in 30 characters,
    14 of which are trained on too; (c) its first five columns are five transforms of one or two drawings."""
    assert set(RELEASED[:1623, 0, 0]) == set(range(203))
    block = np.arange(8)[:, None] * 1623
    held = (np.arange(1600, 1623) + block).ravel()
    trained = (np.arange(1600) + block).ravel()
    characters = set(RELEASED[held, 0, 0])
    assert len(characters) == 30 and len(characters & set(RELEASED[trained, 0, 0])) == 14
    for row in RELEASED[:, :5]:
        assert len(set(row[:, 1])) <= 2 and len(set(row[:, 2])) == 5


def test_rows_are_put_as_the_script_puts_them():
    character, drawing, transform = np.meshgrid(np.arange(5), np.arange(20), np.arange(8), indexing="ij")
    numbers = np.argsort(SCRIPT)[transform]  # what the script calls each of `eight_transforms`
    correct = np.stack([character, drawing, numbers], -1).swapaxes(1, 2).reshape(40, 20, 3)
    np.testing.assert_array_equal(to_released_order(correct), released_script_order(5, 20))


def test_the_released_layout_of_pixels(drawn):
    """Row r, column i: entry 20 r + i = 160 c + 8 e + t, where t = 2 k + f is k quarter turns, then mirrored if f."""
    x = rows(omniglot(EIGHT, IN_ORDER, layout="released_script", side=SIDE)).reshape(72, DRAWERS, SIDE, SIDE)
    for r, i in [(0, 0), (0, 1), (9, 13), (10, 7), (23, 19), (44, 4), (71, 7)]:
        c, rest = divmod(20 * r + i, 160)
        e, t = divmod(rest, 8)
        image = np.rot90(DRAWINGS.images([c])[0, e], t // 2)
        np.testing.assert_array_equal(x[r, i], 255 * (np.fliplr(image) if t % 2 else image))


def test_the_first_eighth_of_the_released_rows(drawn):
    """Nine rows are one character and one row more; held out is that one row, or whole characters from the end."""
    how: dict[str, Any] = PIXELS | IN_ORDER | {"side": 28, "layout": "released_script"}
    x = rows(omniglot(how, classes=8, holdout_classes=1))
    assert x.shape == (9, DRAWERS, 784)
    np.testing.assert_array_equal(x, rows(omniglot(EIGHT, IN_ORDER, layout="released_script"))[:9])
    with pytest.raises(InputError, match="whole characters"):
        omniglot(how, classes=7, holdout_classes=2).check_data()


@pytest.mark.parametrize("spoil", ["cut", "shape", "missing", "other"])
def test_a_file_that_is_no_omniglot_gets_one_line(drawn, spoil):
    path = drawn / "omniglot.npz"
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif spoil == "other":
        np.savez(path, x=np.zeros(3))
    else:
        arrays: dict[str, Any] = {"images_packed": DRAWINGS.packed[:, :5] if spoil == "shape" else DRAWINGS.packed}
        np.savez(path, allow_pickle=False, **arrays)
    for act in (omniglot(SMALL).check_data, lambda: read_drawings(path)):
        with pytest.raises(InputError) as caught:
            act()
        assert len(str(caught.value).splitlines()) == 1 and "omniglot.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"features": "hog", "pca": 64}, "omniglot_hog_pca64.npz"),
        ({"features": "hog", "pca": 64, "transforms": True}, "omniglot_hog_x8_pca64.npz"),
        ({"features": "full", "pca": 128}, "omniglot_efficientnet-lite0_pca128.npz"),
        ({"features": "pca64", "transforms": True}, "omniglot_efficientnet-lite0_x8_pca64.npz"),
        ({"features": "full"}, "omniglot_efficientnet-lite0.npz"),
    ],
)
def test_which_file_is_read(tmp_path, monkeypatch, given, name):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    eight = 8 if given.get("transforms") else 1
    raw = np.random.default_rng(0).normal(size=(6 * eight, DRAWERS, 4)).astype(np.float16)
    np.savez(tmp_path / name, features=raw)
    sizes = {"classes": 4 * eight, "holdout_classes": 2 * eight}
    source = Omniglot(standardise="none", class_order_seed=None, **sizes, **given)
    source.check_data()
    np.testing.assert_array_equal(source.build().features, raw.astype(np.float32))


@pytest.mark.parametrize("kind", ["pixels", "pca64"])
def test_components_of_what_has_none_are_refused(drawn, kind, one_line):
    with pytest.raises(InputError) as caught:
        Omniglot(features=kind, pca=8, standardise="none").check()
    one_line(caught, "source.pca", 8)
