"""Figures of chosen curves of a run, as matplotlib objects: over training, or one curve against another."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.errors import nearest, require
from ebbtide.evaluation.units import unit_of
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, finite_to_the_end, members_words, set_log
from ebbtide.report.figure import (
    CONTEXT,
    HIGHEST,
    LOSS,
    LOWEST,
    SIZE,
    WEIGHTS,
    CurveStyle,
    draw_curves,
    set_time,
    time_words,
)
from ebbtide.report.figure_text import check_inches, plainly
from ebbtide.report.shown_figure import ShownFigure
from ebbtide.runs.folder import RunFolder

TIMES = ("sequences", "steps")
NATS = "loss (nats)"
PANEL = (6.4, 3.2)
"""Width of a figure and height of each of its panels in inches, where no size is given."""
SQUARE = (6.4, 4.8)
"""Size in inches of a figure of one curve against another."""


def plot_run(
    run: RunFolder,
    y: str | Sequence[str] | None = None,
    x: str = "sequences",
    log: bool = False,
    size: tuple[float, float] | None = None,
    title: str = "",
) -> Any:
    """The figure that `Run.plot` returns, with its arguments."""
    check_inches(size)
    curves = run.metrics()
    known = [name for name in curves if name not in TIMES and not name.endswith("/error")]
    require(x in (*TIMES, *known), "x", x, f"must be sequences, steps or a curve of the run{nearest(x, known)}")
    few_shot = [line.name for line in (*CONTEXT, *WEIGHTS) if line.name in curves and line.name != "train"]
    if y is None and x in TIMES and few_shot:  # `train` is also an evaluator of functions
        return plainly(draw_curves(run, title, time=x, log=log, size=size or SIZE))
    named = [y] if isinstance(y, str) else list(y or ())
    headlines = [name for name in known if "/" not in name and name != x]
    names = named or sorted(headlines, key=lambda name: name == "train_loss")  # the loss last
    some = ", ".join([name for name in known if "/" not in name][:4])
    for name in names:
        require(name in known, "y", name, f"must be a curve of the run, e.g. {some}{nearest(name, known)}")
    styles = _styles(names)
    draw = _over_time if x in TIMES else _against
    return plainly(draw(run, curves, styles, x, log, size, title))


def unit_of_curve(run: RunFolder, name: str) -> str:
    """The unit of a curve, as the label of an axis: that of its metric, or of its evaluator's headline metric."""
    if name == "train_loss":
        return NATS if "icl" in run.chance() else "loss"
    evaluator, _, metric = name.partition("/")
    return unit_of(metric or next(one.headline for one in run.header.instruments if one.name == evaluator))


def _styles(names: Sequence[str]) -> list[CurveStyle]:
    """A colour, a dash and words for every curve: those of a run's usual figure, where they differ from one another."""
    usual = {line.name: line for line in (*CONTEXT, *WEIGHTS, *LOSS)}
    out: list[CurveStyle] = []
    for name in names:
        one, taken = usual.get(name), {line.colour for line in out}
        if one is None or one.colour in taken:
            free = [colour for colour in COLOURS if colour not in taken] or COLOURS
            one = CurveStyle(name, one.text if one else name, free[0], "-", "")
        out.append(one)
    return out


def _over_time(
    run: RunFolder,
    curves: dict[str, np.ndarray],
    styles: list[CurveStyle],
    x: str,
    log: bool,
    size: tuple[float, float] | None,
    title: str,
) -> Any:
    """A panel for every unit: thin lines are members, the thick one is their median, dotted ones are chance levels."""
    units: dict[str, list[CurveStyle]] = {}
    for line in styles:
        units.setdefault(unit_of_curve(run, line.name), []).append(line)
    figure = ShownFigure(figsize=size or (PANEL[0], 0.6 + PANEL[1] * len(units)), layout="constrained")
    panels: Any = figure.subplots(len(units), 1, sharex=True, squeeze=False)[:, 0]
    at, chance = curves[x].astype(float), run.chance()
    for panel, (unit, lines) in zip(panels, units.items(), strict=True):
        for line in lines:
            draw_members(panel, at, curves[line.name], line.colour, line.text, line.dash)
        for level in sorted({chance[line.name] for line in lines if line.name in chance}):
            if math.isfinite(level):
                panel.axhline(level, color="0.5", lw=0.8, ls=":", zorder=0)
        if unit.startswith("loss"):
            set_log(panel, "y")
        _style(panel, unit, unit)
        panel.legend(frameon=False, fontsize=8, handlelength=3.2)
    set_time(panels[-1], at, log)
    panels[-1].set_xlabel(time_words(x, run.header.spec["batch"]))
    figure.suptitle("\n".join([*([title] if title else []), members_words(len(curves["train_loss"]))]), fontsize=10)
    return figure


def _against(
    run: RunFolder,
    curves: dict[str, np.ndarray],
    styles: list[CurveStyle],
    x: str,
    log: bool,
    size: tuple[float, float] | None,
    title: str,
) -> Any:
    """Curves against another one: a path for every member through training (thin), the path of their medians (thick),
    a ring at its beginning and a disc at its end."""
    figure = ShownFigure(figsize=size or SQUARE, layout="constrained")
    panel: Any = figure.subplots()
    across = curves[x]
    for line in styles:
        up = curves[line.name]
        panel.plot(across.T, up.T, color=line.colour, lw=0.6, alpha=min(0.4, 20 / len(up)))
        path = _median_path(across, up)
        panel.plot(*path, color=line.colour, lw=2, label=line.text)
        panel.scatter(*path[:, :1], s=60, facecolors="white", edgecolors=line.colour, zorder=3)
        panel.scatter(*path[:, -1:], s=45, color=line.colour, zorder=3)
    unit, own = unit_of_curve(run, x), {unit_of_curve(run, line.name) for line in styles}
    if log:
        set_log(panel, "x")
    elif unit in _SHARES:
        panel.set_xlim(LOWEST, HIGHEST)
    one = next(iter(own)) if len(own) == 1 else ""
    _style(panel, f"{styles[0].text}: {one}" if len(styles) == 1 and one else one, one)
    words = next((line.text for line in (*CONTEXT, *WEIGHTS, *LOSS) if line.name == x), x)
    panel.set_xlabel(f"{words}: {unit}")
    if len(styles) > 1:
        panel.legend(frameon=False, fontsize=8)
    lines = [title, f"thin: {len(across):,} members through training; thick: their median; ring: start, disc: end"]
    figure.suptitle("\n".join(text for text in lines if text), fontsize=10)
    return figure


_SHARES = ("accuracy", "probability")
"""Units whose values are from 0 to 1."""


def _median_path(
    x: Float[np.ndarray, "member evaluation"], y: Float[np.ndarray, "member evaluation"]
) -> Float[np.ndarray, "2 kept"]:
    """The medians of both curves, over the members whose curves both end with a number, where both are numbers."""
    whole = np.isfinite(x[:, -1]) & np.isfinite(y[:, -1])
    medians = np.stack([np.median(finite_to_the_end(one[whole] if whole.any() else one), axis=0) for one in (x, y)])
    return medians[:, np.isfinite(medians).all(axis=0)]


def _style(panel: Any, words: str, unit: str) -> None:
    panel.set_ylabel(words)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92", lw=0.6)
    if unit in _SHARES:
        panel.set_ylim(LOWEST, HIGHEST)
