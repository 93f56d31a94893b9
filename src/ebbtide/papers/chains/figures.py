"""Figures of study `chains`: distances to algorithms over training, and effects of changes."""

import textwrap
from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words, set_log
from ebbtide.report.figure import render
from ebbtide.report.functions_figure import Line


def draw_distances(title: str, algorithms: tuple[str, ...], panels: dict[str, dict[str, Line]]) -> bytes:
    """PNG with a panel for each arm and a line for each algorithm: KL(algorithm || model) over training, both axes
    logarithmic; the first checkpoint, at 0 sequences, is not shown. An algorithm has the colour of its place in
    `algorithms`, as in `report.phases_figure`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(panels) + 2.4, 3.3), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for panel, (arm, lines) in zip(axes.flat, panels.items(), strict=True):
        for name, (x, members) in lines.items():
            draw_members(
                panel, x[x > 0], members[:, x > 0], COLOURS[algorithms.index(name) % len(COLOURS)], name, log=True
            )
        set_log(panel, "x", "y")
        panel.set_title(arm, loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    axes.flat[0].set_ylabel("KL to the model (nats a symbol)", fontsize=9)
    figure.supxlabel("sequences (per member)", fontsize=9)
    drawn = [panel.get_legend_handles_labels() for panel in axes.flat]
    entries = {label: handle for handles, labels in drawn for handle, label in zip(handles, labels, strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside right center", frameon=False, fontsize=8)
    members = max((len(found) for lines in panels.values() for _, found in lines.values()), default=0)
    figure.suptitle(f"{title}: on chains of no pool\n{members_words(members)}", fontsize=9.5)
    return render(figure, "png")


def draw_effects(title: str, panels: dict[str, dict[str, Float[np.ndarray, " member"]]]) -> bytes:
    """PNG with a panel for each measure and a column for each change: the members, and their median as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), squeeze=False)
    for panel, (measure, columns) in zip(axes.flat, panels.items(), strict=True):
        for i, members in enumerate(columns.values()):
            colour = COLOURS[i // 2 % len(COLOURS)]
            apart = np.linspace(-0.12, 0.12, len(members))
            panel.plot(i + apart, members, "o", color=colour, alpha=0.6, markersize=4)
            middle = np.nanmedian(members) if np.isfinite(members).any() else np.nan
            panel.hlines(middle, i - 0.25, i + 0.25, color=colour, linewidth=2)
        panel.axhline(0, color="0.6", linewidth=0.8)
        panel.set_xticks(range(len(columns)), list(columns), fontsize=8)
        panel.set_title(textwrap.fill(measure, 44), loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    figure.suptitle(f"{title}\ndots: members; line: their median", fontsize=9.5)
    return render(figure, "png")
