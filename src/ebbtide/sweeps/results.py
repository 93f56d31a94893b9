"""The results of a sweep: one row a member, labelled arrays, and what its figures show."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.divergence import diverged_at
from ebbtide.evaluation.summary import Curves, summarise
from ebbtide.notebook import html_of
from ebbtide.report.export import curve_values
from ebbtide.report.figure_text import check_inches, plainly
from ebbtide.report.grid_figure import draw_curves_by, draw_phase
from ebbtide.report.table_file import as_frame, write_table
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.sweeps.axes import MEMBER
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.plan import group_unchecked
from ebbtide.sweeps.rows import SCALARS, Row
from ebbtide.sweeps.views import curves_by, phase
from ebbtide.traced import kind_name, value_at
from ebbtide.training.custom import Custom
from ebbtide.user_code import is_own


class Results:
    """The results of a sweep as they are on the disk now; reading never waits for a running driver.

    `rows` are in the order of the sweep's points, whatever tasks the members were trained in. A row's state is
    `finished`, `diverged` (finished, but the last evaluation is not finite), `unfinished`, `missing` (never begun),
    `quarantined` (its task failed too often) or `damaged`. A notebook shows the results as their section of
    `ebbtide report`.

    Args:
        path: the sweep's folder.

    Raises:
        InputError: the folder holds no sweep.

    >>> results = eb.Results("runs/rates")  # doctest: +SKIP
    >>> results.rows[0].axes, results.rows[0].state  # doctest: +SKIP
    ({'optimizer.lr': 0.001, 'seeds.member': 0}, 'finished')
    >>> eb.Results("runs/tiny")
    Traceback (most recent call last):
    ebbtide.errors.InputError: sweep = 'runs/tiny': ...
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Raises `InputError` when `path` holds no sweep, or one with many more points than were ever planned."""
        self.folder = SweepFolder(Path(path))
        self.folder.check_size()
        self.axes = self.folder.sweep.fields()
        self._curves: dict[str, Curves] = {}

    @cached_property
    def rows(self) -> list[Row]:
        """One row for every point of the sweep."""
        points = self.folder.sweep.points()
        found: list[Row | None] = [None] * len(points)
        summaries: dict[str, tuple[str, dict[str, np.ndarray]]] = {}
        for one in group_unchecked(self.folder.sweep, points):
            for row, address in zip(one.rows, one.addresses, strict=True):
                axes = {}
                for name in self.axes:
                    value = points[row].get(name, _value_at(one.spec, name))
                    axes[name] = float(value) if name in one.values and name != MEMBER else _plain(value)
                member = self.folder.members.get(address)
                if member is None:
                    found[row] = Row(axes, "missing", {}, None, 0)
                    continue
                if member.task not in summaries:
                    summaries[member.task] = self._summary(member.task)
                state, scalars = summaries[member.task]
                own = {name: float(values[member.place]) for name, values in scalars.items()}
                if state == "finished" and np.isfinite(own["diverged_sequences"]):
                    state = "diverged"
                found[row] = Row(axes, state, own, member.task, member.place)
        return [row for row in found if row is not None]

    def table(self) -> list[dict[str, Any]]:
        """The rows as plain dicts: axes, state, scalars (None where there is no number)."""
        return [
            {**row.axes, "state": row.state, **{name: _number(row.scalars.get(name, np.nan)) for name in SCALARS}}
            for row in self.rows
        ]

    def curve_table(self) -> Iterator[dict[str, Any]]:
        """Every evaluation of every finished member: axes, sequences, evaluator, metric, value, error."""
        for row in self.rows:
            if row.task is not None and row.state in ("finished", "diverged"):
                run = self.folder.run(row.task)
                assert run is not None
                for count, evaluator, metric, value, error in curve_values(run, row.place, self._metrics(row.task)):
                    found = {"sequences": count, "evaluator": evaluator, "metric": metric}
                    yield {**row.axes, **found, "value": value, "error": error}

    def write(self, out: Path, kind: str, *, curves: bool = False) -> int:
        """Writes the table (or the table of curves) as csv, parquet or json, completely or not at all; returns the
        number of rows."""
        columns = [*self.axes, "sequences", "evaluator", "metric", "value", "error"] if curves else self._columns()
        return write_table(out, kind, columns, list(self.curve_table() if curves else self.table()))

    def to_polars(self) -> Any:
        """The table as a polars data frame (needs the extra `export`)."""
        return as_frame(self._columns(), self.table())

    def to_xarray(self) -> Any:
        """The results with named axes, as an xarray data set (needs the extra `export`).

        Where the points are the full product of the axes' values, every axis is a dimension; otherwise there is one
        dimension `point` with the axes as coordinates. Variables: `state`, every scalar, and for every evaluator its
        headline metric as `curve_NAME` over `sequences` (also `curve_train_loss`), if all members share the schedule.
        """
        try:
            import xarray
        except ModuleNotFoundError as error:
            raise InputError("results", "xarray", "needs xarray: pip install 'ebbtide[export]'") from error
        levels = {name: list(dict.fromkeys(row.axes[name] for row in self.rows)) for name in self.axes}
        shape = [len(values) for values in levels.values()]
        product = len(self.rows) == np.prod(shape) and self._in_order(levels)
        dims, sizes = (list(levels), shape) if product else (["point"], [len(self.rows)])
        coords: dict[str, Any] = dict(levels)
        if not product:
            coords = {name: ("point", [row.axes[name] for row in self.rows]) for name in self.axes}
        data: dict[str, Any] = {"state": (dims, np.asarray([row.state for row in self.rows]).reshape(sizes))}
        for name in SCALARS:
            values = [row.scalars.get(name, np.nan) for row in self.rows]
            data[name] = (dims, np.asarray(values, np.float64).reshape(sizes))
        grid, curves = self._grid()
        for name, values in curves.items():
            data[f"curve_{name}"] = ([*dims, "sequences"], values.reshape([*sizes, len(grid)]))
        if curves:
            coords["sequences"] = grid
        return xarray.Dataset(data, coords, {"sweep": self.folder.sweep.name})

    def plot(
        self,
        y: str = "icl",
        *,
        by: str | None = None,
        split: str | None = None,
        where: dict[str, Any] | None = None,
        size: tuple[float, float] | None = None,
        title: str = "",
    ) -> Any:
        """A curve over training for every value of an axis, as a `matplotlib.figure.Figure`: the median over members
        with its 95 % interval, thin lines are members.

        Args:
            y: an evaluator (its headline metric) or `train_loss`.
            by: the axis whose values are the lines; None: the only one beside the seeds.
            split: an axis whose values are the panels.
            where: values of the other axes.
            size: (width, height) in inches; None: by the number of panels.
            title: a line above the figure.

        Raises:
            InputError: the sweep has no such axis, value or curve, an axis is left open, or no member has finished.

        >>> results = eb.Results("runs/rates")  # doctest: +SKIP
        >>> results.plot("icl", by="optimizer.lr").savefig("rates.png")  # doctest: +SKIP
        """
        check_inches(size)
        open_axes = [name for name in self.axes if name not in (MEMBER, split, *(where or {}))]
        allowed = f"must be one of the axes {', '.join(open_axes) or MEMBER}"
        require(by is not None or len(open_axes) == 1, "by", by, allowed)
        axis = by or open_axes[0]
        curves, chance = curves_by(self, y, axis, split, where), self.chance(y)
        how: dict[str, Any] = {"metric": y, "axis": axis, "split": split, "chance": chance, "size": size}
        return plainly(draw_curves_by(curves, title=title, **how))

    def plot_phase(
        self,
        value: str = "transience",
        *,
        x: str,
        y: str,
        where: dict[str, Any] | None = None,
        size: tuple[float, float] | None = None,
        title: str = "",
    ) -> Any:
        """The phase diagram of two axes as a `matplotlib.figure.Figure`: in each cell the mean of a scalar over the
        members that have finished, hatched where there is none.

        Args:
            value: a scalar, one of the columns of `table()`.
            x: the axis from left to right.
            y: the axis from bottom to top.
            where: values of the other axes.
            size: (width, height) in inches; None: by the number of cells.
            title: a line above the figure.

        Raises:
            InputError: the sweep has no such axis, value or scalar, or an axis is left open.

        >>> results = eb.Results("runs/rates")  # doctest: +SKIP
        >>> results.plot_phase("icl_final", x="optimizer.lr", y="model.width")  # doctest: +SKIP
        """
        check_inches(size)
        found = phase(self, x, y, value, where)
        return plainly(draw_phase(found, x=x, y=y, value=value, title=title, size=size))

    def _repr_html_(self) -> str:
        return html_of(self)

    def select(self, where: dict[str, Any]) -> list[Row]:
        """The rows whose axes have these values. Raises `InputError` for an unknown axis or value."""
        rows = self.rows
        for name, value in where.items():
            self.check_axis(name, "where")
            known = list(dict.fromkeys(row.axes[name] for row in self.rows))
            require(value in known, f"where.{name}", value, f"must be one of {', '.join(map(str, known))}")
            rows = [row for row in rows if row.axes[name] == value]
        return rows

    def check_axis(self, name: str, field: str) -> None:
        """Raises `InputError` unless the sweep has this axis."""
        require(
            name in self.axes, field, name, f"must be one of the axes {', '.join(self.axes)}{nearest(name, self.axes)}"
        )

    def metrics(self, row: Row) -> Curves | None:
        """The curves of a finished row (see `Run.metrics`), None for another row."""
        ended = row.task is not None and row.state in ("finished", "diverged")
        return self._metrics(row.task) if ended and row.task else None

    def chance(self, evaluator: str) -> float | None:
        """The chance level of an evaluator, where all finished runs agree on it; else None."""
        readable = dict.fromkeys(row.task for row in self.rows if row.task and row.state != "damaged")
        runs = [self.folder.run(task) for task in readable]
        levels = {run.chance().get(evaluator) for run in runs if run is not None}
        return levels.pop() if len(levels) == 1 else None

    def _columns(self) -> list[str]:
        return [*self.axes, "state", *SCALARS]

    def _summary(self, task: str) -> tuple[str, dict[str, np.ndarray]]:
        """The state of a task, and the scalars of its members."""
        try:
            state = self.folder.state(task)
            if state == "damaged":
                return state, {}
            if state != "done":
                begun = self.folder.run(task) is not None
                return state if state == "quarantined" else "unfinished" if begun else "missing", {}
            run = self.folder.run(task)
            assert run is not None
            curves = run.metrics()
            scalars = summarise(curves, run.chance()) | {"diverged_sequences": diverged_at(curves)}
        except (DamagedError, InputError, OSError):
            return "damaged", {}
        return "finished", scalars

    def _metrics(self, task: str) -> Curves:
        if task not in self._curves:
            run = self.folder.run(task)
            assert isinstance(run, RunFolder)
            self._curves[task] = run.metrics()
        return self._curves[task]

    def _grid(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The sequences at which all finished members were evaluated, and their headline curves [row, evaluation]."""
        found = [(i, row, curves) for i, row in enumerate(self.rows) if (curves := self.metrics(row)) is not None]
        if not found or len({curves["sequences"].tobytes() for _, _, curves in found}) > 1:
            return np.zeros(0, np.int64), {}
        grid = found[0][2]["sequences"]
        names = dict.fromkeys(name for _, _, c in found for name in c if "/" not in name)
        out = {
            name: np.full((len(self.rows), len(grid)), np.nan) for name in names if name not in ("sequences", "steps")
        }
        for i, row, curves in found:
            for name, values in out.items():
                if name in curves:
                    values[i] = curves[name][row.place]
        return grid, out

    def _in_order(self, levels: dict[str, list[Any]]) -> bool:
        """Whether the rows run through the levels in the order of a product, the last axis fastest."""
        places = [tuple(levels[name].index(row.axes[name]) for name in self.axes) for row in self.rows]
        return places == list(np.ndindex(*[len(values) for values in levels.values()]))


