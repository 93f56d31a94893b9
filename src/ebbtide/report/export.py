"""The curves of a run as one tidy table."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.runs.atomic import write_file
from ebbtide.runs.folder import Run

COLUMNS = ("member", "sequences", "steps", "evaluator", "metric", "value", "error")
FORMATS = ("csv", "json", "parquet")


def tidy(run: Run) -> Iterator[tuple[Any, ...]]:
    """Rows (member, sequences, steps, evaluator, metric, value, standard error), in that order of
    sorting; the training loss is evaluator `train`, metric `training_loss`, without an error."""
    curves, sequences = run.metrics(), run.arrays()["sequences"]
    batch = run.header.spec["batch"]
    for member in range(curves["train_loss"].shape[0]):
        for i, count in enumerate(sequences.tolist()):
            at = (member, count, count // batch)
            loss = float(curves["train_loss"][member, i])
            yield (*at, "train", "training_loss", None if np.isnan(loss) else loss, None)
            for one in run.header.instruments:
                for metric in run.header.metrics:
                    name = f"{one.name}/{metric}"
                    value, error = curves[name][member, i], curves[f"{name}/error"][member, i]
                    yield (*at, one.name, metric, float(value), float(error))


def export(run: Run, kind: str, out: Path) -> int:
    """Writes the table as `kind` to `out` in one step; returns the number of rows.

    Raises `InputError` for an unknown format, or parquet without the `export` extra.
    """
    require(kind in FORMATS, "format", kind, f"must be one of {', '.join(FORMATS)}")
    require(out.parent.is_dir(), "out", str(out), f"the folder {out.parent} does not exist")
    require(not out.is_dir(), "out", str(out), "is a folder; give a file")
    rows = list(tidy(run))
    if kind == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
        data = text.getvalue().encode()
    elif kind == "json":
        data = msgspec.json.encode([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    else:
        data = _parquet(rows)
    write_file(out, data)
    return len(rows)


def _parquet(rows: list[tuple[Any, ...]]) -> bytes:
    try:
        import polars
    except ModuleNotFoundError as error:
        raise InputError("format", "parquet", "needs polars: pip install 'ebbtide[export]'") from error
    buffer = io.BytesIO()
    polars.DataFrame(rows, schema=list(COLUMNS), orient="row", infer_schema_length=None).write_parquet(buffer)
    return buffer.getvalue()
