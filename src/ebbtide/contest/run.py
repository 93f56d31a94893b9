"""The contest: theories fitted to parts of a sweep, scored on what they have not seen, and ranked."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ebbtide import __version__
from ebbtide.contest import judge, registry
from ebbtide.contest.cells import Cell, cells_of
from ebbtide.contest.identity import code_digest, facts_digest
from ebbtide.contest.pure_sweep import PURE, train_pure
from ebbtide.contest.record import (
    CellRecord,
    ContestRecord,
    PairRecord,
    ParameterRecord,
    PredictionRecord,
    SplitRecord,
    TheoryRecord,
    TimeRecord,
    number,
    own_contest,
    verdict_of,
    write_contest,
)
from ebbtide.contest.resampling import RESAMPLES, Members, interval, resample_members, stretch_of
from ebbtide.contest.scores import NOMINAL
from ebbtide.contest.splits import SPLITS, Split, check_split, finished_members, make_split
from ebbtide.contest.theory import GENERALISING, Theory
from ebbtide.contest.trust import DRAWS, TrustRecord, check_draws, measure_trust
from ebbtide.errors import InputError, require
from ebbtide.runs.output import check_output_folder
from ebbtide.sweeps.driver import SweepProgress
from ebbtide.sweeps.results import Results
from ebbtide.user_code import is_own

FRACTIONS = "fractions"
"""The folder of fractions from checkpoints in that of a contest."""
DECIMALS = 6
"""Decimals of the fractions in a record."""


class ContestProgress(NamedTuple):
    """Where a contest is: what it does now, and the share of that which is done, 0 to 1."""

    what: str
    share: float


Report = Callable[[ContestProgress | SweepProgress], Any]


def run_contest(
    sweep: Results | str | os.PathLike[str],
    theories: Sequence[Theory | str] | None = None,
    split: str | Sequence[str] | None = None,
    *,
    axis: str | None = None,
    out: str | os.PathLike[str] | None = None,
    resamples: int = RESAMPLES,
    report: Report = lambda progress: None,
    say: Callable[[str], Any] = lambda text: None,
) -> ContestRecord:
    """The field's theories, and yours, fitted to parts of a sweep and scored on what they have not seen.

    Args:
        sweep: the results of a sweep, or its folder.
        theories: objects with the methods of `contest.theory.Theory`, or names of those of ebbtide; None: all of
            these. The baselines always take part.
        split: one or several of `contest.splits.SPLITS`; None: all.
        axis: the axis by which the split `elsewhere` divides the cells; None: the only one.
        out: a folder for contest.json and for pure runs. What it already has is not computed again. None: nothing is
            written, and theories that need pure runs are refused.
        resamples: how often the members are resampled.
        report: is told of progress.
        say: is told what else is worth a line.

    Raises:
        InputError: the sweep has no strategy fractions, fewer than two members have finished in every cell, or a theory
            or split does not exist.
        Interrupted: Ctrl-C or SIGTERM while pure runs were trained; the same call continues.

    Source: the splits and scores are ours; the theories name theirs.

    >>> found = eb.run_contest("runs/sweep-classes", split="later")  # doctest: +SKIP
    >>> [one.name for one in found.splits[0].ranking()]  # doctest: +SKIP
    ['logistic', 'bayes (mdl)', 'persistence', 'constant']
    """
    names = list(SPLITS) if split is None else [split] if isinstance(split, str) else list(split)
    for name in names:
        check_split(name)
    require(resamples >= 20, "resamples", resamples, "must be 20 at least: the ends of an interval are hundredths")
    chosen = chosen_theories(theories)
    folder = None if out is None else Path(out)
    before = None if folder is None else own_contest(folder)
    results = sweep if isinstance(sweep, Results) else Results(sweep)
    cells = _read_cells(results, folder, report)
    splits = [_split_or_reason(cells, name, axis if name == "elsewhere" else None) for name in names]
    if all(isinstance(one, InputError) for one in splits):
        raise next(one for one in splits if isinstance(one, InputError))
    if folder is not None:
        check_output_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        cells = _with_pure(cells, chosen, folder, report, say)
    contest = _Contest(results.folder.sweep.name, cells, chosen, splits, names, resamples, before)
    return contest.hold(folder, report)


def chosen_theories(theories: Sequence[Theory | str] | None) -> list[Theory]:
    """The theories that take part, before the baselines. Raises `InputError` for one that is none, and for two of one
    name."""
    given = registry.THEORIES if theories is None else theories
    chosen = [registry.find(one) if isinstance(one, str) else judge.check_theory(one) for one in given]
    every = [*chosen, *(one for one in registry.BASELINES if one not in chosen)]
    names = [one.name for one in every]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, "theories", twice, "is the name of two theories")
    return every


def _read_cells(results: Results, folder: Path | None, report: Report) -> list[Cell]:
    """The cells of a sweep; with a folder, fractions from checkpoints are kept in it."""
    if folder is not None:
        check_output_folder(folder)
    keep = None if folder is None else folder / FRACTIONS
    return cells_of(results, lambda words: report(ContestProgress(words, 0.0)), keep)


def _with_pure(
    cells: list[Cell], theories: Sequence[Theory], folder: Path, report: Report, say: Callable[[str], Any]
) -> list[Cell]:
    """The cells with their pure runs, where a theory reads them. Cells that have none are as before: the theories say
    why they take no part."""
    if not any(theory.needs_pure for theory in theories):
        return cells
    try:
        return train_pure(cells, folder / PURE, report, say)
    except InputError as error:
        say(f"no pure runs: {error}")
        return cells


def _split_or_reason(cells: Sequence[Cell], name: str, axis: str | None) -> Split | InputError:
    try:
        return make_split(cells, name, axis)
    except InputError as error:
        return error


def trust_contest(
    sweep: Results | str | os.PathLike[str],
    theories: Sequence[Theory | str] | None = None,
    split: str = "elsewhere",
    *,
    axis: str | None = None,
    draws: int = DRAWS,
    out: str | os.PathLike[str] | None = None,
    report: Report = lambda progress: None,
    say: Callable[[str], Any] = lambda text: None,
) -> TrustRecord:
    """Whether a contest on the cells of a sweep names the theory that made the curves: see `contest.trust`. Arguments
    and errors are those of `run_contest`; `draws` from every theory, and trust.json in place of contest.json.

    >>> found = eb.trust_contest("runs/sweep-classes", draws=20)  # doctest: +SKIP
    >>> found.confused()  # doctest: +SKIP
    [('bayes (mdl)', 'bayes (code)', 9)]
    """
    check_split(split)
    check_draws(draws)
    chosen, folder = chosen_theories(theories), None if out is None else Path(out)
    if folder is not None:
        own_contest(folder)
    results = sweep if isinstance(sweep, Results) else Results(sweep)
    cells = _read_cells(results, folder, report)
    make_split(cells, split, axis)
    if folder is not None:
        check_output_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        cells = _with_pure(cells, chosen, folder, report, say)

    def tell(what: str, share: float) -> None:
        report(ContestProgress(what, share))

    return measure_trust(results.folder.sweep.name, cells, chosen, split, axis, draws=draws, folder=folder, report=tell)


class _Contest(NamedTuple):
    sweep: str
    cells: list[Cell]
    theories: list[Theory]
    splits: list[Split | InputError]
    names: list[str]
    resamples: int
    before: ContestRecord | None

    def hold(self, folder: Path | None, report: Report) -> ContestRecord:
        """The record, written after every theory: what was found once is not lost."""
        found = {(i, theory.name): self._known(i, theory) for i in self._open() for theory in self.theories}
        inputs: dict[str, list[Any] | InputError] = {}
        for i in self._open():
            split = self.splits[i]
            assert isinstance(split, Split)
            resampled = resample_members(split, self.resamples)
            for theory in self.theories:
                if found[i, theory.name] is not None:
                    continue
                what = f"{split.name}: {theory.name}"
                report(ContestProgress(what, 0.0))
                if theory.name not in inputs:
                    inputs[theory.name] = _inputs(theory, self.cells)

                def tell(done: int, what: str = what) -> None:
                    report(ContestProgress(what, done / self.resamples))

                found[i, theory.name] = self._judge(i, theory, inputs[theory.name], split, resampled, tell)
                if folder is not None:
                    write_contest(folder, self._record(found))
        record = self._record(found)
        if folder is not None:
            write_contest(folder, record)
        return record

    def _open(self) -> list[int]:
        return [i for i, one in enumerate(self.splits) if isinstance(one, Split)]

    def _known(self, place: int, theory: Theory) -> TheoryRecord | None:
        """What an earlier call found, from the same cells by the same code."""
        identity = self._identity(place, theory)
        if self.before is None or not identity:
            return None
        theories = [one for split in self.before.splits for one in split.theories]
        return next((one for one in theories if one.identity == identity), None)

    def _identity(self, place: int, theory: Theory) -> str:
        """SHA-256 of all that a theory's numbers follow from; empty for a class that is in no file."""
        own, split = code_digest(theory), self.splits[place]
        if not own:
            return ""
        assert isinstance(split, Split)
        code = hashlib.sha256(repr((own, self.resamples, split.name, split.axis)).encode())
        for cell in self.cells:
            code.update(facts_digest(cell.facts).encode())
            for array in (cell.sequences, cell.fractions):
                code.update(np.ascontiguousarray(array, np.float64).tobytes())
        return code.hexdigest()

    def _judge(
        self,
        place: int,
        theory: Theory,
        inputs: list[Any] | InputError,
        split: Split,
        resampled: Sequence[Members],
        tell: Callable[[int], Any],
    ) -> TheoryRecord:
        kind = "own" if is_own(type(theory)) else "baseline" if theory in registry.BASELINES else "theory"
        identity = self._identity(place, theory)
        try:
            if isinstance(inputs, InputError):
                raise inputs
            score = judge.score_theory(theory, inputs, split, resampled, tell)
        except InputError as error:
            return TheoryRecord(name=theory.name, kind=kind, identity=identity, refused=str(error))
        low, high = judge.score_interval(score, split)
        fitted = score.theory
        return TheoryRecord(
            name=theory.name,
            kind=kind,
            identity=identity,
            free=int(fitted.free),
            parameters=[
                ParameterRecord(name, number(value), *map(number, score.parameters[name]))
                for name, value in fitted.parameters().items()
            ],
            divergence=score.divergence,
            low=low,
            high=high,
            resampled=score.resampled.tolist(),
            curve_error=score.curve_error,
            coverage=score.coverage,
            times=[TimeRecord(name, number(one.error), one.missed, one.cells) for name, one in score.times.items()],
            predictions=[_prediction(cell, score) for cell in score.predicted],
        )

    def _record(self, found: dict[tuple[int, str], TheoryRecord | None]) -> ContestRecord:
        members = finished_members(self.cells)
        splits = []
        for i, (name, split) in enumerate(zip(self.names, self.splits, strict=True)):
            if isinstance(split, InputError):
                splits.append(SplitRecord(name=name, words=SPLITS[name], refused=str(split)))
                continue
            theories = [record for theory in self.theories if (record := found[i, theory.name]) is not None]
            splits.append(_split_record(split, theories))
        return ContestRecord(
            sweep=self.sweep,
            version=__version__,
            members=len(members),
            of_members=len(self.cells[0].fractions),
            resamples=self.resamples,
            cells=[_cell_record(cell, members) for cell in self.cells],
            splits=splits,
        )


