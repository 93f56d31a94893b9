"""The author's Omniglot archives (repository brendenlake/omniglot, folder python/), packed into one file."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from ebbtide.data.download import Report, WorkProgress, download, file_md5
from ebbtide.errors import InputError, require
from ebbtide.runs.atomic import remove, write_file
from ebbtide.sources.drawings import DRAWERS, FILE, SIDE, Drawings, drawings_shape, read_drawings

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
LARGEST_ARCHIVE = 100_000_000
LARGEST_IMAGE = 1 << 16
"""Largest number of bytes of one PNG file; those in the archives have some hundred."""
MOST_MEMBERS = 200_000
"""Largest number of entries of an archive; the larger of the two has some twenty thousand."""
MEMBER = re.compile(r"([^/\\]+)/character(\d{2})/(\d{4})_(\d{2})\.png")
"""The path of an image inside an archive: ALPHABET/characterNN/IIII_DD.png."""
EVERY = 200
"""Images between progress reports."""


class Part(NamedTuple):
    """One of the two archives: its checksum and its expected content."""

    name: str
    md5: str
    alphabets: int
    characters: int
    is_evaluation: bool

    def zip_name(self) -> str:
        """The archive's file name."""
        return f"{self.name}.zip"


PARTS = (
    Part("images_background", "68d2efa1b9178cc56df9314c21c6e718", 30, 964, False),
    Part("images_evaluation", "6b91aef0f799c5bb55b94e3f2daec811", 20, 659, True),
)
"""The MD5 sums are those by which torchvision checks its Omniglot."""


class Character(NamedTuple):
    """The drawings of one class while they are collected: packed images by drawer."""

    file_id: int
    images: dict[int, UInt8[np.ndarray, " bytes"]]


def fetch_omniglot(folder: Path, report: Report, *, source: Path | None = None) -> tuple[Path, str]:
    """Makes `omniglot.npz` in `folder`, from downloaded archives or from the files in `source`; returns the file, and a
    text about its origin.

    An existing intact file is left alone. Raises `InputError` in one line; then no file was made, and what was
    downloaded is kept for the next call.
    """
    target = folder / FILE
    if target.is_file():
        read_drawings(target)
        return target, "was there"
    require(source is None or source.is_dir(), "from", str(source), "no such folder")
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None and (source / FILE).is_file():
        drawings_shape(source / FILE)
        write_file(target, read_drawings(source / FILE).to_npz())
        return target, f"copied from {source}"
    if source is not None:
        places = [_place(source, part) for part in PARTS]
    else:
        places = [folder / part.zip_name() for part in PARTS]
        for part, place in zip(PARTS, places, strict=True):
            if not (place.is_file() and file_md5(place) == part.md5):
                url = f"{URL}/{part.zip_name()}"
                download(url, place, md5=part.md5, most=LARGEST_ARCHIVE, report=report)
    write_file(target, pack(dict(zip(PARTS, places, strict=True)), report).to_npz())
    if source is None:
        for place in places:  # all that is in them is in the one file
            remove(place)
        return target, "downloaded"
    return target, f"packed from {source}"


def _place(source: Path, part: Part) -> Path:
    """The archive (checked) or the unpacked folder of one part."""
    archive, unpacked = source / part.zip_name(), source / part.name
    if archive.is_file():
        found = file_md5(archive)
        require(found == part.md5, "from", str(archive), f"has the MD5 {found}, not {part.md5}: not the author's file")
        return archive
    allowed = (
        f"must hold {FILE}, or for each of {' and '.join(part.name for part in PARTS)} the .zip file or the folder"
    )
    require(unpacked.is_dir(), "from", str(source), allowed)
    return unpacked


