"""Figures of experiment `in-context` of `affine-recurrence`."""

from typing import Any

import numpy as np

from ebbtide.papers.affine_recurrence.measures import final_stages, stage_series
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words, set_log
from ebbtide.report.figure import render
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Figures


def draw_stages(evidence: Evidence, title: str, arm: str) -> Figures:
    """stages.png: errors over training, of the answer and of probes by layer; the heads of the last layer over
    training; and at the end the harm of ablating each head beside its similarity and sign."""
    if arm not in evidence.finished_arms():
        return {}
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    errors, heads, harm = figure.subplots(1, 3)
    probes, answer = stage_series(evidence, arm, "probe"), stage_series(evidence, arm, "answer")
    x, layers = answer.sequences, probes.values.shape[2]
    for layer in range(layers):
        _draw_line(errors, x, probes.values[:, :, layer], COLOURS[layer], f"probe after layer {layer}")
    _draw_line(errors, x, answer.values, "black", "the answer")
    errors.axhline(1, color="0.6", lw=0.8, ls=":")
    set_log(errors, "x", "y")
    _style(errors, "error by layer", "sequences", "error / best naive predictor's")
    rho, slope = stage_series(evidence, arm, "similarity").values, stage_series(evidence, arm, "slope").values
    negative = np.where(slope < 0, np.maximum(rho, 0), 0).max(-1)
    _draw_line(heads, x, rho.max(-1), COLOURS[0], "of all heads")
    _draw_line(heads, x, negative, COLOURS[1], "of heads that subtract (0: none)")
    heads.set_ylim(-0.05, 1)
    set_log(heads, "x")
    _style(heads, "last layer: attention to similar terms", "sequences", "largest rank correlation of a head")
    for one in final_stages(evidence, arm):
        if one is None:
            continue
        colours = np.where(one.slope < 0, COLOURS[1], COLOURS[0])
        harm.scatter(one.similarity, np.maximum(one.harm, 1e-3), c=colours, s=18, alpha=0.8)
    harm.set_yscale("log")
    _style(
        harm,
        "heads at the end (orange: they subtract)",
        "rank correlation of score and similarity",
        "harm of ablation / best naive error",
    )
    figure.suptitle(f"{title}\n{members_words(len(evidence.runs(arm)))}", fontsize=9.5)
    return {"stages.png": render(figure, "png")}


def _draw_line(panel: Any, x: np.ndarray, members: np.ndarray, colour: str, label: str) -> None:
    """`draw_members` without 0 sequences, of which there is no logarithm."""
    draw_members(panel, x[x > 0], members[:, x > 0], colour, label)


def _style(panel: Any, title: str, x: str, y: str) -> None:
    panel.set_title(title, loc="left", fontsize=9)
    panel.set_xlabel(x, fontsize=9)
    panel.set_ylabel(y, fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=7)
