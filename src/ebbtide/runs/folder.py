"""Reading a run folder: its records, checkpoints and evaluations. See README.md beside this file."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ebbtide.errors import InputError
from ebbtide.runs import lock
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.reading import (
    LARGEST_FILE,
    LARGEST_HEADER,
    LARGEST_MANIFEST,
    FileRecord,
    Layout,
    check_record,
    load_record,
    read_bounded,
)
from ebbtide.runs.signed import SCHEMA as SCHEMA  # for those who write records
from ebbtide.runs.signed import DamagedError, check_plain, unsign

HEADER, METRICS, CHECKPOINTS, ASIDE = "run.json", "metrics", "checkpoints", "aside"
STATE, MANIFEST = "state.safetensors", "manifest.json"
MOST_COUNT = 2**32
"""Upper limit of sequences, batch and members: they are 32-bit numbers."""
LONGEST_TEXT = 1000
"""Most characters of a label or a name in run.json."""
CHECKPOINT_NAME = re.compile(r"[0-9]{12}")


class Instrument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An evaluator as a run stores it: its headline metric and the chance level of that metric."""

    name: str
    headline: str
    chance: float


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """run.json: the spec (not interpreted here), the evaluators and metrics, and the identity on which the bits
    depend."""

    schema: int
    digest: str
    spec: dict[str, Any]
    instruments: list[Instrument]
    metrics: list[str]
    identity: dict[str, Any]
    label: dict[str, str]
    created: str


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file with rows `first` to `last` (inclusive) of the evaluations."""

    first: int
    last: int
    file: FileRecord


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The commit record of a checkpoint.

    `seconds` is the training time so far. `finished` says that the run ends here, perhaps before its planned sequences.
    `identity` is the identity of the process that wrote the checkpoint. `repeatable` says that all steps so far were
    deterministic under the numeric identity in run.json, so that the same spec gives the same bits again.
    """

    schema: int
    digest: str
    sequences: int
    kept: bool
    finished: bool
    seconds: float
    identity: dict[str, Any]
    repeatable: bool
    state: FileRecord
    segments: list[Segment]


Checkpoint = tuple[Path, Manifest]
"""A checkpoint folder with its manifest."""


class Snapshot(NamedTuple):
    """A run at one moment: its folder, and the hash of its newest checkpoint's state. As a cache key it tells apart two
    runs that were made in the same folder one after the other."""

    path: Path
    state: str


class UnreadableRun(NamedTuple):
    """A run folder whose run.json cannot be read, with the reason."""

    path: Path
    reason: str


