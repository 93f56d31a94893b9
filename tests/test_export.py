"""The tidy table: every format holds the same numbers, and they are the run's."""

import csv
import json

import numpy as np
import polars
import pytest

from ebbtide.errors import InputError
from ebbtide.report.export import COLUMNS, export, tidy_rows
from ebbtide.report.table_file import FORMATS
from ebbtide.tasks.fewshot import METRICS
from tiny import contents, write_run

CURVES = {"icl": [[0.5, 0.75, 1.0], [0.5, 0.25, np.nan]], "iwl": [[0.0, 0.125, 0.5], [0.0, 0.25, np.nan]]}
LOSS = [[np.nan, 4.0, 2.0], [np.nan, 3.0, np.nan]]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", CURVES, LOSS)


def number(text: str | float | None) -> float:
    return np.nan if text in ("", None) else float(text)


def read(kind: str, path) -> list[tuple]:
    if kind == "csv":
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        assert tuple(header) == COLUMNS
        return [(int(m), int(s), int(t), e, n, number(v), number(r)) for m, s, t, e, n, v, r in rows]
    if kind == "json":
        rows = json.loads(path.read_text())
        assert all(tuple(row) == COLUMNS for row in rows)
    else:
        frame = polars.read_parquet(path)
        assert tuple(frame.columns) == COLUMNS
        assert [frame.schema[c].is_integer() for c in COLUMNS[:3]] == [True] * 3
        assert frame.schema["value"] == polars.Float64
        rows = frame.to_dicts()
    return [(*[row[c] for c in COLUMNS[:5]], number(row["value"]), number(row["error"])) for row in rows]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_holds_the_run_s_numbers(run, tmp_path, kind):
    out = tmp_path / f"table.{kind}"
    count = export(run, kind, out)
    rows, curves = read(kind, out), run.metrics()
    assert len(rows) == count == 2 * 3 * (1 + 2 * len(METRICS))
    assert len({row[:5] for row in rows}) == count
    for member, sequences, steps, evaluator, metric, value, error in rows:
        i = curves["sequences"].tolist().index(sequences)
        assert steps == sequences // 16
        name = "train_loss" if metric == "training_loss" else f"{evaluator}/{metric}"
        np.testing.assert_equal(value, float(curves[name][member, i]))
        known = np.nan if name == "train_loss" else float(curves[f"{name}/error"][member, i])
        np.testing.assert_equal(error, known)
    assert not list(tmp_path.glob(".tmp*"))


def test_rows_are_sorted(run):
    keys = [row[:2] for row in tidy_rows(run)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("xlsx", "table", "format = 'xlsx': must be one of csv, json, parquet"),
        ("csv", "nowhere/table.csv", "does not exist"),
        ("csv", "folder", "is a folder"),
    ],
)
def test_what_cannot_be_written_is_told_and_nothing_is(run, tmp_path, kind, name, says):
    (tmp_path / "folder").mkdir()
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        export(run, kind, tmp_path / name)
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert contents(tmp_path) == before
