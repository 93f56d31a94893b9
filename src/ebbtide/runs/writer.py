"""Writing a run folder: one writer, every commit whole. See README.md beside this file."""

import contextlib
import itertools
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ebbtide.errors import InputError
from ebbtide.runs import atomic, lock
from ebbtide.runs.atomic import TEMPORARY, sha256
from ebbtide.runs.folder import (
    ASIDE,
    CHECKPOINTS,
    HEADER,
    MANIFEST,
    METRICS,
    STATE,
    Found,
    Header,
    Manifest,
    Run,
    Segment,
    begun_under,
    checkpoint_name,
    differing,
    inside,
    read_manifest,
    segment_path,
)
from ebbtide.runs.output import check_output_folder
from ebbtide.runs.reading import FileRecord, load_record
from ebbtide.runs.signed import SCHEMA, DamagedError, sign


class Writer:
    """The one writer of a run folder; holds its lock from opening to `close` (or death)."""

    def __init__(self, path: Path, header: Header, found: Found | None = None):
        """Creates the folder, or opens the one that holds this very run.

        `found` is the newest good checkpoint, if the caller has verified it a moment ago: it is not
        read again unless another one has come. Raises `InputError` when the folder holds another
        spec, something that is not a run, or is being written by another process (nothing is changed
        then), and `OSError` when it cannot be written.
        """
        self.path = path
        check_folder(path, header.digest)
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock.take(path)
        except BaseException:
            if new:
                with contextlib.suppress(OSError):  # not empty: another process has it now
                    path.rmdir()
            raise
        try:
            _check_run(path, header.digest)  # it may have become another run's in between
            self._open(header, found)
        except BaseException:
            self.close()
            raise

    def _open(self, header: Header, found: Found | None) -> None:
        self.identity = header.identity
        atomic.passing("folder.made")
        if not os.path.lexists(self.path / HEADER):
            atomic.write_file(self.path / HEADER, sign(header, indent=1), "header")
        for name in (METRICS, CHECKPOINTS):
            atomic.make_folder(self.path / name)
        atomic.sync_folder(self.path)
        atomic.sync_folder(self.path.absolute().parent)
        self.run = Run(self.path)
        if found is None or next(self.run.manifests(), None) != found:
            found = self.run.latest()
        self.checkpoint, self.manifest = found if found else (None, None)
        self.segments: list[Segment] = list(self.manifest.segments) if self.manifest else []
        self._tidy()

    def close(self) -> None:
        """Frees the lock."""
        os.close(self._lock)

    @property
    def rows(self) -> int:
        """Evaluations committed so far."""
        return self.segments[-1].last + 1 if self.segments else 0

    def commit(
        self,
        *,
        sequences: int,
        state: dict[str, np.ndarray],
        evaluations: dict[str, np.ndarray] | None,
        kept: bool,
        finished: bool,
        seconds: float,
    ) -> None:
        """Commits the new evaluations (None: there are none) and a checkpoint, as one.

        Raises `OSError` naming the file that could not be written: close this writer then. On the disk
        is the run as it was before or with this commit, and opening it again says which.
        """
        segments = list(self.segments)
        if evaluations is not None:
            first, last = self.rows, self.rows + len(evaluations["sequences"]) - 1
            name, data = segment_path(first, last), pack(evaluations)
            atomic.write_file(self.path / name, data, "segment")
            segments.append(Segment(first, last, FileRecord(name, len(data), sha256(data))))
        target = self.path / CHECKPOINTS / checkpoint_name(sequences)
        temporary = target.with_name(TEMPORARY + target.name)
        try:
            atomic.make_folder(temporary)
            atomic.passing("checkpoint.made")
            data = pack(state)
            atomic.write_synced(temporary / STATE, data, "state")
            record = FileRecord(f"{CHECKPOINTS}/{target.name}/{STATE}", len(data), sha256(data))
            digest = self.run.header.digest
            manifest = Manifest(
                SCHEMA, digest, sequences, kept, finished, seconds, self.identity, self._repeatable(), record, segments
            )
            atomic.write_synced(temporary / MANIFEST, sign(manifest), "manifest")
            atomic.sync_folder(temporary)
            atomic.rename(temporary, target, "checkpoint")
        except OSError:
            with contextlib.suppress(OSError):  # a full disk gets its space back; failing that, it is a leftover
                atomic.remove(temporary)
            raise
        self.segments, self.manifest, self.checkpoint = segments, manifest, target
        self._drop_rolling()

    def _repeatable(self) -> bool:
        same = not differing(begun_under(self.run.header, self.manifest), self.identity)
        before = self.manifest.repeatable if self.manifest else True
        return before and same and bool(self.identity.get("deterministic"))

    def _drop_rolling(self) -> None:
        """Removes the rolling checkpoints before the newest. Each becomes a temporary first, so that none
        is ever seen by half."""
        for path, older in list(self.run.manifests()):
            if path != self.checkpoint and not older.kept:
                gone = path.with_name(f"{TEMPORARY}dropped-{path.name}")
                atomic.rename(path, gone, "rolling")
                atomic.remove(gone)
                atomic.passing("rolling.dropped")

    def _tidy(self) -> None:
        """Removes what is left of an earlier writer; moves what no good checkpoint names aside."""
        for folder in (self.path, self.path / METRICS, self.path / CHECKPOINTS):
            for leftover in sorted(folder.glob(f"{TEMPORARY}*")):
                atomic.passing("leftover.before_removal")
                atomic.remove(leftover)
        for path in strays(self.path, self.checkpoint, self.segments):
            aside = self.path / ASIDE
            atomic.make_folder(aside)
            taken = {p.name[:4] for p in aside.iterdir()}
            number = next(n for i in itertools.count() if (n := f"{i:04d}") not in taken)
            atomic.rename(path, aside / f"{number}-{path.name}", "aside")
        self._drop_rolling()


