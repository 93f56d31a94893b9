"""Frozen features from a file: any array `[class, exemplar, feature]`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from ebbtide.errors import InputError, nearest, require
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import Bank, Sizes

Standardise = Literal["none", "coordinate", "norm", "coordinate_then_norm"]
Count = Annotated[int, msgspec.Meta(ge=1)]


class _Fields(Protocol):
    classes: int
    exemplars: int
    holdout_classes: int
    holdout_exemplars: int
    standardise: Standardise
    class_order_seed: int | None


class Features(msgspec.Struct, frozen=True, tag="features", forbid_unknown_fields=True):
    """Exemplars read from `path`, an `.npz` or `.safetensors` file with an array
    `[class, exemplar, feature]` named `array`.

    Classes are put in the order of a permutation drawn from `class_order_seed` (None: the file's
    order); training takes the first `classes`, held-out ones come from the end, so they stay the
    same when `classes` changes. Exemplars are split likewise, in the file's order.

    `standardise`, with statistics of the training classes and exemplars only: `none`;
    `coordinate` (zero mean, unit variance per coordinate); `norm` (each exemplar scaled to norm
    sqrt(dim)); `coordinate_then_norm`.
    """

    path: str
    array: str = "features"
    classes: Count = 1024
    exemplars: Count = 15
    holdout_classes: Count = 23
    holdout_exemplars: Count = 5
    standardise: Standardise = "coordinate"
    class_order_seed: int | None = 0

    def check(self) -> None:
        """Raises `InputError` for a missing file, no such array, a wrong shape or not enough rows."""
        check_split(self, self._shape())

    def sizes(self) -> Sizes:
        return split_sizes(self, self._shape())

    def build(self) -> Bank:
        return build(self, read_array(self.path, self.array))

    def look_up(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`."""
        return bank.features[classes, exemplars]

    def _shape(self) -> tuple[int, ...]:
        return array_shape(self.path, self.array)


def check_split(source: _Fields, shape: tuple[int, ...]) -> None:
    """Raises `InputError` when a file of this shape cannot give the asked-for split."""
    require(source.classes >= 1, "source.classes", source.classes, "must be at least 1")
    have, each = shape[0], shape[1]
    room = have - source.holdout_classes
    allowed = f"the file has {have} classes, {source.holdout_classes} held out: at most {max(room, 0)}"
    require(source.classes <= room, "source.classes", source.classes, allowed)
    room = each - source.holdout_exemplars
    allowed = f"the file has {each} exemplars a class, {source.holdout_exemplars} held out: at most {max(room, 0)}"
    require(source.exemplars <= room, "source.exemplars", source.exemplars, allowed)


def split_sizes(source: _Fields, shape: tuple[int, ...]) -> Sizes:
    return Sizes(source.classes, source.holdout_classes, source.exemplars, source.holdout_exemplars, shape[2])


def build(source: _Fields, raw: np.ndarray) -> Bank:
    """Orders, splits and standardises an array `[class, exemplar, feature]`."""
    order = np.arange(raw.shape[0])
    if source.class_order_seed is not None:
        order = np.random.default_rng(source.class_order_seed).permutation(order)
    order = np.concatenate([order[: source.classes], order[len(order) - source.holdout_classes :]])
    each = source.exemplars + source.holdout_exemplars
    x = raw[order, :each].astype(np.float32)
    if source.standardise.startswith("coordinate"):
        train = x[: source.classes, : source.exemplars].reshape(-1, x.shape[-1])
        x = (x - train.mean(0)) / (train.std(0) + 1e-3)
    if source.standardise.endswith("norm"):
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        x = x / np.maximum(norm, 1e-6) * np.sqrt(x.shape[-1])
    return Bank(jnp.asarray(x), root(0, Purpose.SOURCE), jnp.float32(0))


def read_array(path: str, name: str) -> np.ndarray:
    """The array `name` of an `.npz` or `.safetensors` file, floating point, no NaN or infinity.

    Raises `InputError` naming what is wrong. Nothing in the file can execute (no pickle).
    """
    shape = array_shape(path, name)
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as file:
            array = np.asarray(file[name])
    else:
        from safetensors.numpy import load_file

        array = load_file(path)[name]
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError("source.array", name, f"must hold floating-point numbers, has {array.dtype}")
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError("source.path", path, f"array {name!r} has {bad} of {array.size} values NaN or infinite")
    assert array.shape == shape
    return array


def array_shape(path: str, name: str) -> tuple[int, ...]:
    """Shape of array `name`, from the file's header alone; it must be three-dimensional."""
    require(Path(path).is_file(), "source.path", path, "no such file")
    shapes = _shapes(path)
    if name not in shapes:
        known = ", ".join(sorted(shapes)[:8]) or "no arrays"
        raise InputError("source.array", name, f"{os.path.basename(path)} holds {known}{nearest(name, shapes)}")
    shape = shapes[name]
    require(len(shape) == 3, "source.array", name, f"must be [class, exemplar, feature], has shape {list(shape)}")
    return shape


def _shapes(path: str) -> dict[str, tuple[int, ...]]:
    try:
        if path.endswith(".npz"):
            return _npz_shapes(path)
        if path.endswith(".safetensors"):
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file}
    except Exception as error:  # whatever a damaged file makes its reader raise is the user's file, not a bug
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("source.path", path, f"cannot be read: {reason}") from error
    raise InputError("source.path", path, "must end in .npz or .safetensors")


def _npz_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Reads the header of every member without decompressing the data."""
    import zipfile

    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                continue
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                header: Any = (
                    np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
                )
                shapes[member[: -len(".npy")]] = header(file)[0]
    return shapes
