"""contest.json: everything that a contest found, bounded in size and signed with its own SHA-256."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ebbtide.errors import InputError, require
from ebbtide.runs import atomic
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import SCHEMA, DamagedError, check_plain, sign, unsign

CONTEST = "contest.json"
LARGEST = 50_000_000
"""Largest contest.json that is read, in bytes."""
Kind = Literal["theory", "baseline", "own"]
Verdict = Literal["holds", "fails", "undecided"]
Text = Annotated[str, msgspec.Meta(max_length=2000)]


class CellRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cell: its name, the values of the axes, its times in sequences, the mean fractions [time, strategy] of the
    members that have finished everywhere, and the generalising fraction of each of them [member, time]."""

    name: Text
    config: dict[Text, float]
    sequences: list[float]
    mean: list[list[float]]
    members: list[list[float]]


class TimeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`judge.TimeScore` of an event; `error` is None where there is none."""

    event: Text
    error: float | None
    missed: int
    cells: int


class ParameterRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fitted parameter with its 95 % interval over resampled members; None: not finite."""

    name: Text
    value: float | None
    low: float | None
    high: float | None


class PredictionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a theory predicts of a cell, by its place among the cells: fractions [time, strategy], and the ends of the
    middle 90 % of the generalising fraction over the resamples."""

    cell: int
    fractions: list[list[float]]
    low: list[float]
    high: list[float]


class TheoryRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A theory on one split.

    Args:
        name: the theory's name.
        kind: a theory of the field, a baseline, or a user's own.
        identity: what the numbers follow from: the same identity gives the same numbers.
        refused: why it takes no part, in one line; empty where it does.
        free: the number of parameters that its fit chose.
        parameters: these.
        divergence: its score with a 95 % interval over resampled members, nats; `resampled` are those of the resamples.
        curve_error, coverage, times: its other scores.
        predictions: of the cells that are scored.
    """

    name: Text
    kind: Kind
    identity: Text
    refused: Text = ""
    free: int = 0
    parameters: list[ParameterRecord] = []
    divergence: float = 0.0
    low: float = 0.0
    high: float = 0.0
    resampled: list[float] = []
    curve_error: float = 0.0
    coverage: float = 0.0
    times: list[TimeRecord] = []
    predictions: list[PredictionRecord] = []


class PairRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The statement "`first` predicts held-out cells better than `second`": by how much the divergence of the second is
    larger, nats, with a 95 % interval over resampled members. It holds with the whole interval above 0, fails with the
    whole interval below, and is undecided otherwise."""

    first: Text
    second: Text
    estimate: float
    low: float
    high: float
    verdict: Verdict

    def statement(self) -> str:
        """The statement in words."""
        return f"{self.first} predicts held-out cells better than {self.second}"


class SplitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A split: which times of which cells were fitted and scored, how many members, what each theory scored. `refused`
    says in one line why the split is not possible on these cells."""

    name: Text
    words: Text
    axis: Text = ""
    refused: Text = ""
    fitted: list[list[bool]] = []
    scored: list[list[bool]] = []
    members: int = 0
    floor: float = 0.0
    theories: list[TheoryRecord] = []
    pairs: list[PairRecord] = []

    def ranking(self) -> list[TheoryRecord]:
        """The theories that took part, the one with the lowest divergence first."""
        return sorted((one for one in self.theories if not one.refused), key=lambda one: one.divergence)

    def find(self, name: str) -> TheoryRecord | None:
        """The theory of this name, None where the split has none."""
        return next((one for one in self.theories if one.name == name), None)


class ContestRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A contest: the sweep, the members that take part (of so many), the resamples of them, the cells, the splits."""

    schema: int = SCHEMA
    sweep: Text
    version: Text
    members: int
    of_members: int
    resamples: int
    cells: list[CellRecord]
    splits: list[SplitRecord] = []


def verdict_of(low: float, high: float) -> Verdict:
    """*holds*, *fails* or *undecided*, from the interval of a difference that is claimed to be above 0."""
    return "holds" if low > 0 else "fails" if high < 0 else "undecided"


def number(value: float) -> float | None:
    """The number, None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def write_contest(folder: Path, record: ContestRecord) -> None:
    """Puts contest.json into a folder in one step."""
    atomic.write_file(folder / CONTEST, sign(record))


def read_contest(folder: Path) -> ContestRecord:
    """The contest of a folder. Raises `DamagedError` for a contest.json that is not intact, `InputError` for one of
    another version."""
    record = unsign(read_bounded(folder, CONTEST, LARGEST), ContestRecord, str(folder), CONTEST)
    check_plain(msgspec.to_builtins(record), CONTEST)
    times = [len(cell.sequences) for cell in record.cells]
    whole = all(_whole(cell) for cell in record.cells) and all(_fits(one, times) for one in record.splits)
    if not whole:
        raise DamagedError(f"{CONTEST}: its curves and its cells do not fit together")
    return record


def own_contest(folder: Path) -> ContestRecord | None:
    """The contest in a folder, None where the folder is empty or is not there. Raises `InputError` where something else
    is in it."""
    if not folder.exists():
        return None
    require(folder.is_dir(), "out", str(folder), "is no folder")
    if not (folder / CONTEST).exists():
        others = [
            path.name
            for path in folder.iterdir()
            if path.name not in PARTS and not path.name.startswith(atomic.TEMPORARY)
        ]
        require(not others, "out", str(folder), "holds something else; name an empty or a new folder")
        return None
    try:
        return read_contest(folder)
    except DamagedError as error:
        raise InputError("out", str(folder), f"is damaged: {error}") from error


PARTS = ("fractions", "pure", "trust.json")
"""What a contest puts into its folder before its contest.json."""


def _whole(cell: CellRecord) -> bool:
    count = len(cell.sequences)
    rows = [cell.mean, *cell.members]
    return all(len(row) == count for row in rows) and all(len(row) == 3 for row in cell.mean)


def _fits(split: SplitRecord, times: Sequence[int]) -> bool:
    """Whether the masks and predictions of a split have as many times as their cells."""
    masks = [*zip(split.fitted, times, strict=False), *zip(split.scored, times, strict=False)]
    counts = {len(split.fitted), len(split.scored)}
    right = counts == ({0} if split.refused else {len(times)}) and all(len(mask) == n for mask, n in masks)
    predictions = [one for theory in split.theories for one in theory.predictions]
    return right and all(
        0 <= one.cell < len(times)
        and {len(one.fractions), len(one.low), len(one.high)} == {times[one.cell]}
        and all(len(row) == 3 for row in one.fractions)
        for one in predictions
    )
