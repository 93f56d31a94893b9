"""The figure of a run: accuracy of every evaluator and the loss against sequences."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.divergence import diverged
from ebbtide.evaluation.summary import peak
from ebbtide.report.curves import draw_each, fill_interval, finite_to_the_end, members_words, set_log
from ebbtide.report.figure_text import write_plainly
from ebbtide.runs.folder import RunFolder


class CurveStyle(NamedTuple):
    """The style of a curve: a colour of Okabe and Ito (safe for the colour-blind), and a dash and a marker that
    distinguish it in black and white."""

    name: str
    text: str
    colour: str
    dash: Any
    marker: str


CONTEXT = (
    CurveStyle("icl", "ICL (trained classes, labels 0/1)", "#0072B2", "-", "o"),
    CurveStyle("icl_holdout", "ICL, held-out classes", "#56B4E9", (0, (5, 1.5)), "s"),
    CurveStyle("icl_reserved", "ICL, reserved labels", "#000000", (0, (1, 1.2)), "^"),
    CurveStyle("flip", "Flip (labels swapped)", "#CC79A7", (0, (3, 1, 1, 1)), "D"),
    CurveStyle("icl_common", "ICL, common classes", "#009E73", (0, (5, 1, 1, 1)), "v"),
    CurveStyle("icl_pairs", "ICL, held-out pairs of labels", "#E69F00", (0, (1, 2.4)), "X"),
    CurveStyle("icl_rare", "ICL, rare classes", "#D55E00", (0, (2, 2)), "P"),
    CurveStyle("icl_no_copy", "ICL, query not in the context", "#882255", (0, (4, 2)), "<"),
    CurveStyle("flip_no_copy", "Flip, query not in the context", "#999933", (0, (3, 1, 1, 1, 1, 1)), ">"),
)
WEIGHTS = (
    CurveStyle("iwl", "IWL", "#D55E00", "-", "o"),
    CurveStyle("ciwl", "CIWL", "#E69F00", (0, (5, 1.5)), "s"),
    CurveStyle("train", "training distribution", "#009E73", (0, (1, 1.2)), "^"),
    CurveStyle("iwl_exemplar", "IWL, held-out exemplars", "#000000", (0, (3, 1, 1, 1)), "D"),
    CurveStyle("iwl_common", "IWL, common classes", "#0072B2", (0, (5, 1, 1, 1)), "v"),
    CurveStyle("iwl_rare", "IWL, rare classes", "#CC79A7", (0, (2, 2)), "P"),
)
LOWEST, HIGHEST = -0.03, 1.03
"""Limits of the panels of accuracies. A chance level beyond them is not drawn: its word would take the room of the
whole figure."""
LOSS = (CurveStyle("train_loss", "training loss", "#000000", "-", "o"),)
SIZE = (7.2, 8.2)
"""Inches."""
LATE = 0.7
"""Share of the axis of time beyond which the words on a peak stand to the left of it."""
SHORT, LONG = 1e4, 2e5
"""From which length on an axis of time counts in thousands, and in millions."""


def curves_figure(run: RunFolder, title: str, *, log: bool = False) -> dict[str, bytes]:
    """figure.png and figure.svg with in-context accuracies, in-weights accuracies, and the loss; thin lines are
    members, thick lines their median, bands its 95 % interval (of 6 members and more); the ICL peak is marked. A member
    that diverged is drawn as far as it is finite, and the median is over the others."""
    figure = draw_curves(run, title, log=log)
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def draw_curves(
    run: RunFolder, title: str, *, time: str = "sequences", log: bool = False, size: tuple[float, float] = SIZE
) -> Any:
    """The figure of `curves_figure` as a matplotlib object of `size` inches; `time` is `sequences` or `steps`."""
    from ebbtide.report.shown_figure import ShownFigure

    curves, chance = run.metrics(), run.chance()
    x = curves[time].astype(float)
    members = curves["train_loss"].shape[0]
    figure = ShownFigure(figsize=size, layout="constrained")
    panels: Sequence[Any] = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1, 0.6])
    lost = diverged(curves)
    top = float(np.mean(x[peak(curves)[~lost]])) if "icl" in curves and not lost.all() else None
    for panel, lines in zip(panels, (CONTEXT, WEIGHTS, LOSS), strict=True):
        for line in lines:
            if line.name in curves:
                _draw(panel, x, curves[line.name], line)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.92", lw=0.6)
        if panel.lines:
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=3.2)
        if top is not None:
            panel.axvline(top, color="0.35", lw=1, ls=(0, (2, 2)), zorder=0)
    for panel, names in zip(panels, ([one.name for one in CONTEXT], [one.name for one in WEIGHTS]), strict=False):
        levels = sorted({round(chance[n], 3) for n in names if n in chance and LOWEST <= chance[n] <= HIGHEST})
        for i, level in enumerate(levels):
            panel.axhline(level, color="0.5", lw=0.8, ls=":", zorder=0)
            if i and level - levels[i - 1] < 0.03:
                continue  # one word for both lines
            panel.annotate(
                "chance",
                (1.0, level),
                xycoords=("axes fraction", "data"),
                fontsize=7,
                color="0.4",
                ha="right",
                va="bottom",
            )
        panel.set_ylim(LOWEST, HIGHEST)
        panel.set_ylabel("accuracy")
    panels[0].set_title("from the context", loc="left", fontsize=9)
    panels[1].set_title("from the weights", loc="left", fontsize=9)
    panels[2].set_title("training", loc="left", fontsize=9)
    panels[2].set_ylabel("loss (nats)")
    set_log(panels[2], "y")
    panels[2].set_xlabel(time_words(time, run.header.spec["batch"]))
    if top is not None:
        late = top > LATE * x[-1] and not log
        panels[0].annotate(
            f"ICL peak, {top:,.0f}",
            (top, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if late else 3, -2),
            textcoords="offset points",
            fontsize=8,
            color="0.25",
            ha="right" if late else "left",
            va="top",
        )
    set_time(panels[2], x, log)
    words = members_words(members)
    if lost.any():
        words += f"\n{lost.sum()} of {members} members diverged" + ("" if lost.all() else "; median: the others")
    figure.suptitle("\n".join(text for text in (title, words) if text), fontsize=10)
    return figure


def time_words(time: str, batch: int) -> str:
    """The label of an axis of `sequences` or `steps`."""
    return f"{time} (per member; a step is {batch} sequences)"


def set_time(panel: Any, x: Float[np.ndarray, " evaluation"], log: bool) -> None:
    """Makes an axis of sequences or steps logarithmic from its first evaluation on, or else counts it in millions, or
    in thousands where it is short."""
    if log:
        panel.set_xscale("symlog", linthresh=max(x[min(1, len(x) - 1)], 1))
        panel.set_xlim(left=0)
        return
    unit, letter = (1e6, "M") if x[-1] >= LONG else (1e3, "k") if x[-1] >= SHORT else (1.0, "")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g}{letter}" if value else "0")


def _draw(panel: Any, x: np.ndarray, y: np.ndarray, line: CurveStyle) -> None:
    draw_each(panel, x, y, line.colour, lw=0.6, alpha=0.4)
    y = finite_to_the_end(y)
    fill_interval(panel, x, y, line.colour)
    every = max(1, len(x) // 8)
    panel.plot(
        x,
        np.median(y, axis=0),
        color=line.colour,
        lw=2,
        ls=line.dash,
        marker=line.marker,
        markevery=every,
        ms=4,
        label=line.text,
    )


def render(figure: Any, kind: str) -> bytes:
    """A matplotlib figure as the bytes of a `png` or `svg` file; equal figures give equal bytes."""
    import matplotlib

    write_plainly(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ebbtide"}):  # the same figure gives the same bytes
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
