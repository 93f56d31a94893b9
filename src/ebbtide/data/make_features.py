"""Making a file of features from `omniglot.npz`, in pieces that survive an interruption."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float

from ebbtide.data.download import PART, Report, WorkProgress
from ebbtide.data.encoders import Encoder
from ebbtide.errors import InputError, require
from ebbtide.runs.atomic import make_folder, remove, write_file
from ebbtide.runs.lock import LOCK, acquire
from ebbtide.sources.drawings import FILE, Drawings, read_drawings
from ebbtide.sources.features import read_array
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import TRANSFORMS
from ebbtide.sources.omniglot import features_file

PIECE = 16
"""Characters encoded between two saves."""
RECIPE = "recipe.json"
SMALL = 1e-3
"""Added to a standard deviation before dividing by it."""


def make_features(folder: Path, encoder: Encoder, report: Report, *, augment: bool = False) -> tuple[Path, str]:
    """Makes the features of every drawing; returns the file, and a text about its origin.

    The file holds `features`, float16 [class, drawing, feature], in the order of `omniglot.npz`; with `augment` row 8 c
    + t is character c under transform t (`eight_transforms`). It also holds `encoder`, `recipe`, `side`, `transforms`
    and `omniglot` (SHA-256 of the images). Pieces are kept in a folder `.part` until the file is complete: the same
    call continues there, another recipe starts anew.
    """
    target = folder / features_file(encoder.name, transforms=augment)
    allowed = f"has no {FILE}: run ebbtide data fetch omniglot"
    require((folder / FILE).is_file(), "data folder", str(folder), allowed)
    drawings = read_drawings(folder / FILE)
    digest = hashlib.sha256(drawings.packed.tobytes()).hexdigest()
    given: dict[str, Any] = {"encoder": encoder.name, "recipe": encoder.recipe, "side": encoder.side}
    given |= {"transforms": augment, "omniglot": digest}
    if target.is_file():
        _check_same_recipe(target, given)
        return target, "was there"
    pieces = target.with_name(target.name + PART)
    make_folder(pieces)
    held = acquire(pieces)
    try:
        recipe = msgspec.json.encode(given, order="sorted")
        path = pieces / RECIPE
        if not (path.is_file() and path.read_bytes() == recipe):
            for old in [old for old in pieces.iterdir() if old.name != LOCK]:
                remove(old)
            write_file(path, recipe)
        found = _encode(drawings, encoder, augment, pieces, report)
        write_file(target, _npz(features=found, **given))
        remove(pieces)
    finally:
        os.close(held)
    return target, "made"


def reduce_features(folder: Path, encoder: str, dims: int, *, augment: bool = False) -> tuple[Path, str]:
    """The first `dims` principal components of an encoder's features, in a file of their own.

    x = (f - mean) / (sd + 1e-3) by coordinate over all drawings, scaled to norm 1; then centred and projected on the
    leading eigenvectors of its covariance (signs: the largest entry of each is positive).
    """
    source = folder / features_file(encoder, transforms=augment)
    raw, given = _read(source)
    require(1 <= dims < raw.shape[-1], "pca", dims, f"must be from 1 to {raw.shape[-1] - 1}")
    target, given = folder / features_file(encoder, transforms=augment, pca=dims), given | {"pca": dims}
    if target.is_file():
        _check_same_recipe(target, given)
        return target, "was there"
    found = normalised_components(raw.reshape(-1, raw.shape[-1]), dims).reshape(*raw.shape[:2], dims)
    write_file(target, _npz(features=found.astype(np.float16), **given))
    return target, "made"


def normalised_components(rows: Float[np.ndarray, "row feature"], dims: int) -> Float[np.ndarray, "row dims"]:
    """The rows standardised, scaled to norm 1, and projected on `dims` principal components."""
    x = rows.astype(np.float32)
    x -= x.mean(0)
    x /= x.std(0) + SMALL
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    x -= x.mean(0)
    _, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))
    leading = vectors[:, ::-1][:, :dims]
    signs = np.sign(leading[np.abs(leading).argmax(0), np.arange(dims)])
    return x @ (leading * signs).astype(np.float32)


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The features in a file that `make_features` made, and its other values."""
    raw = read_array(str(path), "features")
    with np.load(path, allow_pickle=False) as file:
        return raw, {name: np.asarray(file[name]).item() for name in file.files if name != "features"}


def _encode(drawings: Drawings, encoder: Encoder, augment: bool, pieces: Path, report: Report) -> np.ndarray:
    """All rows of features; pieces that exist are read back."""
    found, total = [], len(drawings.packed)
    for start in range(0, total, PIECE):
        rows = slice(start, min(start + PIECE, total))
        path = pieces / f"{start:05}.npy"
        piece = _read_piece(path, (rows.stop - start) * (TRANSFORMS if augment else 1))
        if piece is None:
            images = drawings.images(rows)
            images = eight_transforms(images) if augment else images
            features = encoder.encode(images.reshape(-1, *images.shape[2:]))
            piece = features.reshape(*images.shape[:2], -1).astype(np.float16)
            if not np.isfinite(piece).all():
                raise InputError("encoder", encoder.name, f"gives NaN, infinity or more than 65,504 ({encoder.recipe})")
            file = io.BytesIO()
            np.save(file, piece, allow_pickle=False)
            write_file(path, file.getvalue())
        found.append(piece)
        report(WorkProgress(encoder.name, rows.stop, total, "characters"))
    return np.concatenate(found)


def _read_piece(path: Path, rows: int) -> np.ndarray | None:
    """A piece that an earlier call saved; None where there is none, or it is not intact."""
    try:
        piece = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return piece if piece.dtype == np.float16 and piece.ndim == 3 and len(piece) == rows else None


def _check_same_recipe(target: Path, given: dict[str, Any]) -> None:
    """Raises `InputError` when the existing file was made with another recipe."""
    with np.load(target, allow_pickle=False) as file:
        for name, value in given.items():
            there = file[name].item() if name in file.files else None
            allowed = f"is there and was made with {name} = {there}, not {value}; move it away to make it anew"
            require(there == value, "file", str(target), allowed)


def _npz(**arrays: Any) -> bytes:
    """The bytes of an uncompressed `.npz` file: features hardly shrink."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()
