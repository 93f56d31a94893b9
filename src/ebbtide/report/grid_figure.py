"""Figures of a sweep: a phase diagram over two axes, and curves by the value of an axis."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.report.curves import draw_each, fill_interval, finite_to_the_end, members_words, set_log
from ebbtide.report.figure import render

SIGNED = ("transience",)
"""Scalars for which 0 is a boundary: colours diverge from it."""
MOST_WRITTEN = 150
"""Largest number of cells of a phase diagram that show their value as text."""


class Phase(NamedTuple):
    """A scalar over two axes: the values along them, and in each cell [y, x] the mean over `members` members (nan where
    there is none)."""

    x: list[Any]
    y: list[Any]
    mean: Float[np.ndarray, "y x"]
    members: Float[np.ndarray, "y x"]


class Curve(NamedTuple):
    """An evaluator's curves [member, evaluation] for one value of an axis, in one panel."""

    value: Any
    panel: Any
    sequences: Float[np.ndarray, " evaluation"]
    members: Float[np.ndarray, "member evaluation"]


def phase_figure(phase: Phase, *, x: str, y: str, value: str, title: str) -> dict[str, bytes]:
    """figure.png and figure.svg: one cell per pair of values, hatched where no member ended with a finite number."""
    figure = draw_phase(phase, x=x, y=y, value=value, title=title)
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def draw_phase(phase: Phase, *, x: str, y: str, value: str, title: str, size: tuple[float, float] | None = None) -> Any:
    """The figure of `phase_figure` as a matplotlib object of `size` inches (None: by the number of cells)."""
    from ebbtide.report.shown_figure import ShownFigure

    wide, high = 2.2 + 0.75 * len(phase.x), 1.9 + 0.45 * len(phase.y)
    usual = (min(max(wide, 5.0), 14), min(max(high, 2.8), 12))
    figure = ShownFigure(figsize=size or usual, layout="constrained")
    panel: Any = figure.subplots()
    finite = phase.mean[np.isfinite(phase.mean)]
    low, top = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    most = max(abs(low), abs(top), 1e-9)
    limits = {"cmap": "PuOr", "vmin": -most, "vmax": most} if value in SIGNED else {"cmap": "viridis"}
    if value.split("_")[0] in ("icl", "iwl", "ciwl", "flip"):
        limits |= {"vmin": 0.0, "vmax": 1.0}
    image = panel.imshow(phase.mean, origin="lower", aspect="auto", interpolation="none", **limits)
    for i, j in np.ndindex(phase.mean.shape):
        if not np.isfinite(phase.mean[i, j]):
            panel.fill_between(
                [j - 0.5, j + 0.5], i - 0.5, i + 0.5, facecolor="0.95", hatch="///", edgecolor="0.7", lw=0
            )
        elif phase.mean.size <= MOST_WRITTEN:
            red, green, blue, _ = image.cmap(image.norm(phase.mean[i, j]))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            text = f"{phase.mean[i, j]:.2f}" if most < 100 else f"{phase.mean[i, j]:.2g}"
            panel.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    panel.set_xticks(range(len(phase.x)), [_written(one) for one in phase.x], rotation=0 if len(phase.x) < 9 else 60)
    panel.set_yticks(range(len(phase.y)), [_written(one) for one in phase.y])
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panel).set_label(_unit(value), fontsize=9)
    counts = sorted({int(n) for n in phase.members[np.isfinite(phase.mean)]})
    seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    missing = "; hatched: not trained, or diverged" if len(finite) < phase.mean.size else ""
    words = f"mean of {seeds} members a cell{missing}"
    figure.suptitle(f"{title}\n{words}" if title else words, fontsize=10)
    return figure


def curves_by_figure(
    curves: list[Curve], *, metric: str, axis: str, split: str | None, chance: float | None, title: str
) -> dict[str, bytes]:
    """figure.png and figure.svg: for every value of `axis` the median over members with its 95 % interval (thin lines
    are members), darker for larger values; one panel per value of `split`."""
    figure = draw_curves_by(curves, metric=metric, axis=axis, split=split, chance=chance, title=title)
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def draw_curves_by(
    curves: list[Curve],
    *,
    metric: str,
    axis: str,
    split: str | None,
    chance: float | None,
    title: str,
    size: tuple[float, float] | None = None,
) -> Any:
    """The figure of `curves_by_figure` as a matplotlib object of `size` inches (None: by the number of panels)."""
    from matplotlib import colormaps

    from ebbtide.report.shown_figure import ShownFigure

    panels = list(dict.fromkeys(one.panel for one in curves))
    values = _sort_values(list(dict.fromkeys(one.value for one in curves)))
    colours = {v: colormaps["viridis_r"](0.12 + 0.88 * i / max(len(values) - 1, 1)) for i, v in enumerate(values)}
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = ShownFigure(figsize=size or (2.6 + 2.9 * columns, 0.9 + 2.7 * rows), layout="constrained")
    grid: Any = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, name in zip(grid.flat, panels, strict=False):
        for one in sorted((c for c in curves if c.panel == name), key=lambda c: values.index(c.value)):
            colour = colours[one.value]
            draw_each(panel, one.sequences, one.members, colour, lw=0.5, alpha=0.45)
            members = finite_to_the_end(one.members)
            fill_interval(panel, one.sequences, members, colour)
            panel.plot(one.sequences, np.median(members, axis=0), color=colour, lw=1.8)
        if split is not None:
            panel.set_title(f"{split.rpartition('.')[2]} = {_written(name)}", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.92", lw=0.6)
        if chance is not None:
            panel.axhline(chance, color="0.5", lw=0.8, ls=":", zorder=0)
        if metric == "train_loss":
            set_log(panel, "y")
        else:
            panel.set_ylim(-0.03, 1.03)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M" if value else "0")
    for panel in list(grid.flat)[len(panels) :]:
        panel.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colours[v], lw=2, label=_written(v)) for v in values]
    if chance is not None:
        handles.append(Line2D([], [], color="0.5", lw=0.8, ls=":", label="chance"))
    figure.legend(handles=handles, title=axis, loc="outside right center", frameon=False, fontsize=8, title_fontsize=8)
    figure.supxlabel("sequences (per member)", fontsize=9)
    figure.supylabel("training loss (nats)" if metric == "train_loss" else f"{metric}, accuracy", fontsize=9)
    counts = sorted({len(one.members) for one in curves})
    seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    words = members_words(counts[-1], f"{seeds} members each")
    lost = sum(int((~np.isfinite(one.members[:, -1])).sum()) for one in curves) if metric != "train_loss" else 0
    words += f"\n{lost} members are not finite to the end: the median is that of the others" if lost else ""
    figure.suptitle(f"{title}\n{words}" if title else words, fontsize=10)
    return figure


def _written(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sort_values(values: list[Any]) -> list[Any]:
    """Numbers by size; other values in their given order."""
    return sorted(values) if all(isinstance(v, int | float) for v in values) else values


def _unit(value: str) -> str:
    words = {
        "transience": "transience: ICL peak - ICL at the end",
        "train_loss_final": "training loss at the end (nats)",
    }
    if value.endswith("_sequences"):
        return f"{value.removesuffix('_sequences').replace('_', ' ')} (sequences)"
    return words.get(value, value.replace("_", " "))
