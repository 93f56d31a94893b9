"""One folder of a root as a row of the list: read without JAX, from its records and its newest evaluations alone."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from ebbtide.errors import InputError, one_line
from ebbtide.report.tables import status_words
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
SHOWN = ("icl", "iwl")
"""Evaluators of which the list has the last value."""
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


class Now(NamedTuple):
    """A run as it is now: its newest checkpoint, status and words on it, sequences a second over all members, seconds
    left when that checkpoint was committed, the values at the last evaluation (mean over the members that have not
    diverged), and why there are none."""

    newest: Checkpoint | None
    status: str
    words: str
    sequences: int
    rate: float | None
    eta: float | None
    changed: float
    means: dict[str, float | None]
    problem: str


def run_row(name: str, path: Path) -> Row:
    """The row of a run. Raises one of `BROKEN` when its records or newest evaluations are damaged."""
    run = RunFolder(path)
    header, now = run.header, now_of(run)
    problem, verdict = now.problem, None
    try:
        verdict = tally(read_verdict(run))
    except InputError as error:
        problem = reason(error)
    study, _, experiment = header.label.get("study", "").partition("/")
    return Row(
        name=name,
        kind="run",
        study=one_line(study),
        experiment=one_line(experiment or header.label.get("experiment", "")),
        preset="foreign" if header.foreign else one_line(header.label.get("preset", "")),
        status=now.status,
        status_words=now.words,
        members=header.spec["members"],
        sequences=now.sequences,
        total=header.spec["sequences"],
        rate=now.rate,
        eta=now.eta,
        icl=now.means.get("icl"),
        iwl=now.means.get("iwl"),
        loss=now.means.get("train_loss"),
        verdict=verdict,
        created=one_line(header.created),
        changed=now.changed,
        problem=problem,
    )


def now_of(run: RunFolder) -> Now:
    """A run as it is now. Raises `DamagedError` when its newest evaluations do not verify."""
    spec, manifests = run.header.spec, run.manifests()
    newest = next(manifests, None)
    last, problem = last_evaluation(run, newest)
    lost = last.lost() if last else np.zeros(1, bool)
    state = "complete" if newest and newest[1].finished else "running" if run.running() else "interrupted"
    words = status_words(state, lost)
    sequences = newest[1].sequences if newest else 0
    rate = pace(newest, next(manifests, None) if state == "running" else None, spec["members"])
    left = (spec["sequences"] - sequences) * spec["members"]
    means = last.means(lost) if last else {}
    eta = left / rate if rate and state == "running" else None
    changed = changed_at(newest[0] / MANIFEST if newest else run.path / HEADER)
    return Now(newest, status_of(words), words, sequences, rate, eta, changed, means, problem)


def status_of(words: str) -> str:
    """The status by which the list filters: `finished`, `running`, `interrupted`, or `diverged` (a finished run that
    has lost every member)."""
    first = words.partition(",")[0]
    return first if first in ("running", "interrupted", "diverged") else "finished"


class Last(NamedTuple):
    """A run's last evaluation: the training loss [member], and the headline metrics [member, evaluator] with the names
    of their evaluators."""

    loss: Float[np.ndarray, " member"]
    values: Float[np.ndarray, "member evaluator"]
    names: list[str]

    def lost(self) -> Bool[np.ndarray, " member"]:
        """Mask of the members that have diverged (`evaluation.divergence`): those whose last evaluation is not
        finite."""
        return ~np.isfinite(self.values).all(1) | np.isinf(self.loss)

    def means(self, lost: Bool[np.ndarray, " member"]) -> dict[str, float | None]:
        """The means that the list shows, over the members that are not lost; over all where all are."""
        kept = ~lost | lost.all()
        found = {name: self.values[kept, self.names.index(name)] for name in SHOWN if name in self.names}
        return {name: mean_of_finite(values) for name, values in {**found, "train_loss": self.loss[kept]}.items()}


def last_evaluation(run: RunFolder, newest: Checkpoint | None) -> tuple[Last | None, str]:
    """A run's last evaluation, and why there is none. Raises `DamagedError` when it does not verify."""
    if newest is None or not newest[1].segments:
        return None, ""
    run.check_belongs(newest[1])
    segment = newest[1].segments[-1]
    if segment.file.size > LARGEST_NEWEST:
        return None, f"its newest evaluations take {segment.file.size:,} bytes: not read for the list"
    raw, head = run.load_segment(segment), run.header
    headlines = [head.metrics.index(one.headline) for one in head.instruments]
    values = raw["values"][:, -1, np.arange(len(headlines)), headlines, 0]
    return Last(raw["train_loss"][:, -1], values, [one.name for one in head.instruments]), ""


def mean_of_finite(values: Float[np.ndarray, " member"]) -> float | None:
    """The mean of the finite values, with seven digits; None where there are none. (A member that has stopped early has
    no training loss any more.)"""
    known = [value for value in values.tolist() if math.isfinite(value)]
    return float(f"{math.fsum(known) / len(known):.7g}") if known else None


def pace(newest: Checkpoint | None, before: Checkpoint | None, members: int) -> float | None:
    """Sequences a second over all members: since the checkpoint `before` the newest, or since the start."""
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


def changed_at(path: Path) -> float:
    """When a file or folder was last changed, in seconds since 1970; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
