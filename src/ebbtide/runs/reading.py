"""Bounded, verified reading of files in a run folder: size first, then hash, then content."""

import errno
import hashlib
import math
import os
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ebbtide.runs.signed import DamagedError

LARGEST_HEADER = 2**20
"""Largest number of bytes of run.json, and of the list of arrays at the start of a safetensors file. Our own have a few
thousand."""
LARGEST_MANIFEST = 2**22
"""Largest number of bytes of a manifest: about 20,000 segments."""
LARGEST_FILE = 2**40
"""Largest number of bytes of a state or a segment."""

DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EIO)
"""Error numbers of opening a file that mean the file is missing or of the wrong kind."""
DIMENSIONS = 32
"""Largest number of axes of an array."""
ITEM = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "U32": 4, "I32": 4, "F32": 4} | {
    kind: 8 for kind in ("U64", "I64", "F64")
}
"""Bytes per element of the types that NumPy and safetensors share."""


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file by its path relative to the run folder, with its length in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str


class Layout(NamedTuple):
    """Element type (safetensors' name) and shape of an array in a file."""

    dtype: str
    shape: tuple[int, ...]


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def open_inside(folder: Path, name: str) -> BinaryIO:
    """The open regular file `name` (parts divided by /) below `folder`; follows no link on the way.

    Raises `DamagedError` naming the file when it is missing or of another kind, `OSError` when it may not be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        for part in name.split("/"):
            outer = descriptor
            try:  # a pipe in place of a file must not block
                descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=outer)
            finally:
                os.close(outer)
    except OSError as error:
        if error.errno not in DAMAGE:  # too many open files, no permission ...: says nothing of the file
            raise OSError(error.errno, error.strerror, str(folder / name)) from error
        raise DamagedError(f"{name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError(f"{name}: not a regular file")
    return os.fdopen(descriptor, "rb")


def read_bounded(folder: Path, name: str, largest: int) -> bytes:
    """The bytes of a file of at most `largest` bytes."""
    with open_inside(folder, name) as file:
        data = _read(file, name, largest + 1)
    if len(data) > largest:
        raise DamagedError(f"{name}: has more than {largest} bytes")
    return data


def check_record(folder: Path, record: FileRecord) -> dict[str, Layout]:
    """The element types and shapes in a recorded safetensors file, verified by reading it once in pieces; no array is
    loaded.

    Raises `DamagedError` naming the file when its bytes differ from the record or are not safetensors.
    """
    with _open_sized(folder, record) as file:
        head = _head(file, record)
        digest = hashlib.sha256(head)
        while piece := _read(file, record.path, 2**20):
            digest.update(piece)
    _compare(record, digest.hexdigest())
    return _layouts(head, record)


def load_record(folder: Path, record: FileRecord) -> dict[str, np.ndarray]:
    """The arrays of a recorded safetensors file, verified as by `check_record` while loading."""
    with _open_sized(folder, record) as file:
        head = _head(file, record)
        data = head + _read(file, record.path, record.size - len(head))
    _compare(record, hashlib.sha256(data).hexdigest())
    _layouts(head, record)
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{record.path}: {' '.join(str(error).split())}") from error


def _open_sized(folder: Path, record: FileRecord) -> BinaryIO:
    file = open_inside(folder, record.path)
    size = os.fstat(file.fileno()).st_size
    if size != record.size:
        file.close()
        raise DamagedError(f"{record.path}: has {size} bytes, the manifest says {record.size}")
    return file


def _read(file: BinaryIO, name: str, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise DamagedError(f"{name}: {error.strerror}") from error


def _head(file: BinaryIO, record: FileRecord) -> bytes:
    """The length of the list of arrays (8 bytes) and the list itself; its length is checked, its content is not yet
    parsed."""
    head = _read(file, record.path, 8)
    length = int.from_bytes(head, "little")
    if record.size < 8 or length > min(LARGEST_HEADER, record.size - 8):
        raise DamagedError(f"{record.path}: its list of arrays claims {length} of {record.size} bytes")
    return head + _read(file, record.path, length)


def _compare(record: FileRecord, digest: str) -> None:
    if digest != record.sha256:
        raise DamagedError(f"{record.path}: content differs from the manifest's SHA-256")


def _layouts(head: bytes, record: FileRecord) -> dict[str, Layout]:
    """The arrays listed at the start of a file, which must fill the file without gap or overlap."""
    try:
        listed = msgspec.json.decode(head[8:], type=dict[str, _Tensor])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedError(f"{record.path}: no list of arrays: {' '.join(str(error).split())}") from error
    end = 0
    for name, one in sorted(listed.items(), key=lambda item: item[1].data_offsets):
        known = one.dtype in ITEM and len(one.shape) <= DIMENSIONS and min(one.shape, default=0) >= 0
        size = ITEM[one.dtype] * math.prod(one.shape) if known else 0
        if not known or one.data_offsets != (end, end + size):
            raise DamagedError(f"{record.path}: array {name[:60]!r} does not fit its type, shape and place")
        end += size
    if len(head) + end != record.size:
        raise DamagedError(f"{record.path}: its arrays do not fill it")
    return {name: Layout(one.dtype, one.shape) for name, one in listed.items()}
