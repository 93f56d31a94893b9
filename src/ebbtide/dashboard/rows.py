"""One folder of a root as a row of the list: read without JAX, from its records and its newest evaluations alone."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from ebbtide.errors import InputError, one_line
from ebbtide.evaluation.divergence import Curves
from ebbtide.report.tables import means, status_words
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.records import CHECKPOINTS, HEADER, MANIFEST, Checkpoint
from ebbtide.runs.signed import UNREADABLE, DamagedError
from ebbtide.studies.verdict import Verdict, read_verdict, verdict_in

BROKEN = (InputError, DamagedError, OSError)
"""Errors that reading a folder may raise, however it was spoilt."""
BEGUN = ("lock", "metrics", CHECKPOINTS, "plans", "runs")
"""What a writer makes before it writes the record that says what a folder is."""
LARGEST_RECORD = 2**20
"""Largest number of bytes of computed.json."""
LARGEST_NEWEST = 2**28
"""Largest number of bytes of a run's newest evaluations that are read for the list."""

Kind = Literal["run", "sweep", "computation", "damaged"]


class Tally(msgspec.Struct, frozen=True):
    """Numbers of claims of a verdict by what was decided."""

    holds: int
    fails: int
    undecided: int


class Tasks(msgspec.Struct, frozen=True):
    """Numbers of tasks of a sweep by state."""

    done: int
    running: int
    waiting: int
    quarantined: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A folder in the list. Counts of sequences are per member, of a sweep the mean over its members; `rate` is
    sequences a second over all members, `eta` seconds left at the time `changed` (seconds since 1970), when the folder
    last got a checkpoint."""

    name: str
    kind: Kind
    study: str = ""
    experiment: str = ""
    preset: str = ""
    status: str
    status_words: str
    members: int | None = None
    sequences: float | None = None
    total: float | None = None
    rate: float | None = None
    eta: float | None = None
    icl: float | None = None
    iwl: float | None = None
    loss: float | None = None
    verdict: Tally | None = None
    created: str = ""
    changed: float = 0.0
    problem: str = ""
    tasks: Tasks | None = None


class _Computed(msgspec.Struct, frozen=True):
    """The fields of computed.json that the list shows."""

    study: str
    preset: str
    digest: str
    created: str
    setting: dict[str, Any] = {}


def reason(error: Exception) -> str:
    """Why a folder cannot be read, in one line."""
    if isinstance(error, InputError):
        return one_line(error.allowed)
    if isinstance(error, OSError):
        return one_line(error.strerror or "cannot be read")
    return one_line(str(error))


def damaged_row(name: str, path: Path, error: Exception | str) -> Row:
    """The row of a folder that cannot be used."""
    problem = error if isinstance(error, str) else reason(error)
    return Row(
        name=name,
        kind="damaged",
        status="damaged",
        status_words="damaged",
        changed=changed_at(path),
        problem=one_line(problem),
    )


def foreign_row(name: str, path: Path, files: Collection[str]) -> Row:
    """The row of a folder that is no run, sweep or computation, or not yet one."""
    begun = [one for one in files if one in BEGUN or one.startswith(TEMPORARY)]
    words = "not begun" if begun or not files else "foreign"
    problem = f"has no {HEADER} yet" if words == "not begun" else "no run, sweep or computation"
    return Row(name=name, kind="damaged", status=words, status_words=words, changed=changed_at(path), problem=problem)


def run_row(name: str, path: Path) -> Row:
    """The row of a run. Raises one of `BROKEN` when its records or newest evaluations are damaged."""
    run = RunFolder(path)
    header, spec = run.header, run.header.spec
    manifests = run.manifests()
    newest = next(manifests, None)
    last, problem = newest_evaluation(run, newest)
    verdict = None
    try:
        verdict = tally(read_verdict(run))
    except InputError as error:
        problem = reason(error)
    words = run_words(run, newest, last)
    study, _, experiment = header.label.get("study", "").partition("/")
    rate = pace(newest, next(manifests, None), spec["members"])
    left = (spec["sequences"] - (newest[1].sequences if newest else 0)) * spec["members"]
    return Row(
        name=name,
        kind="run",
        study=one_line(study),
        experiment=one_line(experiment or header.label.get("experiment", "")),
        preset=one_line(header.label.get("preset", "")),
        status=status_of(words),
        status_words=words,
        members=spec["members"],
        sequences=newest[1].sequences if newest else 0,
        total=spec["sequences"],
        rate=rate,
        eta=left / rate if rate and words.startswith("running") else None,
        icl=last_mean(last, "icl"),
        iwl=last_mean(last, "iwl"),
        loss=last_mean(last, "train_loss"),
        verdict=verdict,
        created=one_line(header.created),
        changed=committed_at(path, newest),
        problem=problem,
    )


def run_words(run: RunFolder, newest: Checkpoint | None, last: Curves | None) -> str:
    """The status of a run in the words of `ebbtide ls`, from its newest checkpoint and its last evaluation."""
    finished = newest is not None and newest[1].finished
    return status_words("complete" if finished else "running" if run.running() else "interrupted", last)


def status_of(words: str) -> str:
    """The status by which the list filters: `finished`, `running`, `interrupted`, `diverged` (every member)."""
    first = words.partition(",")[0]
    if first in ("running", "interrupted", "diverged"):
        return first
    return "finished"


def newest_evaluation(run: RunFolder, newest: Checkpoint | None) -> tuple[Curves | None, str]:
    """The curves of a run at its newest evaluations alone, and why there are none.

    A member has diverged when its last evaluation is not finite, so these tell the status too. Raises `DamagedError`
    when they do not verify.
    """
    if newest is None or not newest[1].segments:
        return None, ""
    run.check_belongs(newest[1])
    segment = newest[1].segments[-1]
    if segment.file.size > LARGEST_NEWEST:
        return None, f"its newest evaluations take {segment.file.size:,} bytes: not read for the list"
    return run.name_curves(run.load_segment(segment)), ""


def last_mean(last: Curves | None, name: str) -> float | None:
    """The mean of a curve at the last evaluation over the members that have not diverged."""
    if last is None or name not in last:
        return None
    value = float(means(last, name)[-1])
    return float(f"{value:.7g}") if np.isfinite(value) else None


def pace(newest: Checkpoint | None, before: Checkpoint | None, members: int) -> float | None:
    """Sequences a second over all members: since the checkpoint before the newest, or since the start."""
    if newest is None:
        return None
    sequences, seconds = newest[1].sequences, newest[1].seconds
    if before is not None and before[1].seconds < seconds:
        sequences, seconds = sequences - before[1].sequences, seconds - before[1].seconds
    return sequences * members / seconds if seconds > 0 and sequences > 0 else None


def tally(verdict: Verdict | None) -> Tally | None:
    """The numbers of claims that hold, fail and are undecided."""
    if verdict is None:
        return None
    words = [one.verdict for one in verdict.claims]
    return Tally(words.count("holds"), words.count("fails"), words.count("undecided"))


def computation_row(name: str, path: Path) -> Row:
    """The row of a computation. Raises one of `BROKEN` when its record is damaged."""
    try:
        record = msgspec.json.decode(read_bounded(path, "computed.json", LARGEST_RECORD), type=_Computed)
    except UNREADABLE as error:
        raise DamagedError(f"computed.json is damaged: {error}") from error
    problem, verdict = "", None
    try:
        verdict = verdict_in(path)
    except InputError as error:
        problem = reason(error)
    if verdict and verdict.digest != record.digest:
        verdict, problem = None, "verdict.json is of another setting"
    study, _, experiment = record.study.partition("/")
    seeds = record.setting.get("seeds")
    words = "finished" if verdict else "interrupted"  # verdict.json is written last
    return Row(
        name=name,
        kind="computation",
        study=one_line(study),
        experiment=one_line(experiment),
        preset=one_line(record.preset),
        status=words,
        status_words="complete" if verdict else "not judged yet",
        members=seeds if type(seeds) is int and 0 <= seeds < 2**31 else None,
        verdict=tally(verdict),
        created=one_line(record.created),
        changed=changed_at(path),
        problem=problem,
    )


def committed_at(path: Path, newest: Checkpoint | None) -> float:
    """When a run's newest checkpoint was committed, in seconds since 1970; before the first, when it was begun."""
    return changed_at(newest[0] / MANIFEST) if newest else changed_at(path / HEADER)


def changed_at(path: Path) -> float:
    """When a file or folder was last changed, in seconds since 1970; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
