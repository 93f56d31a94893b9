"""Claims: inequalities that are written before the run, and judged by an interval over members."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from ebbtide.evaluation.statistics import interval
from ebbtide.studies.evidence import Evidence, Lacking

Decision = Literal["holds", "fails", "undecided"]


class Claim(NamedTuple):
    """One inequality, written before the run: the mean over members of `estimate` exceeds `threshold`.

    Args:
        name: the claim's name within its experiment.
        statement: the claim in words.
        source: where in the paper the claim and its threshold come from.
        metric: what is estimated, in words and with its unit.
        threshold: a number in the unit of the estimate.
        estimate: a function from `Evidence` to one number for each member (nan: none).
        arms: the arms that the claim compares; it is judged at presets that have them all. Empty for an experiment of
            one arm.

    >>> claim = eb.Claim(
    ...     name="icl",
    ...     statement="ICL rises well above chance",
    ...     source="Fig. 1",
    ...     metric="peak of icl - .5",
    ...     threshold=0.25,
    ...     estimate=lambda evidence: evidence.scalar("small", "icl_peak") - 0.5,
    ...     arms=("small",),
    ... )
    >>> curves = {"sequences": np.arange(3), "icl": np.array([[0.5, 0.9, 0.9]]), "train_loss": np.ones((1, 3))}
    >>> claim.estimate(eb.Evidence({"small": eb.Arm(curves)})).round(2).tolist()
    [0.4]
    """

    name: str
    statement: str
    source: str
    metric: str
    threshold: float
    estimate: Callable[[Evidence], np.ndarray]
    arms: tuple[str, ...] = ()


def above(name: str, statement: str, source: str, scalar: str, arm: str, threshold: float) -> Claim:
    """The claim that a scalar of one arm exceeds a threshold, member by member."""
    metric = f"{scalar} ({arm})"
    return Claim(name, statement, source, metric, threshold, lambda evidence: evidence.scalar(arm, scalar), (arm,))


def below(name: str, statement: str, source: str, scalar: str, arm: str, limit: float) -> Claim:
    """The claim that a scalar of one arm is below a limit, member by member."""
    metric = f"{limit:g} - {scalar} ({arm})"
    return Claim(name, statement, source, metric, 0.0, lambda evidence: limit - evidence.scalar(arm, scalar), (arm,))


def larger(name: str, statement: str, source: str, scalar: str, arm: str, than: str, threshold: float = 0.0) -> Claim:
    """The claim that a scalar of `arm` exceeds the same scalar of `than` by more than `threshold`, member by member."""

    def estimate(evidence: Evidence) -> np.ndarray:
        return evidence.scalar(arm, scalar) - evidence.scalar(than, scalar)

    return Claim(name, statement, source, f"{scalar}: {arm} - {than}", threshold, estimate, (arm, than))


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claim with its verdict. `members` are the estimates of the members (None: not finite, or not finished), `above`
    is the number of estimates over the threshold, `low` and `high` are the ends of the 95 % interval of their mean.
    `note` says which members could not be judged, and why."""

    claim: str
    statement: str
    source: str
    metric: str
    threshold: float
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    above: int
    members: list[float | None]
    verdict: Decision
    note: str = ""

    def members_above(self) -> str:
        """`4 of 4`; `2 of 4 (3 finite)` where the claim has no finite estimate for some members."""
        finite = sum(value is not None for value in self.members)
        return f"{self.above} of {self.n}" + (f" ({finite} finite)" if finite < self.n else "")


def decide(
    values: Float[np.ndarray, " members"], threshold: float, unfinished: Bool[np.ndarray, " members"] | None = None
) -> tuple[Decision, float, float]:
    """Verdict on one estimate per member, and the ends of the interval of their mean.

    *Holds*: every member has a finite estimate, and the whole interval is above the threshold. *Fails*: the whole
    interval of the finite estimates is at the threshold or below. Else *undecided*.

    A member that diverged has no finite estimate and cannot support a claim: with such members a claim fails also when
    none of the others is above the threshold. A member that is `unfinished` may still support a claim: as long as there
    is one, the claim is undecided.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(x) for x in interval(finite)) if len(finite) else (np.nan, np.nan)
    diverged = len(finite) < len(values)
    if unfinished is not None and unfinished.any():
        return "undecided", low, high
    if not diverged and low > threshold:
        return "holds", low, high
    if high <= threshold or (diverged and not (finite > threshold).any()):
        return "fails", low, high
    return "undecided", low, high


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Verdict on a claim, given evidence. Members that have not finished, or have diverged, have no estimate (nan); if
    that is true of all members, `claim.estimate` is not called."""
    lacking = evidence.lacking(claim.arms)
    verdict, low, high = decide(
        values := _estimates(claim, evidence, lacking), claim.threshold, lacking.unfinished if lacking else None
    )
    finite = values[np.isfinite(values)]
    return Judgement(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        metric=claim.metric,
        threshold=claim.threshold,
        estimate=number(finite.mean() if len(finite) else np.nan),
        low=number(low),
        high=number(high),
        n=len(values),
        above=int((values > claim.threshold).sum()),
        members=[number(v) for v in values],
        verdict=verdict,
        note=lacking.note if lacking else "",
    )


def _estimates(claim: Claim, evidence: Evidence, lacking: Lacking | None) -> Float[np.ndarray, " members"]:
    if lacking is None:
        return np.asarray(claim.estimate(evidence), np.float64)
    if lacking.any().all():
        return np.full(len(lacking.any()), np.nan)
    return np.where(lacking.any(), np.nan, np.asarray(claim.estimate(evidence), np.float64))


def digest_of_claims(claims: Iterable[Claim]) -> str:
    """SHA-256 of the texts of the claims: names, statements, sources, metrics, thresholds, arms."""
    words = [(c.name, c.statement, c.source, c.metric, c.threshold, c.arms) for c in claims]
    return hashlib.sha256(msgspec.json.encode(words)).hexdigest()


def number(value: Any) -> float | None:
    """A float that JSON can hold; None where it is not finite."""
    return float(value) if np.isfinite(value) else None
