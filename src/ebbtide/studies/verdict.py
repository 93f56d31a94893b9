"""verdict.json: the answer to an experiment's question, and what the answer rests on."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from ebbtide import __version__
from ebbtide.errors import InputError
from ebbtide.notebook import html_of
from ebbtide.runs.atomic import write_file
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.records import MOST_COUNT
from ebbtide.runs.signed import UNREADABLE, DamagedError, check_plain
from ebbtide.studies.claim import Claim, Judgement, digest_of_claims, judge_all, number
from ebbtide.studies.evidence import Evidence, Scalars
from ebbtide.studies.registration import read_registration

VERDICT = "verdict.json"
INTERVAL = "exact 95 % intervals of the share of members (Clopper-Pearson) and of the median (order statistics)"
LARGEST_VERDICT = 2**24
"""Bytes; ours have some thousand, those over a sweep a few hundred for each member."""

MOST_CLAIMS = 1000


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """verdict.json: the verdict of an experiment (`study`, or `study/experiment`) and its basis; `scaled` says
    how the setting differs from the paper's, `seeds` which were used, `command` how to run it again; `version` of
    ebbtide judged the claims whose digest is `claims_digest`; `registered` says whether claims, seeds and setting are
    those that were registered before the run; `trained_by` names what trained the members (the compiled kernel or XLA,
    and on which device). Each is empty where it is not known. A notebook shows it as `ebbtide report` does."""

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
    registered: str = ""
    trained_by: str = ""

    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.verdict == "holds" for claim in self.claims)

    def _repr_html_(self) -> str:
        return html_of(self)


class Basis(NamedTuple):
    """The subject of a verdict: the experiment's full name, paper and question, the preset (with a star where fields
    were changed), the digest of the work, the sequences that were trained on, words on the differences from the paper's
    setting and on the seeds, the command that repeats the work (empty: there is none), the folder of registrations, and
    words on what trained the members."""

    name: str
    paper: str
    question: str
    preset: str
    digest: str
    sequences: int
    scaled: str
    seeds: str
    command: str
    registrations: Path
    trained_by: str


def verdict_on(basis: Basis, claims: Iterable[Claim], evidence: Evidence, summary: Scalars) -> Verdict:
    """Verdict on every claim; `summary` are scalars of the members that are stored with it."""
    claims = tuple(claims)
    return Verdict(
        study=basis.name,
        paper=basis.paper,
        preset=basis.preset,
        digest=basis.digest,
        sequences=basis.sequences,
        interval=INTERVAL,
        claims=judge_all(claims, evidence),
        summary={name: [number(value) for value in values] for name, values in summary.items()},
        question=basis.question,
        scaled=basis.scaled,
        seeds=basis.seeds,
        command=basis.command,
        version=__version__,
        claims_digest=digest_of_claims(claims),
        registered=_registered_words(basis, claims),
        trained_by=basis.trained_by,
    )


def _registered_words(basis: Basis, claims: tuple[Claim, ...]) -> str:
    """Words on the registration of a verdict's basis: that there is none, or how the two compare."""
    if basis.preset.endswith("*"):
        return "not registered: fields were changed"
    found = read_registration(basis.registrations, basis.name, basis.preset)
    if found is None:
        return "not registered"
    registration, sha256 = found
    return f"{registration.compared(basis.digest, basis.seeds, claims)} (SHA-256 {sha256[:16]})"


def judged_by(verdict: Verdict | None, claims: Iterable[Claim] | None) -> str:
    """Words on the version of ebbtide that judged a verdict, and on whether its claims are today's `claims` (None: they
    are not known here). Nothing where the verdict does not say."""
    if verdict is None or not verdict.claims_digest:
        return ""
    changed = claims is not None and verdict.claims_digest != digest_of_claims(claims)
    return f"version {verdict.version}" + ("; its claims have changed since" if changed else "")


def write_verdict(folder: Path, verdict: Verdict, figures: dict[str, bytes]) -> None:
    """Writes verdict.json and the figures."""
    write_file(folder / VERDICT, msgspec.json.format(msgspec.json.encode(verdict), indent=1))
    for name, data in figures.items():
        write_file(folder / name, data)


def read_verdict(run: RunFolder) -> Verdict | None:
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
    """Raises `DamagedError` for a verdict that `verdict_on` cannot have given: too many claims, counts that are not
    those of the members, one end of an interval, numbers that are not finite."""
    if len(verdict.claims) > MOST_CLAIMS or not 0 <= verdict.sequences < MOST_COUNT:
        raise DamagedError(f"{len(verdict.claims)} claims, at {verdict.sequences} sequences")
    for one in verdict.claims:
        if not (one.n == len(one.members) and 0 <= one.above <= one.n):
            raise DamagedError(f"claim {one.claim[:60]!r}: {one.above} of {one.n} where {len(one.members)} are given")
        if (one.low is None) != (one.high is None):
            raise DamagedError(f"claim {one.claim[:60]!r}: an interval with one end")
        check_plain([one.threshold, one.estimate, one.low, one.high, one.members], f"claim {one.claim[:60]!r}")
    check_plain(list(verdict.summary.values()), "summary")
