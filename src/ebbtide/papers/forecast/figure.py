"""The figure of study `forecast`: times of the fall against their forecasts, one dot a member."""

from typing import Any

import numpy as np

from ebbtide.papers.forecast.events import Course
from ebbtide.papers.forecast.forecaster import Forecaster
from ebbtide.papers.forecast.scores import correlation, distance, forecasts
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.figure import render


def draw_forecasts(title: str, panels: dict[str, tuple[Forecaster, dict[str, Course]]], judged: str) -> bytes:
    """PNG with a panel for each moment of a forecast: the observed time of the fall against the forecast, both in
    sequences and logarithmic, with each forecast's interval. A triangle is a member that has not fallen by the end of
    its training: it stands there. The band is the interval of the configuration alone; numbers are those of the arm
    `judged`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 4.9), layout="constrained")
    drawn: Any = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)
    limits: list[float] = []
    for panel, (moment, (forecaster, courses)) in zip(drawn.flat, panels.items(), strict=True):
        for i, (arm, course) in enumerate(courses.items()):
            own, colour = forecasts(forecaster, course), COLOURS[i % len(COLOURS)]
            known, fallen = np.isfinite(own), ~np.isnan(course.fall)
            time = np.where(fallen, course.fall, course.end)
            low, high = np.exp(own - forecaster.half), np.exp(own + forecaster.half)
            panel.hlines(time[known], low[known], high[known], color=colour, lw=0.7, alpha=0.35)
            for chosen, marker, words in ((known & fallen, "o", arm), (known & ~fallen, "^", f"{arm}, not by its end")):
                panel.plot(np.exp(own[chosen]), time[chosen], marker, color=colour, ms=5, alpha=0.8, label=words)
            limits += [*time[known], *low[known], *high[known]]
        ends = np.exp([forecaster.mean - forecaster.mean_half, forecaster.mean + forecaster.mean_half])
        panel.axhspan(*ends, color="0.5", alpha=0.12, lw=0, label="interval of the configuration alone")
        away = distance(forecasts(forecaster, courses[judged]), courses[judged])
        inside, count = int((away <= forecaster.half).sum()), int(np.isfinite(away).sum())
        rho, low_rho, high_rho = correlation(forecasts(forecaster, courses[judged]), courses[judged])
        numbers = f"Spearman {rho:.2f} [{low_rho:.2f}, {high_rho:.2f}]; {inside} of {count} in their interval"
        panel.set_title(f"{moment}\n{judged}: {numbers}", loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, which="both")
    span = [min(limits, default=1.0) / 1.1, max(limits, default=2.0) * 1.1]
    for panel in drawn.flat:
        panel.plot(span, span, color="0.4", lw=0.8, ls=":")
        panel.set(xscale="log", yscale="log", xlim=span, ylim=span)
    figure.supxlabel("forecast of the fall (sequences)", fontsize=9)
    drawn.flat[0].set_ylabel("ICL falls below .75 for good (sequences)", fontsize=9)
    handles, labels = drawn.flat[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=9.5)
    return render(figure, "png")
