"""Parts of a sweep's results as arrays, for its figures."""

from typing import Any

import numpy as np

from ebbtide.errors import nearest, require
from ebbtide.report.grid_figure import Curve, Phase
from ebbtide.sweeps.axes import MEMBER
from ebbtide.sweeps.rows import SCALARS, Row, Rows


def phase(results: Rows, x: str, y: str, value: str, where: dict[str, Any] | None = None) -> Phase:
    """The mean over seeds of a scalar, over two axes; other axes must be fixed by `where`.

    Members that diverged or are not finished do not count. Raises `InputError` for an unknown axis, value or scalar.
    """
    for name, field in ((x, "x"), (y, "y")):
        results.check_axis(name, field)
    require(x != y, "y", y, "must be another axis than x")
    require(value in SCALARS, "value", value, f"must be one of {', '.join(SCALARS)}{nearest(value, SCALARS)}")
    rows = _select_rows(results, {x, y}, where or {})
    xs, ys = (_levels(rows, name) for name in (x, y))
    cells: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row.state == "finished" and np.isfinite(row.scalars[value]):
            cells.setdefault((ys.index(row.axes[y]), xs.index(row.axes[x])), []).append(row.scalars[value])
    mean, members = np.full((len(ys), len(xs)), np.nan), np.zeros((len(ys), len(xs)))
    for at, found in cells.items():
        mean[at], members[at] = np.mean(found), len(found)
    return Phase(xs, ys, mean, members)


def curves_by(
    results: Rows, metric: str, axis: str, split: str | None = None, where: dict[str, Any] | None = None
) -> list[Curve]:
    """An evaluator's headline metric (or `train_loss`) against sequences for every value of an axis, in panels by
    `split`; other axes must be fixed by `where`. Raises `InputError` for an unknown axis, value or metric."""
    for name, field in ((axis, "by"), *([(split, "split")] if split else [])):
        results.check_axis(name, field)
    require(axis != split, "split", split, "must be another axis than by")
    rows = _select_rows(results, {axis, split or axis}, where or {})
    found: dict[tuple[Any, Any], list[tuple[np.ndarray, np.ndarray]]] = {}
    names: dict[str, None] = {}
    for row in rows:
        curves = results.metrics(row)
        if curves is not None:
            names |= dict.fromkeys(name for name in curves if "/" not in name)
            if metric in curves:
                key = (row.axes[axis], row.axes[split] if split else None)
                found.setdefault(key, []).append((curves["sequences"], curves[metric][row.place]))
    known = [name for name in names if name not in ("sequences", "steps")]
    require(bool(names), "curve", metric, "no member has finished yet")
    require(metric in known, "curve", metric, f"must be one of {', '.join(known)}{nearest(metric, known)}")
    out = []
    for (value, panel), members in found.items():
        at = members[0][0]
        same = [curve for sequences, curve in members if np.array_equal(sequences, at)]
        out.append(Curve(value, panel, at.astype(float), np.stack(same).astype(float)))
    return out


def _select_rows(results: Rows, shown: set[str], where: dict[str, Any]) -> list[Row]:
    """The rows to show. Raises `InputError` where an axis other than seeds is neither shown nor fixed."""
    rows = results.select(where)
    for name in results.axes:
        free = name not in shown and name not in where and name != MEMBER
        values = _levels(rows, name)
        allowed = f"must fix this axis too, e.g. {name}={values[0]}"
        require(not free or len(values) == 1, "where", name, allowed)
    return rows


def _levels(rows: list[Row], name: str) -> list[Any]:
    values = list(dict.fromkeys(row.axes[name] for row in rows))
    return sorted(values) if all(isinstance(v, int | float) for v in values) else values
