"""Figures of study `bounded-cfg`: accuracy by depth, and valid next symbols over training."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words, set_log
from ebbtide.report.figure import render
from ebbtide.report.functions_figure import Line


def draw_depths(
    title: str,
    cells: dict[str, Float[np.ndarray, "member depth"]],
    stacks: dict[str, Float[np.ndarray, "member depths"]],
    causal: tuple[Float[np.ndarray, " depth"], Float[np.ndarray, " depths"]],
    dashed: str,
) -> bytes:
    """PNG with two panels: accuracy on the cells of the stack that are not empty, by their place from the bottom, and
    share of exact stacks, by the number of symbols on them; a line for each arm, dashed where its name has `dashed` in
    it, in one colour for arms of one model, whose name comes before the comma. `causal` has the
    same for the most probable values given the symbols up to the slot, dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    axes: Any = figure.subplots(1, 2, sharey=True)
    models = list(dict.fromkeys(arm.partition(",")[0] for arm in cells))
    members = max((len(one) for one in cells.values()), default=0)
    for panel, found, ceiling, first in ((axes[0], cells, causal[0], 1), (axes[1], stacks, causal[1], 0)):
        for arm, values in found.items():
            x = np.arange(first, first + values.shape[1])
            colour = COLOURS[models.index(arm.partition(",")[0]) % len(COLOURS)]
            draw_members(panel, x, values, colour, arm, style="--" if dashed in arm else "-")
        panel.plot(np.arange(first, first + len(ceiling)), ceiling, color="0.3", lw=1.2, ls=":", label="exact, causal")
        panel.set_xticks(np.arange(first, first + len(ceiling)))
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    axes[0].set_title("cells that are not empty", loc="left", fontsize=9)
    axes[0].set_xlabel("place from the bottom of the stack", fontsize=9)
    axes[0].set_ylabel("share of right answers", fontsize=9)
    axes[1].set_title("whole stacks", loc="left", fontsize=9)
    axes[1].set_xlabel("symbols on the stack", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(f"{title}: on held-out words\n{members_words(members)}", fontsize=9.5)
    return render(figure, "png")


def draw_pairings(title: str, panels: dict[str, dict[str, Line]]) -> bytes:
    """PNG with a panel for each arm: share of slots whose most probable next symbol is a valid one, over training, on
    held-out words, a line for each kind of pairings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * len(panels) + 2.2, 3.3), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for panel, (arm, lines) in zip(axes.flat, panels.items(), strict=True):
        for i, (name, (x, members)) in enumerate(lines.items()):
            draw_members(panel, x[x > 0], members[:, x > 0], COLOURS[i], name)
        set_log(panel, "x")
        panel.set_title(arm, loc="left", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    axes.flat[0].set_ylabel("share of valid answers", fontsize=9)
    figure.supxlabel("sequences (per member)", fontsize=9)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    members = max((len(found) for lines in panels.values() for _, found in lines.values()), default=0)
    figure.suptitle(f"{title}: on held-out words\n{members_words(members)}", fontsize=9.5)
    return render(figure, "png")
