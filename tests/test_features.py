"""Frozen features: what is read, how it is split and standardised, and every kind of bad file."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

from ebbtide.errors import InputError
from ebbtide.sources.features import Features

SHAPE = (10, 6, 4)
SETTINGS: dict[str, Any] = {"classes": 6, "exemplars": 3, "holdout_classes": 2, "holdout_exemplars": 2}


@pytest.fixture
def raw() -> np.ndarray:
    return np.random.default_rng(0).normal(3.0, 2.0, SHAPE).astype(np.float32)


def save(path: Path, **arrays: np.ndarray) -> str:
    if path.suffix == ".npz":
        np.savez_compressed(path, allow_pickle=True, **arrays)
    else:
        save_file(arrays, path)
    return str(path)


@pytest.fixture
def plain(tmp_path, raw) -> Features:
    """The file's order, no standardisation."""
    path = save(tmp_path / "plain.npz", features=raw)
    return Features(path=path, standardise="none", class_order_seed=None, **SETTINGS)


def built(source: Features) -> np.ndarray:
    source.check_data()
    return np.asarray(source.build().features)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_round_trip(tmp_path, raw, suffix, dtype):
    path = save(tmp_path / f"file{suffix}", other=raw[:3], wanted=raw.astype(dtype))
    source = Features(path=path, array="wanted", standardise="none", class_order_seed=None, **SETTINGS)
    x = built(source)
    assert x.dtype == np.float32 and source.sizes() == (6, 2, 3, 2, 4)
    stored = raw.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(x[:6, :3], stored[:6, :3])
    np.testing.assert_array_equal(x[6:, 3:], stored[8:, 4:])


def test_look_up_is_indexing(plain, raw):
    classes, exemplars = jnp.asarray([0, 7]), jnp.asarray([2, 4], jnp.uint32)
    np.testing.assert_array_equal(plain.look_up(plain.build(), classes, exemplars), [raw[0, 2], raw[9, 5]])


def test_order_is_a_permutation_of_the_classes(plain, raw):
    shuffled = built(replace(plain, class_order_seed=5, classes=8))
    order = [int(np.flatnonzero((raw[:, 0] == row).all(-1))[0]) for row in shuffled[:, 0]]
    assert sorted(order) == list(range(10)) and order != list(range(10))
    other = built(replace(plain, class_order_seed=6, classes=8))
    assert not np.array_equal(shuffled, other)


@pytest.mark.parametrize("seed", [None, 5])
def test_held_out_classes_and_exemplars_stay_when_training_ones_change(plain, seed):
    few = built(replace(plain, class_order_seed=seed, classes=2, exemplars=1))
    many = built(replace(plain, class_order_seed=seed, classes=8, exemplars=4))
    np.testing.assert_array_equal(few[-2:, -2:], many[-2:, -2:])
    np.testing.assert_array_equal(few[:2, :1], many[:2, :1])
    assert not (few[-2:, None, -2:, None] == many[None, :8, None, :4]).all(-1).any()


def test_coordinate_standardisation_uses_training_statistics_only(plain, raw):
    x = built(replace(plain, standardise="coordinate"))
    train = raw[:6, :3].reshape(-1, 4)
    np.testing.assert_allclose(x[:6, :3].reshape(-1, 4).mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:6, :3].reshape(-1, 4).std(0), 1, atol=1e-3)
    held = (raw[8:, 4:] - train.mean(0)) / (train.std(0) + 1e-3)
    np.testing.assert_allclose(x[6:, 3:], held, rtol=1e-5, atol=1e-6)


def test_held_out_values_do_not_reach_the_training_ones(tmp_path, plain, raw):
    changed = raw.copy()
    changed[8:] += 100
    changed[:, 4:] -= 50
    other = replace(plain, path=save(tmp_path / "changed.npz", features=changed))
    for standardise in ("coordinate", "coordinate_then_norm", "norm"):
        one, two = (built(replace(s, standardise=standardise)) for s in (plain, other))
        np.testing.assert_array_equal(one[:6, :3], two[:6, :3])
        assert not np.allclose(one[6:], two[6:])


