"""All drawings of Omniglot in one file, and their pixels at any resolution."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from ebbtide.errors import InputError
from ebbtide.sources.features import npz_headers

FILE = "omniglot.npz"
SIDE = 105
"""Pixels along the edge of an image."""
DRAWERS = 20
BYTES = -(-SIDE * SIDE // 8)
"""Bytes of one image at one bit per pixel."""
CHUNK = 64
"""Classes unpacked at a time."""


class Drawings(NamedTuple):
    """Handwritten characters: `packed[c, d]` is class c drawn by drawer d, one bit per pixel, ink = 1, row by row.

    Classes are in the order of the background set, then the evaluation set, alphabets and characters sorted; `file_id`
    is the number with which the names of a class's image files begin, `drawer` the number with which they end.
    """

    packed: UInt8[np.ndarray, "class drawer bytes"]
    alphabet: Shaped[np.ndarray, " class"]
    character: Int[np.ndarray, " class"]
    is_evaluation: Bool[np.ndarray, " class"]
    file_id: Int[np.ndarray, " class"]
    drawer: Int[np.ndarray, " drawer"]

    def images(self, classes: Any = slice(None)) -> UInt8[np.ndarray, "class drawer side side"]:
        """The images of the selected classes as bytes 0 and 1, ink = 1."""
        bits = np.unpackbits(self.packed[classes], axis=-1, count=SIDE * SIDE)
        return bits.reshape(*bits.shape[:2], SIDE, SIDE)

    def pixels(self, side: int) -> UInt8[np.ndarray, "class drawer side side"]:
        """All images at side x side pixels, ink = 255; a pixel is the inked share of its area."""
        found = np.empty((*self.packed.shape[:2], side, side), np.uint8)
        for start in range(0, len(found), CHUNK):
            found[start : start + CHUNK] = shrink(self.images(slice(start, start + CHUNK)), side)
        return found

    def to_npz(self) -> bytes:
        """The bytes of the `.npz` file; equal drawings give equal bytes."""
        arrays: dict[str, Any] = self._asdict()
        arrays["images_packed"] = arrays.pop("packed")
        order = ["images_packed", *(name for name in arrays if name != "images_packed")]
        file = io.BytesIO()
        shape = np.array([SIDE, SIDE], np.int16)
        np.savez_compressed(file, allow_pickle=False, **{name: arrays[name] for name in order}, image_shape=shape)
        return file.getvalue()


def shrink(images: UInt8[np.ndarray, "class drawer old old"], side: int) -> UInt8[np.ndarray, "class drawer side side"]:
    """Images of bytes 0 and 1 averaged over areas to side x side pixels, rounded to 0 ... 255."""
    if side == images.shape[-1]:
        return images * np.uint8(255)
    w = overlap(images.shape[-1], side)
    shares = np.matmul(np.matmul(w, images.astype(np.float32)), w.T)
    return np.rint(shares * 255).astype(np.uint8)


def overlap(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Weights w[i, j]: the share of new pixel i (old / new old pixels wide) that old pixel j covers. Rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    j = np.arange(old)[None]
    return (np.clip(np.minimum(high, j + 1) - np.maximum(low, j), 0, None) / (old / new)).astype(np.float32)


def drawings_shape(path: Path) -> tuple[int, int]:
    """(classes, drawers) of an `omniglot.npz`, from its headers alone. Raises `InputError` for any other file."""
    try:
        headers = npz_headers(str(path))
        shape, dtype = headers["images_packed"]
    except InputError:
        raise
    except KeyError:
        raise _unlike(path, "has no array 'images_packed'") from None
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise _unlike(path, f"cannot be read: {error}") from error
    classes = shape[0] if shape else 0
    good = len(shape) == 3 and shape[1:] == (DRAWERS, BYTES) and dtype == "uint8" and classes > 0
    if not good:
        raise _unlike(path, f"images_packed must be uint8 [class, {DRAWERS}, {BYTES}], is {dtype} {list(shape)}")
    for name in Drawings._fields[1:]:
        expected = (DRAWERS,) if name == "drawer" else (classes,)
        if name not in headers or headers[name].shape != expected:
            raise _unlike(path, f"must have an array {name!r} of shape {list(expected)}")
    return classes, DRAWERS


def read_drawings(path: Path) -> Drawings:
    """The drawings in an `omniglot.npz`. Raises `InputError` in one line for any other file."""
    drawings_shape(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            rest = {name: np.asarray(file[name]) for name in Drawings._fields[1:]}
            found = Drawings(np.asarray(file["images_packed"]), **rest)
    except Exception as error:  # the headers may be sound and the data behind them damaged
        raise _unlike(path, f"cannot be read: {error}") from error
    return found


def _unlike(path: Path, reason: str) -> InputError:
    return InputError("omniglot", str(path), f"{reason}; remove it and run: ebbtide data fetch omniglot")
