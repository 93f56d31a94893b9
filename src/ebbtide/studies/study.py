"""What a study is: a paper's question, and experiments that ask it."""

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
from ebbtide.training.fields import parse
from ebbtide.training.spec import Spec

Figures = dict[str, bytes]
"""Pictures by the name of their file."""


@runtime_checkable
class Plan(Protocol):
    """Work that is to be done, with the fields that a user has changed."""

    @property
    def setup(self) -> "Setup":
        """What the work is for."""
        ...

    def check(self) -> None:
        """Raises `InputError` unless this machine can do the work now, and its evidence could be judged."""
        ...

    def folder_in(self, runs: Path) -> Path:
        """The folder of the work among others in `runs`."""
        ...

    def conclude(self, folder: Path) -> Verdict:
        """The verdict on the work in a folder, which is written there, with the figures."""
        ...


@runtime_checkable
class Work(Protocol):
    """What is done for evidence: a `SingleRun`, a `Comparison` of arms, or a `Computation`."""

    def plan(self, setup: "Setup") -> Plan:
        """The work with the fields that a user has changed. Raises `InputError` where those cannot be."""
        ...


class Preset(NamedTuple):
    """A size at which an experiment is done. `minutes` is what two cores take (None: not seen to finish); `scaled` says
    how the setting differs from the paper's, or what it is; `needs` names data that must be there."""

    work: Work
    minutes: float | None
    scaled: str
    needs: str = ""


class Experiment(NamedTuple):
    """One of a paper's questions: claims that are written before the work, and the work that is to judge them, by
    preset.

    `section` says where the paper asks the question. Of every arm the curves `shows` (evaluators, a panel each) are
    drawn and the `scalars` listed; `figures` draws what is no curve, given the evidence and a title.
    """

    name: str
    question: str
    section: str
    claims: tuple[Claim, ...]
    presets: dict[str, Preset]
    shows: tuple[str, ...] = ("icl", "ciwl", "iwl")
    scalars: tuple[str, ...] = ("icl_peak", "icl_final", "transience", "ciwl_final", "iwl_final", "train_loss_final")
    figures: Callable[[Evidence, str], Figures] | None = None

    def preset(self, name: str) -> Preset:
        """The preset of that name. Raises `InputError` for an unknown one."""
        known = ", ".join(self.presets)
        require(name in self.presets, "preset", name, f"{self.name} has {known}{nearest(name, self.presets)}")
        return self.presets[name]

    def asked(self, arms: Iterable[str]) -> tuple[Claim, ...]:
        """The claims about these arms."""
        return tuple(claim for claim in self.claims if set(claim.arms) <= set(arms))


class Base(NamedTuple):
    """A spec from which work starts, with words on it. A sweep's file may name it as the preset of its study."""

    spec: Spec
    note: str


class Study(NamedTuple):
    """A paper's question, asked by experiments; the first is what `ebbtide run NAME` does.

    An experiment that has the study's name is the study's own: its verdict is the study's. `bases` are the specs that
    work starts from, by the names of presets. `file` says of a study in a user's own file which file it is: its name
    and hash.
    """

    name: str
    paper: str
    question: str
    experiments: tuple[Experiment, ...]
    bases: Mapping[str, Base] = {}
    file: str = ""

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

    def own(self) -> Experiment | None:
        """The experiment that has the study's name, if there is one."""
        return next((one for one in self.experiments if one.name == self.name), None)

    def full_name(self, experiment: Experiment) -> str:
        """The name of an experiment among those of all studies: `study/experiment`, or `study` for the study's own."""
        return self.name if experiment.name == self.name else f"{self.name}/{experiment.name}"


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
        """The experiment's name among those of all studies."""
        return self.study.full_name(self.experiment)

    def changed(self) -> Point:
        """The values of the fields that were changed; the last one of a field that was given twice."""
        return {name: parse(text) for name, text in self.fields}

    def plan(self) -> Plan:
        """The work to do. Raises `InputError` for an unknown preset, and for fields that cannot be changed so."""
        return self.experiment.preset(self.size).work.plan(self)

    def command(self, *options: str) -> str:
        """The command that does the work, with further words after the preset's."""
        words = ["ebbtide", "run", self.study.name]
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
