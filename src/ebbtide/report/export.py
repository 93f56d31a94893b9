"""The curves of a run as one tidy table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ebbtide.errors import require
from ebbtide.report.table_file import FORMATS as TABLES
from ebbtide.report.table_file import write_table
from ebbtide.runs.folder import RunFolder

COLUMNS = ("member", "sequences", "steps", "evaluator", "metric", "value", "error")
FORMATS = (*TABLES, "hdf5")


def tidy_rows(run: RunFolder) -> Iterator[tuple[Any, ...]]:
    """Rows (member, sequences, steps, evaluator, metric, value, standard error), sorted in this order."""
    curves, batch = run.metrics(), run.header.spec["batch"]
    for member in range(curves["train_loss"].shape[0]):
        for count, *rest in curve_values(run, member, curves):
            yield (member, count, count // batch, *rest)


def curve_values(run: RunFolder, member: int, curves: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """A member's (sequences, evaluator, metric, value, standard error), sorted by sequences; `curves` are
    `run.metrics()`. The training loss has the evaluator `train`, the metric `training_loss`, and no error."""
    for i, count in enumerate(curves["sequences"].tolist()):
        loss = float(curves["train_loss"][member, i])
        yield (count, "train", "training_loss", None if np.isnan(loss) else loss, None)
        for one in run.header.instruments:
            for metric in run.header.metrics:
                name = f"{one.name}/{metric}"
                value, error = curves[name][member, i], curves[f"{name}/error"][member, i]
                yield (count, one.name, metric, float(value), float(error))


def export(run: RunFolder, kind: str, out: Path) -> int:
    """Writes the curves as `kind` to `out`, completely or not at all; returns the number of rows.

    csv, json and parquet are one file; hdf5 is a folder in the layout of the public code (see `hdf5`). Raises
    `InputError` for an unknown format, or one whose extra is not installed.
    """
    require(kind in FORMATS, "format", kind, f"must be one of {', '.join(FORMATS)}")
    if kind == "hdf5":
        from ebbtide.report.hdf5 import write_hdf5

        return write_hdf5(run, out)
    return write_table(out, kind, list(COLUMNS), [dict(zip(COLUMNS, row, strict=True)) for row in tidy_rows(run)])
