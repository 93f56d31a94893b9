"""Studies that compute instead of training: a setting gives curves in seconds, claims are judged on them.

computed.json   which study, preset and setting
curves.npz      the curves
figure.png, figure.svg
verdict.json    written last: where it is, the rest is whole
"""

import hashlib
import io
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.statistics import INTERVAL
from ebbtide.runs.atomic import make_folder, write_file
from ebbtide.runs.folder import DamagedError
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import UNREADABLE, check_plain
from ebbtide.studies.describe import field_words
from ebbtide.studies.study import VERDICT, Claim, Scalars, Verdict, digest_of_claims, judge_claims, number
from ebbtide.training.fields import explain, override, parse

COMPUTED, CURVES = "computed.json", "curves.npz"
LARGEST_RECORD = 2**20
Curves = dict[str, np.ndarray]


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a study computes; members are the seeds `seed` to `seed + seeds - 1`."""

    seed: int = 0
    seeds: int = 24

    def check(self) -> None:
        """Raises `InputError` for what cannot be computed."""
        require(0 <= self.seed < 2**31, "seed", self.seed, "must be from 0 to 2147483647")
        require(2 <= self.seeds <= 1024, "seeds", self.seeds, "must be from 2 to 1024")

    def digest(self) -> str:
        """SHA-256 of the setting."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class ComputedPreset(NamedTuple):
    """A setting at which a study runs; `seconds` is about what one core takes."""

    setting: Any
    seconds: float
    note: str


class Computed(NamedTuple):
    """A paper's question, asked of a computation. `summarise` gives what claims are estimated from, by member."""

    name: str
    paper: str
    question: str
    claims: tuple[Claim, ...]
    presets: dict[str, ComputedPreset]
    compute: Callable[[Any], Curves]
    summarise: Callable[[Any, Curves], Scalars]
    figure: Callable[[Any, Curves], dict[str, bytes]]

    def preset(self, name: str) -> ComputedPreset:
        """The preset of that name. Raises `InputError` for an unknown one."""
        known = ", ".join(self.presets)
        require(name in self.presets, "preset", name, f"{self.name} has {known}{nearest(name, self.presets)}")
        return self.presets[name]

    def setting(self, preset: str, fields: list[tuple[str, str]]) -> Any:
        """The preset's setting with fields, by dotted name, changed. Raises `InputError` where that cannot be."""
        base = self.preset(preset).setting
        data: dict[str, Any] = msgspec.to_builtins(base)
        for name, text in fields:
            override(type(base), data, name, text)
        try:
            setting = msgspec.convert(data, type(base))
        except msgspec.ValidationError as error:
            raise explain(error, data, type(base)) from error
        setting.check()
        return setting


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """computed.json; `preset` ends in * when fields were changed by `fields`."""

    study: str
    preset: str
    digest: str
    fields: list[tuple[str, str]]
    setting: dict[str, Any]
    created: str

    def command(self) -> str:
        """The command that computes this."""
        words = ["ebbtide", "run", self.study, "--preset", self.preset.rstrip("*"), "--check"]
        return shlex.join([*words, *(word for name, text in self.fields for word in field_words(name, parse(text)))])


def read_record(folder: Path) -> Record:
    """computed.json of a folder. Raises `DamagedError` when it is not what it should be."""
    try:
        record = msgspec.json.decode(read_bounded(folder, COMPUTED, LARGEST_RECORD), type=Record)
    except UNREADABLE as error:
        raise DamagedError(f"{COMPUTED} is damaged: {error}") from error
    check_plain([record.setting, *(parse(text) for _, text in record.fields)], COMPUTED)
    return record


def conclude_computed(study: Computed, preset: str, fields: list[tuple[str, str]], folder: Path) -> Verdict:
    """Computes, judges every claim, and writes all of it into `folder`; the same setting again replaces it.

    Raises `InputError` when something else is there; nothing has been written then.
    """
    setting = study.setting(preset, fields)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    mark = "*" if fields else ""
    record = Record(study.name, f"{preset}{mark}", setting.digest(), fields, msgspec.to_builtins(setting), created)
    there = folder.exists() or folder.is_symlink()
    if there:
        record = _own(folder, record)
    curves = study.compute(setting)
    scalars = study.summarise(setting, curves)
    verdict = Verdict(
        study=study.name,
        paper=study.paper,
        preset=record.preset,
        digest=record.digest,
        sequences=0,
        interval=INTERVAL,
        claims=judge_claims(study.claims, scalars),
        summary={name: [number(value) for value in values] for name, values in scalars.items()},
        question=study.question,
        scaled=study.presets[preset].note,
        seeds=f"{setting.seed} to {setting.seed + setting.seeds - 1}",
        command=record.command(),
        version=version("ebbtide"),
        claims_digest=digest_of_claims(study.claims),
    )
    figures = study.figure(setting, curves)
    if not there:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **curves)  # pyright: ignore[reportArgumentType]
    files = {COMPUTED: _json(record), CURVES: buffer.getvalue(), **figures, VERDICT: _json(verdict)}
    for name, data in files.items():
        write_file(folder / name, data)
    return verdict


def _own(folder: Path, record: Record) -> Record:
    """The record in a folder that holds this computation, or this one when the folder is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        return record
    try:
        old = read_record(folder)
    except (DamagedError, OSError) as error:
        raise InputError("out", str(folder), "is there, and holds no computation of this study") from error
    same = (old.study, old.digest) == (record.study, record.digest)
    require(same, "out", str(folder), f"holds {old.study}, preset {old.preset}, of another setting")
    return old


def _json(data: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(data), indent=1)
