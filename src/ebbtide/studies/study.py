"""Questions and verdicts: claims written before the run, judged by an interval over members."""

import hashlib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.divergence import diverged
from ebbtide.evaluation.statistics import INTERVAL, interval
from ebbtide.runs.atomic import write_file
from ebbtide.runs.folder import MOST_COUNT, DamagedError, Run
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import UNREADABLE, check_plain
from ebbtide.studies.describe import run_command, scaled, seeds
from ebbtide.training.spec import Spec

if TYPE_CHECKING:
    from ebbtide.studies.experiment import Experiment

VERDICT = "verdict.json"
LARGEST_VERDICT = 2**24
"""Bytes; ours have some thousand, those over a sweep a few hundred for each member."""

MOST_CLAIMS = 1000

Scalars = dict[str, np.ndarray]
Evidence = Any
"""What a claim is estimated from: the scalars of a run's members, or the arms of an experiment."""
Decision = Literal["holds", "fails", "undecided"]


class Claim(NamedTuple):
    """One inequality: the mean over members of `estimate` exceeds `threshold`.

    `source` says where the claim and its size come from; `metric` says what is estimated. In an experiment
    `arms` are those it compares: it is asked where a preset has them all.
    """

    name: str
    statement: str
    source: str
    metric: str
    threshold: float
    estimate: Callable[[Evidence], np.ndarray]
    arms: tuple[str, ...] = ()


class Preset(NamedTuple):
    """A size at which a study runs; `minutes` is what two cores take (None: not seen to finish)."""

    spec: Spec
    minutes: float | None
    note: str


class Study(NamedTuple):
    """A paper's question, asked by running a spec; `experiments` ask the paper's other questions of grids. A study
    without claims of its own is its first experiment; its presets are what that starts from."""

    name: str
    paper: str
    question: str
    claims: tuple[Claim, ...]
    presets: dict[str, Preset]
    summarise: Callable[[Run], Scalars]
    figure: Callable[[Run, "Verdict"], dict[str, bytes]]
    experiments: tuple["Experiment", ...] = ()

    def preset(self, name: str) -> Preset:
        """The preset of that name. Raises `InputError` for an unknown one."""
        if name not in self.presets:
            known = ", ".join(self.presets)
            raise InputError("preset", name, f"{self.name} has {known}{nearest(name, self.presets)}")
        return self.presets[name]

    def experiment(self, name: str) -> "Experiment":
        """The experiment of that name. Raises `InputError` for an unknown one."""
        names = [one.name for one in self.experiments]
        allowed = f"{self.name} has {', '.join(names) or 'no experiments'}{nearest(name, names)}"
        require(name in names, "experiment", name, allowed)
        return self.experiments[names.index(name)]


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claim with its answer. `members` are the estimates one by one (None: not finite, or not finished); `above`
    counts those over the threshold. `note` says what kept the claim from being judged by all members."""

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


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """verdict.json: a study's (or its experiment's: `study/experiment`) answer and what it rests on; `scaled` says
    how the setting differs from the paper's, `seeds` which were used, `command` how to run it again; `version` of
    ebbtide judged the claims whose digest is `claims_digest`; each is empty where it is not known."""

    study: str
    paper: str
    preset: str
    digest: str
    sequences: int
    interval: str
    claims: list[Judgement]
    summary: dict[str, list[float | None]]
    question: str = ""
    scaled: str = ""
    seeds: str = ""
    command: str = ""
    version: str = ""
    claims_digest: str = ""

    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.verdict == "holds" for claim in self.claims)


def decide(
    values: Float[np.ndarray, " members"], threshold: float, unfinished: Bool[np.ndarray, " members"] | None = None
) -> tuple[Decision, float, float]:
    """The verdict on one estimate per member, and the ends of the interval of their mean.

    *Holds*: every member has a finite estimate, and the whole interval is above the threshold. *Fails*: the whole
    interval of the finite estimates is at it or below. Else *undecided*.

    A member that diverged has no finite estimate and cannot support a claim: with such members a claim fails also when
    none of the others is above the threshold. A member that is `unfinished` may still support it: as long as there is
    one, the claim is undecided.
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


class Lacking(NamedTuple):
    """The members that cannot be asked: those that have not finished in every arm of a claim, and those that diverged
    in one. `note` says so in words."""

    unfinished: Bool[np.ndarray, " members"]
    diverged: Bool[np.ndarray, " members"]
    note: str

    def any(self) -> Bool[np.ndarray, " members"]:
        """The members that lack something."""
        return self.unfinished | self.diverged


