"""Learning curves as a few scalars per member."""

import numpy as np
from jaxtyping import Float, Int, Num

from ebbtide.evaluation.divergence import Curves, diverged_at, finite_evaluations, names_of_evaluators

WINDOW = 3
"""Number of evaluations over which curves are averaged before a maximum or a final value is taken, so that a single
noisy point is no peak."""


OF_PEAK = ("transience", "peak_sequences", "half_decay_sequences", "crossover_sequences")
"""Scalars about the peak of ICL, beside those whose names end in `_at_peak`."""


def smooth(curve: Float[np.ndarray, "member evaluation"]) -> Float[np.ndarray, "member evaluation"]:
    """Centred mean over `WINDOW` evaluations; at the ends over the evaluations that exist."""
    half = WINDOW // 2
    n = curve.shape[1]
    return np.stack([curve[:, max(0, i - half) : min(n, i + half + 1)].mean(axis=1) for i in range(n)], axis=1)


def fall_since(
    sequences: Num[np.ndarray, " evaluation"],
    loss: Float[np.ndarray, "member evaluation"],
    since: Num[np.ndarray, " member"],
) -> Float[np.ndarray, " member"]:
    """Share by which each member's training loss falls from `since` (in sequences) to the end: 1 - loss at the end /
    loss at the evaluation nearest to `since`. The loss is smoothed, without the evaluation at 0, where it is nan."""
    smoothed = smooth(loss[:, 1:])
    at = np.abs(sequences[1:] - since[:, None]).argmin(1)
    return 1 - smoothed[:, -1] / smoothed[np.arange(len(loss)), at]


def first_crossing(
    x: Num[np.ndarray, " time"],
    curves: Float[np.ndarray, "member time"],
    level: float | Float[np.ndarray, " member"],
    *,
    falling: bool = False,
    interpolate: bool = True,
) -> Float[np.ndarray, " member"]:
    """First x at which each member's curve is above a level (`falling`: below), in the unit of `x`; nan where it never
    is. Interpolated between two points, unless the earlier value is not finite."""
    rising, levels = (-curves if falling else curves), np.broadcast_to(-level if falling else level, len(curves))
    crossings = np.full(len(curves), np.nan)
    for m, (curve, own) in enumerate(zip(rising, levels, strict=True)):
        over = np.flatnonzero(curve > own)
        if len(over):
            i = over[0]
            crossings[m] = x[i]
            if interpolate and i > 0 and np.isfinite(curve[i - 1]):
                crossings[m] = x[i - 1] + (own - curve[i - 1]) / (curve[i] - curve[i - 1]) * (x[i] - x[i - 1])
    return crossings


def peak(curves: Curves) -> Int[np.ndarray, " member"]:
    """Index of the evaluation at which each member's smoothed `icl` is highest."""
    return np.argmax(smooth(curves["icl"]), axis=1)


def summarise(curves: Curves, chance: dict[str, float]) -> dict[str, Float[np.ndarray, " member"]]:
    """Scalars of every member by name, read off curves that are smoothed over three evaluations.

    - icl_peak, icl_final, transience = icl_peak - icl_final;
    - peak_sequences: where the peak is;
    - half_decay_sequences: first evaluation after the peak with icl <= (peak + chance) / 2 (nan: none);
    - crossover_sequences: first evaluation after the peak where iwl or ciwl exceeds icl (nan: none);
    - X_at_peak and X_final for every other evaluator X and train_loss (nats); X_peak, the largest, of evaluators.

    train, iwl, ciwl and flip give nan where the run does not have them.
    """
    sequences = curves["sequences"].astype(np.float64)
    nothing = np.full_like(curves["train_loss"], np.nan)
    icl = smooth(curves.get("icl", nothing))
    members = np.arange(icl.shape[0])
    top = np.argmax(icl, axis=1)
    later = np.arange(icl.shape[1])[None, :] > top[:, None]
    out = {"icl_peak": icl[members, top], "icl_final": icl[:, -1], "peak_sequences": sequences[top]}
    out["transience"] = out["icl_peak"] - out["icl_final"]
    loss = curves["train_loss"].copy()
    if loss.shape[1] > 1:
        loss[:, 0] = loss[:, 1]  # no training batch precedes the first evaluation
    whole = finite_evaluations(curves)
    for i in range(1, loss.shape[1]):  # a member that stopped early has a model, but trains no more
        stopped = np.isnan(loss[:, i]) & whole[:, i]
        loss[stopped, i] = loss[stopped, i - 1]
    others = [name for name in names_of_evaluators(curves) if name != "icl"]
    smoothed = {name: nothing for name in ("train", "iwl", "ciwl", "flip")} | {
        name: smooth(curves[name]) for name in others
    }
    smoothed["train_loss"] = smooth(loss)
    for name, curve in smoothed.items():
        out[f"{name}_at_peak"], out[f"{name}_final"] = curve[members, top], curve[:, -1]
        if name != "train_loss":
            out[f"{name}_peak"] = curve.max(axis=1)
    for name in [n for n in out if n.endswith("_at_peak")] + ["peak_sequences"]:
        out[name] = np.where(np.isnan(out["icl_peak"]), np.nan, out[name])  # no peak, no place
    half = (out["icl_peak"] + chance.get("icl", np.nan)) / 2
    out["half_decay_sequences"] = _first(later & (icl <= half[:, None]), sequences)
    weights = np.fmax(smoothed["iwl"], smoothed["ciwl"])
    out["crossover_sequences"] = _first(later & (weights > icl), sequences)
    return out


def known_scalars(curves: Curves, chance: dict[str, float]) -> dict[str, Float[np.ndarray, " member"]]:
    """`summarise` without the scalars for which a run has no evaluator, and with `diverged_sequences` (nan: it did
    not)."""
    lacking = {name for name in ("icl", "train", "iwl", "ciwl", "flip") if name not in curves}

    def known(name: str) -> bool:
        if name in OF_PEAK or name.endswith("_at_peak"):
            weights = name != "crossover_sequences" or not {"iwl", "ciwl"} <= lacking
            return "icl" not in lacking and weights and name.removesuffix("_at_peak") not in lacking
        return name.removesuffix("_peak").removesuffix("_final") not in lacking

    scalars = {name: values for name, values in summarise(curves, chance).items() if known(name)}
    return scalars | {"diverged_sequences": diverged_at(curves)}


def _first(condition: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    return np.where(condition.any(axis=1), sequences[np.argmax(condition, axis=1)], np.nan)
