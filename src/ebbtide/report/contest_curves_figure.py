"""The figure of a contest on one split: what members did in every cell, and what theories predicted of it."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from ebbtide.report.arms_figure import COLOURS, DASHES
from ebbtide.report.curves import draw_each
from ebbtide.report.figure import render

MOST_PANELS = 12
"""Largest number of cells that are drawn; of more, as many at even distances."""
WIDE = 4
"""Panels side by side."""


class Prediction(NamedTuple):
    """A theory's generalising fraction over time, and the ends of its interval."""

    theory: str
    fraction: Float[np.ndarray, " time"]
    low: Float[np.ndarray, " time"]
    high: Float[np.ndarray, " time"]


class CellPanel(NamedTuple):
    """A cell: its name, its times in sequences, the generalising fraction of its members, which times were fitted, and
    predictions where it was scored."""

    name: str
    sequences: Num[np.ndarray, " time"]
    members: Float[np.ndarray, "member time"]
    fitted: Bool[np.ndarray, " time"]
    predictions: list[Prediction]


def contest_figure(title: str, cells: list[CellPanel], theories: list[str]) -> dict[str, bytes]:
    """PNG and SVG by their kind: a panel for every cell with the generalising fraction against sequences. Thin lines
    are members, the thick grey one their mean, the shaded times were fitted; coloured lines are predictions, with the
    middle 90 % of those that were fitted to resampled members. `theories` are in the order of the legend."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = cells
    if len(cells) > MOST_PANELS:
        shown = [cells[i] for i in np.unique(np.linspace(0, len(cells) - 1, MOST_PANELS).round().astype(int))]
    wide = min(len(shown), WIDE)
    high = -(-len(shown) // wide)
    figure = Figure(figsize=(2.6 * wide + 2.2, 2.1 * high + 0.9), layout="constrained")
    axes: Any = figure.subplots(high, wide, squeeze=False, sharey=True)
    style = {
        name: {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i // len(COLOURS) % len(DASHES)]}
        for i, name in enumerate(theories)
    }
    for panel, cell in zip(axes.flat, shown, strict=False):
        _draw(panel, cell, style)
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    handles: list[Any] = [Line2D([], [], color="0.35", lw=2.2, label="measured mean")]
    handles += [Line2D([], [], lw=1.5, label="\n".join(textwrap.wrap(name, 22)), **style[name]) for name in theories]
    handles.append(Patch(color="0.93", label="fitted"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8, handlelength=2.4)
    figure.supxlabel("sequences (per member)", fontsize=9)
    figure.supylabel("generalising fraction", fontsize=9)
    left = f"; {len(shown)} of {len(cells)} cells" if len(shown) < len(cells) else ""
    figure.suptitle(f"{title}{left}\nthin: members; bands: middle 90 % of refits to resampled members", fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def _draw(panel: Any, cell: CellPanel, style: dict[str, dict[str, Any]]) -> None:
    x = np.asarray(cell.sequences, np.float64)
    panel.set_xscale("log")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], cell.fitted.astype(int), [0]])))
    for first, last in zip(edges[::2], edges[1::2] - 1, strict=True):
        panel.axvspan(x[first], x[last], color="0.93", lw=0, zorder=0)
    draw_each(panel, x, cell.members, "0.55")
    if len(cell.members):
        panel.plot(x, cell.members.mean(axis=0), color="0.35", lw=2.2)
    for one in cell.predictions:
        panel.fill_between(x, one.low, one.high, color=style[one.theory]["color"], alpha=0.12, lw=0)
        panel.plot(x, one.fraction, lw=1.3, **style[one.theory])
    panel.set_ylim(-0.03, 1.03)
    panel.set_title("\n".join(textwrap.wrap(cell.name, 30)), loc="left", fontsize=8.5)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92", lw=0.6)
    panel.tick_params(labelsize=8)
