"""Claims: inequalities that are written before the run, and judged by the number of members in which they come true."""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.evaluation.statistics import LEVEL, corrected, median_interval, probability_of_as_many, share_interval
from ebbtide.studies.evidence import Evidence, Lacking

Decision = Literal["holds", "fails", "undecided"]
MOST = 0.5
"""The share of members that "most" means: more than half, so that the median is above the threshold."""
TAIL = (1 - LEVEL) / 2
"""Largest probability of a *holds* of a claim that is false, and of a *fails* of one that is true."""


class Claim(NamedTuple):
    """One inequality, written before the run: in more than `share` of all members `estimate` exceeds `threshold`.

    A member is a model with seeds of its own, and where the run asks for it (`Seeds.world`) with classes and
    evaluation prompts of its own; "all members" are those that other seeds would give.

    Args:
        name: the claim's name within its experiment.
        statement: the claim in words.
        source: where in the paper the claim and its threshold come from.
        metric: what is estimated, in words and with its unit.
        threshold: a number in the unit of the estimate.
        estimate: a function from `Evidence` to one number for each member (nan: none).
        arms: the arms that the claim compares; it is judged at presets that have them all. Empty for an experiment of
            one arm.
        share: the share of members that must be exceeded, between 0 and 1. At the default, 0.5, the claim is that the
            *median* is above the threshold.

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
    share: float = MOST

    def needed(self) -> str:
        """`> 0.2 in most` or `> 0.2 in over 80 %`: threshold and share of members."""
        return needed_words(self.threshold, self.share)


def needed_words(threshold: float, share: float) -> str:
    """`> 0.2 in most`, `> 0.2 in over 80 %`: what a claim asks for."""
    return f"> {threshold:g} in " + ("most" if share == MOST else f"over {100 * share:g} %")


def above(name: str, statement: str, source: str, scalar: str, arm: str, threshold: float) -> Claim:
    """The claim that a scalar of one arm exceeds a threshold, member by member."""
    metric, arms = (f"{scalar} ({arm})", (arm,)) if arm else (scalar, ())
    return Claim(name, statement, source, metric, threshold, lambda evidence: evidence.scalar(arm, scalar), arms)


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
    """A claim with its verdict.

    Args:
        claim: the claim's name.
        statement, source, metric, threshold: those of the claim.
        estimate: the median of the finite estimates of members.
        low, high: ends of the 95 % interval of that median (`median_interval`); None with fewer than 6 members.
        n: the number of members.
        above: the number of members whose estimate is above the threshold.
        members: the estimate of every member (None: not finite, or not finished).
        verdict: *holds*, *fails* or *undecided*.
        note: words on members that could not be judged, and on how many members a verdict would take.
        share: the share of members that the claim asks for. None in verdicts of earlier versions, which judged the mean
            by Student's interval: there `estimate`, `low` and `high` are those of the mean.
        share_low, share_high: ends of the exact 95 % interval of the share of members above the threshold.
        p: the probability of at least as many members above where the claim is just false.
        p_corrected: Holm's p-value in the family of all claims of the verdict.
    """

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
    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None
    p: float | None = None
    p_corrected: float | None = None

    def members_above(self) -> str:
        """`4 of 4`; `2 of 4 (3 finite)` where the claim has no finite estimate for some members."""
        finite = sum(value is not None for value in self.members)
        return f"{self.above} of {self.n}" + (f" ({finite} finite)" if finite < self.n else "")

    def needed(self) -> str:
        """`> 0.2 in most` or `> 0.2 in over 80 %`; `> 0.2` where older versions judged the mean."""
        return f"> {self.threshold:g}" if self.share is None else needed_words(self.threshold, self.share)

    def share_words(self) -> str:
        """`75 to 100 %`: the interval of the share of members above the threshold; empty where there is none."""
        if self.share_low is None or self.share_high is None:
            return ""
        return f"{100 * self.share_low:.0f} to {100 * self.share_high:.0f} %"

    def only_alone(self) -> bool:
        """Whether the claim holds by itself but not with Holm's correction for the other claims of the verdict."""
        return self.verdict == "holds" and self.p_corrected is not None and self.p_corrected > TAIL


