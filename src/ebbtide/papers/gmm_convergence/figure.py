"""The figure of experiment `descent`: distance from the optimum and accuracy over the descent, errors by length."""

from typing import Any

import numpy as np
from jaxtyping import Num

from ebbtide.papers.gmm_convergence.descent import ROUNDING, SHIFTS, Descents
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words
from ebbtide.report.figure import render
from ebbtide.studies.computation import Computed

WORDS = {"train": "as in training", "norms": "means of different norms", "covariance": "another covariance"}


def draw_descents(setting: Descents, curves: Computed) -> dict[str, bytes]:
    """figure.png and figure.svg, a row for every number of classes. Left: distance from the optimum by steps (dotted:
    the slope of the least curvature). Middle: accuracy by steps on three kinds of tests, less its value at the end.
    Right: error by the pairs of a test and of training (dotted: slopes -1/2 and -1)."""
    from matplotlib.figure import Figure

    rows = len(setting.classes)
    figure = Figure(figsize=(10.2, 2.9 * rows + 0.8), layout="constrained")
    axes: Any = figure.subplots(rows, 3, squeeze=False)
    for row, classes in zip(axes, setting.classes, strict=True):
        own = {name.partition("/")[2]: values for name, values in curves.items() if name.startswith(f"{classes}/")}
        _draw_distance(row[0], curves["steps"], own)
        _draw_accuracy(row[1], curves["steps"], own)
        _draw_lengths(row[2], setting, own)
        words = ("distance from the optimum / the first", "accuracy - accuracy at the end", "error / a guess's")
        for panel, say in zip(row, words, strict=True):
            panel.set_title(f"{classes} classes: {say}", loc="left", fontsize=9)
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", color="0.92", lw=0.6)
            panel.tick_params(labelsize=8)
            if panel.get_legend_handles_labels()[1]:
                panel.legend(frameon=False, fontsize=7.5)
    for panel, say in zip(axes[-1], ("steps of gradient descent", "steps of gradient descent", "pairs"), strict=True):
        panel.set_xlabel(say, fontsize=9)
    words = members_words(setting.seeds, f"{setting.seeds} seeds")
    figure.suptitle(
        f"Gradient descent of one matrix on the population loss\n{words}; dotted: expected slopes", fontsize=10
    )
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def _draw_distance(panel: Any, steps: Num[np.ndarray, " record"], own: Computed) -> None:
    distance = own["distance"] / own["distance"][:, :1]
    draw_members(panel, steps, distance, COLOURS[0])
    panel.plot(steps, np.exp(np.median(own["expected"]) * steps), color="0.3", lw=1.2, ls=":")
    panel.set_yscale("log")
    panel.set_ylim(max(distance.min() / 2, ROUNDING / 10), 2)


def _draw_accuracy(panel: Any, steps: Num[np.ndarray, " record"], own: Computed) -> None:
    for name, colour in zip(SHIFTS, COLOURS, strict=False):
        accuracy = own[f"accuracy/{name}"]
        draw_members(panel, steps[1:], (accuracy - accuracy[:, -1:])[:, 1:], colour, WORDS[name])
    panel.set_xscale("log")
    panel.axhline(0, color="0.5", lw=0.8)


def _draw_lengths(panel: Any, setting: Descents, own: Computed) -> None:
    sides = (
        ("test", setting.test_pairs, "pairs of the test", -0.5),
        ("train", setting.train_pairs, "of training", -1.0),
    )
    for (name, pairs, label, slope), colour in zip(sides, (COLOURS[0], COLOURS[3]), strict=True):
        x, members = np.array(pairs, float), own[name] / own["guess/train"][:, None]
        draw_members(panel, x, members, colour, label)
        panel.plot(x, np.median(members[:, 0]) * (x / x[0]) ** slope, color=colour, lw=1.2, ls=":")
    panel.set_xscale("log")
    panel.set_yscale("log")
