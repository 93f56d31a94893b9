"""Reading a run folder, and the names and records in it. See README.md beside this file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load

from ebbtide.errors import InputError
from ebbtide.runs.atomic import TEMPORARY, sha256

SCHEMA = 1
HEADER, LOCK = "run.json", "lock"


class DamagedError(Exception):
    """A file of a run folder is missing, cut short or changed; says which and how."""


class Instrument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An evaluator as a run remembers it: its headline metric and that metric's chance level."""

    name: str
    headline: str
    chance: float


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """run.json: what the run is. `spec` is opaque here; `identity` says what its bits depend on."""

    schema: int
    digest: str
    spec: dict[str, Any]
    instruments: list[Instrument]
    metrics: list[str]
    identity: dict[str, Any]
    label: dict[str, str]
    created: str


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file by path relative to the run folder, with its length in bytes and SHA-256."""

    path: str
    size: int
    sha256: str


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows `first` to `last` (inclusive) of the evaluations."""

    first: int
    last: int
    file: FileRecord


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The commit record of a checkpoint. `seconds` is the training time so far."""

    schema: int
    digest: str
    sequences: int
    kept: bool
    seconds: float
    state: FileRecord
    segments: list[Segment]


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A manifest with the SHA-256 of its own canonical JSON."""

    body: Manifest
    sha256: str


def read_record(folder: Path, record: FileRecord) -> bytes:
    """The bytes of a recorded file. Raises `DamagedError` naming the file when they are not those."""
    try:
        data = (folder / record.path).read_bytes()
    except OSError as error:
        raise DamagedError(f"{record.path}: {error.strerror}") from error
    if len(data) != record.size:
        raise DamagedError(f"{record.path}: has {len(data)} bytes, the manifest says {record.size}")
    if sha256(data) != record.sha256:
        raise DamagedError(f"{record.path}: content differs from the manifest's SHA-256")
    return data


class Run:
    """A run folder, read only. Sees what is committed, also while the run is being written."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            text = (self.path / HEADER).read_bytes()
        except OSError as error:
            raise InputError("run", str(path), "not a run folder (it has no run.json)") from error
        try:
            schema = msgspec.json.decode(text)["schema"]
            if schema > SCHEMA:
                raise InputError("run", str(path), f"has schema {schema}; this version reads up to {SCHEMA}")
            self.header = msgspec.json.decode(text, type=Header)
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise InputError("run", str(path), f"run.json is damaged: {error}") from error

    def manifests(self) -> Iterator[tuple[Path, Manifest]]:
        """Checkpoints whose manifest is whole, newest first; the files they name are not read."""
        folder = self.path / "checkpoints"
        for path in sorted(folder.glob("[0-9]*"), reverse=True) if folder.is_dir() else []:
            try:
                yield path, read_manifest(path)
            except DamagedError:
                continue

    def latest(self) -> tuple[Path, Manifest] | None:
        """The newest checkpoint of which every file verifies, or None."""
        for path, manifest in self.manifests():
            try:
                self.verify(manifest)
                return path, manifest
            except DamagedError:
                continue
        return None

    def verify(self, manifest: Manifest) -> None:
        """Raises `DamagedError` unless the state and all segments are as the manifest says."""
        if manifest.digest != self.header.digest:
            raise DamagedError(f"checkpoint {manifest.sequences}: belongs to another spec")
        for record in [manifest.state, *(s.file for s in manifest.segments)]:
            read_record(self.path, record)

    def sequences(self) -> int:
        """Sequences each member has seen at the newest checkpoint (0 before the first)."""
        return next((m.sequences for _, m in self.manifests()), 0)

    def running(self) -> bool:
        """Whether a process holds the folder's lock now."""
        from ebbtide.runs.writer import is_locked

        return is_locked(self.path / LOCK)

    def status(self) -> str:
        """`complete`, `running` or `interrupted`: derived, never stored."""
        if self.sequences() >= self.header.spec["sequences"]:
            return "complete"
        return "running" if self.running() else "interrupted"

    def arrays(self) -> dict[str, np.ndarray]:
        """The committed evaluations as stored: `sequences` [row], `train_loss` [member, row] and
        `values` [member, row, evaluator, metric, (mean, standard error)].

        Raises `DamagedError` when a committed segment does not verify.
        """
        manifest = next((m for _, m in self.manifests()), None)
        if manifest is None or not manifest.segments:
            raise InputError("run", str(self.path), "has no committed evaluation yet")
        parts = [load(read_record(self.path, segment.file)) for segment in manifest.segments]
        axis = {"sequences": 0, "train_loss": 1, "values": 1}
        return {name: np.concatenate([p[name] for p in parts], axis=a) for name, a in axis.items()}

    def metrics(self) -> dict[str, np.ndarray]:
        """Curves by name.

        `sequences` and `steps` [evaluation]; `train_loss` [member, evaluation], the mean loss of the
        training batches since the evaluation before (nats; nan at 0); for every evaluator E:
        `E` (its headline metric), `E/error` (that mean's standard error over the evaluation
        sequences), and `E/metric` and `E/metric/error` for every metric, all [member, evaluation].
        """
        raw = self.arrays()
        out = {"sequences": raw["sequences"], "steps": raw["sequences"] // self.header.spec["batch"]}
        out["train_loss"] = raw["train_loss"]
        for i, one in enumerate(self.header.instruments):
            for j, metric in enumerate(self.header.metrics):
                out[f"{one.name}/{metric}"] = raw["values"][:, :, i, j, 0]
                out[f"{one.name}/{metric}/error"] = raw["values"][:, :, i, j, 1]
            out[one.name] = out[f"{one.name}/{one.headline}"]
            out[f"{one.name}/error"] = out[f"{one.name}/{one.headline}/error"]
        return out

    def chance(self) -> dict[str, float]:
        """Chance level of every evaluator's headline metric."""
        return {one.name: one.chance for one in self.header.instruments}


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint folder. Raises `DamagedError` when it is not whole."""
    try:
        signed = msgspec.json.decode((checkpoint / "manifest.json").read_bytes(), type=Signed)
    except (OSError, msgspec.DecodeError) as error:
        raise DamagedError(f"{checkpoint.name}/manifest.json: {error}") from error
    if sha256(msgspec.json.encode(signed.body)) != signed.sha256:
        raise DamagedError(f"{checkpoint.name}/manifest.json: content differs from its own SHA-256")
    return signed.body


def catalogue(folder: Path) -> list[Run]:
    """All runs directly inside `folder`, by name; what is not a run folder is passed over."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(TEMPORARY) and (path / HEADER).is_file():
            found.append(Run(path))
    return found
