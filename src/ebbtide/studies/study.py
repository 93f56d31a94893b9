"""Studies: a paper's question, and experiments that ask it."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ebbtide.errors import InputError, nearest, require
from ebbtide.studies.claim import Claim
from ebbtide.studies.describe import option_words
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.verdict import Verdict
from ebbtide.sweeps.axes import Point
from ebbtide.training.fields import in_full, parse
from ebbtide.training.spec import Spec

REGISTERED = Path(__file__).parents[1] / "papers" / "registered"
"""The folder of the registrations of this package's studies."""

Figures = dict[str, bytes]
"""Images by the name of their file."""


@runtime_checkable
class Plan(Protocol):
    """Work that is to be done, with the fields that a user has changed."""

    @property
    def setup(self) -> "Setup":
        """The experiment and preset that the work is done for."""
        ...

    def check(self) -> None:
        """Raises `InputError` unless this machine can do the work now, and its evidence could be judged."""
        ...

    def work_digest(self) -> str:
        """SHA-256 of what is computed: of the run's spec, the sweep's description or the computation's setting."""
        ...

    def seed_words(self) -> str:
        """The seeds of all members, in words."""
        ...

    def claims(self) -> tuple[Claim, ...]:
        """The claims that the work is judged by."""
        ...

    def folder_in(self, runs: Path) -> Path:
        """The folder of the work among others in `runs`."""
        ...

    def conclude(self, folder: Path) -> Verdict:
        """The verdict on the work in a folder, which is written there, with the figures."""
        ...


@runtime_checkable
class Work(Protocol):
    """Work that gives evidence: a `SingleRun`, a `Comparison` of arms, or a `Computation`."""

    def plan(self, setup: "Setup") -> Plan:
        """The work with the fields that a user has changed. Raises `InputError` where those cannot be."""
        ...


class Preset(NamedTuple):
    """A size at which an experiment is done.

    Args:
        work: a `SingleRun`, a `Comparison` or a `Computation`.
        minutes: about how long the work takes on two cores, in minutes (where it was timed with fewer members: in
            proportion); None: never timed.
        scaled: how the setting differs from the paper's, in words.
        needs: data that must be on the machine, in words.

    >>> eb.Preset(eb.SingleRun("quick"), minutes=0.5, scaled="width 32 in place of 64").work.base
    'quick'
    """

    work: Work
    minutes: float | None
    scaled: str
    needs: str = ""


class Experiment(NamedTuple):
    """One of a paper's questions: claims that are written before the work, and the work that judges them, by preset.

    Args:
        name: the name after `--experiment`; a study's own experiment has the study's name.
        question: one question.
        section: the section or figure of the paper that asks it.
        claims: the claims.
        presets: sizes of the work, by name.
        shows: evaluators whose curves are drawn for every arm, one panel each.
        scalars: scalars that are listed for every arm.
        figures: a function from the evidence and a title to further images by file name.
        check: a function that raises `InputError` where the measures of the claims have no meaning for the model of a
            spec; it is called with every arm's spec before anything is trained, if fields of the preset are changed.

    >>> rates = {"slow": {"optimizer.lr": 1e-4}, "fast": {"optimizer.lr": 1e-3}}
    >>> preset = eb.Preset(eb.Comparison(arms=rates, base={}), minutes=0.5, scaled="a toy")
    >>> experiment = eb.Experiment("rates", "Is fast better?", "Fig. 1", claims=(), presets={"quick": preset})
    >>> list(experiment.preset("quick").work.arms)
    ['slow', 'fast']
    """

    name: str
    question: str
    section: str
    claims: tuple[Claim, ...]
    presets: dict[str, Preset]
    shows: tuple[str, ...] = ("icl", "ciwl", "iwl")
    scalars: tuple[str, ...] = ("icl_peak", "icl_final", "transience", "ciwl_final", "iwl_final", "train_loss_final")
    figures: Callable[[Evidence, str], Figures] | None = None
    check: Callable[[Spec], object] | None = None

    def preset(self, name: str) -> Preset:
        """The preset of that name. Raises `InputError` for an unknown one."""
        known = ", ".join(self.presets)
        require(name in self.presets, "preset", name, f"{self.name} has {known}{nearest(name, self.presets)}")
        return self.presets[name]

    def claims_on(self, arms: Iterable[str]) -> tuple[Claim, ...]:
        """Claims that compare no other arms than these."""
        return tuple(claim for claim in self.claims if set(claim.arms) <= set(arms))


