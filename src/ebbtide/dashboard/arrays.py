"""The evaluations of runs, kept in memory: a segment that was read and verified once is not read again."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.runs.folder import RunFolder, join_segments
from ebbtide.runs.records import Manifest

LARGEST_RUN = 2**30
"""Largest number of bytes of a run's evaluations that are drawn."""
KEPT_BYTES = 2**28
"""Bytes of evaluations that are kept in memory, of the runs that were asked for last."""


class Evaluations(NamedTuple):
    """A run with its newest manifest and its curves by name (see `RunFolder.metrics`)."""

    run: RunFolder
    manifest: Manifest
    curves: dict[str, np.ndarray]


class _Kept(NamedTuple):
    digest: str
    files: tuple[str, ...]
    raw: dict[str, np.ndarray]


class Arrays:
    """The evaluations of runs; may be asked from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path) -> Evaluations:
        """The committed evaluations of the run at `path`. Raises `InputError` before the first, or where they are too
        many, and `DamagedError` when a segment does not verify."""
        run = RunFolder(path)
        newest = next(run.manifests(), None)
        if newest is None or not newest[1].segments:
            raise InputError("run", path.name, "has no committed evaluation yet")
        manifest = newest[1]
        run.check_belongs(manifest)
        size = sum(one.file.size for one in manifest.segments)
        require(size <= LARGEST_RUN, "run", path.name, f"its evaluations take {size:,} bytes: use ebbtide export")
        raw = self._read(run, manifest)
        return Evaluations(run, manifest, run.name_curves(raw))

    def _read(self, run: RunFolder, manifest: Manifest) -> dict[str, np.ndarray]:
        files = tuple(one.file.sha256 for one in manifest.segments)
        with self._lock:
            known = self._kept.get(run.path)
        begun = known is not None and known.digest == run.header.digest and files[: len(known.files)] == known.files
        parts, count = ([known.raw], len(known.files)) if known and begun else ([], 0)
        parts += [run.load_segment(one) for one in manifest.segments[count:]]
        raw = join_segments(parts) if len(parts) > 1 else parts[0]
        with self._lock:
            self._kept[run.path] = _Kept(run.header.digest, files, raw)
            self._kept.move_to_end(run.path)
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return raw


def _bytes(kept: _Kept) -> int:
    return sum(one.nbytes for one in kept.raw.values())
