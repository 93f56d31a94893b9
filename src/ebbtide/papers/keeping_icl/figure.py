"""The figure of study `keeping-icl`: what every method keeps of ICL, against what it costs."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.figure import render

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""One for every colour, so that methods are told apart without it."""


class Price(NamedTuple):
    """What a method changes of every member at the end of training, against the same member without a method."""

    icl: Float[np.ndarray, " member"]
    iwl: Float[np.ndarray, " member"]
    loss: Float[np.ndarray, " member"] | None
    """log10 of the training loss divided by that without a method; None where the training data are others."""


def draw_prices(title: str, prices: dict[str, Price]) -> bytes:
    """PNG with ICL kept against IWL paid, and against the training loss: small marks are members, large ones medians.
    Methods that keep ICL at no price are at the top left. One that changes the training data is left out of the second
    panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes: Any = figure.subplots(1, 2, sharey=True)
    words = ("IWL paid (accuracy below that without a method)", "training loss, times that without a method")
    for axis, label in zip(axes, words, strict=True):
        axis.axhline(0, color="0.6", lw=0.8)
        axis.axvline(0, color="0.6", lw=0.8)
        axis.set_xlabel(label, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for i, (name, price) in enumerate(prices.items()):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ls": "none"}
        for axis, x in zip(axes, (-price.iwl, price.loss), strict=True):
            if x is None:
                continue
            axis.plot(x, price.icl, alpha=0.45, ms=4, mew=0, **style)
            if np.isfinite(x).any():
                axis.plot(np.nanmedian(x), np.nanmedian(price.icl), ms=9, mec="white", label=name, **style)
    axes[1].xaxis.set_major_formatter(lambda value, _: f"{10**value:.3g}")
    axes[0].set_ylabel("ICL kept (accuracy above that without a method)", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    members = max((len(price.icl) for price in prices.values()), default=0)
    drawn = f"small marks: {members} members; large: their median"
    figure.suptitle(f"{title}: what every method keeps, and what it costs\n{drawn}", fontsize=9.5)
    return render(figure, "png")
