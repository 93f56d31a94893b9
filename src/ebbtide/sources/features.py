"""Frozen features from a file: any array `[class, exemplar, feature]`."""

import io
import math
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from ebbtide.errors import InputError, nearest, require
from ebbtide.keys import Purpose, root
from ebbtide.places import resolve_path, search_note
from ebbtide.sources.bank import FLOAT, Bank, Sizes, array_bytes, check_counts
from ebbtide.sources.gaussian import Gaussian

Count = Annotated[int, msgspec.Meta(ge=1)]
UNKNOWN_DIM = 576
"""The number of features assumed where only the missing file could tell (a square number, as the pixels of an
image)."""
LONGEST_HEADER = 20_000
"""Largest number of bytes of an array's header that are read; NumPy itself accepts 10,000."""


class Header(NamedTuple):
    """The shape and type of an array, from the header of its file."""

    shape: tuple[int, ...]
    dtype: str


class FrozenFeatures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the sources that read an array `[class, exemplar, feature]`; subclasses say which file.

    Classes are permuted by a permutation drawn from `class_order_seed` (None: the file's order). Training takes the
    first `classes`; held-out ones come from the end, so that they stay the same when `classes` changes. Exemplars are
    split likewise, in the file's order.

    `standardise`, with statistics of the training classes and exemplars only: `none`; `coordinate` (zero mean, unit
    variance per coordinate); `norm` (each exemplar scaled to norm sqrt(dim)); `coordinate_then_norm`.
    """

    classes: Count = 1024
    exemplars: Count = 15
    holdout_classes: Count = 23
    holdout_exemplars: Annotated[int, msgspec.Meta(ge=0)] = 5
    standardise: Literal["none", "coordinate", "norm", "coordinate_then_norm"] = "coordinate"
    class_order_seed: Annotated[int, msgspec.Meta(ge=0)] | None = 0

    @property
    def bank_type(self) -> type:
        return Bank

    def file(self) -> tuple[str, str]:
        """The path of the file and the name of the array in it."""
        raise NotImplementedError

    def number_bytes(self) -> int:
        """Bytes of a feature in the bank."""
        raise NotImplementedError

    def shape(self) -> tuple[int, ...]:
        """(classes, exemplars, features) of the file, from its header alone."""
        return array_shape(*self.file())

    def read(self) -> np.ndarray:
        """The whole array, in the file's order."""
        return read_array(*self.file())

    def order(self, have: int) -> np.ndarray:
        """The order in which the file's `have` classes are split into training and held-out ones."""
        order = np.arange(have)
        return (
            order if self.class_order_seed is None else np.random.default_rng(self.class_order_seed).permutation(order)
        )

    def check(self) -> None:
        """Raises `InputError` for sizes that no file could have. Reads no file (see `check_data`)."""
        check_counts(self)

    def check_data(self) -> None:
        """Raises `InputError` for a missing file, a missing array, a wrong shape or too few classes or exemplars."""
        have, each, _ = self.shape()
        there = {"classes": have, "exemplars": each}
        fits = self._fitting("classes", have) | self._fitting("exemplars", each)
        wrong = {name: value for name, value in fits.items() if value != getattr(self, name)}
        if not wrong:
            return
        name, most = next(iter(wrong.items()))
        kind = name.removeprefix("holdout_")
        allowed = f"the file has {have} classes of {each} exemplars"
        if name == kind:
            allowed += f", {fits[f'holdout_{kind}']} {kind} held out"
        else:
            most = there[kind] - 1
        allowed += f": at most {most}; set {' '.join(f'--source.{n} {v}' for n, v in wrong.items())}"
        raise InputError(f"source.{name}", getattr(self, name), allowed)

    def check_memory(self, memory: int) -> None:
        """Raises `InputError` when the file's array is larger than `memory` bytes."""
        path, shape, each = self.file()[0], self.shape(), self.number_bytes()
        stored = math.prod(shape) * each
        kind = "float32" if each == FLOAT else "bytes"
        allowed = f"holds an array of shape {list(shape)}: {stored:,} bytes as {kind}; this machine has {memory:,}"
        require(stored <= memory, "source.path", path, allowed)

    def bank_bytes(self) -> int:
        """Bytes of the classes and exemplars that are used."""
        return array_bytes(self.sizes(), self.number_bytes())

    def building_bytes(self) -> int:
        return 0

    def data_needed(self) -> str:
        """The file that a run reads, in words for people."""
        raise NotImplementedError

    def _fitting(self, kind: str, there: int) -> dict[str, int]:
        """The counts of `kind` ("classes" or "exemplars") that a file with `there` of them allows: the given ones or
        the nearest. Where nothing would be left for training, a quarter is held out."""
        held = getattr(self, f"holdout_{kind}")
        held = held if held < there else there // 4
        return {f"holdout_{kind}": held, kind: min(getattr(self, kind), there - held)}

    def sizes(self) -> Sizes:
        """Numbers of training and held-out classes and exemplars; the number of features is read from the file's
        header."""
        return Sizes(self.classes, self.holdout_classes, self.exemplars, self.holdout_exemplars, self.shape()[2])

    def known_dim(self) -> int | None:
        """The number of features, where the source's fields determine it; None where only the file does."""
        return None

    def stand_in(self) -> Gaussian:
        """A Gaussian source of the same sizes that reads no file, for checks of a spec and cost estimates where the
        file is missing. Its exemplars have `known_dim` features, or `UNKNOWN_DIM`."""
        return Gaussian(
            classes=self.classes,
            exemplars=self.exemplars,
            dim=self.known_dim() or UNKNOWN_DIM,
            holdout_classes=self.holdout_classes,
            holdout_exemplars=self.holdout_exemplars,
        )

    def build(self) -> Bank:
        """The bank: the array read, ordered, split and standardised. Raises `InputError` where numbers are too large
        for that, or all training exemplars become equal."""
        with np.errstate(all="ignore"):  # what overflows is not finite, and refused
            x = self._standardise(self.select(self.read()).astype(np.float32))
        train, path = x[: self.classes, : self.exemplars], self.file()[0]
        allowed = f"its {train[..., 0].size} exemplars for training are all the same"
        allowed += "" if self.standardise == "none" else f" with standardise = {self.standardise!r}"
        require(train[..., 0].size == 1 or bool((train != train[0, 0]).any()), "source.path", path, allowed)
        return Bank(jnp.asarray(x), root(0, Purpose.SOURCE), jnp.float32(0))

    def _standardise(self, x: np.ndarray) -> np.ndarray:
        if self.standardise.startswith("coordinate"):
            train = x[: self.classes, : self.exemplars].reshape(-1, x.shape[-1])
            mean, deviation = train.mean(0), train.std(0)
            self._require_finite(x, "mean and standard deviation of a coordinate", mean, deviation)
            x = (x - mean) / (deviation + 1e-3)
            self._require_finite(x, "standardised values", x)
        if self.standardise.endswith("norm"):
            norm = np.linalg.norm(x, axis=-1, keepdims=True)
            self._require_finite(x, "norm of an exemplar", norm)
            x = x / np.maximum(norm, 1e-6) * np.sqrt(x.shape[-1])
        return x

    def _require_finite(self, x: np.ndarray, what: str, *found: np.ndarray) -> None:
        good = all(np.isfinite(one).all() for one in found)
        largest = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
        allowed = f"has values up to {largest:.1e}: the {what} cannot be computed in float32; divide the array by that"
        require(good, "source.path", self.file()[0], allowed)

    def select(self, raw: np.ndarray) -> np.ndarray:
        """The classes and exemplars in use: training ones first, held-out ones last."""
        order = self.order(raw.shape[0])
        order = np.concatenate([order[: self.classes], order[len(order) - self.holdout_classes :]])
        columns = np.r_[: self.exemplars, raw.shape[1] - self.holdout_exemplars : raw.shape[1]]
        return raw[order][:, columns]

    def look_up(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`."""
        return bank.features[classes, exemplars]


class Features(FrozenFeatures, frozen=True, tag="features", forbid_unknown_fields=True, kw_only=True):
    """Frozen features from `path`, an `.npz` or `.safetensors` file, in the array named `array` with the axes `[class,
    exemplar, feature]`.

    >>> np.savez("x.npz", features=np.random.default_rng(0).normal(size=(8, 4, 3)))
    >>> eb.Features(path="x.npz", classes=6, exemplars=3, holdout_classes=2, holdout_exemplars=1).sizes()
    Sizes(classes=6, holdout_classes=2, exemplars=3, holdout_exemplars=1, dim=3)
    """

    path: str
    array: str = "features"

    def file(self) -> tuple[str, str]:
        return resolve_path(self.path), self.array

    def number_bytes(self) -> int:
        return FLOAT

    def data_needed(self) -> str:
        return f"frozen features from {self.path}"


def read_array(path: str, name: str) -> np.ndarray:
    """The array `name` of an `.npz` or `.safetensors` file: floating point, finite, within the range of float32.

    Raises `InputError` that names the problem. Nothing in the file can execute (no pickle).
    """
    shape = array_shape(path, name)
    try:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as file:
                array = np.asarray(file[f"{name}.npy"])  # by its full name: there may be another without the ending
        else:
            from safetensors.numpy import load_file

            array = load_file(path)[name]
        if array.shape != shape:
            raise ValueError(f"array {name!r} has shape {list(array.shape)}, not {list(shape)}")
    except Exception as error:  # the header may be sound and the data behind it damaged or pickled
        raise _unreadable(path, error) from error
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError("source.path", path, f"array {name!r} has {bad} of {array.size} values NaN or infinite")
    if array.dtype.itemsize > 4:
        far = int((np.abs(array) > np.finfo(np.float32).max).sum())
        allowed = f"array {name!r} has {far} of {array.size} values beyond the range of float32 (3.4e+38)"
        require(far == 0, "source.path", path, allowed)
    return array


def array_shape(path: str, name: str) -> tuple[int, ...]:
    """The shape of array `name`, from the file's header alone; it must have three axes and hold floats."""
    require(is_file(path), "source.path", path, f"no such file{search_note(path)}")
    at = Path(path).stat()
    shape, dtype = _header(path, name, (at.st_size, at.st_mtime_ns, at.st_ino))
    require(dtype.startswith("float"), "source.array", name, f"must hold floating-point numbers, has {dtype}")
    allowed = f"must be [class, exemplar, feature], with one or more of each, has shape {list(shape)}"
    require(len(shape) == 3 and min(shape) > 0, "source.array", name, allowed)
    return shape


@lru_cache(maxsize=32)
def _header(path: str, name: str, state: tuple[int, ...]) -> Header:
    """The header of one array, cached for a file in the same `state`."""
    known = npz_names(path) if path.endswith(".npz") else list(headers(path))
    if name not in known:
        shown = ", ".join(sorted(known)[:8]) or "no arrays"
        raise InputError("source.array", name, f"{Path(path).name} holds {shown}{nearest(name, known)}")
    return headers(path, [name])[name]


def is_file(path: str) -> bool:
    """Whether a file of this name exists, whatever characters the name has."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name no file can have: too long, or with a NUL in it
        return False


def headers(path: str, names: list[str] | None = None) -> dict[str, Header]:
    """The shape and type of every array (or of `names`) in an `.npz` or `.safetensors` file; no data is read."""
    try:
        if path.endswith(".npz"):
            return npz_headers(path, names)
        if path.endswith(".safetensors"):
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                slices = {name: file.get_slice(name) for name in names or file.keys()}
                return {name: Header(tuple(s.get_shape()), _dtype(s.get_dtype())) for name, s in slices.items()}
    except Exception as error:  # whatever a damaged file makes its reader raise is the user's file, not a bug
        raise _unreadable(path, error) from error
    raise InputError("source.path", path, "must end in .npz or .safetensors")


def _unreadable(path: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError("source.path", path, f"cannot be read: {reason}")


def _dtype(name: str) -> str:
    """NumPy's name of a safetensors type, e.g. `float32` for F32."""
    kind, bits = name.rstrip("0123456789"), name.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return {"F": "float", "I": "int", "U": "uint"}.get(kind, kind) + bits


def npz_names(path: str) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _names(archive)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise _unreadable(path, error) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return list(dict.fromkeys(name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")))


def npz_headers(path: str, names: list[str] | None = None) -> dict[str, Header]:
    """The headers of all arrays (or of `names`) in an `.npz` file, without decompressing the data."""
    found: dict[str, Header] = {}
    with zipfile.ZipFile(path) as archive:
        for name in names or _names(archive):
            with archive.open(f"{name}.npy") as file:
                head = io.BytesIO(file.read(LONGEST_HEADER))  # a header may claim gigabytes
                version = np.lib.format.read_magic(head)
                read_header: Any = (
                    np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(head)
                found[name] = Header(shape, dtype.name)
    return found
