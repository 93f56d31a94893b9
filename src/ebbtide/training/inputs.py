"""Content hashes of the files that a run reads: its source's data file, and the checkpoint that it starts from."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import require
from ebbtide.machine import cache_folder
from ebbtide.runs.atomic import TEMPORARY, sha256, write_file
from ebbtide.runs.identity import INPUT_NAME, identity_differences
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import SCHEMA, DamagedError, sign, unsign
from ebbtide.sources.omniglot import data_folder
from ebbtide.training.spec import Spec

LARGE = 2**20
"""Bytes from which the hash of a file is cached; smaller files are hashed each time."""
MOST_REMEMBERED = 256
LARGEST_RECORD = 2**16


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cache record: the SHA-256 of a file's content, under the key of the file and its state (`_key`)."""

    schema: int
    key: str
    content: str


def inputs(spec: Spec) -> dict[str, str]:
    """The part of a run's identity that describes its data: the name of the source's file and the SHA-256 of its
    content; for a checkpoint to start from, the SHA-256 of its state. Raises `InputError` when a file is missing."""
    found = {}
    file = spec.source.file()
    if file is not None:
        path = Path(file[0])
        own = path.is_relative_to(data_folder())  # where that folder is, is this machine's affair
        name = str(path.relative_to(data_folder()) if own else path)
        found |= {INPUT_NAME: name, "source_sha256": source_content(spec)}
    if spec.start is not None:
        found["start_sha256"] = spec.start.content()
    return found


def source_content(spec: Spec) -> str:
    """The SHA-256 of the content of the source's file; empty for a source that reads none. Raises `OSError` when the
    file is missing."""
    file = spec.source.file()
    return "" if file is None else content(Path(file[0]))


def changed_inputs(spec: Spec, before: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """A sentence for every input that differs from the one the run was begun with; `before` and `here` are
    identities."""
    what = {"source_sha256": f"source: the file {here.get(INPUT_NAME)}"}
    if spec.start is not None:
        what["start_sha256"] = f"start: {spec.start.run} at {spec.start.sequences} sequences"
    return [
        f"{what[name]} has other content than when this run was begun "
        f"(SHA-256 {str(before.get(name))[:12]} then, {str(here.get(name))[:12]} now)"
        for name in identity_differences(before, here)
        if name in what
    ]


def check_same_inputs(spec: Spec, by_process: Sequence[dict[str, str]]) -> None:
    """Raises `InputError`, naming the process and the file, unless all processes of a distributed run read the same
    content; `by_process` has the `inputs` of each, in their order."""
    what = {"source_sha256": ("source", by_process[0].get(INPUT_NAME))}
    if spec.start is not None:
        what["start_sha256"] = ("start.run", spec.start.run)
    for process, here in enumerate(by_process):
        for name, (field, file) in what.items():
            own, first = here.get(name), by_process[0].get(name)
            allowed = f"process {process} has other content there than process 0 (SHA-256 {own and own[:12]}, not"
            require(own == first, field, file, f"{allowed} {first and first[:12]}): give every host the same file")


def content(path: Path) -> str:
    """The SHA-256 of a file's content; that of a large file is cached in the user's cache folder."""
    with path.open("rb") as file:
        key = _key(path, os.fstat(file.fileno()))
        large = os.fstat(file.fileno()).st_size >= LARGE
        if large and (known := _recall(key)):
            return known
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if large and key == _key(path, os.fstat(file.fileno())):  # nobody wrote to it meanwhile
            _remember(key, found)
    return found


def _key(path: Path, at: os.stat_result) -> str:
    """A text that changes when the file is written to or replaced."""
    return sha256(repr((os.path.realpath(path), at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino)).encode())


def _folder() -> Path:
    return cache_folder() / "contents"


def _recall(key: str) -> str | None:
    """The cached hash under this key; None where there is none or its record is damaged."""
    try:
        data = read_bounded(_folder(), f"{key}.json", LARGEST_RECORD)
        record = unsign(data, Remembered, str(_folder()), key)
    except (DamagedError, ValueError, OSError):
        return None
    return record.content if record.key == key else None


def _remember(key: str, found: str) -> None:
    """Writes a record, and removes the oldest ones where there are too many. Ignores errors: it is a cache."""
    with contextlib.suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        write_file(_folder() / f"{key}.json", sign(Remembered(SCHEMA, key, found)))
        records = [p for p in _folder().iterdir() if not p.name.startswith(TEMPORARY)]
        for old in sorted(records, key=lambda p: p.stat().st_mtime_ns)[:-MOST_REMEMBERED]:
            old.unlink()
