r"""Events of a curve of strategy fractions: when in-context learning comes, is highest and goes.

All levels are absolute. Half of a run's own maximum would move with one late outlier, and a run that never generalises
would have an onset too.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.theory import GENERALISING, MEMORISING
from ebbtide.evaluation.summary import first_crossing, smooth

HALF = 0.5
"""The generalising fraction at whose first passing it is there, and below which it has half gone."""
NEAR = 0.05
"""The generalising fraction that may be missing to its maximum on the stretch whose middle is the peak."""
EVENTS = ("onset", "peak", "half_fall", "crossover")


class Event(NamedTuple):
    """When an event was, in sequences.

    Args:
        sequences: its time; of one `before` or `after` all times that were looked at, the first or the last of them.
        censored: "no", "before" (it had happened at the first time) or "after" (it had not at the last).
    """

    sequences: float
    censored: Literal["no", "before", "after"] = "no"


Events = dict[str, Event | None]
"""The events of a curve by name; None: one that the curve cannot have, such as a fall without an onset."""


def events_of(sequences: Num[np.ndarray, " time"], fractions: Float[np.ndarray, "time strategy"]) -> Events:
    """The events of a curve, smoothed over three evaluations (`evaluation.summary.smooth`); between evaluations linear
    in log-time.

    - `onset`: the generalising fraction first passes `HALF`;
    - `peak`: the middle, in log-time, of the stretch around the maximum of the generalising fraction on which less than
      `NEAR` is missing, so that noise does not choose the time on a plateau; `after` where the stretch reaches the end;
    - `half_fall`: the generalising fraction is first below `HALF` again after its maximum;
    - `crossover`: the memorising fraction first exceeds the generalising one after the maximum of the latter.

    The last three are None where the generalising fraction is never above `HALF`.

    >>> sequences = np.array([1, 2, 4, 8, 16, 32, 64])
    >>> icl = np.array([0, 0, 0.9, 0.9, 0.9, 0.1, 0.1])
    >>> found = events_of(sequences, np.stack([icl, 1 - icl, 0 * icl], axis=1))
    >>> {name: event and round(event.sequences, 1) for name, event in found.items()}
    {'onset': 3.2, 'peak': 8.0, 'half_fall': 22.6, 'crossover': 22.6}
    """
    times = np.log(np.asarray(sequences, np.float64))
    icl, memory = smooth(np.asarray(fractions, np.float64).T)[[GENERALISING, MEMORISING]]
    onset = _first(times, icl - HALF)
    if onset.censored == "after":
        return {"onset": onset, "peak": None, "half_fall": None, "crossover": None}
    top = int(np.argmax(icl))
    return {
        "onset": onset,
        "peak": _peak(times, icl),
        "half_fall": _first(times[top:], HALF - icl[top:]),
        "crossover": _first(times[top:], memory[top:] - icl[top:]),
    }


def peak_stretch(fractions: Float[np.ndarray, "time strategy"]) -> tuple[int, int]:
    """The first and the last index of the stretch around the maximum of the smoothed generalising fraction on which
    less than `NEAR` is missing.

    >>> icl = np.array([0, 0, 0.9, 0.9, 0.9, 0.1, 0.1])
    >>> peak_stretch(np.stack([icl, 1 - icl, 0 * icl], axis=1))
    (3, 3)
    """
    return _stretch(smooth(np.asarray(fractions, np.float64).T)[GENERALISING])


def time_error(observed: Event | None, predicted: Event | None) -> float:
    """|log10(predicted / observed)| of an event: 1 is a factor of ten. Where one of the two is censored it is the least
    that the error can be, so 0 where both are after (or before) all times. inf where only one of the two curves can
    have the event, nan where neither can.

    >>> time_error(Event(100.0), Event(1000.0)), time_error(Event(100.0, "after"), Event(10.0))
    (1.0, 1.0)
    >>> time_error(Event(100.0, "after"), Event(1000.0))
    0.0
    """
    if observed is None or predicted is None:
        return float("nan" if observed is predicted else "inf")
    ratio = float(np.log10(predicted.sequences / observed.sequences))
    may_be_less = observed.censored == "after" or predicted.censored == "before"
    may_be_more = observed.censored == "before" or predicted.censored == "after"
    return 0.0 if (may_be_less and ratio > 0) or (may_be_more and ratio < 0) else abs(ratio)


def _first(times: np.ndarray, curve: np.ndarray) -> Event:
    """The first passing of 0, upwards."""
    if curve[0] > 0:
        return Event(float(np.exp(times[0])), "before")
    at = float(first_crossing(times, curve[None], 0.0)[0])
    return Event(float(np.exp(times[-1])), "after") if np.isnan(at) else Event(float(np.exp(at)))


def _peak(times: np.ndarray, curve: np.ndarray) -> Event:
    first, last = _stretch(curve)
    if last == len(curve) - 1:
        return Event(float(np.exp(times[-1])), "after")
    return Event(float(np.exp((times[first] + times[last]) / 2)))


def _stretch(curve: np.ndarray) -> tuple[int, int]:
    """The first and the last index around the maximum at which less than `NEAR` is missing."""
    top = int(np.argmax(curve))
    missing = np.flatnonzero(curve < curve[top] - NEAR)
    before, after = missing[missing < top], missing[missing > top]
    return (int(before[-1]) + 1 if len(before) else 0), (int(after[0]) - 1 if len(after) else len(curve) - 1)
