"""Figure of study `urns`: the way from counts to memory over training, and when it is half done."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words
from ebbtide.report.figure import render
from ebbtide.report.functions_figure import Line


def draw_relative(
    title: str, lines: dict[str, Line], pools: list[int], turns: Float[np.ndarray, "pool member"], end: float
) -> bytes:
    """PNG. Left: relative distance over training, a colour for each arm. Right: turn times by the number of urns, a dot
    for each member; a triangle is a number of members that have not turned at the end. A dashed line has the slope 1.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    axes: Any = figure.subplots(1, 2, width_ratios=(1.3, 1))
    for i, (arm, (x, members)) in enumerate(lines.items()):
        draw_members(axes[0], x, members, COLOURS[i % len(COLOURS)], arm)
    axes[0].axhline(0.5, color="0.6", lw=0.8)
    axes[0].set_xscale("log")
    axes[0].set_ylim(-0.03, 1.03)
    axes[0].set_xlabel("sequences (per member)", fontsize=9)
    axes[0].set_ylabel("relative distance (0: counts, 1: memory)", fontsize=9)
    axes[0].legend(frameon=False, fontsize=8)
    for i, (pool, own) in enumerate(zip(pools, turns, strict=True)):
        seen, never = own[np.isfinite(own) & (own > 0)], int(np.isinf(own).sum())
        spread = pool * np.exp(np.linspace(-0.06, 0.06, len(seen))) if len(seen) > 1 else np.full(len(seen), pool)
        axes[1].plot(spread, np.sort(seen), "o", color=COLOURS[i % len(COLOURS)], ms=4, alpha=0.7)
        if never:
            axes[1].plot([pool], [end], "^", color=COLOURS[i % len(COLOURS)], ms=7)
            axes[1].annotate(f"{never}", (pool, end), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    middle = [(pool, float(np.median(own))) for pool, own in zip(pools, turns, strict=True) if _all_seen(own)]
    if middle:
        through = np.asarray([pools[0], pools[-1]], float)
        axes[1].plot(through, middle[0][1] * through / middle[0][0], "--", color="0.6", lw=1, label="slope 1")
        axes[1].legend(frameon=False, fontsize=8)
    axes[1].set_xscale("log", base=2)
    axes[1].set_yscale("log")
    axes[1].set_xlabel("urns in the pool", fontsize=9)
    axes[1].set_ylabel("sequences at the turn", fontsize=9)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    members = max((len(found) for _, found in lines.values()), default=0)
    words = f"{members_words(members)}; dots: members; triangles: how many had not turned at the end"
    figure.suptitle(f"{title}: from counts to memory, on urns of no pool\n{words}", fontsize=9)
    return render(figure, "png")


def _all_seen(times: Float[np.ndarray, " member"]) -> bool:
    return bool((np.isfinite(times) & (times > 0)).all()) and len(times) > 0
