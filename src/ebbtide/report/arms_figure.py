"""The figure of an experiment: one panel per evaluator, one colour per arm."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.report.curves import draw_each, fill_interval, finite_to_the_end, members_words, set_log
from ebbtide.report.figure import render

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, safe for the colour-blind; from the eighth arm on they repeat with another dash."""
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
TITLES = {
    "icl": "ICL (labels 0/1)",
    "icl_holdout": "ICL, held-out classes",
    "icl_pairs": "ICL, held-out pairs of labels",
    "icl_common": "ICL, common classes",
    "icl_rare": "ICL, rare classes",
    "icl_no_copy": "ICL, query not in the context",
    "flip_no_copy": "Flip, query not in the context",
    "iwl": "IWL",
    "iwl_common": "IWL, common classes",
    "iwl_rare": "IWL, rare classes",
    "ciwl": "CIWL",
    "flip": "Flip",
    "train": "training distribution",
    "train_loss": "training loss (nats)",
    "prior": "drawn anew, never trained",
}


class Panel(NamedTuple):
    """An evaluator: for every arm its sequences and curves [member, evaluation]; the chance level."""

    name: str
    lines: dict[str, tuple[Float[np.ndarray, " evaluation"], Float[np.ndarray, "member evaluation"]]]
    chance: float | None


def arms_figure(panels: list[Panel], arms: list[str], title: str, unit: str = "accuracy") -> dict[str, bytes]:
    """figure.png and figure.svg: thin lines are members, thick lines their median, bands its 95 % interval. `unit` is
    the unit of the evaluators, between 0 and 1."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    wide = 2 if len(panels) == 4 else min(len(panels), 3)
    high = -(-len(panels) // wide)
    figure = Figure(figsize=(3.1 * wide + 2.3, 2.55 * high + 0.9), layout="constrained")
    axes: Any = figure.subplots(high, wide, squeeze=False)
    style = {
        arm: {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i // len(COLOURS) % len(DASHES)]}
        for i, arm in enumerate(arms)
    }
    for panel, axis in zip(panels, axes.flat, strict=False):
        for arm, (x, members) in panel.lines.items():
            _draw(axis, x, members, style[arm], log=panel.name == "train_loss")
        if panel.name == "train_loss":
            set_log(axis, "y")
        else:
            axis.set_ylim(-0.03, 1.03)
        if panel.chance is not None:
            axis.axhline(panel.chance, color="0.5", lw=0.8, ls=":", zorder=0)
        words = TITLES.get(panel.name, panel.name)
        squared = panel.name == "train_loss" and unit != "accuracy"
        axis.set_title("training loss" if squared else words, loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92", lw=0.6)
        axis.locator_params(axis="x", nbins=6)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M" if value else "0")
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [Line2D([], [], lw=2, label="\n".join(textwrap.wrap(arm, 26)), **style[arm]) for arm in arms]
    handles.append(Line2D([], [], color="0.5", lw=0.8, ls=":", label="chance"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8, handlelength=2.6)
    figure.supxlabel("sequences (per member)", fontsize=9)
    figure.supylabel(unit, fontsize=9)
    counts = {len(members) for panel in panels for _, members in panel.lines.values()}
    words = "\n".join(textwrap.wrap(title, 34 * wide + 16))
    lost = _not_finite(panels)
    more = f"\n{lost} members are not finite to the end: drawn as far as they are, the median is that of the others"
    most = max(counts, default=0)
    drawn = members_words(most, f"{most:,} members an arm")
    figure.suptitle(f"{words}\n{drawn}" + (more if lost else ""), fontsize=9.5)
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def _not_finite(panels: list[Panel]) -> int:
    """The number of members, over all arms, whose evaluator is not finite at the end: they diverged or have not
    finished."""
    lost = [
        {(arm, m) for arm, (_, members) in panel.lines.items() for m in np.flatnonzero(~np.isfinite(members[:, -1]))}
        for panel in panels
        if panel.name != "train_loss"  # of a member that stopped early there is none at the end
    ]
    return len(set[tuple[str, int]]().union(*lost))


def _draw(axis: Any, x: np.ndarray, members: np.ndarray, style: dict[str, Any], *, log: bool) -> None:
    """Draws members, and median and interval of those that are finite to the end; on a logarithmic axis, of their
    logarithms."""
    draw_each(axis, x, members, style["color"], lw=0.5)
    there, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    finite = finite_to_the_end(there(np.where(members > 0, members, np.nan)) if log else members)
    if not np.isfinite(finite).any():
        return
    fill_interval(axis, x, finite, style["color"], log)
    axis.plot(x, back(np.median(finite, axis=0)), lw=1.8, **style)
