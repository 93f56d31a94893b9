"""Work that computes instead of training: a setting gives curves in seconds.

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
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.runs.atomic import make_folder, write_file
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import UNREADABLE, DamagedError, check_plain
from ebbtide.studies.claim import Claim
from ebbtide.studies.describe import field_words
from ebbtide.studies.evidence import ONLY, Arm, Evidence, Scalars
from ebbtide.studies.study import Figures, Setup
from ebbtide.studies.verdict import VERDICT, Basis, Verdict, verdict_on
from ebbtide.training.fields import explain, override_all, parse

COMPUTED, CURVES = "computed.json", "curves.npz"
LARGEST_RECORD = 2**20
Computed = dict[str, np.ndarray]
"""Computed arrays by name."""


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of a computation; its members are the seeds `seed` to `seed + seeds - 1`."""

    seed: int = 0
    seeds: int = 24

    def check(self) -> None:
        """Raises `InputError` for what cannot be computed."""
        require(0 <= self.seed < 2**31, "seed", self.seed, "must be from 0 to 2147483647")
        require(2 <= self.seeds <= 1024, "seeds", self.seeds, "must be from 2 to 1024")

    def digest(self) -> str:
        """SHA-256 of the setting."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Computation(NamedTuple):
    """Work that computes arrays in seconds, without training a model.

    Args:
        setting: parameters, a struct that extends `studies.computation.Setting` (which has `seed` and `seeds`).
        compute: a function from the setting to arrays by name, which are stored.
        scalars: a function from the setting and the arrays to the scalars [seed] that claims are estimated from.
        figure: a function from the setting and the arrays to images by file name (figure.png, figure.svg).

    >>> from ebbtide.studies.computation import Setting
    >>> work = eb.Computation(
    ...     setting=Setting(seeds=3),
    ...     compute=lambda setting: {"loss": np.ones((setting.seeds, 10))},
    ...     scalars=lambda setting, arrays: {"last loss": arrays["loss"][:, -1]},
    ...     figure=lambda setting, arrays: {},
    ... )
    >>> work.scalars(work.setting, work.compute(work.setting))["last loss"].tolist()
    [1.0, 1.0, 1.0]
    """

    setting: Setting
    compute: Callable[[Any], Computed]
    scalars: Callable[[Any, Computed], Scalars]
    figure: Callable[[Any, Computed], Figures]

    def plan(self, setup: Setup) -> "ComputationPlan":
        """The computation with the fields that a user has changed."""
        data: dict[str, Any] = msgspec.to_builtins(self.setting)
        override_all(type(self.setting), data, setup.fields)
        try:
            setting = msgspec.convert(data, type(self.setting))
        except msgspec.ValidationError as error:
            raise explain(error, data, type(self.setting)) from error
        setting.check()
        return ComputationPlan(setup, self._replace(setting=setting))


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """computed.json; `preset` ends in * when fields were changed by `fields`."""

    study: str
    preset: str
    digest: str
    fields: list[tuple[str, str]]
    setting: dict[str, Any]
    created: str

    def command(self, file: str = "") -> str:
        """The command that computes this; `file` names a study's file."""
        study, _, experiment = self.study.partition("/")
        words = ["ebbtide", "run", file or study, *(["--experiment", experiment] if experiment else [])]
        words += ["--preset", self.preset.rstrip("*"), "--check"]
        return shlex.join([*words, *(word for name, text in self.fields for word in field_words(name, parse(text)))])


class ComputationPlan(NamedTuple):
    """The plan to do a computation for a study."""

    setup: Setup
    computation: Computation

    def check(self) -> None:
        """Every setting that can be made can be computed, and judged."""

    def work_digest(self) -> str:
        """The setting's digest."""
        return self.computation.setting.digest()

    def seed_words(self) -> str:
        """`0 to 23`."""
        setting = self.computation.setting
        return f"{setting.seed} to {setting.seed + setting.seeds - 1}"

    def claims(self) -> tuple[Claim, ...]:
        """The experiment's claims."""
        return self.setup.experiment.claims

    def folder_in(self, runs: Path) -> Path:
        """The folder of the computation among others in `runs`."""
        name = self.setup.name().replace("/", "-")
        return runs / f"{name}-{self.setup.size}-{self.computation.setting.digest()[:8]}"

    def conclude(self, folder: Path) -> Verdict:
        """Computes, judges every claim, and writes all of it into `folder`; the same setting again replaces it.

        Raises `InputError` when something else is there; nothing has been written then.
        """
        setup, (setting, compute, scalars_of, figure) = self.setup, self.computation
        created = datetime.now(UTC).isoformat(timespec="seconds")
        values = msgspec.to_builtins(setting)
        record = Record(setup.name(), setup.preset, setting.digest(), list(setup.fields), values, created)
        there = folder.exists() or folder.is_symlink()
        if there:
            record = _own(folder, record)
        arrays = compute(setting)
        scalars = scalars_of(setting, arrays)
        evidence = Evidence({ONLY: Arm(scalars=scalars)})
        basis = Basis(
            name=setup.name(),
            paper=setup.study.paper,
            question=setup.experiment.question,
            preset=record.preset,
            digest=record.digest,
            sequences=0,
            scaled=setup.experiment.preset(setup.size).scaled,
            seeds=self.seed_words(),
            command=record.command(setup.study.word() if setup.study.file else ""),
            registrations=setup.study.registrations_folder(),
            trained_by="",
        )
        verdict = verdict_on(basis, setup.experiment.claims, evidence, scalars)
        figures = figure(setting, arrays)
        if setup.experiment.figures:
            figures |= setup.experiment.figures(evidence, f"{setup.name()} ({record.preset})")
        if not there:
            folder.parent.mkdir(parents=True, exist_ok=True)
            make_folder(folder)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        for name, data in {
            COMPUTED: _json(record),
            CURVES: buffer.getvalue(),
            **figures,
            VERDICT: _json(verdict),
        }.items():
            write_file(folder / name, data)
        return verdict


def read_record(folder: Path) -> Record:
    """The record computed.json of a folder. Raises `DamagedError` when it cannot be decoded."""
    try:
        record = msgspec.json.decode(read_bounded(folder, COMPUTED, LARGEST_RECORD), type=Record)
    except UNREADABLE as error:
        raise DamagedError(f"{COMPUTED} is damaged: {error}") from error
    check_plain([record.setting, *(parse(text) for _, text in record.fields)], COMPUTED)
    return record


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