def _inputs(theory: Theory, cells: Sequence[Cell]) -> list[Any] | InputError:
    try:
        return judge.read_inputs(theory, [cell.facts for cell in cells])
    except InputError as error:
        return error


def _prediction(cell: int, score: judge.Score) -> PredictionRecord:
    tail = 100 * (1 - NOMINAL) / 2
    low, high = np.percentile(score.drawn[cell][..., GENERALISING], [tail, 100 - tail], axis=0)
    return PredictionRecord(cell, _rounded(score.predicted[cell]), _rounded(low), _rounded(high))


def _cell_record(cell: Cell, members: np.ndarray) -> CellRecord:
    facts, own = cell.facts, cell.fractions[members]
    times = np.asarray(cell.sequences, np.float64).tolist()
    return CellRecord(
        facts.name, dict(facts.config), times, _rounded(own.mean(axis=0)), _rounded(own[..., GENERALISING])
    )


def _split_record(split: Split, theories: list[TheoryRecord]) -> SplitRecord:
    record = SplitRecord(
        name=split.name,
        words=split.words(),
        axis=split.axis,
        fitted=[one.fitted.tolist() for one in split.parts],
        scored=[one.scored.tolist() for one in split.parts],
        members=len(split.scored_members),
        floor=judge.noise_floor(split),
        theories=theories,
    )
    ranking, stretched = record.ranking(), stretch_of(split)
    for i, first in enumerate(ranking):
        for second in ranking[i + 1 :]:
            estimate = second.divergence - first.divergence
            ends = interval(estimate, np.subtract(second.resampled, first.resampled), stretched)
            record.pairs.append(PairRecord(first.name, second.name, estimate, *ends, verdict_of(*ends)))
    return record


def _rounded(values: np.ndarray) -> list[Any]:
    return np.asarray(values, np.float64).round(DECIMALS).tolist()
