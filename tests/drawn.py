"""A small stand-in for Omniglot: characters of thick random strokes, one bit a pixel, and the archives they come in."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ebbtide.data.archives import Part
from ebbtide.sources.drawings import DRAWERS, FILE, SIDE, Drawings

ALPHABETS = 2
"""Of each part."""


def drawings(characters: int = 6, seed: int = 0) -> Drawings:
    """`characters` classes, the first two thirds background: each two strokes, shifted a little by every drawer."""
    rng = np.random.default_rng(seed)
    images = np.zeros((characters, DRAWERS, SIDE, SIDE), np.uint8)
    for c in range(characters):
        row, column, long, tall = rng.integers(15, 45, 4)
        for d in range(DRAWERS):
            i, j = rng.integers(-4, 5, 2)
            images[c, d, row + i : row + i + 4, column + j : column + j + long] = 1
            images[c, d, row + i : row + i + tall, column + j + long // 3 : column + j + long // 3 + 4] = 1
    background = 2 * characters // 3
    evaluation = np.arange(characters) >= background
    inside = np.where(evaluation, np.arange(characters) - background, np.arange(characters))
    half = np.maximum(np.where(evaluation, characters - background, background) // ALPHABETS, 1)
    which = np.minimum(inside // half, ALPHABETS - 1)
    names = np.array([f"{'Eval' if e else 'Back'}_({w})" for e, w in zip(evaluation, which, strict=True)])
    return Drawings(
        packed=np.packbits(images.reshape(characters, DRAWERS, -1), axis=-1),
        alphabet=names,
        character=(inside - which * half + 1).astype(np.uint8),
        is_evaluation=evaluation,
        file_id=np.arange(1, characters + 1, dtype=np.int16),
        drawer=np.arange(1, DRAWERS + 1, dtype=np.uint8),
    )


def write(folder: Path, characters: int = 6) -> Drawings:
    """Puts an `omniglot.npz` into a folder."""
    found = drawings(characters)
    (folder / FILE).write_bytes(found.to_npz())
    return found


def png(image: np.ndarray, mode: str = "1") -> bytes:
    """Dark strokes on white, as the author's files are."""
    file = io.BytesIO()
    Image.fromarray(np.where(image, 0, 255).astype(np.uint8)).convert(mode).save(file, "PNG")
    return file.getvalue()


def files(found: Drawings, *, evaluation: bool) -> dict[str, bytes]:
    """ALPHABET/characterNN/IIII_DD.png and its content, for one of the parts."""
    made = {}
    for c in np.flatnonzero(found.is_evaluation == evaluation):
        images = found.images(slice(c, c + 1))[0]
        for d, image in enumerate(images, 1):
            name = f"{found.alphabet[c]}/character{found.character[c]:02}/{found.file_id[c]:04}_{d:02}.png"
            made[name] = png(image)
    return made


def archive(folder: str, members: dict[str, bytes]) -> bytes:
    """A zip file of `members` in a folder, those of the last name first: the order in it must not matter."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name in sorted(members, reverse=True):
            made.writestr(zipfile.ZipInfo(f"{folder}/{name}", (2015, 1, 1, 0, 0, 0)), members[name])
    return file.getvalue()


def parts(found: Drawings, md5: dict[str, str]) -> tuple[Part, Part]:
    """The two parts with the numbers of a small stand-in."""
    background, evaluation = int((~found.is_evaluation).sum()), int(found.is_evaluation.sum())
    return (
        Part("images_background", md5.get("images_background", ""), ALPHABETS, background, False),
        Part("images_evaluation", md5.get("images_evaluation", ""), ALPHABETS, evaluation, True),
    )
