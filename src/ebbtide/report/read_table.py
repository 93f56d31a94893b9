"""Reads curves from a tidy table as CSV: one row for each member, time, evaluator and metric."""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np

from ebbtide.errors import InputError, nearest, require
from ebbtide.report.headlines import headline_of
from ebbtide.runs.foreign import ForeignCurves, check_file_name, check_names, check_sizes
from ebbtide.runs.records import Instrument

MEMBER, OF_A_SWEEP = "member", "seeds.member"
"""Columns with the member's number: that of `ebbtide export`, and that of `ebbtide sweep collect --curves`."""
NEEDED = (MEMBER, "sequences", "evaluator", "metric", "value")
KNOWN = (*NEEDED, "steps", "error", "chance")
"""Columns with a meaning; every other one is a number of the member's configuration."""
LOSS = ("train", "training_loss")
"""Evaluator and metric of the training loss."""
LARGEST_TABLE, MOST_WHOLE = 2**27, 2**32
"""Bytes of a table; whole numbers are below the second."""


def read_table(source: Path) -> ForeignCurves:
    """The curves in a CSV file with the columns `NEEDED`, and perhaps `steps`, `error` (standard error of the value)
    and `chance` (level of the evaluator's headline metric). Members with different values in other columns, such as
    `source.classes`, are different members, in the order of these values and their numbers.

    Every member must have every curve at the same times; an empty value is nan. The evaluator `train` with the metric
    `training_loss` is the training loss, which may be missing. Raises `InputError` for anything else, naming the line.
    """
    name = check_file_name(source)
    require(source.is_file(), "from", str(source), "no such file")
    require(source.stat().st_size <= LARGEST_TABLE, "from", str(source), f"has more than {LARGEST_TABLE} bytes")
    data = source.read_bytes()
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = next(rows, [])
        table = _Table(name, columns)
        for row in rows:
            if row:
                table.add(rows.line_num, row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError("from", str(source), f"is no table: {error}") from error
    return table.curves(hashlib.sha256(data).hexdigest())


class _Table:
    """The rows that were read so far."""

    def __init__(self, file: str, columns: list[str]):
        self.file = file
        if MEMBER not in columns:
            columns = [MEMBER if one == OF_A_SWEEP else one for one in columns]
        for column in NEEDED:
            require(column in columns, "from", file, f"has no column {column!r}{nearest(column, columns)}")
        check_names(file, "column", [one for one in columns if one not in KNOWN])
        self.at = {column: i for i, column in enumerate(columns)}
        require(len(self.at) == len(columns), "from", file, "has a column twice")
        self.config = [one for one in columns if one not in KNOWN]
        self.found: dict[tuple[tuple[float, ...], int, tuple[str, str]], tuple[float, float]] = {}
        self.chances: dict[str, float] = {}
        self.batches: set[int] = set()

    def add(self, line: int, row: list[str]) -> None:
        """Reads a row of the table: by the member (its configuration and number), the time and the curve, the value and
        its standard error."""

        def refuse(column: str, allowed: str) -> InputError:
            text = row[self.at[column]][:60] if column in self.at and self.at[column] < len(row) else ""
            return InputError(f"{self.file} line {line}, {column}", text, allowed)

        def number(column: str, *, empty: float | None = None) -> float:
            text = row[self.at[column]].strip()
            if empty is not None and text.lower() in ("", "nan"):
                return empty
            try:
                value = float(text)
            except ValueError:
                raise refuse(column, "must be a number") from None
            if not np.isfinite(value) and column != "value":
                raise refuse(column, "must be finite")
            return value

        def whole(column: str) -> int:
            value = number(column)
            if value != int(value) or not 0 <= value < MOST_WHOLE:
                raise refuse(column, f"must be a whole number from 0, below {MOST_WHOLE}")
            return int(value)

        if len(row) != len(self.at):
            raise InputError("from", self.file, f"line {line} has {len(row)} columns in place of {len(self.at)}")
        member = (*(number(one) for one in self.config), float(whole(MEMBER)))
        sequences = whole("sequences")
        curve = (row[self.at["evaluator"]], row[self.at["metric"]])
        value = number("value", empty=np.nan)
        if np.isinf(value) and curve != LOSS:
            raise refuse("value", "must be finite, or empty where a member diverged")
        error = number("error", empty=np.nan) if "error" in self.at else np.nan
        if "chance" in self.at and row[self.at["chance"]].strip():
            level = number("chance")
            if self.chances.setdefault(curve[0], level) != level:
                raise refuse("chance", f"differs from that of {curve[0][:60]} before, {self.chances[curve[0]]:g}")
        if "steps" in self.at and sequences:
            steps = whole("steps")
            if not steps or sequences // steps * steps != sequences:
                raise refuse("steps", "must divide the sequences")
            self.batches.add(sequences // steps)
        key = (member, sequences, curve)
        if key in self.found:
            raise refuse("value", f"is the second of {curve[0][:60]}/{curve[1][:60]} of this member at {sequences}")
        self.found[key] = (value, error)

    def curves(self, digest: str) -> ForeignCurves:
        """The curves in all rows. Raises `InputError` where one is missing."""
        cells = sum(curve != LOSS for _, _, curve in self.found)
        require(cells > 0, "from", self.file, "has no row of an evaluator")
        members = sorted({member for member, _, _ in self.found})
        times = sorted({time for _, time, _ in self.found})
        pairs = [curve for curve in dict.fromkeys(curve for _, _, curve in self.found) if curve != LOSS]
        evaluators, metrics = (list(dict.fromkeys(pair[i] for pair in pairs)) for i in (0, 1))
        check_names(self.file, "evaluator", evaluators)
        check_names(self.file, "metric", metrics)
        check_sizes(self.file, len(members), len(times), len(evaluators), len(metrics))
        require(len(self.batches) <= 1, "from", self.file, "its steps are not all of the same number of sequences")
        lacking = len(members) * len(times) * len(pairs) - cells
        every = f"lacks {lacking} values: every member must have every metric of every evaluator at the same times"
        require(lacking == 0, "from", self.file, every)
        place = {member: i for i, member in enumerate(members)}
        column = {time: i for i, time in enumerate(times)}
        values = np.full((len(members), len(times), len(evaluators), len(metrics), 2), np.nan)
        loss = np.full(values.shape[:2], np.nan)
        for (member, time, curve), found in self.found.items():
            m, i = place[member], column[time]
            if curve == LOSS:
                loss[m, i] = found[0]
            else:
                values[m, i, evaluators.index(curve[0]), metrics.index(curve[1])] = found
        instruments = [
            Instrument(one, headline_of(one, [b for a, b in pairs if a == one]), self.chances.get(one))
            for one in evaluators
        ]
        vary = {name: [member[i] for member in members] for i, name in enumerate(self.config)}
        batch = next(iter(self.batches), 1)
        return ForeignCurves(self.file, digest, np.asarray(times), loss, values, instruments, metrics, batch, vary)
