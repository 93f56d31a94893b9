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
    source.check()
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


def test_constant_coordinates_and_zero_vectors_stay_finite(tmp_path, plain):
    path = save(tmp_path / "zero.npz", features=np.zeros(SHAPE))
    for standardise in ("coordinate", "norm", "coordinate_then_norm"):
        np.testing.assert_array_equal(built(replace(plain, path=path, standardise=standardise)), 0)


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
    ("field", "value", "said"),
    [
        ("classes", 9, "at most 8"),
        ("exemplars", 5, "at most 4"),
        ("holdout_classes", 11, "at most 0"),
        ("classes", 0, "at least 1"),
    ],
)
def test_a_file_too_small_for_the_split_is_refused(plain, field, value, said):
    with pytest.raises(InputError, match=said) as caught:
        replace(plain, **{field: value}).check()
    assert caught.value.field in ("source.classes", "source.exemplars")
    assert len(str(caught.value).splitlines()) == 1