def test_norm_standardisation(plain, raw):
    x = built(replace(plain, standardise="norm"))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 2.0, rtol=1e-6)
    np.testing.assert_allclose(x[0, 0], 2 * raw[0, 0] / np.linalg.norm(raw[0, 0]), rtol=1e-6)
    both = built(replace(plain, standardise="coordinate_then_norm"))
    coordinate = built(replace(plain, standardise="coordinate"))
    np.testing.assert_allclose(np.linalg.norm(both, axis=-1), 2.0, rtol=1e-6)
    np.testing.assert_allclose(
        both, 2 * coordinate / np.linalg.norm(coordinate, axis=-1, keepdims=True), rtol=1e-5, atol=1e-6
    )


def test_nothing_need_be_held_out(plain, raw):
    whole = replace(plain, classes=10, exemplars=6, holdout_classes=0, holdout_exemplars=0)
    np.testing.assert_array_equal(built(whole), raw)


def test_constant_coordinates_and_zero_vectors_stay_finite(tmp_path, plain, raw):
    raw[..., 1], raw[2, 1] = 0.0, 0.0
    path = save(tmp_path / "zero.npz", features=raw)
    for standardise in ("coordinate", "norm", "coordinate_then_norm"):
        x = built(replace(plain, path=path, standardise=standardise))
        assert np.isfinite(x).all() and (x[..., 1] == 0).all() and x[:6, :3, 0].std() > 0.1


STANDARDISE = ("none", "coordinate", "norm", "coordinate_then_norm")


@pytest.mark.parametrize("standardise", STANDARDISE)
@pytest.mark.parametrize("value", [0.0, 3.3, 1e-300])
def test_features_that_tell_nothing_apart_are_refused(tmp_path, plain, standardise, value, one_line):
    path = save(tmp_path / "same.npz", features=np.full(SHAPE, value))
    with pytest.raises(InputError, match="its 18 exemplars for training are all the same") as caught:
        built(replace(plain, path=path, standardise=standardise))
    one_line(caught, "source.path", path)


def test_what_becomes_the_same_by_standardisation_is_refused_and_says_by_which(tmp_path, plain, raw):
    path = save(tmp_path / "line.npz", features=1 + np.abs(raw[..., :1]))
    assert built(replace(plain, path=path)).std() > 0
    with pytest.raises(InputError, match="all the same with standardise = 'norm'"):
        built(replace(plain, path=path, standardise="norm"))


def test_a_single_exemplar_may_be_all_there_is(plain, raw):
    one = replace(plain, classes=1, exemplars=1, holdout_classes=0, holdout_exemplars=0)
    np.testing.assert_array_equal(built(one), raw[:1, :1])


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".npz", np.float64), (".npz", np.longdouble), (".safetensors", np.float64)]
)
def test_values_that_become_infinite_in_float32_are_refused(tmp_path, plain, raw, suffix, dtype, one_line):
    raw = raw.astype(dtype)
    raw[1, 2, 3], raw[9, 5, 0] = 1e39, -1e300
    path = save(tmp_path / f"large{suffix}", features=raw)
    for standardise in STANDARDISE:
        with pytest.raises(InputError, match="2 of 240 values beyond the range of float32") as caught:
            built(replace(plain, path=path, standardise=standardise))
        one_line(caught, "source.path", path)


@pytest.mark.parametrize("scale", [1e19, 1e30, 1e37])
@pytest.mark.parametrize("standardise", STANDARDISE)
def test_statistics_that_overflow_are_refused_and_never_make_features_zero(tmp_path, plain, raw, scale, standardise):
    path = save(tmp_path / "large.npz", features=(raw * np.float32(scale)))
    source = replace(plain, path=path, standardise=standardise)
    if standardise == "none":
        np.testing.assert_array_equal(built(source)[:6, :3], (raw * np.float32(scale))[:6, :3])
        return
    with pytest.raises(InputError, match=r"has values up to .*cannot be computed in float32") as caught:
        built(source)
    assert caught.value.field == "source.path" and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("coordinate", range(4))
def test_one_coordinate_that_overflows_is_enough(tmp_path, plain, raw, coordinate):
    raw[..., coordinate] *= np.float32(1e30)
    path = save(tmp_path / "large.npz", features=raw)
    for standardise in STANDARDISE[1:]:
        with pytest.raises(InputError, match="cannot be computed in float32"):
            built(replace(plain, path=path, standardise=standardise))


