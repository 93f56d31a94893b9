"""Examination of a run folder, file by file, and what a resume would do about it. Changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from ebbtide.errors import InputError
from ebbtide.runs import lock
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.folder import RunFolder, checkpoint_names, inside
from ebbtide.runs.reading import check_record
from ebbtide.runs.records import ASIDE, CHECKPOINTS, HEADER, METRICS, Checkpoint, Manifest, read_manifest
from ebbtide.runs.signed import DamagedError
from ebbtide.runs.writer import uncommitted_files


class Finding(NamedTuple):
    """A file or folder with its condition, and a remark about it."""

    kind: Literal["ok", "damaged", "leftover"]
    text: str


class Report(NamedTuple):
    """All findings, and what `resume` would do. Leftovers are no damage."""

    findings: list[Finding]
    resume: str

    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return all(one.kind != "damaged" for one in self.findings)


def examine(path: Path) -> Report:
    """The report on a run folder, after reading every file; works while the run is being written and with a damaged
    run.json.

    Raises `InputError` when it is not a run folder.
    """
    return _Examination(path).report()


class _Examination:
    def __init__(self, path: Path):
        self.path = path
        self.findings: list[Finding] = []
        self.unwritable_reason = ""
        self.newest: Checkpoint | None = None
        self.checked: dict[str, str] = {}

    def note(self, kind: Literal["ok", "damaged", "leftover"], text: str) -> None:
        self.findings.append(Finding(kind, "".join(c if c.isprintable() else "?" for c in text)))

    def report(self) -> Report:
        run = self._header()
        holder = lock.holder(self.path)
        self.note("ok", f"{lock.LOCK}: {f'held by {holder}' if holder else 'free'}")
        broken: list[tuple[str, str]] = []
        for name in reversed(checkpoint_names(self.path)):
            self._checkpoint(run, name, broken)
        now = self.newest[0].name if self.newest else ""
        for name, reason in broken:
            after = f"resume moves checkpoint {name} to {ASIDE}/" if name > now else "resume does not need it"
            self.note("damaged", f"{reason}; {after}" if not self.unwritable_reason else reason)
        self._leftovers(holder, {name for name, _ in broken})
        return Report(self.findings, self._resume(run))

    def _header(self) -> RunFolder | None:
        try:
            run = RunFolder(self.path)
        except InputError as error:
            if not any(os.path.lexists(self.path / part) for part in (HEADER, METRICS, CHECKPOINTS)):
                raise
            self.unwritable_reason = error.allowed
            self.note("damaged", error.allowed)
            return None
        what = f"foreign, of {run.header.foreign}, SHA-256" if run.header.foreign else "spec"
        self.note("ok", f"{HEADER}: schema {run.header.schema}, {what} {run.header.digest[:12]}")
        return run

    def _checkpoint(self, run: RunFolder | None, name: str, broken: list[tuple[str, str]]) -> None:
        path, before = self.path / CHECKPOINTS / name, len(broken)
        try:
            manifest = read_manifest(path)
            if run:
                run.check_belongs(manifest)
        except (DamagedError, InputError) as error:
            if path.is_dir():  # else: a rolling one, dropped by the writer at work
                broken.append((name, str(error)))
                if isinstance(error, InputError):
                    self.unwritable_reason = error.allowed
            return
        for reason in self._files(run, manifest):
            broken.append((name, reason))
        if not path.is_dir():
            del broken[before:]
        elif len(broken) == before:
            what = f"{'kept' if manifest.kept else 'rolling'}{', finished' if manifest.finished else ''}"
            rows = manifest.segments[-1].last + 1 if manifest.segments else 0
            self.note("ok", f"{CHECKPOINTS}/{name}: {what}, {manifest.state.size} bytes of state, {rows} evaluations")
            self.newest = self.newest or (path, manifest)

    def _files(self, run: RunFolder | None, manifest: Manifest) -> list[str]:
        """The damage in the state and the segments of a checkpoint; each segment is read once."""

        def state() -> None:
            layouts = check_record(self.path, manifest.state)
            if run:
                run.check_state(manifest, {name: one.shape for name, one in layouts.items()})

        wrong = [_complaint(state)]
        for segment in manifest.segments:
            key = repr(segment)
            if key not in self.checked:
                check = run.check_segment if run else lambda segment: check_record(self.path, segment.file)
                self.checked[key] = _complaint(lambda segment=segment, check=check: check(segment))
            wrong.append(self.checked[key])
        return [reason for reason in wrong if reason]

    def _leftovers(self, holder: str | None, broken: set[str]) -> None:
        moved = "the writer at work has not committed it" if holder else f"resume moves it to {ASIDE}/"
        removed = "the writer at work uses it" if holder else "resume removes it"
        segments = self.newest[1].segments if self.newest else []
        try:
            found = uncommitted_files(self.path, self.newest[0] if self.newest else None, segments)
        except InputError:  # another schema; said already
            found = []
        for one in found:
            if one.name not in broken:
                self.note("leftover", f"{one.relative_to(self.path)}: in no good checkpoint; {moved}")
        for folder in (self.path, self.path / METRICS, self.path / CHECKPOINTS):
            for one in inside(folder):
                if one.name.startswith(TEMPORARY):
                    self.note("leftover", f"{one.relative_to(self.path)}: temporary; {removed}")
        for one in inside(self.path / ASIDE):
            self.note("leftover", f"{one.relative_to(self.path)}: put aside by an earlier resume; nothing reads it")

    def _resume(self, run: RunFolder | None) -> str:
        if self.unwritable_reason or run is None:
            return f"resume refuses: {self.unwritable_reason}"
        if self.newest is None:
            return "resume starts from the beginning: there is no good checkpoint"
        if run.header.foreign:
            return "resume refuses: the run is foreign, it has curves alone"
        path, manifest = self.newest
        at = f"{manifest.sequences} of {run.header.spec['sequences']} sequences"
        if manifest.finished:
            return f"resume has nothing to do: finished at {at}"
        return f"resume continues from {CHECKPOINTS}/{path.name}: {at}"


def _complaint(check: Callable[[], object]) -> str:
    try:
        check()
    except DamagedError as error:
        return str(error)
    return ""
