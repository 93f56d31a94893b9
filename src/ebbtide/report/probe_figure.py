"""Figures of measures over training: heat maps of heads by time, and lines."""

import textwrap
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ebbtide.report.curves import NOTHING, finite_to_the_end
from ebbtide.report.figure import render

LIMITS: dict[str, tuple[float, float]] = {"accuracy": (0.0, 1.0)}
"""Range of the colours by unit; other units span smallest to largest value, symmetric about 0 if both signs occur."""


def rank_heads(
    values: Float[np.ndarray, "time member layer head"],
) -> tuple[Float[np.ndarray, "time member layer head"], Int[np.ndarray, "member layer head"]]:
    """The values with the heads of every member and layer sorted by their last value, largest first, and the original
    numbers of these heads. (Head 2 of one member has nothing to do with head 2 of another: their seeds differ.)"""
    order = np.argsort(-values[-1], axis=-1, kind="stable")
    return np.take_along_axis(values, order[None], axis=-1), order


def heads_figure(
    title: str, unit: str, sequences: np.ndarray, values: Float[np.ndarray, "time member layer head"]
) -> dict[str, bytes]:
    """A heat map per member: heads (rows, by layer, largest last value first) by time (columns)."""
    from matplotlib.figure import Figure

    values, order = rank_heads(values)
    times, members, layers, heads = values.shape
    shown = [i for i in range(layers) if np.isfinite(values[:, :, i]).any()] or list(range(layers))
    rows = len(shown) * heads
    across = min(members, 4)
    down = -(-members // across)
    size = (min(2.2 + 2.6 * across, 13), min(1.6 + down * (0.9 + 0.16 * rows), 12))
    figure = Figure(figsize=size, layout="constrained")
    panels: Any = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low, high = LIMITS.get(unit, (low, high))
    signed = low < 0 < high
    most = max(abs(low), abs(high))
    how = {"cmap": "PuOr", "vmin": -most, "vmax": most} if signed else {"cmap": "viridis", "vmin": low, "vmax": high}
    image = None
    for m, panel in enumerate(panels):
        if m >= members:
            panel.set_visible(False)
            continue
        grid = np.concatenate([values[:, m, i].T for i in shown])
        image = panel.imshow(grid, aspect="auto", interpolation="none", origin="upper", **how)
        panel.set_title(f"member {m}", fontsize=9, loc="left")
        if not np.isfinite(grid).any():
            panel.text(0.5, 0.5, NOTHING, transform=panel.transAxes, ha="center", va="center", fontsize=8, color="0.4")
        for k in range(1, len(shown)):
            panel.axhline(k * heads - 0.5, color="white", lw=1.5)
        places = np.unique(np.linspace(0, times - 1, min(4, times)).round().astype(int))
        panel.set_xticks(places, [_short(float(sequences[i])) for i in places], fontsize=7)
        names = [f"{i}:{h}" for i in shown for h in order[m, i]]
        step = 1 if rows <= 32 else 4
        panel.set_yticks(range(0, rows, step), names[::step], fontsize=6)
    for panel in panels[:members:across]:
        panel.set_ylabel("layer:head", fontsize=8)
    figure.supxlabel("sequences at the checkpoint", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=list(panels[:members]), label=unit, shrink=0.9)
    lead = "\n".join(textwrap.wrap(title, max(40, int(13 * size[0])), replace_whitespace=False))
    words = "of each layer the head with the largest value at the end first; numbers are the member's own"
    figure.suptitle(lead + "\n" + "\n".join(textwrap.wrap(words, max(40, int(13 * size[0])))), fontsize=9)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def lines_figure(
    title: str, unit: str, sequences: np.ndarray, lines: dict[str, Float[np.ndarray, "time member"]]
) -> dict[str, bytes]:
    """A line per name: the median over members, with thin lines for the members."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    panel: Any = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(lines)))
    for (name, values), colour in zip(lines.items(), colours, strict=True):
        panel.plot(sequences, values, color=colour, lw=0.5, alpha=0.35)
        panel.plot(sequences, np.median(finite_to_the_end(values.T), axis=0), color=colour, lw=2, label=name)
    panel.xaxis.set_major_formatter(lambda value, _: _short(value))
    panel.set_xlabel("sequences (per member)")
    panel.set_ylabel(unit)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92", lw=0.6)
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    if unit == "accuracy":
        panel.set_ylim(-0.03, 1.03)
    figure.suptitle(title, fontsize=10)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def plane_figure(title: str, sequences: np.ndarray, plane: Any) -> dict[str, bytes]:
    """A path per member (`mechanisms.linear.Plane`): colours are time, a ring is the start, a disc the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.8), layout="constrained")
    panel: Any = figure.subplots()
    scatter: Any = None
    for m, path in enumerate(plane.points):
        panel.plot(path[:, 0], path[:, 1], color="0.75", lw=0.8, zorder=1)
        scatter = panel.scatter(path[:, 0], path[:, 1], c=sequences, cmap="viridis", s=14, zorder=2)
        panel.scatter(*path[0], s=70, facecolors="none", edgecolors="black", zorder=3)
        panel.scatter(*path[-1], s=40, color="black", zorder=3)
        if np.isfinite(path[-1]).all():
            panel.annotate(str(m), path[-1], xytext=(5, 3), textcoords="offset points", fontsize=8)
    for axis, share, name in zip((panel.xaxis, panel.yaxis), plane.explained, ("first", "second"), strict=True):
        axis.set_label_text(f"{name} joint component ({share:.0%} of the variance)")
    panel.spines[["top", "right"]].set_visible(False)
    figure.colorbar(scatter, ax=panel, label="sequences", format=lambda value, _: _short(value))
    figure.suptitle(f"{title}\nring: start, disc: end, number: member", fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value / 1e6:.3g}M" if value >= 1e5 else f"{value / 1e3:.3g}k"