def decide(count: int, n: int, share: float, unfinished: int = 0) -> Decision:
    """Verdict on a claim that more than `share` of all members are above a threshold, of which `count` of `n` are.

    *Holds*: the whole exact 95 % interval of the share (`share_interval`) is above `share`. *Fails*: the whole interval
    is below. Else *undecided*: also as long as a member is unfinished, which may go either way. A member that diverged
    is one that is not above.

    Of a claim that is false at most 2.5 % of all verdicts say *holds*, of a true one at most 2.5 % *fails*.

    >>> decide(6, 6, share=0.5), decide(5, 5, share=0.5), decide(1, 9, share=0.5)
    ('holds', 'undecided', 'fails')
    """
    require(0 < share < 1, "share", share, "must be between 0 and 1")
    low, high = share_interval(count, n)
    if n == 0 or unfinished:
        return "undecided"
    return "holds" if low > share else "fails" if high < share else "undecided"


def members_needed(share: float) -> int:
    """The least number of members with which a claim can hold (all of them above): 6 where it asks for most, 17 where
    it asks for 80 %."""
    return math.floor(math.log(TAIL) / math.log(share)) + 1


def most_false_holds(claims: Iterable[Judgement]) -> float:
    """The number of *holds* to expect at most of these claims if all were false: for each, the probability that members
    would be above the threshold often enough if just the share that is asked for were. Claims of older versions count
    2.5 %."""
    expected = 0.0
    for one in claims:
        if one.share is None:
            expected += TAIL
        else:
            enough = [k for k in range(one.n + 1) if decide(k, one.n, one.share) == "holds"]
            expected += probability_of_as_many(enough[0], one.n, one.share) if enough else 0.0
    return expected


def family_words(claims: Iterable[Judgement]) -> str:
    """Words on the verdicts of one page: how many *holds* to expect of claims that are false, and what a star says."""
    claims = list(claims)
    if not claims:
        return ""
    words = f"If all {len(claims)} claims were false, at most {most_false_holds(claims):.2f} would hold by chance."
    alone = sum(one.only_alone() for one in claims)
    return words + (" * holds by itself, but not with Holm's correction for the other claims." if alone else "")


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Verdict on a claim, given evidence. Members that have not finished, or have diverged, have no estimate (nan); if
    that is true of all members, `claim.estimate` is not called."""
    lacking = evidence.lacking(claim.arms)
    values = _estimates(claim, evidence, lacking)
    finite = values[np.isfinite(values)]
    low, high = median_interval(finite)
    count, n = int((finite > claim.threshold).sum()), len(values)
    verdict = decide(count, n, claim.share, int(lacking.unfinished.sum()) if lacking else 0)
    share_low, share_high = share_interval(count, n)
    notes = [lacking.note] if lacking else []
    if n < (least := members_needed(claim.share)):
        notes.append(f"{least} members are needed for a verdict")
    return Judgement(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        metric=claim.metric,
        threshold=claim.threshold,
        estimate=number(np.median(finite) if len(finite) else np.nan),
        low=number(low),
        high=number(high),
        n=n,
        above=count,
        members=[number(v) for v in values],
        verdict=verdict,
        note="; ".join(notes),
        share=claim.share,
        share_low=share_low,
        share_high=share_high,
        p=probability_of_as_many(count, n, claim.share),
    )


def judge_all(claims: Iterable[Claim], evidence: Evidence) -> list[Judgement]:
    """Verdicts on a family of claims, each with its p-value corrected for the others (Holm)."""
    judged = [judge(claim, evidence) for claim in claims]
    p_values = corrected(np.asarray([one.p for one in judged], np.float64))
    return [replace(one, p_corrected=float(p)) for one, p in zip(judged, p_values, strict=True)]


def _estimates(claim: Claim, evidence: Evidence, lacking: Lacking | None) -> Float[np.ndarray, " members"]:
    if lacking is None:
        return np.asarray(claim.estimate(evidence), np.float64)
    if lacking.any().all():
        return np.full(len(lacking.any()), np.nan)
    return np.where(lacking.any(), np.nan, np.asarray(claim.estimate(evidence), np.float64))


def digest_of_claims(claims: Iterable[Claim]) -> str:
    """SHA-256 of what the claims say: names, statements, sources, metrics, thresholds, arms, shares."""
    words = [(c.name, c.statement, c.source, c.metric, c.threshold, c.arms, c.share) for c in claims]
    return hashlib.sha256(msgspec.json.encode(words)).hexdigest()


def number(value: Any) -> float | None:
    """A float that JSON can hold; None where it is not finite."""
    return float(value) if np.isfinite(value) else None
