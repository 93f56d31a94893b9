"""The figure of the study `toy-laws`: losses of three laws, with parts of each fixed at their targets."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ebbtide.report.arms_figure import COLOURS, DASHES
from ebbtide.report.figure import render

GIVEN = {
    "none": "nothing given",
    "first": "attention of layer 1 given",
    "read": "classifier given",
    "first and read": "both given",
}
SETTLED = 0.01
"""Share of the training after which random initial values have decayed; it scales the lower panels."""


def laws_figure(
    curves: Mapping[str, np.ndarray],
    product: Iterable[str],
    competition: Mapping[str, str],
    nested: Iterable[str],
    seeds: int,
    shown: int,
) -> dict[str, bytes]:
    """figure.png and figure.svg. Upper row: products and nested logits, thin lines are seeds, thick lines their median.
    Lower row: the two mechanisms of the competition for the one seed `shown`, with unequal and equal limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.2, 7.4), layout="constrained")
    (one, two), (three, four) = figure.subplots(2, 2)  # pyright: ignore[reportGeneralTypeIssues]
    _family(one, curves, "product", product)
    one.set_title("A  product a × b × c fitted to a target: what is given", loc="left", fontsize=9.5)
    one.set_ylabel("loss / loss of a zero product", fontsize=9)
    _family(two, curves, "nested", nested)
    two.set_title("B  induction head as three nested logits: what is given", loc="left", fontsize=9.5)
    two.set_ylabel("loss / log(labels in context)", fontsize=9)
    for axis, (arm, words), letter in zip((three, four), competition.items(), "CD", strict=True):
        _competition(axis, curves, arm, shown)
        left = int((curves[f"competition/{arm}/L1"].min(axis=1) < 0.5).sum())
        title = f"{letter}  two mechanisms that share b and c, {words}"
        title += f"\n    one seed; mechanism 1 is learned in {left} of {seeds} seeds"
        axis.set_title(title, loc="left", fontsize=9.5)
    for axis in (one, two, three, four):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92", lw=0.6)
        axis.tick_params(labelsize=8)
        axis.set_xlabel("steps of gradient descent", fontsize=9)
        axis.axhline(1, color="0.5", lw=0.8, ls=":", zorder=0)
    figure.suptitle(
        f"Toy laws: plateaus, sudden falls, and a mechanism that is learned and lost again ({seeds} seeds)\n"
        "A, B: thin lines are seeds, thick lines their median; dotted: a product that is zero, "
        "in B a guess among the labels in context",
        fontsize=10.5,
    )
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def _family(axis: Any, curves: Mapping[str, np.ndarray], law: str, arms: Iterable[str]) -> None:
    steps = curves[f"{law}/steps"]
    for i, arm in enumerate(arms):
        losses, colour = curves[f"{law}/{arm}"], COLOURS[i % len(COLOURS)]
        for loss in losses:
            axis.plot(steps[1:], loss[1:], color=colour, lw=0.5, alpha=0.3)
        label = GIVEN.get(arm, f"{arm} given")
        axis.plot(steps[1:], np.median(losses, axis=0)[1:], color=colour, lw=2, ls=DASHES[i % len(DASHES)], label=label)
    axis.set_xscale("log")
    axis.set_xlim(steps[1], steps[-1])
    axis.set_ylim(-0.05, 1.8)
    place = {"loc": "upper right"} if law == "product" else {"loc": "center left", "bbox_to_anchor": (0.0, 0.34)}
    axis.legend(frameon=False, fontsize=8, handlelength=2.8, **place)


def _competition(axis: Any, curves: Mapping[str, np.ndarray], arm: str, shown: int) -> None:
    steps = curves["competition/steps"]
    stopped = int(curves[f"competition/{arm}/stopped"][shown])
    end = float(steps[-1])
    names = {"L1": "L1, mechanism 1 (in-context)", "L2": "L2, mechanism 2 (in-weights)"}
    for i, (name, label) in enumerate(names.items()):
        axis.plot(steps, curves[f"competition/{arm}/{name}"][shown], color=COLOURS[i], lw=2, ls=DASHES[i], label=label)
    if stopped >= 0:
        axis.axvline(stopped, color="0.35", lw=1, ls=(0, (2, 2)), label=f"loss small enough: stopped, {stopped:,}")
        end = min(end, 1.25 * stopped)
    axis.set_xlim(0, end)
    axis.set_ylabel("loss / loss of a zero product", fontsize=9)
    settled = [curves[f"competition/{arm}/{name}"][shown][int(SETTLED * len(steps)) :] for name in names]
    finite = np.concatenate(settled)
    axis.set_ylim(-0.05, 1.1 * max([1.5, *finite[np.isfinite(finite)]]))
    axis.legend(frameon=False, fontsize=8, handlelength=2.8)