class Base(NamedTuple):
    """A spec from which work starts. A sweep's file may name it as the preset of its study.

    Args:
        spec: the spec.
        note: what is special about the spec, in words.

    >>> eb.Base(eb.Spec(members=2), "two members").spec.members
    2
    """

    spec: Spec
    note: str


class Study(NamedTuple):
    """A paper's question, asked by experiments; the first is what `ebbtide run NAME` does.

    Args:
        name: the name on the command line.
        paper: authors, year, title and where it appeared.
        question: one question.
        experiments: the experiments; the verdict of the one that has the study's name is the study's.
        bases: the specs that work starts from, by the names of presets.
        file: for a study in a user's own file, the file's name and the beginning of its SHA-256; else empty.
        registrations: the folder in which `ebbtide prereg` puts claims, seeds and settings before they are judged, and
            in which verdicts look for them; empty: that of this package.

    >>> study = eb.find_study("transience")
    >>> study.experiment("size").question
    'Does ICL fade at every size, and later in wider models?'
    >>> study.experiment("sise")
    Traceback (most recent call last):
    ebbtide.errors.InputError: experiment = 'sise': transience has ... (did you mean 'size'?)
    """

    name: str
    paper: str
    question: str
    experiments: tuple[Experiment, ...]
    bases: Mapping[str, Base] = {}
    file: str = ""
    registrations: str = ""

    def base(self, name: str) -> Base:
        """The base of that name. Raises `InputError` for an unknown one, and where the study trains nothing."""
        if not self.bases:
            raise InputError(
                "study", self.name, f"trains nothing, so it has no spec; run it with: ebbtide run {self.name}"
            )
        known = ", ".join(self.bases)
        require(name in self.bases, "preset", name, f"{self.name} has {known}{nearest(name, self.bases)}")
        return self.bases[name]

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name. Raises `InputError` for an unknown one."""
        names = [one.name for one in self.experiments]
        allowed = f"{self.name} has {', '.join(names)}{nearest(name, names)}"
        require(name in names, "experiment", name, allowed)
        return self.experiments[names.index(name)]

    def registrations_folder(self) -> Path:
        """The folder of the study's registrations."""
        return Path(self.registrations) if self.registrations else REGISTERED

    def own(self) -> Experiment | None:
        """The experiment that has the study's name, if there is one."""
        return next((one for one in self.experiments if one.name == self.name), None)

    def full_name(self, experiment: Experiment) -> str:
        """Unique name of an experiment among all studies: `study/experiment`, or `study` for the study's own."""
        return self.name if experiment.name == self.name else f"{self.name}/{experiment.name}"

    def word(self) -> str:
        """The word that names the study on the command line: its name, or the name of the file that holds it."""
        return self.file.rpartition(" ")[0] or self.name


class Setup(NamedTuple):
    """An experiment at a preset, with the fields that a user has changed: their dotted names, and values as text."""

    study: Study
    experiment: Experiment
    size: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def preset(self) -> str:
        """The preset's name, with a star where fields were changed."""
        return f"{self.size}*" if self.fields else self.size

    def name(self) -> str:
        """The experiment's `Study.full_name`."""
        return self.study.full_name(self.experiment)

    def changed(self) -> Point:
        """The values of the fields that were changed; the last one of a field that was given twice."""
        return {name: in_full(name, parse(text)) for name, text in self.fields}

    def plan(self) -> Plan:
        """The work to do. Raises `InputError` for an unknown preset, and for fields that cannot be changed so."""
        return self.experiment.preset(self.size).work.plan(self)

    def command(self, *options: str, study: str = "") -> str:
        """The command that does the work, with further words after the preset's; `study` is the path of its file."""
        words = ["ebbtide", "run", study or self.study.word()]
        words += [] if self.experiment.name == self.study.name else ["--experiment", self.experiment.name]
        words += ["--preset", self.size, *options]
        return shlex.join([*words, *(word for name, text in self.fields for word in option_words(name, text))])


def setup(
    study: Study, experiment: str | None = None, preset: str = "quick", fields: Iterable[tuple[str, str]] = ()
) -> Setup:
    """An experiment of a study (None: the first) at a preset, with fields changed. Raises `InputError` for an unknown
    experiment."""
    one = study.experiments[0] if experiment is None else study.experiment(experiment)
    return Setup(study, one, preset, tuple(fields))
