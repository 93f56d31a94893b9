"""Writing files so that they are either complete or absent, in named steps that tests can interrupt."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of uncommitted files and folders; readers ignore them."""

_WRITTEN = ("before_write", "mid_write", "before_fsync", "after_fsync")
_RENAMED = ("before_rename", "after_rename", "committed")

POINTS = (
    "folder.made",  # the folder exists and is locked; nothing is in it
    *(f"header.{stage}" for stage in _WRITTEN + _RENAMED),
    *(f"segment.{stage}" for stage in _WRITTEN + _RENAMED),  # segment.committed: the checkpoint has not begun
    "checkpoint.made",  # the temporary folder of the checkpoint
    *(f"state.{stage}" for stage in _WRITTEN),
    *(f"manifest.{stage}" for stage in _WRITTEN),
    *(f"checkpoint.{stage}" for stage in _RENAMED),  # its rename is the commit
    *(f"rolling.{stage}" for stage in _RENAMED),  # an older rolling checkpoint becomes a temporary ...
    "rolling.dropped",  # ... and is removed
    *(f"aside.{stage}" for stage in _RENAMED),  # on opening: what no good checkpoint names
    "leftover.before_removal",  # on opening: temporaries
)
"""Every step of a commit and of opening a run, in the order of the protocol (see README.md)."""


def crash_point(point: str) -> None:
    """Called at each of `POINTS`; does nothing. Tests replace it to kill the process there."""


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable (fsync)."""
    with naming(folder), _open(folder, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def make_folder(path: Path) -> None:
    """Creates one folder unless it exists; refuses a link in its place."""
    with naming(path):
        try:
            path.mkdir()
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise


def write_synced(path: Path, data: bytes, what: str) -> None:
    """Writes a file and waits until it is on the disk; not atomic by itself."""
    half = len(data) // 2
    with naming(path), _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW) as descriptor:
        crash_point(f"{what}.before_write")
        write_all(descriptor, data[:half])
        crash_point(f"{what}.mid_write")
        write_all(descriptor, data[half:])
        crash_point(f"{what}.before_fsync")
        os.fsync(descriptor)
    crash_point(f"{what}.after_fsync")


def write_file(path: Path, data: bytes, what: str = "file") -> None:
    """Puts `data` at `path` in one step: temporary file, fsync, rename, fsync of the folder.

    Raises `OSError` naming the file; the previous content of `path` is then unchanged.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        write_synced(temporary, data, what)
        rename(temporary, path, what)
    except OSError:
        with contextlib.suppress(OSError):  # a full disk gets its space back; failing that, it is a leftover
            temporary.unlink()
        raise


def rename(source: Path, target: Path, what: str) -> None:
    """Renames within one file system, replacing a file, and waits until the rename is on the disk."""
    crash_point(f"{what}.before_rename")
    with naming(target):
        source.replace(target)
    crash_point(f"{what}.after_rename")
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)
    crash_point(f"{what}.committed")


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with everything in it."""
    with naming(path):
        if path.is_dir() and not path.is_symlink():
            for inner in list(path.iterdir()):
                remove(inner)
            path.rmdir()
        else:
            path.unlink()


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data` to an open file."""
    rest = memoryview(data)
    while rest:  # the kernel may take less than it is given
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file name to an `OSError` of a call that knows only a descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
