"""Work that is one run, whose members are compared with themselves over training."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import InputError
from ebbtide.report.figure import curves_figure
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.claim import Claim
from ebbtide.studies.describe import run_command, scale_words, seeds, trained_by
from ebbtide.studies.evidence import ONLY, Arm, Evidence, Scalars, evidence_of_run
from ebbtide.studies.rehearsal import UntrainedRun, rehearse
from ebbtide.studies.study import Experiment, Setup, Study
from ebbtide.studies.verdict import Basis, Verdict, verdict_on, write_verdict
from ebbtide.sweeps.axes import Point
from ebbtide.training.feasible import check_feasible
from ebbtide.training.fields import override_all
from ebbtide.training.spec import Spec, from_builtins


def no_scalars(run: RunFolder) -> Scalars:
    """An empty dict: no scalars beside those of the curves."""
    return {}


class SingleRun(NamedTuple):
    """Work that is one run: a claim compares its members with themselves over training.

    Args:
        base: the name of one of the study's `bases`, whose spec is trained.
        scalars: a function from a finished run to scalars by name, one number for each member, in addition to those
            of the curves.

    >>> work = eb.SingleRun("quick")
    >>> preset = eb.Preset(work, minutes=0.5, scaled="a toy")
    >>> experiment = eb.Experiment("mine", "Does ICL rise?", "Fig. 1", claims=(), presets={"quick": preset})
    >>> base = eb.Base(eb.Spec(), "default sizes")
    >>> study = eb.Study("mine", "no paper", "Does ICL rise?", (experiment,), bases={"quick": base})
    >>> study.own().preset("quick").work.base
    'quick'
    """

    base: str
    scalars: Callable[[RunFolder], Scalars] = no_scalars

    def plan(self, setup: Setup) -> "RunPlan":
        """The run with the fields that a user has changed."""
        data = setup.study.base(self.base).spec.builtins()
        override_all(Spec, data, setup.fields)
        return RunPlan(setup, from_builtins(data))


class RunPlan(NamedTuple):
    """The plan to train a run for a study."""

    setup: Setup
    spec: Spec

    @property
    def label(self) -> dict[str, str]:
        """Label of the run: the study's name, the preset, and for a study in a user's file which file it is."""
        file = self.setup.study.file
        return {"study": self.setup.study.name, "preset": self.setup.preset} | ({"file": file} if file else {})

    def check(self) -> None:
        """Raises `InputError` unless this machine can train the run now, and it could be judged."""
        self.spec.check()
        check_feasible(self.spec)
        check_judgeable(self.setup.study, self.spec, self.setup.changed())

    def work_digest(self) -> str:
        """The spec's digest."""
        return self.spec.digest()

    def seed_words(self) -> str:
        """The seeds of the run."""
        return seeds(self.spec.builtins())

    def claims(self) -> tuple[Claim, ...]:
        """The experiment's claims."""
        return self.setup.experiment.claims

    def folder_in(self, runs: Path) -> Path:
        """The folder of the run among others in `runs`."""
        return runs / f"{self.setup.study.name}-{self.setup.size}-{self.spec.digest()[:8]}"

    def conclude(self, folder: Path) -> Verdict:
        """The verdict on the run, which is written into its folder with the figures."""
        return conclude_run(self.setup.study, RunFolder(folder))


def own_experiment(study: Study) -> tuple[Experiment, SingleRun]:
    """The study's own experiment, and its work. Raises `InputError` where a study has none that is a single run."""
    own = study.own()
    work = next(iter(own.presets.values())).work if own else None
    if own is None or not isinstance(work, SingleRun):
        raise InputError("study", study.name, "judges no single run; its experiments are sweeps or computations")
    return own, work


def check_judgeable(study: Study, spec: Spec, changed: Point) -> None:
    """Raises `InputError`, naming the fields that were `changed`, where a run of this spec could not be judged by the
    study: a curve that a claim needs would not be there. What a study asks of the models themselves is not tried."""
    experiment, work = own_experiment(study)

    def judging() -> None:
        if experiment.check:
            experiment.check(spec)
        run = UntrainedRun(spec)
        evidence = Evidence({ONLY: Arm(run.metrics(), run.chance(), scalars=work.scalars(run))})
        for claim in experiment.claims:
            claim.estimate(evidence)

    rehearse(judging, study.name, changed)


def judge_run(study: Study, run: RunFolder) -> tuple[Verdict, Evidence]:
    """Verdict of the study's own claims on a finished run, and the evidence that they were judged on."""
    experiment, work = own_experiment(study)
    evidence = evidence_of_run(run, work.scalars(run))
    preset, spec = run.header.label.get("preset", "custom"), run.header.spec
    base, paper = study.bases.get(preset.rstrip("*")), study.bases.get("paper")
    basis = Basis(
        name=study.name,
        paper=study.paper,
        question=experiment.question,
        preset=preset,
        digest=run.header.digest,
        sequences=run.sequences(),
        scaled=scale_words(spec, paper.spec, paper.note) if paper else "",
        seeds=seeds(spec),
        command=run_command(study.word(), preset.rstrip("*"), base.spec, spec) if base else "",
        registrations=study.registrations_folder(),
        trained_by=trained_by([run]),
    )
    return verdict_on(basis, experiment.claims, evidence, evidence.scalars(ONLY)), evidence


def conclude_run(study: Study, run: RunFolder) -> Verdict:
    """Verdict of the study's own claims on a run. Writes verdict.json and the figures into the run's folder.

    Args:
        study: a study whose own experiment is a `SingleRun`.
        run: a run of the study's spec, or of any spec whose curves the claims can be estimated from.

    Raises:
        InputError: the study has no experiment that is a single run, or a claim needs a curve that the run lacks.

    >>> rises = eb.Claim("rise", "ICL is a number", "none", "icl_peak", 0.0, lambda evidence: evidence["icl_peak"])
    >>> preset = eb.Preset(eb.SingleRun("quick"), minutes=0.5, scaled="a toy")
    >>> experiment = eb.Experiment("mine", "Does ICL rise?", "Fig. 1", claims=(rises,), presets={"quick": preset})
    >>> study = eb.Study("mine", "no paper", "Does ICL rise?", (experiment,))
    >>> [claim.verdict for claim in eb.conclude_run(study, eb.Run("runs/tiny")).claims]  # one member: no interval
    ['undecided']
    """
    verdict, evidence = judge_run(study, run)
    write_verdict(run.path, verdict, {})  # a verdict does not wait for a figure
    experiment, _ = own_experiment(study)
    title = f"{study.name} ({verdict.preset})"
    drawn = experiment.figures(evidence, title) if experiment.figures else {}
    write_verdict(run.path, verdict, curves_figure(run, f"{title}: {experiment.question}") | drawn)
    return verdict