def test_large_values_that_can_be_standardised_are_as_good_as_small_ones(tmp_path, plain, raw):
    path = save(tmp_path / "large.npz", features=raw * np.float32(2.0**40))
    for standardise in ("norm", "coordinate"):
        one, other = (built(replace(plain, path=p, standardise=standardise)) for p in (plain.path, path))
        np.testing.assert_allclose(one[:6, :3], other[:6, :3], rtol=2e-3, atol=1e-5)


def old_build(source: Features) -> np.ndarray:
    """What features were before their values were checked, by the same steps in float32."""
    x = source.select(source.read()).astype(np.float32)
    if source.standardise.startswith("coordinate"):
        train = x[: source.classes, : source.exemplars].reshape(-1, x.shape[-1])
        x = (x - train.mean(0)) / (train.std(0) + 1e-3)
    if source.standardise.endswith("norm"):
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        x = x / np.maximum(norm, 1e-6) * np.sqrt(x.shape[-1])
    return np.asarray(jnp.asarray(x))


@pytest.mark.parametrize("standardise", STANDARDISE)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_checks_change_no_bit_of_good_features(tmp_path, plain, raw, standardise, dtype):
    source = replace(plain, path=save(tmp_path / "good.npz", features=raw.astype(dtype)), standardise=standardise)
    assert built(source).tobytes() == old_build(source).tobytes()


@pytest.mark.parametrize("name", ["omniglot_features_pca64.npz", "omniglot_features.npz"])
def test_the_checks_change_no_bit_of_real_features(real_data, name):
    if not (real_data / name).is_file():
        pytest.skip(f"no {name}")
    source = Features(path=str(real_data / name), classes=1500, holdout_classes=100, standardise="coordinate_then_norm")
    assert built(source).tobytes() == old_build(source).tobytes()


# ---- archives that are not what they seem


def add(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, data)


@pytest.mark.parametrize("other", ["features", "features.npy.npy", "readme.txt"])
@pytest.mark.parametrize("data", [b"text", b"", b"\x93NUMPY"])
def test_other_members_of_an_archive_do_not_stand_in_for_the_array(plain, raw, other, data):
    add(Path(plain.path), other, data)
    np.testing.assert_array_equal(built(plain)[:6, :3], raw[:6, :3])


def test_of_two_members_of_one_name_header_and_data_are_the_same_one(tmp_path, plain, raw):
    path, second = tmp_path / "second.npy", raw[:, :, :2].copy()
    np.save(path, second)
    with pytest.warns(UserWarning, match="Duplicate name"):
        add(Path(plain.path), "features.npy", path.read_bytes())
    np.testing.assert_array_equal(built(plain)[:6, :3], second[:6, :3])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_array_without_numbers_is_refused(tmp_path, plain, suffix, axis, one_line):
    shape = [*SHAPE]
    shape[axis] = 0
    path = save(tmp_path / f"none{suffix}", features=np.zeros(shape, np.float32))
    with pytest.raises(InputError, match="with one or more of each") as caught:
        replace(plain, path=path).check_data()
    one_line(caught, "source.array", "features")


def test_only_the_header_that_is_asked_for_is_read_and_once(plain, raw, monkeypatch):
    """An archive may have many thousand members."""
    for i in range(20):
        add(Path(plain.path), f"other{i}.npy", b"not an array")
    read: list[str] = []
    real = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, name, *a, **k: read.append(name) or real(self, name, *a))
    for _ in range(5):
        assert plain.shape() == SHAPE
        plain.check_data()
    assert read == ["features.npy"]
    save(Path(plain.path), features=raw[:9])
    assert plain.shape() == (9, *SHAPE[1:])  # another file in its place is read anew