class RunFolder:
    """A run folder, read only. Shows what is committed, also while the run is being written.

    >>> run = eb.Run("runs/tiny")
    >>> run.status(), run.sequences(), run.metrics()["icl"].shape
    ('complete', 64, (1, 2))
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.header = read_header(self.path)

    def manifests(self) -> Iterator[Checkpoint]:
        """The checkpoints whose manifest is intact, newest first. The files that a manifest names are not read."""
        names = checkpoint_names(self.path)
        fresh = True
        while names:
            path = self.path / CHECKPOINTS / names.pop()
            try:
                manifest = read_manifest(path)
            except DamagedError:
                if fresh and not path.is_dir():  # a rolling one, dropped since we looked: a newer one is there
                    names = checkpoint_names(self.path)
                continue
            yield path, manifest
            fresh = False

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint of which every file verifies, or None."""
        while True:
            for path, manifest in self.manifests():
                try:
                    self.verify(manifest)
                    return path, manifest
                except DamagedError:
                    if not path.is_dir():  # dropped since we looked: look again
                        break
            else:
                return None

    def snapshot(self) -> Snapshot:
        """The run as it is now, as a cache key."""
        return Snapshot(self.path, next((manifest.state.sha256 for _, manifest in self.manifests()), ""))

    def verify(self, manifest: Manifest) -> None:
        """Raises `DamagedError` unless the state and all segments match the manifest."""
        self.check_belongs(manifest)
        for segment in manifest.segments:
            self.check_segment(segment)
        layouts = check_record(self.path, manifest.state)
        self.check_state(manifest, {name: one.shape for name, one in layouts.items()})

    def check_belongs(self, manifest: Manifest) -> None:
        """Raises `DamagedError` when the manifest belongs to another spec."""
        if manifest.digest != self.header.digest:
            raise DamagedError(f"checkpoint {manifest.sequences}: belongs to another spec")

    def check_segment(self, segment: Segment) -> None:
        """Raises `DamagedError` unless the segment's file verifies and holds its rows in the shape of this run."""
        head, rows = self.header, segment.last + 1 - segment.first
        members = head.spec["members"]
        values = (members, rows, len(head.instruments), len(head.metrics), 2)
        needed = {
            "sequences": Layout("I64", (rows,)),
            "train_loss": Layout("F32", (members, rows)),
            "values": Layout("F32", values),
        }
        if check_record(self.path, segment.file) != needed:
            raise DamagedError(f"{segment.file.path}: does not hold {rows} rows of this run's evaluations")

    def check_state(self, manifest: Manifest, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raises `DamagedError` unless every array of the state has a leading axis over the members."""
        members = self.header.spec["members"]
        for name, shape in shapes.items():
            if shape[:1] != (members,):
                raise DamagedError(f"{manifest.state.path}: {name[:60]!r} is not an array over {members} members")

    def sequences(self) -> int:
        """The number of sequences that each member has seen at the newest checkpoint (0 before the first)."""
        return next((m.sequences for _, m in self.manifests()), 0)

    def running(self) -> bool:
        """Whether a process holds the folder's lock now."""
        return lock.holder(self.path) is not None

    def status(self) -> str:
        """`complete`, `running` or `interrupted`: derived from the folder, never stored."""
        newest = next(self.manifests(), None)
        if newest and newest[1].finished:
            return "complete"
        return "running" if self.running() else "interrupted"

    def arrays(self) -> dict[str, np.ndarray]:
        """The committed evaluations as stored: `sequences` [row], `train_loss` [member, row] and `values` [member, row,
        evaluator, metric, (mean, standard error)].

        Raises `DamagedError` when a committed segment does not verify.
        """
        newest = next(self.manifests(), None)
        if newest is None or not newest[1].segments:
            raise InputError("run", str(self.path), "has no committed evaluation yet")
        self.check_belongs(newest[1])
        parts = []
        for segment in newest[1].segments:
            self.check_segment(segment)
            parts.append(load_record(self.path, segment.file))
        axis = {"sequences": 0, "train_loss": 1, "values": 1}
        return {name: np.concatenate([p[name] for p in parts], axis=a) for name, a in axis.items()}

    def metrics(self) -> dict[str, np.ndarray]:
        """The curves of a run by name.

        `sequences` and `steps` [evaluation]; `train_loss` [member, evaluation], the mean loss of the training batches
        since the previous evaluation (nats; nan at 0); and for every evaluator E the curve `E` (its headline metric),
        `E/error` (the standard error of that mean over the evaluation sequences), `E/metric` and `E/metric/error` for
        every metric, all [member, evaluation].

        Raises `DamagedError` when a committed segment does not verify, `InputError` before the first evaluation.
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

    def best(self) -> dict[str, np.ndarray]:
        """The best model of every member by the headline metric of `keep_best`, as of the newest intact checkpoint.

        `value` (that metric), `sequences` (when it was reached; -1: no evaluation was a number), `stopped_at` (when
        early stopping stopped the member, in sequences; -1: it did not) and the parameters by dotted name, all with a
        leading axis over the members. Raises `InputError` when no checkpoint is intact, and `DamagedError` when the
        state lacks these arrays.
        """
        found = self.latest()
        if found is None:
            raise InputError("run", str(self.path), "has no good checkpoint")
        state = load_record(self.path, found[1].state)
        watched = {"value": "best_value", "sequences": "best_at", "stopped_at": "stopped_at"}
        lacking = [key for key in watched.values() if f"watch.{key}" not in state]
        if lacking:
            raise DamagedError(f"{found[1].state.path}: holds no watch.{lacking[0]}")
        out = {name: state[f"watch.{key}"] for name, key in watched.items()}
        return out | {name.removeprefix("best."): v for name, v in state.items() if name.startswith("best.")}

    def chance(self) -> dict[str, float]:
        """The chance level of every evaluator's headline metric."""
        return {one.name: one.chance for one in self.header.instruments}


def numeric_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's identity on which its bits depend (the number of processes is no part of it). Runs older than
    the compiled kernel do not name a kernel: theirs is XLA."""
    shared = ("processes", "chosen", "hosts", INPUT_NAME)
    kept = {name: value for name, value in identity.items() if name not in shared}
    return {"kernel": "xla"} | kept


INPUT_NAME, INPUTS = "source_file", ("source_sha256", "start_sha256")
"""Keys of an identity that describe the data files that a run reads (see `training.inputs`)."""
RECORDED_LATER = ("features", *INPUTS)
"""Keys of the numeric identity that runs of earlier versions do not have."""


def original_identity(header: Header, manifest: Manifest | None) -> dict[str, Any]:
    """The identity in run.json, completed by the given manifest where an earlier version did not record a key."""
    late = {name: value for name, value in manifest.identity.items() if name in RECORDED_LATER} if manifest else {}
    return late | header.identity


def identity_differences(before: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The keys of the numeric identity in which `here` differs from `before`; a key that an older run did not record
    cannot differ."""
    one, other = numeric_identity(before), numeric_identity(here)
    unknown = [name for name in RECORDED_LATER if name not in one]
    return [name for name in sorted(one | other) if one.get(name) != other.get(name) and name not in unknown]


def read_header(folder: Path) -> Header:
    """The header in run.json. Raises `InputError` when it is missing, damaged, or written by another version."""
    if not os.path.lexists(folder / HEADER):
        raise InputError("run", str(folder), "not a run folder (it has no run.json)")
    try:
        header = unsign(read_bounded(folder, HEADER, LARGEST_HEADER), Header, str(folder), HEADER)
        _check_spec(header.spec)
        texts = [*header.label, *header.label.values(), header.created, *header.metrics, *header.identity]
        texts += [one.name for one in header.instruments]
        long = [text for text in texts if len(text) > LONGEST_TEXT or not text.isprintable()]
        if long:
            raise DamagedError(f"{HEADER}: {long[0][:60]!r} is no name: it is too long or not printable")
        check_plain([header.spec, header.identity], HEADER)
        if not all(math.isfinite(one.chance) for one in header.instruments):
            raise DamagedError(f"{HEADER}: a chance level is not finite")
        unknown = [one.headline for one in header.instruments if one.headline not in header.metrics]
        if unknown:
            raise DamagedError(f"{HEADER}: {unknown[0][:60]!r} is none of its metrics")
    except DamagedError as error:
        reason = str(error).removeprefix(f"{HEADER}: ")
        raise InputError("run", str(folder), f"{HEADER} is damaged: {reason}") from error
    return header


def _check_spec(spec: dict[str, Any]) -> None:
    """Raises `DamagedError` unless the fields of a spec that every reader needs are present with the right types."""
    for field in ("sequences", "batch", "members"):
        if type(spec.get(field)) is not int or not 1 <= spec[field] < MOST_COUNT:
            raise DamagedError(f"{HEADER}: spec.{field} is not a count from 1, below 2^32")
    kinds = dict.fromkeys(("source", "task", "model", "optimizer"), (dict,))
    kinds |= {"interventions": (list, type(None)), "freeze": (list, type(None)), "start": (dict, type(None))}
    for field, allowed in kinds.items():
        if not isinstance(spec.get(field), allowed):
            raise DamagedError(f"{HEADER}: spec.{field} is not what a spec has there")
    vary, seeds = spec.get("vary") or {}, spec.get("seeds") or {}
    rows: list[Any] = list(vary.values()) if isinstance(vary, dict) else [None]
    lists = all(isinstance(values, list | tuple) and len(values) == spec["members"] for values in rows)
    if not (lists and all(isinstance(value, int | float) for values in rows for value in values)):
        raise DamagedError(f"{HEADER}: spec.vary is not lists of a number for each member by field")
    if not (isinstance(seeds, dict) and type(seeds.get("member", 0)) is int):
        raise DamagedError(f"{HEADER}: spec.seeds.member is not a whole number")


def inside(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name; none when the folder does not exist."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def checkpoint_names(folder: Path) -> list[str]:
    """The names of all checkpoint folders of a run, oldest first."""
    return [p.name for p in inside(folder / CHECKPOINTS) if CHECKPOINT_NAME.fullmatch(p.name)]


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint folder. Raises `DamagedError` when it is not intact, or names files that do not
    belong to this checkpoint."""
    folder, name = checkpoint.parents[1], f"{CHECKPOINTS}/{checkpoint.name}/{MANIFEST}"
    data = read_bounded(folder, name, LARGEST_MANIFEST)
    return decode_manifest(data, checkpoint.name, str(folder), name)


def decode_manifest(data: bytes, checkpoint: str, where: str, name: str) -> Manifest:
    """The manifest in the bytes `data`, checked to be that of the checkpoint named `checkpoint`."""
    manifest = unsign(data, Manifest, where, name)
    if checkpoint != checkpoint_name(manifest.sequences):
        raise DamagedError(f"{name}: is that of checkpoint {manifest.sequences}")
    if not (math.isfinite(manifest.seconds) and manifest.seconds >= 0):
        raise DamagedError(f"{name}: seconds = {manifest.seconds}")
    check_plain(manifest.identity, name)
    _check_file(manifest.state, f"{CHECKPOINTS}/{checkpoint}/{STATE}", name)
    row = 0
    for segment in manifest.segments:
        if not row == segment.first <= segment.last < 10**9:
            raise DamagedError(f"{name}: rows {segment.first} to {segment.last} where row {row} comes next")
        _check_file(segment.file, segment_path(segment.first, segment.last), name)
        row = segment.last + 1
    return manifest


def checkpoint_name(sequences: int) -> str:
    """The folder name of the checkpoint at `sequences`."""
    return f"{sequences:012d}"


def segment_path(first: int, last: int) -> str:
    """The path, relative to the run folder, of the file with rows `first` to `last`."""
    return f"{METRICS}/{first:06d}-{last:06d}.safetensors"


def _check_file(record: FileRecord, path: str, name: str) -> None:
    """Raises `DamagedError` when a manifest names a file that is not its own: file names follow from their content."""
    if record.path != path:
        raise DamagedError(f"{name}: names {record.path[:60]!r} in place of {path}")
    if not 0 < record.size <= LARGEST_FILE or not re.fullmatch(r"[0-9a-f]{64}", record.sha256):
        raise DamagedError(f"{name}: says nothing possible of {path}")


def list_runs(folder: Path) -> list[RunFolder | UnreadableRun]:
    """All runs directly inside `folder`, by name; entries that are no run folder are skipped."""
    if not folder.is_dir():
        return []
    found: list[RunFolder | UnreadableRun] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TEMPORARY):
            continue
        try:
            if (path / HEADER).is_file():
                found.append(RunFolder(path))
        except InputError as error:
            found.append(UnreadableRun(path, error.allowed))
        except OSError as error:  # closed to this user
            found.append(UnreadableRun(path, error.strerror or "cannot be read"))
    return found