def judge_claims(
    claims: Iterable[Claim], evidence: Evidence, lacking: Callable[[Claim], Lacking | None] = lambda claim: None
) -> list[Judgement]:
    """Every claim on what was measured. `lacking` says which members cannot be asked (None: all can); their estimates
    are nan. A claim of which no member can be asked is not estimated, and takes nothing from the others."""
    judgements = []
    for claim in claims:
        gone = lacking(claim)
        if gone is None:
            values = np.asarray(claim.estimate(evidence), np.float64)
        elif gone.any().all():
            values = np.full(len(gone.any()), np.nan)
        else:
            values = np.where(gone.any(), np.nan, np.asarray(claim.estimate(evidence), np.float64))
        verdict, low, high = decide(values, claim.threshold, gone.unfinished if gone else None)
        finite = values[np.isfinite(values)]
        judgements.append(
            Judgement(
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
                note=gone.note if gone else "",
            )
        )
    return judgements


def digest_of_claims(claims: Iterable[Claim]) -> str:
    """SHA-256 of what the claims say: names, statements, sources, what is estimated, thresholds, arms."""
    said = [(c.name, c.statement, c.source, c.metric, c.threshold, c.arms) for c in claims]
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def judged_by(verdict: Verdict | None, claims: Iterable[Claim] | None) -> str:
    """Words on the version of ebbtide that judged a verdict, and on whether its claims are today's `claims` (None: they
    are not known here). Nothing where the verdict does not say."""
    if verdict is None or not verdict.claims_digest:
        return ""
    changed = claims is not None and verdict.claims_digest != digest_of_claims(claims)
    return f"version {verdict.version}" + ("; its claims have changed since" if changed else "")


def judge(study: Study, run: Run) -> Verdict:
    """Every claim of the study on a finished run."""
    scalars = study.summarise(run)
    lost = diverged(run.metrics())
    gone = Lacking(np.zeros_like(lost), lost, f"{lost.sum()} of {len(lost)} members diverged") if lost.any() else None
    summary = {name: [number(v) for v in values] for name, values in scalars.items()}
    preset, spec = run.header.label.get("preset", "custom"), run.header.spec
    presets = {name: one.spec for name, one in study.presets.items()}
    base = preset.rstrip("*")  # *: with fields changed
    return Verdict(
        study=study.name,
        paper=study.paper,
        preset=preset,
        digest=run.header.digest,
        sequences=run.sequences(),
        interval=INTERVAL,
        claims=judge_claims(study.claims, scalars, lambda claim: gone),
        summary=summary,
        question=study.question,
        scaled=scaled(spec, presets["paper"], study.presets["paper"].note) if "paper" in presets else "",
        seeds=seeds(spec),
        command=run_command(study.name, base, presets[base], spec) if base in presets else "",
        version=version("ebbtide"),
        claims_digest=digest_of_claims(study.claims),
    )


def conclude(study: Study, run: Run) -> Verdict:
    """Judges a run and writes verdict.json and the figures into its folder."""
    verdict = judge(study, run)
    write_verdict(run.path, verdict, {})  # a verdict does not wait for a figure
    write_verdict(run.path, verdict, study.figure(run, verdict))
    return verdict


def write_verdict(folder: Path, verdict: Verdict, figures: dict[str, bytes]) -> None:
    """Writes verdict.json and the figures."""
    write_file(folder / VERDICT, msgspec.json.format(msgspec.json.encode(verdict), indent=1))
    for name, data in figures.items():
        write_file(folder / name, data)


def read_verdict(run: Run) -> Verdict | None:
    """The verdict in a run folder, if it is of this run; None when there is none."""
    verdict = verdict_in(run.path)
    return verdict if verdict and verdict.digest == run.header.digest else None


def verdict_in(folder: Path) -> Verdict | None:
    """The verdict that lies in a folder, whatever it is of; None when there is none.

    Raises `InputError` when it is damaged.
    """
    if not (folder / VERDICT).is_file():
        return None
    try:
        verdict = msgspec.json.decode(read_bounded(folder, VERDICT, LARGEST_VERDICT), type=Verdict)
        _check_verdict(verdict)
    except (DamagedError, *UNREADABLE) as error:
        raise InputError("run", str(folder), f"{VERDICT} is damaged: {error}") from error
    return verdict


def _check_verdict(verdict: Verdict) -> None:
    """Raises `DamagedError` for a verdict that `judge` cannot have given: too many claims, counts that are not those of
    the members, one end of an interval, numbers that are not finite."""
    if len(verdict.claims) > MOST_CLAIMS or not 0 <= verdict.sequences < MOST_COUNT:
        raise DamagedError(f"{len(verdict.claims)} claims, at {verdict.sequences} sequences")
    for one in verdict.claims:
        if not (one.n == len(one.members) and 0 <= one.above <= one.n):
            raise DamagedError(f"claim {one.claim[:60]!r}: {one.above} of {one.n} where {len(one.members)} are given")
        if (one.low is None) != (one.high is None):
            raise DamagedError(f"claim {one.claim[:60]!r}: an interval with one end")
        check_plain([one.threshold, one.estimate, one.low, one.high, one.members], f"claim {one.claim[:60]!r}")
    check_plain(list(verdict.summary.values()), "summary")


def number(value: Any) -> float | None:
    """A float that JSON can hold; None where it is not finite."""
    return float(value) if np.isfinite(value) else None
