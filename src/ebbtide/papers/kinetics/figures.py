"""Figures of study `kinetics`: courses of ICL and IWL by arm, and falls as observed and as predicted."""

from typing import Any

import numpy as np
from scipy.special import ndtr

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.kinetics.measures import CHANCE, courses, half_falls, predicted_weight
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words
from ebbtide.report.figure import render
from ebbtide.studies.evidence import Evidence

TITLES = {"icl": "ICL: new items", "iwl": "IWL: trained items, not in the context", "weight": "w (nats)"}


def draw_courses(evidence: Evidence, arms: tuple[str, ...], title: str) -> bytes:
    """PNG with ICL on new items, IWL and the weight of the context over training, a colour for each arm."""
    from matplotlib.figure import Figure

    done = [arm for arm in arms if arm in evidence.finished_arms()]
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, len(TITLES))
    members = 0
    for i, arm in enumerate(done):
        course = courses(evidence, arm)
        for panel, name in zip(panels, TITLES, strict=True):
            one = course[name]
            draw_members(panel, one.sequences / 1e6, smooth(one.values), COLOURS[i], label=arm)
            members = len(one.values)
    for panel, words in zip(panels, TITLES.values(), strict=True):
        panel.set_title(words, loc="left", fontsize=9)
    _finish(panels)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    figure.supxlabel("sequences (millions, per member)", fontsize=9)
    figure.suptitle(f"{title}: the same L2 on other weights\n{members_words(members)}", fontsize=9.5)
    return render(figure, "png")


def draw_falls(evidence: Evidence, arms: dict[str, float], title: str) -> bytes:
    """PNG with ICL on new items over training for each coefficient of L2, as observed and as predicted from IWL, and
    in the last panel the times of both half-falls, a point for each member, with a fifth on either side."""
    from matplotlib.figure import Figure

    done = {arm: one for arm, one in arms.items() if arm in evidence.finished_arms()}
    figure = Figure(figsize=(2.6 * (len(done) + 1) + 0.8, 3.4), layout="constrained")
    *panels, last = np.atleast_1d(figure.subplots(1, len(done) + 1))
    members, seen = 0, []
    for i, ((arm, coefficient), panel) in enumerate(zip(done.items(), panels, strict=True)):
        course = courses(evidence, arm)
        times = course["icl"].sequences / 1e6
        theory = predicted_weight(course["residual"].values, coefficient) / np.maximum(course["spread"].values, 1e-9)
        draw_members(panel, times, smooth(course["icl"].values), COLOURS[0], label="observed")
        draw_members(panel, times, smooth(ndtr(theory)), COLOURS[1], label="predicted from IWL")
        panel.set_title(arm, loc="left", fontsize=9)
        members, falls = len(course["icl"].values), half_falls(course, coefficient)
        last.scatter(falls.observed / 1e6, falls.predicted / 1e6, s=14, color=COLOURS[i], label=arm)
        seen += [falls.observed / 1e6, falls.predicted / 1e6]
    _finish(panels)
    finite = np.concatenate(seen)[np.isfinite(np.concatenate(seen))] if seen else np.zeros(0)
    if len(finite):
        ends = np.asarray([finite.min() / 1.3, finite.max() * 1.3])
        last.plot(ends, ends, color="0.4", lw=0.8)
        last.fill_between(ends, ends * np.exp(-0.2), ends * np.exp(0.2), color="0.85", lw=0, zorder=0)
    last.set_xlabel("observed half-fall (millions)", fontsize=9)
    last.set_ylabel("predicted half-fall (millions)", fontsize=9)
    last.legend(frameon=False, fontsize=7.5)
    last.spines[["top", "right"]].set_visible(False)
    last.tick_params(labelsize=8)
    if done:
        panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.supxlabel("sequences (millions, per member)", fontsize=9)
    figure.suptitle(f"{title}: ICL on new items\n{members_words(members)}", fontsize=9.5)
    return render(figure, "png")


def _finish(panels: Any) -> None:
    """Accuracies from .3 to 1 with their chance, and light spines."""
    for panel in panels:
        if panel.get_title(loc="left") != TITLES["weight"]:
            panel.axhline(CHANCE, color="0.5", lw=0.8, ls=":", zorder=0)
            panel.set_ylim(0.3, 1.02)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
