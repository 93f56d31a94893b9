"""Figures that compare predictors on the same prompts: bars of errors, and points in the plane of two errors."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.figure import render

Bar = tuple[float, float, float]
"""A mean and the ends of its interval."""


class Contest(NamedTuple):
    """One panel: the unit of the error, the model's members, and a bar for every other predictor by name."""

    unit: str
    members: Float[np.ndarray, " member"]
    others: dict[str, Bar]


def bars_figure(title: str, contests: dict[str, Contest], *, one_scale: bool = False) -> dict[str, bytes]:
    """A panel for every kind of prompt: a bar for the mean of the model's members, a dot for each member, and for every
    other predictor a bar with its interval over prompts. Bars above the constant predictor's error 1 are cut.

    `one_scale` is for panels that are compared with each other (models on the same prompts): they share one vertical
    axis, and every bar has its value above it."""
    from matplotlib.figure import Figure

    width = max(2.7 * len(contests) + 0.6, 6.0)  # the title needs it
    figure = Figure(figsize=(width, 3.3), layout="constrained")
    axes: Any = figure.subplots(1, max(len(contests), 1), squeeze=False, sharey=one_scale)
    tops = [_tops(contest) for contest in contests.values()]
    highest = max((value for row in tops for value in row if np.isfinite(value)), default=0.0)
    for panel, top, (kind, contest) in zip(axes.flat, tops, contests.items(), strict=False):
        names = ["transformer", *contest.others]
        finished = contest.members[np.isfinite(contest.members)]
        heights = [finished.mean() if len(finished) else np.nan, *(bar[0] for bar in contest.others.values())]
        colours = [COLOURS[0], *["0.72"] * len(contest.others)]
        panel.bar(range(len(names)), heights, color=colours, width=0.7)
        panel.scatter(np.linspace(-0.2, 0.2, len(finished)), finished, color="black", s=7, zorder=3)
        for i, (mean, low, high) in enumerate(contest.others.values(), start=1):
            panel.errorbar(i, mean, [[mean - low], [high - mean]], color="0.3", lw=1, capsize=2)
        own = max((value for value in top if np.isfinite(value)), default=0.0)
        limit = min(1.0, 1.08 * max(highest if one_scale else own, 1e-6))
        panel.set_ylim(0, limit)
        if one_scale:
            for i, (height, at) in enumerate(zip(heights, top, strict=True)):
                if np.isfinite(height):
                    panel.text(i, min(at + 0.015 * limit, limit), f"{height:.2g}", ha="center", va="bottom", fontsize=8)
        panel.set_xticks(range(len(names)), names, rotation=55, ha="right", fontsize=7.5)
        if not one_scale or panel is axes.flat[0]:
            panel.set_ylabel(contest.unit, fontsize=8)
        _style_panel(panel, kind)
    for panel in axes.flat[len(contests) :]:
        panel.set_visible(False)
    words = "dots: members; grey: predictors on the same prompts, 95 % bootstrap over prompts"
    figure.suptitle(f"{title}\n{words}", fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def frontier_figure(
    title: str,
    axes_say: tuple[str, str],
    curves: dict[str, Float[np.ndarray, "penalty 2"]],
    points: dict[str, Float[np.ndarray, "member 2"]],
    marks: dict[str, Float[np.ndarray, " 2"]],
) -> dict[str, bytes]:
    """Families of predictors as curves in the plane of two errors, with a dot for every member of every arm, and black
    marks for two exact predictors. The axes end soon after these, while a curve may go on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    panel: Any = figure.subplots()
    for name, curve in curves.items():
        panel.plot(curve[:, 0], curve[:, 1], color="0.45", lw=1.6, label=name)
    for i, (arm, members) in enumerate(points.items()):
        panel.scatter(members[:, 0], members[:, 1], color=COLOURS[i % len(COLOURS)], s=24, zorder=3, label=arm)
    for shape, (name, at) in zip("*X", marks.items(), strict=False):
        panel.scatter(*at, marker=shape, s=110, color="black", zorder=4, label=name)
    kept = np.concatenate([*points.values(), *[at[None] for at in marks.values()]])
    kept = kept[np.isfinite(kept).all(1)]
    kept = kept if len(kept) > 1 else np.concatenate([kept, *curves.values()])
    for low, high, set_limits in zip(kept.min(0), kept.max(0), (panel.set_xlim, panel.set_ylim), strict=True):
        room = 0.15 * (high - low) or 1.0
        set_limits(low - room, high + room)
    panel.set_xlabel(axes_say[0])
    panel.set_ylabel(axes_say[1])
    _style_panel(panel, "")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}


def _tops(contest: Contest) -> list[float]:
    """The highest value that is drawn for the model (nan without a finished member) and for each other predictor."""
    finished = contest.members[np.isfinite(contest.members)]
    return [finished.max() if len(finished) else np.nan, *(bar[2] for bar in contest.others.values())]


def _style_panel(panel: Any, words: str) -> None:
    panel.set_title(words, loc="left", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92", lw=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", labelsize=8)
