"""What every figure of curves shares: which members their mean is over, and logarithmic axes without a number."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

NOTHING = "no finite number to draw"


def finite_to_the_end(members: Float[np.ndarray, "member x"]) -> Float[np.ndarray, "kept x"]:
    """The members whose curve ends with a finite number: mean and interval are over these. Where no curve does, those
    that have a finite number anywhere; where none has, all. What is not finite is nan, in float64."""
    members = np.where(np.isfinite(members), members, np.nan).astype(np.float64)
    there = np.isfinite(members)
    for kept in (there[:, -1], there.any(axis=1)):
        if kept.any():
            return members[kept]
    return members


def set_log(panel: Any, *which: Literal["x", "y"]) -> None:
    """Makes axes of a panel logarithmic where a positive number is drawn along them; where none is (every member
    diverged, say), the panel says so."""
    for axis in which:
        if any(value > 0 for value in _drawn(panel, axis)):
            getattr(panel, f"set_{axis}scale")("log")
        elif not any(text.get_text() == NOTHING for text in panel.texts):
            panel.text(0.5, 0.5, NOTHING, transform=panel.transAxes, ha="center", va="center", fontsize=8, color="0.4")


def _drawn(panel: Any, axis: str) -> Float[np.ndarray, " value"]:
    """The finite numbers of a panel's lines along an axis, of points at which both numbers are finite; lines right
    across the panel (chance, a peak) are none."""
    found = []
    for line in panel.lines:
        if all(line.get_transform().contains_branch_seperately(panel.transData)):
            points = np.asarray(line.get_xydata(), np.float64)
            found.append(points[np.isfinite(points).all(axis=1), "xy".index(axis)])
    return np.concatenate(found) if found else np.zeros(0)
