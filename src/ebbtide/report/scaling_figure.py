"""Figures of quantities by size: members as thin lines, their median as points, theory in grey."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.evaluation.statistics import median_interval
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import finite_to_the_end, set_log
from ebbtide.report.figure import render
from ebbtide.report.functions_figure import DASHES


class Panel(NamedTuple):
    """Quantities of every member at every size, and reference curves; sizes are drawn on a logarithmic axis."""

    size: str
    unit: str
    sizes: Int[np.ndarray, " size"]
    members: dict[str, Float[np.ndarray, "member size"]]
    exact: dict[str, Float[np.ndarray, " size"]]
    log: bool = False


def scaling_figure(title: str, panels: list[Panel]) -> dict[str, bytes]:
    """One plot per panel, with a legend below it. On a logarithmic axis a size at which a member is not above 0 is not
    shown."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 4.4), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=True):
        for i, (name, members) in enumerate(panel.members.items()):
            members = finite_to_the_end(members)
            there = (members > 0).all(0) | (not panel.log)
            axis.plot(panel.sizes, np.where(there, members, np.nan).T, color=COLOURS[i], lw=0.5, alpha=0.5)
            low, high = median_interval(members)
            median = np.where(there, np.median(members, axis=0), np.nan)
            bars = np.abs(np.stack([median - low, high - median]))
            axis.errorbar(panel.sizes, median, bars, color=COLOURS[i], lw=1.8, marker="o", ms=4, capsize=3, label=name)
        for dash, (name, line) in zip(DASHES, panel.exact.items(), strict=False):
            axis.plot(panel.sizes, line, color="0.4", lw=1.4, ls=dash, label=name)
        axis.set_xscale("log")
        axis.set_xticks(panel.sizes, [f"{size:,}" for size in panel.sizes])
        axis.minorticks_off()
        if panel.log:
            set_log(axis, "y")
        axis.set_xlabel(panel.size, fontsize=9)
        axis.set_ylabel(panel.unit, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92", lw=0.6)
        axis.tick_params(labelsize=8)
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    figure.suptitle(f"{title}\nthin: members, points: their median and its 95 % interval", fontsize=9.5)
    return {kind: render(figure, kind) for kind in ("png", "svg")}
