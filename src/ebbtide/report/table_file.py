"""One table in a file: csv, json or parquet, whole or not at all."""

import csv
import io
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import InputError, require
from ebbtide.runs.atomic import write_file

FORMATS = ("csv", "json", "parquet")


def check_file(out: Path) -> None:
    """Raises `InputError` unless a file can be put there."""
    require(out.parent.is_dir(), "out", str(out), f"the folder {out.parent} does not exist")
    require(not out.is_dir(), "out", str(out), "is a folder; give a file")


def write_table(out: Path, kind: str, columns: list[str], rows: list[dict[str, Any]]) -> int:
    """Writes the rows as `kind` to `out` in one step; returns their number. Equal rows give equal bytes.

    Raises `InputError` for an unknown format, or parquet without the extra `export`.
    """
    require(kind in FORMATS, "format", kind, f"must be one of {', '.join(FORMATS)}")
    check_file(out)
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    elif kind == "json":
        data = msgspec.json.encode([{name: row.get(name) for name in columns} for row in rows])
    else:
        buffer = io.BytesIO()
        as_frame(columns, rows).write_parquet(buffer)
        data = buffer.getvalue()
    write_file(out, data)
    return len(rows)


def as_frame(columns: list[str], rows: list[dict[str, Any]]) -> Any:
    """The rows as a polars data frame."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise InputError("format", "parquet", "needs polars: pip install 'ebbtide[export]'") from error
    cells = [tuple(row.get(name) for name in columns) for row in rows]
    return polars.DataFrame(cells, schema=columns, orient="row", infer_schema_length=None)
