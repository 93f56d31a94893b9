"""Small made-up Omniglot archives: real PNG files in the real layout, a few characters."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ebbtide.data.archives import Part, file_md5
from ebbtide.sources.drawings import DRAWERS, SIDE, Drawings

ALPHABETS = {"images_background": {"Beta": 2, "Alpha": 3}, "images_evaluation": {"Gamma": 2}}


def make_drawings(classes: int = 7, seed: int = 0) -> Drawings:
    """Characters that are blots: a few random bars, shifted by each drawer. 3 + 2 background, the rest evaluation."""
    rng = np.random.default_rng(seed)
    images = np.zeros((classes, DRAWERS, SIDE, SIDE), np.uint8)
    for c in range(classes):
        bars = rng.integers(10, 60, (4, 2))
        long = rng.integers(8, 35, (4, 2))
        for d in range(DRAWERS):
            dx, dy = rng.integers(-8, 9, 2)
            for (x, y), (w, h) in zip(bars, long, strict=True):
                images[c, d, y + dy : y + dy + h, x + dx : x + dx + w] = 1
    names = [name for part in ALPHABETS.values() for name in sorted(part) for _ in range(part[name])]
    numbers = [i + 1 for part in ALPHABETS.values() for name in sorted(part) for i in range(part[name])]
    names += ["Gamma"] * (classes - len(names))
    numbers += list(range(3, 3 + classes - len(numbers)))
    return Drawings(
        packed=np.packbits(images.reshape(classes, DRAWERS, -1), axis=-1),
        alphabet=np.array(names[:classes]),
        character=np.array(numbers[:classes], np.uint8),
        is_evaluation=np.arange(classes) >= 5,
        file_id=np.arange(101, 101 + classes, dtype=np.int16),
        drawer=np.arange(1, DRAWERS + 1, dtype=np.uint8),
    )


def png(image: np.ndarray) -> bytes:
    """Dark strokes on white, one bit a pixel, as the author's files."""
    file = io.BytesIO()
    Image.fromarray(image == 0).save(file, "png")
    return file.getvalue()


def members(drawings: Drawings, part: str) -> dict[str, bytes]:
    """The files of one archive by name, in no useful order."""
    found = {}
    for c in np.flatnonzero(drawings.is_evaluation == (part == "images_evaluation"))[::-1]:
        folder = f"{part}/{drawings.alphabet[c]}/character{drawings.character[c]:02}"
        for d, image in enumerate(drawings.images([c])[0]):
            found[f"{folder}/{drawings.file_id[c]:04}_{d + 1:02}.png"] = png(image)
    return found


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def parts(folder: Path) -> tuple[Part, ...]:
    """What the archives in `folder` must be: their checksums, alphabets and characters."""
    found = []
    for name, alphabets in ALPHABETS.items():
        md5 = file_md5(folder / f"{name}.zip")
        found.append(Part(name, md5, len(alphabets), sum(alphabets.values()), name == "images_evaluation"))
    return tuple(found)
