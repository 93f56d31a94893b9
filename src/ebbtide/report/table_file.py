"""One table in a file: csv, json or parquet."""

import csv
import io
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import InputError, require
from ebbtide.runs.output import check_output, write_output

FORMATS = ("csv", "json", "parquet")


def write_table(out: Path, kind: str, columns: list[str], rows: list[dict[str, Any]]) -> int:
    """Writes the rows as `kind` to `out` (see `write_output`); returns their number. Equal rows give equal bytes.

    Raises `InputError` for an unknown format, or parquet without the extra `export`.
    """
    require(kind in FORMATS, "format", kind, f"must be one of {', '.join(FORMATS)}")
    check_output(out)
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
    write_output(out, data)
    return len(rows)


def as_frame(columns: list[str], rows: list[dict[str, Any]]) -> Any:
    """The rows as a polars data frame."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise InputError("format", "parquet", "needs polars: pip install 'ebbtide[export]'") from error
    cells = [tuple(row.get(name) for name in columns) for row in rows]
    return polars.DataFrame(cells, schema=columns, orient="row", infer_schema_length=None)
