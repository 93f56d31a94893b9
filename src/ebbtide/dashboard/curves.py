"""The curves of a run as a page draws them: members or bands, mean and median, peaks, chance levels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebbtide.dashboard.arrays import Arrays, Evaluations
from ebbtide.dashboard.sampling import MOST_POINTS, keep_extremes
from ebbtide.dashboard.spread import spread
from ebbtide.errors import nearest, require
from ebbtide.evaluation.divergence import diverged
from ebbtide.evaluation.summary import summarise
from ebbtide.evaluation.units import UNITS, unit_of
from ebbtide.report.tables import divergence, short

MOST_CURVES = 24
"""Largest number of curves in one answer."""
MOST_MEMBERS = 50
"""Largest number of members that are sent one by one; beyond, bands of quantiles are."""
MOST_NUMBERS = 1_500_000
"""About the largest number of values of members in one answer: with many curves fewer evaluations are sent."""
LOSS = "train_loss"
MARKS = {"peak": "peak_sequences", "half_fall": "half_decay_sequences", "crossover": "crossover_sequences"}


def curves_of(arrays: Arrays, path: Path, wanted: Sequence[str], first: int = 0, last: int | None = None) -> Any:
    """The answer to `/api/curves`: the curves `wanted` (none: every headline metric and the training loss) of a run,
    at its evaluations from `first` to `last` sequences.

    Raises `InputError` for a curve that the run does not have, and for too many.
    """
    found = arrays.of(path)
    header, curves = found.run.header, found.curves
    names = [one.name for one in header.instruments]
    known = [*names, LOSS, *(f"{name}/{metric}" for name in names for metric in header.metrics)]
    wanted = list(dict.fromkeys(wanted)) or [*names, LOSS][-MOST_CURVES:]
    require(len(wanted) <= MOST_CURVES, "curve", len(wanted), f"names; at most {MOST_CURVES} in one answer")
    for name in wanted:
        require(name in known, "curve", name, f"is none of this run's{nearest(name, known)}")
    require(len({one.name for one in header.instruments}) == len(names), "run", path.name, "has an evaluator twice")
    sequences, lost = curves["sequences"], diverged(curves)
    within = np.flatnonzero((sequences >= first) & (sequences <= (sequences[-1] if last is None else last)))
    members = len(lost)
    shown = [curves[name][:, within] for name in wanted]
    most = max(MOST_POINTS // 10, min(MOST_POINTS, MOST_NUMBERS // (len(wanted) * min(members, MOST_MEMBERS))))
    kept = keep_extremes(shown, most)
    at = within[kept]
    counted = ~lost | lost.all()
    return {
        "name": path.name,
        "state": found.manifest.state.sha256[:16],
        "finished": found.manifest.finished,
        "sequences": sequences[at].tolist(),
        "steps": curves["steps"][at].tolist(),
        "members": members,
        "diverged": np.flatnonzero(lost).tolist(),
        "diverged_words": divergence(curves),
        "curves": {name: _curve(found, name, at, counted) for name in wanted},
        "marks": marks(found),
        "kept": kept_words(len(at), len(within)),
    }


def kept_words(shown: int, of: int) -> str:
    """Words on how many evaluations are shown, and which."""
    if shown == of:
        return "every evaluation"
    return f"{shown:,} of {of:,} evaluations: minima and maxima are kept"


def _curve(found: Evaluations, name: str, at: np.ndarray, counted: np.ndarray) -> dict[str, Any]:
    """One curve at the evaluations `at`. Mean, median, interval and bands are over the members `counted`, those that
    have not diverged."""
    values = found.curves[name][:, at]
    evaluator, _, metric = name.partition("/")
    own = {one.name: one for one in found.run.header.instruments}.get(evaluator)
    headline = own is not None and (not metric or metric == own.headline)
    summary = spread(values[counted])
    bands = [key for key in summary if key[-2:] in ("50", "90")]
    few = len(values) <= MOST_MEMBERS
    return {
        "chance": own.chance if own is not None and headline else None,
        "metric": metric or (own.headline if own is not None else "loss"),
        "unit": UNITS["loss"] if own is None else unit_of(metric or own.headline),
        "members": [numbers(row) for row in values] if few else None,
        "bands": None if few else {key: numbers(summary[key]) for key in bands},
        **{key: numbers(summary[key]) for key in ("mean", "median", "low", "high")},
        "n": summary["n"].tolist(),
    }


def marks(found: Evaluations) -> dict[str, Any]:
    """Where each member's ICL peaks, has lost half of its height above chance, and is crossed by IWL or CIWL, in
    sequences (null: it does not, so far); the medians over the members that do; and words on them."""
    curves = found.curves
    if "icl" not in curves or len(curves["sequences"]) < 2:
        return {**{name: [] for name in MARKS}, "median": dict.fromkeys(MARKS), "words": []}
    with np.errstate(all="ignore"):  # a signed file may hold any numbers
        scalars = summarise(curves, found.run.chance())
    out: dict[str, Any] = {name: numbers(scalars[scalar]) for name, scalar in MARKS.items()}
    known = {name: [x for x in values if x is not None] for name, values in out.items()}
    middle = {name: float(np.median(values)) if values else None for name, values in known.items()}
    members = len(scalars["icl_peak"])
    words = {"peak": "ICL peaks", "half_fall": "ICL has lost half of its height above chance", "crossover": "IWL leads"}
    said = [
        f"{words[name]} at {short(value)} sequences (median of {len(known[name])} of {members} members)"
        for name, value in middle.items()
        if value is not None
    ]
    return {**out, "icl_peak": numbers(scalars["icl_peak"]), "median": middle, "words": said}


def numbers(values: np.ndarray) -> list[float | None]:
    """Values with seven digits, as JSON has them: null for what is not finite."""
    found = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        size = np.floor(np.log10(np.abs(found)))
        scale = 10.0 ** np.clip(6 - np.where(np.isfinite(size), size, 0), -300, 300)
        rounded = np.round(found * scale) / scale
    usable = np.where(np.isfinite(rounded), rounded, found)
    return [x if x - x == 0 else None for x in usable.tolist()]