def load(path: str | os.PathLike[str]) -> Results:
    """The results in a sweep's folder.

    Args:
        path: the folder of a sweep, e.g. from `run_sweep`.

    Raises:
        InputError: the folder holds no sweep.

    >>> results = eb.load("runs/rates")  # doctest: +SKIP
    >>> results.to_xarray()["icl_peak"].mean("seeds.member")  # doctest: +SKIP
    """
    return Results(path)


def _value_at(spec: Any, name: str) -> Any:
    """The value of a field that a point does not set: the spec's own, None where its structs have no such field, or
    where it is unset."""
    try:
        value = value_at(spec, name)
    except AttributeError:
        return None
    return None if value is UNSET else value


def _plain(value: Any) -> Any:
    """A value as a table can hold it: numbers and text unchanged, a struct as its name, anything else as JSON."""
    import msgspec

    if isinstance(value, Custom) or (isinstance(value, dict) and value.get("type") == "custom"):
        return str(value.name if isinstance(value, Custom) else value.get("name"))
    if isinstance(value, msgspec.Struct) and is_own(type(value)):
        return type(value).__name__
    if isinstance(value, msgspec.Struct) and type(value).__struct_config__.tag is not None:
        return kind_name(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return msgspec.json.encode(value, order="sorted").decode()


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
