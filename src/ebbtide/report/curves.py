"""Shared parts of figures of curves: which members enter a median and its interval, and logarithmic axes that may have
nothing to show."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num

from ebbtide.evaluation.statistics import FEWEST, median_interval

NOTHING = "no finite number to draw"
MOST_LINES = 50
"""Largest number of members of which each is a line; of more, bands hold half and nine tenths."""
SHARES = {0.5: 0.16, 0.9: 0.10}
"""The shares of members in a band, and its opacity."""


def finite_to_the_end(members: Float[np.ndarray, "member x"]) -> Float[np.ndarray, "kept x"]:
    """The members whose curve ends with a finite number: median and interval are over these. Where no curve does, those
    with any finite number; where there is none, all. Values that are not finite become nan; the result is float64."""
    members = np.where(np.isfinite(members), members, np.nan).astype(np.float64)
    there = np.isfinite(members)
    for kept in (there[:, -1], there.any(axis=1)):
        if kept.any():
            return members[kept]
    return members


def draw_each(
    panel: Any,
    x: Num[np.ndarray, " x"],
    members: Float[np.ndarray, "member x"],
    colour: Any,
    lw: float = 0.4,
    alpha: float = 0.35,
    style: Any = "-",
) -> None:
    """Draws a thin line for each member; of more than `MOST_LINES`, bands that hold half and nine tenths of those that
    are finite at each x, since a thousand lines hide one another."""
    if len(members) <= MOST_LINES:
        for member in members:
            panel.plot(x, member, color=colour, lw=lw, alpha=alpha, ls=style)
        return
    there = np.isfinite(members).any(axis=0)
    for share, opacity in SHARES.items():
        ends = np.nanquantile(members[:, there], [(1 - share) / 2, (1 + share) / 2], axis=0)
        panel.fill_between(x[there], *ends, color=colour, alpha=opacity, lw=0)


def fill_interval(
    panel: Any, x: Num[np.ndarray, " x"], members: Float[np.ndarray, "member x"], colour: Any, log: bool = False
) -> None:
    """Draws the 95 % interval of the members' median as a band, where there are members enough for one; with `log`
    the members are logarithms of what is drawn."""
    if len(members) >= FEWEST and np.isfinite(members).any():
        low, high = np.exp(median_interval(members)) if log else median_interval(members)
        panel.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def draw_members(
    panel: Any,
    x: Num[np.ndarray, " x"],
    members: Float[np.ndarray, "member x"],
    colour: Any,
    label: str = "",
    style: Any = "-",
    log: bool = False,
) -> None:
    """Draws the members (`draw_each`), a thick line for their median, and a band for its 95 % interval; with `log` the
    median and the interval are those of logarithms, and numbers that are not above 0 are left out."""
    if log:
        members = np.log(np.where(members > 0, members, np.nan))
    back = np.exp if log else np.asarray
    draw_each(panel, x, back(members), colour, style=style)
    kept = finite_to_the_end(members)
    fill_interval(panel, x, kept, colour, log=log)
    panel.plot(x, back(np.median(kept, axis=0)), color=colour, lw=1.8, ls=style, label=label)


def members_words(members: int, words: str = "") -> str:
    """Words for a figure's title on its members, which are lines or bands, and on its thick lines; `words` in place of
    `9 members`."""
    words = words or f"{members:,} members"
    if members > MOST_LINES:
        return f"bands: half and nine tenths of {words}; thick: their median, with its 95 % interval"
    return f"thin lines: {words}; thick: their median" + ("; band: its 95 % interval" if members >= FEWEST else "")


def set_log(panel: Any, *which: Literal["x", "y"]) -> None:
    """Makes axes of a panel logarithmic where a positive number is drawn along them; otherwise (every member diverged,
    say) writes so in the panel."""
    for axis in which:
        if any(value > 0 for value in _finite_coordinates(panel, axis)):
            getattr(panel, f"set_{axis}scale")("log")
            panel.tick_params(axis=axis, which="minor", labelsize=8)  # a short axis has numbers at these alone
        elif not any(text.get_text() == NOTHING for text in panel.texts):
            panel.text(0.5, 0.5, NOTHING, transform=panel.transAxes, ha="center", va="center", fontsize=8, color="0.4")


def _finite_coordinates(panel: Any, axis: str) -> Float[np.ndarray, " value"]:
    """The finite coordinates of a panel's lines along an axis, of points with two finite coordinates; lines across the
    whole panel (chance, a peak) are left out."""
    found = []
    for line in panel.lines:
        if all(line.get_transform().contains_branch_seperately(panel.transData)):
            points = np.asarray(line.get_xydata(), np.float64)
            found.append(points[np.isfinite(points).all(axis=1), "xy".index(axis)])
    return np.concatenate(found) if found else np.zeros(0)