def with_nan(raw: np.ndarray) -> np.ndarray:
    raw = raw.copy()
    raw[1, 2, 3], raw[4, 0, 0] = np.nan, np.inf
    return raw


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("arrays", "field", "said"),
    [
        (lambda raw: {"feature": raw}, "source.array", "did you mean 'feature'"),
        (lambda raw: {"x": raw, "y": raw}, "source.array", "holds x, y"),
        (lambda raw: {"features": raw[0]}, "source.array", "has shape [6, 4]"),
        (lambda raw: {"features": raw[None]}, "source.array", "has shape [1, 10, 6, 4]"),
        (lambda raw: {"features": (raw * 9).astype(np.int32)}, "source.array", "int32"),
        (lambda raw: {"features": with_nan(raw)}, "source.path", "2 of 240 values NaN or infinite"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, raw, suffix, arrays, field, said, one_line):
    path = save(tmp_path / f"bad{suffix}", **arrays(raw))
    source = Features(path=path, **SETTINGS)
    with pytest.raises(InputError) as caught:
        built(source)
    one_line(caught, field, path if field == "source.path" else "features")
    assert said in caught.value.allowed


def truncated(path: Path, raw: np.ndarray) -> None:
    save(path, features=raw)
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path: Path, raw: np.ndarray) -> None:
    """Sound headers, one wrong byte in the data."""
    save(path, features=raw)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        [member] = archive.infolist()
    content[member.header_offset + 60 + member.compress_size // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("absent.npz", lambda path, raw: None),
        ("folder.npz", lambda path, raw: path.mkdir()),
        ("table.csv", lambda path, raw: path.write_text("1,2\n3,4\n")),
        ("text.npz", lambda path, raw: path.write_text("not a zip file")),
        ("empty.npz", lambda path, raw: path.write_bytes(b"")),
        ("truncated.npz", truncated),
        ("flipped.npz", flipped),
        ("text.safetensors", lambda path, raw: path.write_text("not a safetensors file")),
        ("truncated.safetensors", truncated),
    ],
)
def test_bad_files_are_refused(tmp_path, raw, name, write, one_line):
    path = tmp_path / name
    write(path, raw)
    with pytest.raises(InputError) as caught:
        built(Features(path=str(path), **SETTINGS))
    one_line(caught, "source.path", str(path))


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickled_object_is_refused_and_not_executed(tmp_path, one_line):
    trace = tmp_path / "executed"
    objects = np.full((10, 6, 4), None, dtype=object)
    objects[0, 0, 0] = Bomb(trace)
    path = save(tmp_path / "pickled.npz", features=objects)
    with pytest.raises(InputError) as caught:
        built(Features(path=path, **SETTINGS))
    one_line(caught, caught.value.field, caught.value.value)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()  # the trap does work


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"classes": 9}, "classes", "10 classes of 6 exemplars, 2 classes held out: at most 8; set --source.classes 8"),
        ({"exemplars": 5}, "exemplars", "2 exemplars held out: at most 4; set --source.exemplars 4"),
        ({"holdout_classes": 11}, "holdout_classes", "at most 9; set --source.holdout_classes 2"),
        (
            {"holdout_exemplars": 6, "exemplars": 6},
            "holdout_exemplars",
            "at most 5; set --source.holdout_exemplars 1 --source.exemplars 5",
        ),
        (
            {"classes": 1024, "exemplars": 15, "holdout_classes": 23, "holdout_exemplars": 5},
            "holdout_classes",
            "set --source.holdout_classes 2 --source.classes 8 --source.exemplars 1",
        ),
        ({"classes": 0}, "classes", "at least 1"),
    ],
)
def test_a_split_that_does_not_fit_names_the_field_to_change_and_all_values_that_would_do(plain, changes, field, said):
    source = replace(plain, **changes)
    with pytest.raises(InputError) as caught:
        source.check()
        source.check_data()
    assert caught.value.field == f"source.{field}" and said in caught.value.allowed
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("have", range(1, 9))
@pytest.mark.parametrize("each", range(1, 9))
def test_the_values_that_a_message_gives_fit(tmp_path, have, each):
    """From the defaults, which fit Omniglot, in one step."""
    path = save(tmp_path / "own.npz", features=np.arange(have * each * 2, dtype=np.float32).reshape(have, each, 2))
    with pytest.raises(InputError) as caught:
        Features(path=path).check_data()
    words = caught.value.allowed.partition("; set ")[2].split()
    given = {n.removeprefix("--source."): int(v) for n, v in zip(words[::2], words[1::2], strict=True)}
    replace(Features(path=path), **given).check_data()
