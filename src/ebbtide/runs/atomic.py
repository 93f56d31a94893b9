"""Files that are either whole or not there."""

import hashlib
import os
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of files and folders that are not committed; readers ignore them."""


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk; not atomic by itself."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: Path, data: bytes) -> None:
    """Puts `data` at `path` in one step: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(TEMPORARY + path.name)
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)
