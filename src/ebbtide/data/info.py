"""The content of a data file, from its headers and short texts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ebbtide.errors import InputError
from ebbtide.sources.features import Header, headers, is_file

SHORT = 2000
"""Largest number of bytes of an array without axes that is shown as a value."""


class Contents(NamedTuple):
    """A file's size in bytes, its arrays by name, and the values of arrays without axes."""

    path: Path
    size: int
    arrays: dict[str, Header]
    values: dict[str, str]


def contents(path: Path) -> Contents:
    """The content of a data file. Raises `InputError` for a file that is missing, damaged, or neither `.npz` nor
    `.safetensors`."""
    if not is_file(str(path)):
        raise InputError("file", str(path), "no such file")
    found = headers(str(path))
    arrays = {name: one for name, one in found.items() if one.shape or path.suffix != ".npz"}
    values = {}
    if len(arrays) < len(found):
        try:
            with np.load(path, allow_pickle=False) as file:
                for name in found.keys() - arrays.keys():
                    if file.zip.getinfo(f"{name}.npy").file_size <= SHORT:
                        values[name] = str(file[name].item())
        except Exception as error:  # whatever a damaged file makes its reader raise
            raise InputError("file", str(path), f"cannot be read: {error}") from error
    return Contents(path, path.stat().st_size, arrays, {name: values[name] for name in found if name in values})


def data_files(folder: Path) -> list[Path]:
    """The data files of a folder, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in (".npz", ".safetensors") and path.is_file())
