"""Questions and verdicts: claims written before the run, judged by an interval over members."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.statistics import INTERVAL, interval
from ebbtide.runs.atomic import write_file
from ebbtide.runs.folder import DamagedError, Run
from ebbtide.runs.reading import read_bounded
from ebbtide.studies.settings import run_command, scaled, seeds
from ebbtide.training.spec import Spec

if TYPE_CHECKING:
    from ebbtide.studies.experiment import Experiment

VERDICT = "verdict.json"
LARGEST_VERDICT = 2**24
"""Bytes; ours have some thousand, those over a sweep a few hundred for each member."""

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
    """A claim with its answer. `members` are the estimates one by one; `above` counts those over the
    threshold; a member without a finite estimate counts as the threshold's worst side (see `judge`)."""

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


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """verdict.json: a study's (or its experiment's: `study/experiment`) answer and what it rests on; `scaled` says
    how the setting differs from the paper's, `seeds` which were used, `command` how to run it again; each is empty
    where it is not known."""

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

    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.verdict == "holds" for claim in self.claims)


def decide(values: np.ndarray, threshold: float) -> tuple[Decision, float, float]:
    """Holds if the whole interval is above the threshold, fails if it is all below, else undecided.

    A member whose estimate is not finite (it diverged) cannot support a claim: it leaves the claim
    undecided at best, and failed if no member is above the threshold.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(x) for x in interval(finite)) if len(finite) else (np.nan, np.nan)
    if len(finite) == len(values) and low > threshold:
        return "holds", low, high
    if high < threshold or not (finite > threshold).any():
        return "fails", low, high
    return "undecided", low, high


def judge_claims(claims: Iterable[Claim], evidence: Evidence) -> list[Judgement]:
    """Every claim on what was measured."""
    judgements = []
    for claim in claims:
        values = np.asarray(claim.estimate(evidence), np.float64)
        verdict, low, high = decide(values, claim.threshold)
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
            )
        )
    return judgements


def judge(study: Study, run: Run) -> Verdict:
    """Every claim of the study on a finished run."""
    scalars = study.summarise(run)
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
        claims=judge_claims(study.claims, scalars),
        summary=summary,
        question=study.question,
        scaled=scaled(spec, presets["paper"], study.presets["paper"].note) if "paper" in presets else "",
        seeds=seeds(spec),
        command=run_command(study.name, base, presets[base], spec) if base in presets else "",
    )


def conclude(study: Study, run: Run) -> Verdict:
    """Judges a run and writes verdict.json and the figures into its folder."""
    verdict = judge(study, run)
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
        return msgspec.json.decode(read_bounded(folder, VERDICT, LARGEST_VERDICT), type=Verdict)
    except (DamagedError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InputError("run", str(folder), f"{VERDICT} is damaged: {error}") from error


def number(value: Any) -> float | None:
    """A float that JSON can hold; None where it is not finite."""
    return float(value) if np.isfinite(value) else None
