"""The run and sweep folders that a page describes, in the order of the page. Reads, never writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ebbtide.contest.record import CONTEST
from ebbtide.errors import InputError, nearest, require
from ebbtide.pages import facts
from ebbtide.pages.origin import known_sweep
from ebbtide.pages.page import NOT_RUN, Entry
from ebbtide.pages.tables import UNREADABLE
from ebbtide.papers import registry
from ebbtide.runs.folder import RunFolder, inside
from ebbtide.runs.records import HEADER
from ebbtide.studies.comparison import find_verdict
from ebbtide.studies.computation import COMPUTED as RECORD
from ebbtide.studies.computation import read_record
from ebbtide.sweeps.folder import SWEEP, SweepFolder

PRESETS = ("quick", "cpu", "paper")
MARKS = (HEADER, SWEEP, RECORD, CONTEST)
"""The file that says what a folder is."""


class Found(NamedTuple):
    """A folder to tell of; `study` when it was found by the name of its study."""

    path: Path
    study: str | None = None


def gather(words: Sequence[str], runs: Path) -> list[Entry]:
    """Entries for the folders that `words` name: folders of runs, sweeps or contests, their names in `runs`, or
    studies, which stand for all their runs and sweeps in `runs`.

    Folders come in the order they were given, those of a study by experiment and preset, the newest of each before
    all earlier ones. Raises `InputError` in one line for a word that is none of these, or when no run is there.
    """
    found = {one.path.resolve(): one for word in words for one in _find(word, runs)}
    there = any((one.path / name).exists() for one in found.values() for name in MARKS)
    require(there, "report", " ".join(words), f"no run, sweep or contest is there (no {HEADER}, {SWEEP}, {CONTEST})")
    entries: list[Entry] = []
    for study in dict.fromkeys(one.study for one in found.values()):
        group = [entry_of(one.path) for one in found.values() if one.study == study]
        entries += group if study is None else [*_newest_first(group), *_not_run(study, group)]
    return entries


def entry_of(path: Path) -> Entry:
    """The page's entry for one folder, whatever is in it."""
    try:
        if (path / CONTEST).exists():
            from ebbtide.pages.contests import entry_of_contest  # a contest's code is heavy, and few pages have one

            return entry_of_contest(path)
        return facts.entry_of(path)
    except UNREADABLE as error:
        return Entry(name=path.name, kind="folder", problem=f"Cannot be used: {_reason(error)}", damaged=True)


def _find(word: str, runs: Path) -> list[Found]:
    for path in (Path(word), runs / word):
        if path.is_dir():
            return [Found(path)]
    folders = [path for path in inside(runs) if path.is_dir() and _belongs(path, word)]
    if not folders:
        known = [study.name for study in registry.STUDIES]
        hint = nearest(word, [*known, *(path.name for path in inside(runs))])
        require(word not in known, "study", word, f"has no run in {runs} yet (make one with: ebbtide run {word})")
        raise InputError("report", word, f"no run or sweep folder, here or in {runs}, and no study{hint}")
    return [Found(path, word) for path in folders]


def _belongs(path: Path, study: str) -> bool:
    """Whether a folder is of this study (or of an experiment of it); what cannot be read is told by its name."""
    if not any((path / name).exists() for name in MARKS):
        return False
    try:
        if (path / RECORD).exists():
            own = read_record(path).study
        elif (path / CONTEST).exists():
            return False  # its sweep is known by name only
        elif (path / SWEEP).exists():
            sweep = SweepFolder(path).sweep
            known = known_sweep(sweep) or known_sweep(sweep, find_verdict(path))
            own = known.study.full_name(known.experiment) if known else sweep.study or ""
        else:
            own = RunFolder(path).header.label.get("study", "")
    except UNREADABLE:
        return path.name.startswith((f"{study}-", f"{study.replace('/', '-')}-"))
    return own == study or own.startswith(f"{study}/")


def _newest_first(group: list[Entry]) -> list[Entry]:
    """Entries sorted by experiment and preset, those with a verdict first; the newest of each, then all that the newest
    ones replace."""

    def place(one: Entry) -> tuple[Any, ...]:
        preset = one.preset.rstrip("*")
        rank = PRESETS.index(preset) if preset in PRESETS else len(PRESETS)
        return one.damaged, one.claims is None, one.experiment, rank, one.preset

    newest = sorted(group, key=lambda one: (one.created, one.name), reverse=True)
    seen: set[tuple[Any, ...]] = set()
    marked = []
    for one in newest:
        earlier = not one.damaged and place(one) in seen
        seen.add(place(one))
        marked.append(one._replace(earlier=earlier))
    return sorted(marked, key=lambda one: (one.earlier, place(one)))


def _not_run(name: str, group: list[Entry]) -> list[Entry]:
    """The questions of a study that no folder asks, each with the command for its smallest preset."""
    there, out = {one.experiment for one in group}, []
    for study in registry.STUDIES:
        for one in study.experiments:
            full, preset = study.full_name(one), next(iter(one.presets))
            if full not in there and name in (study.name, full):
                words = "" if full == study.name else f" --experiment {one.name}"
                command = f"ebbtide run {study.name}{words} --preset {preset}"
                out.append(Entry("", NOT_RUN, full, preset, one.question, command=command))
    return out


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return error.allowed
    return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
