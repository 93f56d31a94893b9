"""Writing a run folder: one writer, every commit whole. See README.md beside this file."""

import fcntl
import os
import shutil
import socket
import time
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load, save

from ebbtide.errors import InputError
from ebbtide.runs.atomic import TEMPORARY, sha256, sync_folder, write_file, write_synced
from ebbtide.runs.folder import HEADER, LOCK, SCHEMA, FileRecord, Header, Manifest, Run, Segment, Signed, read_record


class Writer:
    """The one writer of a run folder; holds its lock from opening to `close` (or death)."""

    def __init__(self, path: Path, header: Header):
        """Creates the folder, or opens the one that holds this very run.

        Raises `InputError` when the folder holds another spec, something that is not a run, or is
        being written by another process; nothing is changed then.
        """
        self.path = path
        check_folder(path, header.digest)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(path / LOCK)
        if not (path / HEADER).exists():
            write_file(path / HEADER, msgspec.json.format(msgspec.json.encode(header), indent=1))
        (path / "metrics").mkdir(exist_ok=True)
        (path / "checkpoints").mkdir(exist_ok=True)
        sync_folder(path)
        self.run = Run(path)
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
        seconds: float,
    ) -> None:
        """Commits the new evaluations (None: there are none) and a checkpoint, as one."""
        segments = list(self.segments)
        if evaluations is not None:
            first, last = self.rows, self.rows + len(evaluations["sequences"]) - 1
            name = f"metrics/{first:06d}-{last:06d}.safetensors"
            data = save(evaluations)
            write_file(self.path / name, data)
            segments.append(Segment(first, last, FileRecord(name, len(data), sha256(data))))
        name = f"checkpoints/{sequences:012d}"
        temporary = self.path / "checkpoints" / f"{TEMPORARY}{sequences:012d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        data = save(state)
        write_synced(temporary / "state.safetensors", data)
        record = FileRecord(f"{name}/state.safetensors", len(data), sha256(data))
        manifest = Manifest(SCHEMA, self.run.header.digest, sequences, kept, seconds, record, segments)
        body = msgspec.json.encode(manifest)
        write_synced(temporary / "manifest.json", msgspec.json.encode(Signed(manifest, sha256(body))))
        sync_folder(temporary)
        temporary.rename(self.path / name)
        sync_folder(self.path / "checkpoints")
        self.segments, self.manifest, self.checkpoint = segments, manifest, self.path / name
        self._drop_rolling(newest=sequences)

    def _drop_rolling(self, newest: int) -> None:
        for path, manifest in list(self.run.manifests()):
            if manifest.sequences < newest and not manifest.kept:
                shutil.rmtree(path)

    def _tidy(self) -> None:
        """Removes temporary leftovers; moves what lies beyond the newest good checkpoint aside."""
        for leftover in [*self.path.rglob(f"{TEMPORARY}*")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        known = {segment.file.path for segment in self.segments}
        stray = [p for p in (self.path / "metrics").iterdir() if f"metrics/{p.name}" not in known]
        now = self.checkpoint.name if self.checkpoint else ""
        stray += [p for p in (self.path / "checkpoints").iterdir() if p.name > now]
        for path in stray:
            aside = self.path / "aside"
            aside.mkdir(exist_ok=True)
            n = sum(1 for _ in aside.iterdir())
            path.rename(aside / f"{n:04d}-{path.name}")


def check_folder(path: Path, digest: str) -> None:
    """Raises `InputError` unless `path` is free or holds the run with this spec digest."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError("out", str(path), f"{there} is a file; give a folder")
    if there != path:
        return
    if not (path / HEADER).exists():
        others = [p.name for p in path.iterdir() if p.name != LOCK and not p.name.startswith(TEMPORARY)]
        if others:
            raise InputError("out", str(path), f"holds other files ({others[0]} ...); give a new or empty folder")
        return
    if Run(path).header.digest != digest:
        raise InputError("out", str(path), "holds a run with another spec; give another folder")


def load_state(run: Run, manifest: Manifest) -> dict[str, np.ndarray]:
    """The verified state arrays of a checkpoint, each with a leading member axis."""
    return load(read_record(run.path, manifest.state))


def is_locked(path: Path) -> bool:
    """Whether another open file holds the lock."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for patience in (0.1, 0.4, 0.0):  # a reader that looks whether we run holds the lock for an instant
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(patience)
    else:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise InputError("out", str(path.parent), f"is being written by {holder}")
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor
