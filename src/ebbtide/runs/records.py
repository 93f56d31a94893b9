"""The records of a run folder - run.json and the manifests of checkpoints - and how they are read and checked."""

import math
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import InputError
from ebbtide.runs.reading import LARGEST_FILE, LARGEST_HEADER, LARGEST_MANIFEST, FileRecord, read_bounded
from ebbtide.runs.signed import DamagedError, check_plain, unsign

HEADER, METRICS, CHECKPOINTS, ASIDE = "run.json", "metrics", "checkpoints", "aside"
STATE, MANIFEST = "state.safetensors", "manifest.json"
MOST_COUNT = 2**32
"""Upper limit of sequences, batch and members: they are 32-bit numbers."""
LONGEST_TEXT = 1000
"""Largest number of characters of a label or a name in run.json."""


class Instrument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An evaluator as a run stores it: its headline metric and the chance level of that metric (None: not known, of a
    foreign run)."""

    name: str
    headline: str
    chance: float | None


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """run.json: the spec (not interpreted here), the evaluators and metrics, and the identity on which the bits
    depend.

    `foreign` is the name of the file that the curves of a foreign run were read from (`runs.foreign`); empty for a run
    that was trained here, whose run.json does not have the field. The spec of a foreign run has counts, `vary`, and
    empty parts; `digest` is the SHA-256 of what was read.
    """

    schema: int
    digest: str
    spec: dict[str, Any]
    instruments: list[Instrument]
    metrics: list[str]
    identity: dict[str, Any]
    label: dict[str, str]
    created: str
    foreign: str = ""


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


def read_header(folder: Path) -> Header:
    """The header in run.json. Raises `InputError` when it is missing, damaged, or written by another version."""
    if not os.path.lexists(folder / HEADER):
        raise InputError("run", str(folder), "not a run folder (it has no run.json)")
    try:
        header = unsign(read_bounded(folder, HEADER, LARGEST_HEADER), Header, str(folder), HEADER)
        _check_spec(header.spec)
        texts = [
            *header.label,
            *header.label.values(),
            header.created,
            *header.metrics,
            *header.identity,
            header.foreign,
        ]
        texts += [one.name for one in header.instruments]
        long = [text for text in texts if len(text) > LONGEST_TEXT or not text.isprintable()]
        if long:
            raise DamagedError(f"{HEADER}: {long[0][:60]!r} is no name: it is too long or not printable")
        check_plain([header.spec, header.identity], HEADER)
        if not all(one.chance is None or math.isfinite(one.chance) for one in header.instruments):
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
    kinds |= {"forgetting": (dict, type(None))}
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