def strays(path: Path, checkpoint: Path | None, segments: list[Segment]) -> list[Path]:
    """What is no part of a run whose newest good checkpoint is this (None: there is none): segments it
    does not name, later checkpoints, and what in the place of a checkpoint has no whole manifest."""
    known = {segment.file.path for segment in segments}
    now = checkpoint.name if checkpoint else ""
    found = [p for p in inside(path / METRICS) if f"{METRICS}/{p.name}" not in known]
    for one in inside(path / CHECKPOINTS):
        try:
            stray = one.name > now or not read_manifest(one)
        except DamagedError:
            stray = True
        if stray:
            found.append(one)
    return [p for p in found if not p.name.startswith(TEMPORARY)]


def check_folder(path: Path, digest: str) -> None:
    """Raises `InputError` unless `path` is free, or holds the run with this spec digest and nobody writes it."""
    check_output_folder(path)
    if not path.exists():
        return
    _check_run(path, digest)
    if holder := lock.holder(path):
        raise lock.BusyError("out", str(path), f"is being written by {holder}")


def _check_run(path: Path, digest: str) -> None:
    if not os.path.lexists(path / HEADER):
        others = [p.name for p in path.iterdir() if p.name != lock.LOCK and not p.name.startswith(TEMPORARY)]
        if others:
            raise InputError("out", str(path), f"holds other files ({others[0]} ...); give a new or empty folder")
        return
    if Run(path).header.digest != digest:
        raise InputError("out", str(path), "holds a run with another spec; give another folder")


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Arrays as a safetensors file. Its writer takes the memory of an array as it lies: it must lie in order."""
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def load_state(run: Run, manifest: Manifest) -> dict[str, np.ndarray]:
    """The state arrays of a checkpoint, each with a leading member axis, verified while loading."""
    state = load_record(run.path, manifest.state)
    run.check_state(manifest, {name: array.shape for name, array in state.items()})
    return state


def restore(run: Run) -> tuple[Found, dict[str, np.ndarray]] | None:
    """The newest good checkpoint with its state, or None; every file of it is read once."""
    for path, manifest in run.manifests():
        try:
            run.check_belongs(manifest)
            for segment in manifest.segments:
                run.check_segment(segment)
            return (path, manifest), load_state(run, manifest)
        except DamagedError:
            continue
    return None
