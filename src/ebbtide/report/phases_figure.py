"""The phase diagram: which of several exact predictors a model is nearest to, by arm and by training."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.figure import render


def draw_phases(
    title: str,
    algorithms: tuple[str, ...],
    arms: tuple[str, ...],
    sequences: Num[np.ndarray, " time"],
    nearest: Int[np.ndarray, "arm time"],
    share: Float[np.ndarray, "arm time"],
    subtitle: str,
) -> bytes:
    """PNG of the phase diagram: for each arm (from below) and time the number in `algorithms` of the one that is
    nearest in most members, paler where fewer agree (`share`, from 0 to 1); `subtitle` says on which prompts."""
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = np.asarray([to_rgb(COLOURS[i % len(COLOURS)]) for i in range(len(algorithms))])
    cells = 1 - share[..., None] * (1 - colours[nearest])
    figure = Figure(figsize=(7.6, 0.5 * len(arms) + 1.7), layout="constrained")
    panel: Any = figure.subplots()
    panel.imshow(cells, origin="lower", aspect="auto", interpolation="none")
    ticks = np.unique(np.linspace(0, len(sequences) - 1, 8).astype(int))
    panel.set_xticks(ticks, [f"{sequences[i]:,.0f}" for i in ticks], fontsize=8)
    panel.set_yticks(range(len(arms)), arms, fontsize=8)
    panel.set_xlabel("sequences (per member)", fontsize=9)
    panel.spines[:].set_visible(False)
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, algorithms, strict=True)]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(f"{title}: {subtitle}\npaler: fewer members agree", fontsize=9.5)
    return render(figure, "png")
