"""Figures of function models: distances to predictors over training, paths of outputs, errors by context length."""

from typing import Any

import numpy as np
from jaxtyping import Float, Num

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, finite_to_the_end, members_words, set_log
from ebbtide.report.figure import render

DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles of exact predictors, all of them grey."""

Line = tuple[Num[np.ndarray, " x"], Float[np.ndarray, "member x"]]


def _style_panel(panel: Any, words: str) -> None:
    panel.set_title(words, loc="left", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92", lw=0.6)
    panel.tick_params(labelsize=8)


def distances_figure(title: str, unit: str, panels: dict[str, dict[str, Line]]) -> dict[str, bytes]:
    """A panel per predictor with a line per arm: the distance to the predictor over training, both axes logarithmic.
    The first checkpoint, at 0 sequences, is not shown."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(panels) + 1.8, 3.4), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for panel, (name, lines) in zip(axes.flat, panels.items(), strict=True):
        for i, (arm, (x, members)) in enumerate(lines.items()):
            draw_members(panel, x[x > 0], members[:, x > 0], COLOURS[i % len(COLOURS)], arm, log=True)
        set_log(panel, "x", "y")
        _style_panel(panel, name)
    axes.flat[0].set_ylabel(unit, fontsize=9)
    figure.supxlabel("sequences (per member)", fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    members = max((len(found) for lines in panels.values() for _, found in lines.values()), default=0)
    figure.suptitle(f"{title}\n{members_words(members)}", fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def layers_figure(title: str, panels: dict[str, dict[str, Float[np.ndarray, "member layer"]]]) -> dict[str, bytes]:
    """A panel per kind of token with a line per probe target: R^2 of a linear probe by layer, layer 0 being the
    embedding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(panels) + 1.6, 3.1), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    for panel, (kind, lines) in zip(axes.flat, panels.items(), strict=True):
        for name, members in lines.items():
            colour, layers = COLOURS[names.index(name) % len(COLOURS)], np.arange(members.shape[1])
            for member in members:
                panel.plot(layers, member, color=colour, lw=0.4, alpha=0.5)
            panel.plot(
                layers,
                np.median(finite_to_the_end(members), axis=0),
                color=colour,
                lw=1.8,
                marker="o",
                ms=3,
                label=name,
            )
        panel.set_ylim(-0.05, 1.05)
        panel.set_xticks(range(max(len(one[0]) for one in lines.values())))
        _style_panel(panel, kind)
    axes.flat[0].set_ylabel("R² on other prompts", fontsize=9)
    figure.supxlabel("layers passed (0: the embedding)", fontsize=9)
    drawn = [panel.get_legend_handles_labels() for panel in axes.flat]
    entries = {label: handle for handles, labels in drawn for handle, label in zip(handles, labels, strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(f"{title}: what a linear probe reads\nthin: members, thick: their median", fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def context_figure(
    title: str, unit: str, panels: dict[str, dict[str, Line]], exact: tuple[str, ...]
) -> dict[str, bytes]:
    """A panel per kind of prompt with a line per model (colours) and per baseline (`exact`: grey, dashed): the error by
    the number of preceding pairs, on a logarithmic axis."""
    from matplotlib.figure import Figure

    high = -(-len(panels) // 4)
    wide = -(-len(panels) // high)
    figure = Figure(figsize=(2.7 * wide + 2.0, 2.4 * high + 0.8), layout="constrained")
    axes: Any = figure.subplots(high, wide, squeeze=False)
    models = list(dict.fromkeys(name for lines in panels.values() for name in lines if name not in exact))
    looks: dict[str, tuple[str, Any]] = {name: (COLOURS[i % len(COLOURS)], "-") for i, name in enumerate(models)}
    looks |= {name: ("0.4", DASHES[i % len(DASHES)]) for i, name in enumerate(exact)}
    for panel, (kind, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, (x, members) in lines.items():
            draw_members(panel, x, members, looks[name][0], name, looks[name][1], log=True)
        set_log(panel, "y")
        _style_panel(panel, kind)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    figure.supxlabel("pairs in context", fontsize=9)
    figure.supylabel(unit, fontsize=9)
    found: dict[str, Any] = {}
    for panel in axes.flat[: len(panels)]:
        handles, labels = panel.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def paths_figure(
    title: str,
    paths: dict[str, Float[np.ndarray, "member time 2"]],
    marks: dict[str, Float[np.ndarray, " 2"]],
    shares: Any,
) -> dict[str, bytes]:
    """Paths of outputs in the plane of their two leading joint components, one colour per arm, with a disc at the end
    of each; `marks` are exact predictors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 4.8), layout="constrained")
    panel: Any = figure.subplots()
    for i, (arm, members) in enumerate(paths.items()):
        colour = COLOURS[i % len(COLOURS)]
        for m, path in enumerate(members):
            panel.plot(path[:, 0], path[:, 1], color=colour, lw=0.9, alpha=0.7, label=arm if m == 0 else None)
            panel.scatter(*path[-1], color=colour, s=22, zorder=3)
    for name, at in marks.items():
        panel.scatter(*at, marker="*", s=150, color="black", zorder=4)
        panel.annotate(name, at, xytext=(7, 5), textcoords="offset points", fontsize=8)
    for axis, share, name in zip((panel.xaxis, panel.yaxis), shares, ("first", "second"), strict=True):
        axis.set_label_text(f"{name} joint component ({share:.0%} of the variance)")
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(
        f"{title}\nlines: members through training, discs: their ends, stars: exact predictors", fontsize=9.5
    )
    return {kind: render(figure, kind) for kind in ("png", "svg")}
