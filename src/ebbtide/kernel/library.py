"""The built library in the user's cache, loaded only where it is, bit for bit, what this user's build has written."""

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
"""Largest number of bytes of a library and of its record that are read."""
ABANDONED = 3600.0
"""Seconds after which the folder of an unfinished build counts as left by a killed one."""


class BuildError(RuntimeError):
    """The kernel cannot be built or loaded here; one line says why."""


class BuildRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed record beside the library, with its size and hash."""

    schema: int
    size: int
    sha256: str


def folder() -> Path:
    """The folder of libraries; it need not exist."""
    return cache_folder() / "kernel"


def private_folder() -> Path:
    """The folder of libraries, created; it belongs to this user, and nobody else may write to it. Raises `OSError`, and
    `BuildError` where it belongs to another user."""
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        make_folder(place)
    if place.stat().st_uid == os.geteuid():
        place.chmod(0o700)
    _check_owner(place, place.stat())
    return place


def keep(built: Path, target: Path) -> None:
    """Puts a built library and its record where `load` finds them, and waits until both are on the disk."""
    built.chmod(0o700)
    data = built.read_bytes()
    descriptor = os.open(built, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    rename(built, target, "library")
    write_file(_record(target), sign(BuildRecord(SCHEMA, len(data), sha256(data))), "record")


def check(path: Path) -> None:
    """Raises `BuildError` unless the library at `path` is a file of this user, in a folder that only this user may
    write to, with the content in its record."""
    try:
        _check_owner(path.parent, path.parent.stat())
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise BuildError(f"{path} is not a file")
        _check_owner(path, found)
        name = _record(path).name
        record = unsign(read_bounded(path.parent, name, LARGEST_RECORD), BuildRecord, str(path.parent), name)
        data = read_bounded(path.parent, path.name, LARGEST)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    except (DamagedError, InputError) as error:
        raise BuildError(f"{path} cannot be checked: {error}") from error
    if len(data) != record.size or sha256(data) != record.sha256:
        raise BuildError(f"{path} is not what was built: damaged or changed")


def load(path: Path) -> ctypes.CDLL:
    """The library, after `check`. Raises `BuildError` when it was changed, or cannot be loaded."""
    check(path)
    return open_library(path)


def open_library(path: Path) -> ctypes.CDLL:
    """The library at `path`, unchecked, for one that was built a moment ago. Raises `BuildError` when it cannot be
    loaded, or is another library."""
    try:
        loaded = ctypes.CDLL(str(path))
        for symbol in SYMBOLS:
            getattr(loaded, symbol)
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from error
    return loaded


def tidy() -> None:
    """Removes the leftovers of killed builds."""
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