def pack(places: dict[Part, Path], report: Report) -> Drawings:
    """All images of the parts (archives or folders), in the order of `Drawings`."""
    rows: list[tuple[bool, str, int, Character]] = []
    total = DRAWERS * sum(part.characters for part in places)
    done = 0
    for part, place in places.items():
        found: dict[tuple[str, int], Character] = {}
        for where, name, data in _members(place, part):
            member = MEMBER.fullmatch(name)
            if member is None:
                continue
            alphabet, number, file_id, drawer = member[1], int(member[2]), int(member[3]), int(member[4])
            character = found.setdefault((alphabet, number), Character(file_id, {}))
            new = drawer not in character.images and character.file_id == file_id
            require(new, "image", where, "two files for the same drawing")
            character.images[drawer] = decode(where, data)
            done += 1
            if done % EVERY == 0:
                report(WorkProgress("images", done, total, "images"))
        _check(part, place, found)
        rows += [(part.is_evaluation, *key, found[key]) for key in sorted(found)]
    report(WorkProgress("images", done, total, "images"))
    drawers = range(1, DRAWERS + 1)
    return Drawings(
        packed=np.stack([np.stack([row[3].images[d] for d in drawers]) for row in rows]),
        alphabet=np.array([row[1] for row in rows]),
        character=np.array([row[2] for row in rows], np.uint8),
        is_evaluation=np.array([row[0] for row in rows], bool),
        file_id=np.array([row[3].file_id for row in rows], np.int16),
        drawer=np.array(drawers, np.uint8),
    )


def _check(part: Part, place: Path, found: dict[tuple[str, int], Character]) -> None:
    alphabets = len({alphabet for alphabet, _ in found})
    allowed = f"must have {part.alphabets} alphabets, has {alphabets}"
    require(alphabets == part.alphabets, part.name, str(place), allowed)
    allowed = f"must have {part.characters} characters, has {len(found)}"
    require(len(found) == part.characters, part.name, str(place), allowed)
    for (alphabet, number), character in found.items():
        missing = sorted(set(range(1, DRAWERS + 1)) ^ set(character.images))
        allowed = f"{alphabet}, character {number}: must have drawings 1 to {DRAWERS} and no other; see {missing[:5]}"
        require(not missing, part.name, str(place), allowed)


def decode(where: str, data: bytes) -> UInt8[np.ndarray, " bytes"]:
    """One PNG file of 105 x 105 pixels, dark strokes on white, as one bit per pixel, ink = 1."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            size = image.size
            white = np.asarray(image.convert("L")) >= 128 if size == (SIDE, SIDE) else None
    except Exception as error:  # whatever a damaged file makes the decoder raise
        raise InputError("image", where, f"cannot be read: {error}") from error
    if white is None:
        raise InputError("image", where, f"must be {SIDE} x {SIDE} pixels, is {size[0]} x {size[1]}")
    return np.packbits(~white.ravel())


def _members(place: Path, part: Part) -> Iterator[tuple[str, str, bytes]]:
    """(name for messages, ALPHABET/characterNN/IIII_DD.png, content) of every PNG file. Nothing is unpacked to the
    disk: names from an archive are compared, never opened."""
    if place.is_dir():
        for path in sorted(place.glob("*/character*/*.png")):
            size = path.stat().st_size
            require(size <= LARGEST_IMAGE, "image", str(path), f"has {size:,} bytes, at most {LARGEST_IMAGE:,}")
            yield str(path), path.relative_to(place).as_posix(), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(place) as archive:
            infos = archive.infolist()
            many = f"has {len(infos):,} entries, at most {MOST_MEMBERS:,}"
            require(len(infos) <= MOST_MEMBERS, part.name, str(place), many)
            for info in infos:
                if not info.filename.startswith(f"{part.name}/") or not info.filename.endswith(".png"):
                    continue
                with archive.open(info) as file:
                    data = file.read(LARGEST_IMAGE + 1)
                where = f"{place.name}: {info.filename}"
                require(len(data) <= LARGEST_IMAGE, "image", where, f"has more than {LARGEST_IMAGE:,} bytes")
                yield where, info.filename.removeprefix(f"{part.name}/"), data
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise InputError(part.name, str(place), f"cannot be read: {error}") from error
