"""What is in the data folder: files, shapes, how they were made."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ebbtide.errors import InputError, nearest, one_line, require
from ebbtide.sources.drawings import FILE
from ebbtide.sources.features import Header, array_headers

KINDS = (".npz", ".safetensors")
PART = ".part"
MOST_TEXT = 1 << 16
"""Bytes of a text that is read from a file."""


class Item(NamedTuple):
    """A file of data: its arrays, and the texts and numbers that say how they were made."""

    path: Path
    size: int
    arrays: dict[str, Header]
    notes: dict[str, str]

    def main(self) -> str:
        """The array that the file is about."""
        names = [name for name in ("features", "images_packed") if name in self.arrays]
        return names[0] if names else next(iter(self.arrays), "")

    def what(self) -> str:
        """A few words on what the file is."""
        if self.main() == "images_packed":
            return "characters, one bit a pixel"
        said = [self.notes[name] for name in ("source", "encoder") if name in self.notes]
        said += ["eight transforms"] if self.notes.get("transforms") == "True" else []
        said += [f"{self.notes['pca']} components"] if "pca" in self.notes else []
        said += [self.notes["layout"]] if "layout" in self.notes else []
        return ", ".join(said) or "features"


class Inventory(NamedTuple):
    """Files that can be read, those that cannot (with the reason), and downloads or encodings that were begun."""

    items: list[Item]
    unreadable: list[tuple[Path, str]]
    begun: list[Path]


def examine(path: Path) -> Item:
    """What a file holds, without its data. Raises `InputError` in one line."""
    require(path.is_file(), "file", str(path), "no such file")
    headers = array_headers(str(path))
    plain = {name: one for name, one in headers.items() if one.shape}
    notes: dict[str, str] = {}
    if path.suffix == ".npz":
        short = [name for name, one in headers.items() if one.shape == () and _width(one) <= MOST_TEXT]
        try:
            with np.load(path, allow_pickle=False) as file:
                notes = {name: one_line(str(file[name].item())) for name in short}
        except Exception as error:  # the headers may be sound and the data behind them damaged
            raise InputError("file", str(path), f"cannot be read: {error}") from error
    return Item(path, path.stat().st_size, plain, notes)


def _width(header: Header) -> int:
    """Bytes of one entry; a type is named with its bits (str352, int64; bool has none)."""
    bits = header.dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
    return int(bits) // 8 if bits.isdigit() else 1


def inventory(folder: Path) -> Inventory:
    """All of a folder, by name."""
    found = Inventory([], [], [])
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(PART):
            found.begun.append(path)
        elif path.suffix in KINDS and path.is_file() and not path.name.startswith("."):
            try:
                found.items.append(examine(path))
            except InputError as error:
                found.unreadable.append((path, error.allowed))
    return found


def find_file(folder: Path, name: str) -> Path:
    """The file of this path, or of this name (with or without its ending) in the data folder."""
    names = [name, *(f"{name}{kind}" for kind in KINDS)]
    for path in (Path(name), *(folder / one for one in names)):
        if path.is_file():
            return path
    known = [path.name for path in sorted(folder.iterdir()) if path.suffix in KINDS] if folder.is_dir() else []
    there = f"{folder} has {', '.join(known)}" if known else f"{folder} has none"
    hint = " (make it with: ebbtide data fetch omniglot)" if name in (FILE, "omniglot") else nearest(name, known)
    raise InputError("file", name, f"no file of this name, here or in the data folder; {there}{hint}")
