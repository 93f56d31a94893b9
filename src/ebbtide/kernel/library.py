"""The built library in the user's cache: loaded only where it is, to the bit, what this user's build has written."""

import ctypes
import os
import shutil
import stat
import time
from pathlib import Path

import msgspec

from ebbtide.errors import InputError
from ebbtide.machine import cache_folder
from ebbtide.runs.atomic import TEMPORARY, make_folder, rename, sha256, write_file
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import SCHEMA, DamagedError, sign, unsign

SYMBOLS = ("EbbtideGradients", "EbbtideStep")
LARGEST, LARGEST_RECORD = 2**28, 2**12
"""Bytes of a library and of its record that are read."""
ABANDONED = 3600.0
"""Seconds after which the folder of a build that has not ended is that of one that was killed."""


class BuildError(RuntimeError):
    """The kernel cannot be built or loaded here; one line says why."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was built: beside the library, signed."""

    schema: int
    size: int
    sha256: str


def folder() -> Path:
    """Where libraries are kept; it need not exist."""
    return cache_folder() / "kernel"


def private_folder() -> Path:
    """The same folder, made: this user's, and nobody else may write it. Raises `OSError`, and `BuildError` where it is
    another's."""
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        make_folder(place)
    if place.stat().st_uid == os.geteuid():
        place.chmod(0o700)
    _check_owner(place, place.stat())
    return place


def keep(made: Path, target: Path) -> None:
    """Puts a library that was built, and the record of it, where `load` finds them; both are on the disk then."""
    made.chmod(0o700)
    data = made.read_bytes()
    descriptor = os.open(made, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    rename(made, target, "library")
    write_file(_record(target), sign(Record(SCHEMA, len(data), sha256(data))), "record")


def check(path: Path) -> None:
    """Raises `BuildError` unless the library at `path` is a file of this user in a folder that only this user may
    write, with the content that its record names."""
    try:
        _check_owner(path.parent, path.parent.stat())
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise BuildError(f"{path} is not a file")
        _check_owner(path, found)
        name = _record(path).name
        record = unsign(read_bounded(path.parent, name, LARGEST_RECORD), Record, str(path.parent), name)
        data = read_bounded(path.parent, path.name, LARGEST)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    except (DamagedError, InputError) as error:
        raise BuildError(f"{path} cannot be checked: {error}") from error
    if len(data) != record.size or sha256(data) != record.sha256:
        raise BuildError(f"{path} is not what was built: damaged or changed")


def load(path: Path) -> ctypes.CDLL:
    """The library, checked. Raises `BuildError` when it is not what was built, or cannot be loaded."""
    check(path)
    return open_library(path)


def open_library(path: Path) -> ctypes.CDLL:
    """The library at `path`, unchecked: for one that was built a moment ago. Raises `BuildError` when it cannot be
    loaded, or is another one."""
    try:
        loaded = ctypes.CDLL(str(path))
        for symbol in SYMBOLS:
            getattr(loaded, symbol)
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from error
    return loaded


def tidy() -> None:
    """Removes what builds have left that were killed."""
    try:
        for one in folder().glob(f"{TEMPORARY}*"):
            if time.time() - one.lstat().st_mtime > ABANDONED:
                shutil.rmtree(one, ignore_errors=True)
    except OSError:
        pass  # a cache that cannot be read is told by `check`, or by the build


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise BuildError(f"{path} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BuildError(f"{path} may be written by other users")
