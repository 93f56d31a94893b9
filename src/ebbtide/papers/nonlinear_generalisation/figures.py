"""Figures of study `nonlinear-generalisation`."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.papers.nonlinear_generalisation import measures
from ebbtide.papers.nonlinear_generalisation.settings import MORE_PAIRS, NOISY, ONE, TRANSFORMER
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words, set_log
from ebbtide.report.figure import render
from ebbtide.report.functions_figure import context_figure
from ebbtide.runs.folder import Snapshot
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Figures

ALPHAS = (0.2, 0.4, 0.8, 1.0)
"""Shares of informative pairs in the figure of lengths."""
SUMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.2, 1.4)
"""Sums of coefficients of patterns outside the domain."""
FLOOR = 2e-4
"""Error that is drawn for none: half of one wrong sign of 2,000 prompts, as a logarithm has no 0."""

Members = Float[np.ndarray, "member x"]


def draw_mechanism(evidence: Evidence, title: str) -> Figures:
    """mechanism.png: attention over training, units removed, patterns outside; lengths.png: errors by the number of
    pairs, of the models and of classical predictors."""
    arms = [arm for arm in (ONE, NOISY, TRANSFORMER, MORE_PAIRS) if arm in evidence.finished_arms()]
    heads = [arm for arm in arms if arm in (ONE, NOISY)]
    if not arms:
        return {}
    figures = {"lengths.png": _draw_lengths(evidence, arms, title)}
    return figures | ({"mechanism.png": _draw_parts(evidence, arms, heads, title)} if heads else {})


def _rows(evidence: Evidence, arm: str, measure: Any) -> Members:
    """`measure(trained member)`, an array, of every member that has finished."""

    def one(run: Snapshot, place: int) -> np.ndarray:
        return measure(measures.trained_member(run, place))

    return np.stack([row for row in measures.map_members(evidence, arm, one) if row is not None])


def _draw_parts(evidence: Evidence, arms: list[str], heads: list[str], title: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    attention, removal, outside = figure.subplots(1, 3)
    colours = {arm: COLOURS[i] for i, arm in enumerate((ONE, NOISY, TRANSFORMER, MORE_PAIRS))}
    for arm in heads:
        series = measures.attention_over_training(evidence, arm)
        draw_members(attention, series.sequences, series.values, colours[arm], label=arm)
        both = _rows(evidence, arm, _removed)
        for i, (name, style) in enumerate((("smallest first", "-"), ("largest first", "--"))):
            draw_members(removal, np.asarray(measures.SHARES), both[:, i], colours[arm], f"{arm}: {name}", style)
    for arm in arms:
        errors = np.maximum(_rows(evidence, arm, _outside), FLOOR)
        draw_members(outside, np.asarray(SUMS), errors, colours[arm], label=arm)
    attention.set_xscale("symlog", linthresh=1000, linscale=0.5)
    attention.set_xticks([0, 1e3, 1e4, 1e5])
    set_log(outside, "y")
    for panel, words, x, y in (
        (attention, "attention on pairs of the query's pattern", "sequences", "share of attention"),
        (removal, "units removed", "share of the units", "hinge loss on unseen pairs"),
        (outside, "patterns outside the domain", "sum of the coefficients, S1", "share of wrong signs"),
    ):
        panel.set_title(words, loc="left", fontsize=9)
        panel.set_xlabel(x, fontsize=9)
        panel.set_ylabel(y, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=panel is removal, fontsize=7)
    figure.suptitle(f"{title}\n{members_words(len(evidence.runs(arms[0])))}", fontsize=9.5)
    return render(figure, "png")


def _removed(one: measures.Trained) -> np.ndarray:
    return measures.losses_by_removal(one.spec, one.params[-1], measures.draw_prompts(one.spec, "unseen"))


def _outside(one: measures.Trained) -> np.ndarray:
    pairs = (one.spec.task.context,)
    prompts = [measures.draw_prompts(one.spec, "outside", coefficients=total) for total in SUMS]
    return np.asarray([measures.errors_by_length(one.spec, one.params[-1], prompt, pairs)[0] for prompt in prompts])


def _draw_lengths(evidence: Evidence, arms: list[str], title: str) -> bytes:
    """A panel for each share of informative pairs. Classical predictors answer the prompts of the first member."""
    x, panels = np.asarray(measures.LENGTHS, float), {}
    for alpha in ALPHAS:

        def by_length(one: measures.Trained, alpha: float = alpha) -> np.ndarray:
            prompt = measures.draw_prompts(one.spec, "unseen", informative=alpha)
            return measures.errors_by_length(one.spec, one.params[-1], prompt)

        lines = {arm: (x, np.maximum(_rows(evidence, arm, by_length), FLOOR)) for arm in arms}
        place, run = next(one for one in evidence.runs(arms[0]) if one[1] is not None)
        assert run is not None
        spec = measures.trained_member(run.snapshot(), place).spec
        others = measures.baseline_errors(spec, measures.draw_prompts(spec, "unseen", informative=alpha), alpha)
        lines |= {name: (x, np.maximum(errors, FLOOR)[None]) for name, errors in others.items()}
        panels[f"alpha {alpha:g}"] = lines
    words = f"{title}: unseen pairs of patterns, by the number of pairs in context"
    return context_figure(words, "share of wrong signs", panels, measures.BASELINES)["png"]


def draw_map(
    title: str, norms: tuple[float, ...], pairs: tuple[int, ...], panels: dict[str, Float[np.ndarray, "pairs norm"]]
) -> Figures:
    """map.png: one panel of cells for each quantity, all between 0 and .5."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.9 * len(panels) + 1.0, 2.6), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    images = []
    for axis, (name, cells) in zip(axes.flat, panels.items(), strict=True):
        images.append(axis.imshow(cells, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=0.5))
        for i, j in np.ndindex(cells.shape):
            words = f"{cells[i, j]:.2f}" if np.isfinite(cells[i, j]) else "-"
            axis.text(
                j, i, words, ha="center", va="center", fontsize=8, color="black" if cells[i, j] > 0.3 else "white"
            )
        axis.set_xticks(range(len(norms)), [f"{norm:g}" for norm in norms])
        axis.set_yticks(range(len(pairs)), [str(count) for count in pairs])
        axis.set_title(name, fontsize=9)
        axis.spines[:].set_visible(False)
    figure.supxlabel("norm of a label", fontsize=9)
    axes.flat[0].set_ylabel("trained pairs of patterns", fontsize=9)
    figure.colorbar(images[0], ax=axes)
    figure.suptitle(f"{title}: medians of members", fontsize=9.5)
    return {"map.png": render(figure, "png")}
