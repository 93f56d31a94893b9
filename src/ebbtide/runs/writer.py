"""Writing a run folder: one writer, atomic commits. See README.md beside this file."""

import contextlib
import itertools
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ebbtide.errors import InputError
from ebbtide.runs import atomic, lock
from ebbtide.runs.atomic import TEMPORARY, sha256
from ebbtide.runs.folder import RunFolder, inside
from ebbtide.runs.identity import identity_differences, original_identity
from ebbtide.runs.output import check_output_folder
from ebbtide.runs.reading import FileRecord, load_record
from ebbtide.runs.records import (
    ASIDE,
    CHECKPOINTS,
    HEADER,
    MANIFEST,
    METRICS,
    STATE,
    Checkpoint,
    Header,
    Manifest,
    Segment,
    checkpoint_name,
    read_manifest,
    segment_path,
)
from ebbtide.runs.signed import SCHEMA, DamagedError, sign


class Writer:
    """The one writer of a run folder; holds its lock from opening until `close` (or the end of the process)."""

    def __init__(self, path: Path, header: Header, found: Checkpoint | None = None):
        """Creates the folder, or opens one that holds the same run.

        `found` is the newest intact checkpoint where the caller has just verified it; it is read again only when a
        newer one has appeared. Raises `InputError` when the folder holds another spec or other files, or another
        process is writing it (nothing is changed then), and `OSError` when it cannot be written.
        """
        self.path = path
        check_folder(path, header.digest)
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock.acquire(path)
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

    def _open(self, header: Header, found: Checkpoint | None) -> None:
        self.identity = header.identity
        atomic.crash_point("folder.made")
        if not os.path.lexists(self.path / HEADER):
            atomic.write_file(self.path / HEADER, sign(header, indent=1), "header")
        for name in (METRICS, CHECKPOINTS):
            atomic.make_folder(self.path / name)
        atomic.sync_folder(self.path)
        atomic.sync_folder(self.path.absolute().parent)
        self.run = RunFolder(self.path)
        if found is None or next(self.run.manifests(), None) != found:
            found = self.run.latest()
        self.checkpoint, self.manifest = found if found else (None, None)
        self.segments: list[Segment] = list(self.manifest.segments) if self.manifest else []
        self._tidy()

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._lock)

    @property
    def rows(self) -> int:
        """The number of evaluations committed so far."""
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
        """Commits the new evaluations (None: there are none) and a checkpoint, in one step.

        Raises `OSError` naming the file that could not be written; close this writer then. The folder holds the run
        either without or with this commit, and opening it again shows which.
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
            atomic.crash_point("checkpoint.made")
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
        same = not identity_differences(original_identity(self.run.header, self.manifest), self.identity)
        before = self.manifest.repeatable if self.manifest else True
        return before and same and bool(self.identity.get("deterministic"))

    def _drop_rolling(self) -> None:
        """Removes the rolling checkpoints before the newest. Each is renamed to a temporary first, so that a reader
        never sees half of it."""
        for path, older in list(self.run.manifests()):
            if path != self.checkpoint and not older.kept:
                gone = path.with_name(f"{TEMPORARY}dropped-{path.name}")
                atomic.rename(path, gone, "rolling")
                atomic.remove(gone)
                atomic.crash_point("rolling.dropped")

    def _tidy(self) -> None:
        """Removes the leftovers of an earlier writer, and moves files that no intact checkpoint names into `aside/`."""
        for folder in (self.path, self.path / METRICS, self.path / CHECKPOINTS):
            for leftover in sorted(folder.glob(f"{TEMPORARY}*")):
                atomic.crash_point("leftover.before_removal")
                atomic.remove(leftover)
        for path in uncommitted_files(self.path, self.checkpoint, self.segments):
            aside = self.path / ASIDE
            atomic.make_folder(aside)
            taken = {p.name[:4] for p in aside.iterdir()}
            number = next(n for i in itertools.count() if (n := f"{i:04d}") not in taken)
            atomic.rename(path, aside / f"{number}-{path.name}", "aside")
        self._drop_rolling()


def uncommitted_files(path: Path, checkpoint: Path | None, segments: list[Segment]) -> list[Path]:
    """The files that do not belong to a run whose newest intact checkpoint is `checkpoint` (None: it has none):
    segments it does not name, later checkpoints, and checkpoint folders without an intact manifest."""
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
    """Raises `InputError` unless `path` is free, or holds a run of this spec digest that no other process is
    writing."""
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
    if RunFolder(path).header.digest != digest:
        raise InputError("out", str(path), "holds a run with another spec; give another folder")


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """The arrays as bytes of a safetensors file. They are made contiguous first, because safetensors copies memory as
    it lies."""
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def load_state(run: RunFolder, manifest: Manifest) -> dict[str, np.ndarray]:
    """The state arrays of a checkpoint, each with a leading axis over the members, verified while loading."""
    state = load_record(run.path, manifest.state)
    run.check_state(manifest, {name: array.shape for name, array in state.items()})
    return state


def restore(run: RunFolder) -> tuple[Checkpoint, dict[str, np.ndarray]] | None:
    """The newest intact checkpoint with its state, or None; every file of it is read once."""
    for path, manifest in run.manifests():
        try:
            run.check_belongs(manifest)
            for segment in manifest.segments:
                run.check_segment(segment)
            return (path, manifest), load_state(run, manifest)
        except DamagedError:
            continue
    return None
