"""What a contest shows: rows of its table, its figures, and the files in its folder."""

from pathlib import Path
from typing import Any

import numpy as np

from ebbtide.contest.events import EVENTS
from ebbtide.contest.record import ContestRecord, SplitRecord, TheoryRecord
from ebbtide.contest.registry import BASELINES
from ebbtide.contest.scores import skill
from ebbtide.contest.theory import GENERALISING
from ebbtide.report.contest_curves_figure import CellPanel, Prediction, contest_figure
from ebbtide.report.table_file import write_table
from ebbtide.runs import atomic

TABLE = "table.csv"
COLUMNS = [
    *("split", "theory", "kind", "free", "divergence", "low", "high", "skill", "curve_error", "coverage"),
    *(f"{name}_{what}" for name in EVENTS for what in ("error", "missed")),
    *("better_than", "worse_than", "refused"),
]
BASELINE = BASELINES[0].name
"""The baseline against which skill is taken."""
MOST_DRAWN = 5
"""Largest number of theories in a figure: those with the lowest divergence."""


def table_rows(record: ContestRecord) -> list[dict[str, Any]]:
    """A row for every split and theory, the lowest divergence first, with the columns `COLUMNS`; divergences in nats,
    errors of times in factors of ten. `better_than` counts the theories that it predicts better than, with an interval
    of the difference that is wholly above 0; the last row of a split is the noise floor."""
    rows: list[dict[str, Any]] = []
    for split in record.splits:
        rows += [_row(split, one) for one in split.ranking()]
        if not split.refused:
            rows.append(_empty(split.name, "noise floor") | {"divergence": split.floor})
        rows += [_empty(split.name, one.name, one.kind, one.refused) for one in split.theories if one.refused]
        rows += [_empty(split.name, "", "", split.refused)] if split.refused else []
    return rows


def _empty(split: str, theory: str, kind: str = "", refused: str = "") -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"split": split, "theory": theory, "kind": kind, "refused": refused}


def _row(split: SplitRecord, one: TheoryRecord) -> dict[str, Any]:
    baseline = split.find(BASELINE)
    times = {f"{time.event}_{what}": getattr(time, what) for time in one.times for what in ("error", "missed")}
    return _empty(split.name, one.name, one.kind) | {
        "free": one.free,
        "divergence": one.divergence,
        "low": one.low,
        "high": one.high,
        "skill": skill(one.divergence, baseline.divergence) if baseline and not baseline.refused else None,
        "curve_error": one.curve_error,
        "coverage": one.coverage,
        **times,
        "better_than": sum(pair.verdict == "holds" for pair in split.pairs if pair.first == one.name)
        + sum(pair.verdict == "fails" for pair in split.pairs if pair.second == one.name),
        "worse_than": sum(pair.verdict == "holds" for pair in split.pairs if pair.second == one.name)
        + sum(pair.verdict == "fails" for pair in split.pairs if pair.first == one.name),
    }


def split_figure(record: ContestRecord, split: SplitRecord) -> dict[str, bytes]:
    """The figure of a split by kind, PNG and SVG: the cells that were scored, and the predictions of the best few."""
    best = split.ranking()[:MOST_DRAWN]
    panels = []
    for i, cell in enumerate(record.cells):
        if any(split.scored[i]):
            told = [(theory.name, one) for theory in best for one in theory.predictions if one.cell == i]
            predictions = [
                Prediction(name, np.asarray(one.fractions)[:, GENERALISING], np.asarray(one.low), np.asarray(one.high))
                for name, one in told
            ]
            members = np.asarray(cell.members, np.float64).reshape(-1, len(cell.sequences))
            times, fitted = np.asarray(cell.sequences), np.asarray(split.fitted[i])
            panels.append(CellPanel(cell.name, times, members, fitted, predictions))
    return contest_figure(f"{record.sweep}: {split.words}", panels, [one.name for one in best])


def figure_name(split: SplitRecord, kind: str) -> str:
    """The file of a split's figure."""
    return f"{split.name}.{kind}"


def write_outputs(folder: Path, record: ContestRecord) -> None:
    """Puts the table and the figures of all splits into a contest's folder."""
    write_table(folder / TABLE, "csv", COLUMNS, table_rows(record))
    for split in record.splits:
        if split.ranking():
            for kind, data in split_figure(record, split).items():
                atomic.write_file(folder / figure_name(split, kind), data)
