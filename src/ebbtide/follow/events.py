"""What happens in a run that somebody may want to be told: each event once, however often and whenever one looks.

An event of a member follows from the evaluations up to the one after it, so it does not depend on when the folder was
read, and later evaluations do not take it back.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from ebbtide.evaluation.divergence import finite_evaluations
from ebbtide.evaluation.summary import smooth
from ebbtide.follow.tail import State, Tail

Kind = Literal["icl fell", "diverged", "complete", "interrupted", "set aside"]
LEVELS: dict[str, Literal["info", "warn", "error"]] = {
    "icl fell": "warn",
    "diverged": "error",
    "complete": "info",
    "interrupted": "warn",
    "set aside": "error",
}
LEAST_PEAK = 0.25
"""The share of the way from chance to 1 that ICL must have risen before its fall is one: an untrained model is at
chance, and passes it in both directions."""


class Event(NamedTuple):
    """Something that happened at a number of sequences, to a member or (None) to the whole run; `id` is its name. The
    text does not name the run."""

    id: str
    kind: Kind
    text: str
    member: int | None
    sequences: int

    @property
    def level(self) -> Literal["info", "warn", "error"]:
        """How much it matters."""
        return LEVELS[self.kind]


def events_of(tail: Tail, state: State) -> list[Event]:
    """The events of a run so far, those of members first."""
    found = [*_falls(tail), *_divergences(tail)]
    at = int(tail.sequences[-1]) if len(tail.sequences) else 0
    if state != "running":
        total = tail.header.spec["sequences"]
        found.append(event(tail, state, f"{state} at {at:,} of {total:,} sequences", None, at, at))
    return found


def event(tail: Tail, kind: Kind, text: str, member: int | None, sequences: int, *parts: object) -> Event:
    """An event whose name follows from the run, the kind, the member and `parts`."""
    head = tail.header
    named = msgspec.json.encode([head.digest, head.created, kind, member, *parts])
    return Event(hashlib.sha256(named).hexdigest()[:32], kind, text, member, sequences)


def _falls(tail: Tail) -> Iterator[Event]:
    chance = {one.name: one.chance for one in tail.header.instruments if one.chance is not None}
    curves = tail.curves()
    if "icl" not in chance or len(tail.sequences) < 2:
        return
    at, top = first_falls(curves["icl"], chance["icl"], tail.finished)
    for member in np.flatnonzero(at >= 0):
        when, peak = int(tail.sequences[at[member]]), int(tail.sequences[top[member]])
        text = f"ICL of member {member} fell below half its peak at {when:,} sequences (peak at {peak:,})"
        yield event(tail, "icl fell", text, int(member), when)


def first_falls(
    icl: Float[np.ndarray, "member evaluation"], chance: float, finished: bool
) -> tuple[Int[np.ndarray, " member"], Int[np.ndarray, " member"]]:
    """The first evaluation at which each member's smoothed ICL is at most half way between chance and its peak so far
    (-1: there is none), and that of the peak: `half_decay_sequences` of `summarise` at the moment at which it was first
    known. The newest evaluation counts only at the end of a run, because smoothing looks one evaluation ahead."""
    curve = smooth(icl.astype(np.float64))
    curve = curve if finished else curve[:, :-1]
    top = np.maximum.accumulate(curve, axis=1)
    high = top >= chance + LEAST_PEAK * (1 - chance)
    fallen: Bool[np.ndarray, "member evaluation"] = high & (curve <= (top + chance) / 2)
    at = np.where(fallen.any(axis=1), fallen.argmax(axis=1), -1)
    peaks = np.array([int(np.argmax(one[: max(i, 0) + 1])) for one, i in zip(curve, at, strict=True)], int)
    return at, peaks


def _divergences(tail: Tail) -> Iterator[Event]:
    if not len(tail.sequences):
        return
    curves = {one.name: tail.curves()[one.name] for one in tail.header.instruments}
    lost = ~finite_evaluations({"train_loss": tail.loss, **curves})
    after = np.concatenate([lost[:, 1:], np.full((len(lost), 1), tail.finished)], axis=1)
    gone = lost & after  # twice in a row: a single batch of infinite loss may be followed by a whole one
    for member in np.flatnonzero(gone.any(axis=1)):
        when = int(tail.sequences[gone[member].argmax()])
        yield event(tail, "diverged", f"member {member} diverged at {when:,} sequences", int(member), when)
