"""Work that is a sweep: arms that differ in one thing and train on the same seeds."""

import contextlib
import copy
import hashlib
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from ebbtide.errors import InputError, require
from ebbtide.evaluation.units import unit_of
from ebbtide.report.arms_figure import Panel, arms_figure
from ebbtide.runs.folder import inside
from ebbtide.studies.claim import Claim
from ebbtide.studies.describe import trained_by
from ebbtide.studies.donor import Donor
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.registration import verdict_seed
from ebbtide.studies.rehearsal import UntrainedEvidence, rehearse
from ebbtide.studies.study import Experiment, Figures, Setup, Study
from ebbtide.studies.sweep_evidence import evidence_of_sweep
from ebbtide.studies.verdict import Basis, Verdict, verdict_in, verdict_on, write_verdict
from ebbtide.sweeps.axes import MEMBER, Axis, Point
from ebbtide.sweeps.folder import SWEEP, SweepFolder
from ebbtide.sweeps.results import load
from ebbtide.sweeps.sweep import Origin, Resources, Sweep
from ebbtide.training.fields import assign_all
from ebbtide.training.spec import Seeds, Spec, from_builtins

SEEDS: Point = {"seeds.init": 50, "seeds.data": 50, "seeds.evaluation": 50}
"""Seeds of the verdict runs of round 0, which all experiments shared."""


def seeds_of_round(experiment: str, preset: str, round: int) -> Point:
    """Fields of a verdict run with seeds of its own (`verdict_seed`) and, from round 1 on, a world for each member."""
    if round == 0:
        return SEEDS
    return dict.fromkeys((*SEEDS, "seeds.world"), verdict_seed(experiment, preset, round))


def fresh_seeds(experiment: str, preset: str, round: int) -> Seeds:
    """The seeds of a run that is a verdict run (`verdict_seed`), with a world for each member."""
    seed = verdict_seed(experiment, preset, round)
    return Seeds(init=seed, data=seed, evaluation=seed, world=seed)


def donor_seeds(experiment: str, preset: str, round: int) -> Seeds:
    """The seeds of a run that an experiment's arms start from: member by member the arms' world, and weights and
    training sequences of its own, from the same block of seeds."""
    seeds = fresh_seeds(experiment, preset, round)
    return replace(seeds, init=seeds.init + 1, data=seeds.data + 1)


class Comparison(NamedTuple):
    """Work that is a sweep: arms that differ in one thing, and train on the same seeds.

    Args:
        arms: for each arm by name, the fields (dotted names) in which it differs from the others, with their values.
        base: fields that all arms share, changed in the spec of the study's base `preset`.
        preset: the name of one of the study's `bases`.
        members: the number of models of each arm; member i has the same seeds in every arm. A claim on most seeds can
            hold with 6 members, or with 9 of which one does otherwise.
        round: which seeds the verdict run has. 0: seeds 50, with all members in one world (`Seeds.world`); from 1 on
            seeds that no other experiment and no earlier round has, with a world for each member.
        resources: what each task of the sweep asks of a cluster.
        task_members: the number of members that one task trains; None: chosen for the machine.
        donor: a run from which arms start; trained before them.

    >>> rates = {"slow": {"optimizer.lr": 1e-4}, "fast": {"optimizer.lr": 1e-3}}
    >>> work = eb.Comparison(arms=rates, base={"source.seed": 5}, members=4)
    >>> list(work.arms), work.members
    (['slow', 'fast'], 4)
    """

    arms: dict[str, Point]
    base: Point
    preset: str = "quick"
    members: int = 9
    round: int = 0
    resources: Resources = Resources()
    task_members: int | None = None
    donor: Donor | None = None

    def plan(self, setup: Setup) -> "SweepPlan":
        """The sweep with the fields that a user has changed. A changed field holds in all arms, also in an arm that has
        a value of its own, and in the donor (`Donor.overridden`). Raises `InputError` when two arms become the same,
        and for an arm without a field."""
        for name, point in self.arms.items():
            require(bool(point), "arms", name, "must give a field: an arm without one would be no point of the sweep")
        changed = setup.changed()
        arms, donor = _arms_with(self.arms, changed), self.donor
        seeds = seeds_of_round(setup.name(), setup.size, self.round)
        if donor and changed:
            before = setup.study.base(self.preset).spec.builtins()
            assign_all(Spec, before, seeds | self.base)
            donor = donor.overridden(before, {name for point in self.arms.values() for name in point}, changed)
            arms = {name: _from_donor(point, self.donor, donor) for name, point in arms.items()}
        return SweepPlan(setup, self._replace(arms=arms, base=seeds | self.base | changed, donor=donor))


class SweepPlan(NamedTuple):
    """The arms of an experiment that are to be trained: `comparison` with all changes, and seeds, in its fields."""

    setup: Setup
    comparison: Comparison

    @property
    def sweep(self) -> Sweep:
        """The grid: arms by members. Members share seeds across arms."""
        one, setup = self.comparison, self.setup
        sweep = Sweep(
            name=f"{setup.study.name}-{setup.experiment.name}-{setup.size}",
            study=setup.study.name,
            preset=one.preset,
            base=one.base,
            axes=(Axis(chain=tuple(_axis(point) for point in one.arms.values())), Axis(seeds=one.members)),
            resources=one.resources,
            task_members=one.task_members,
            origin=Origin(experiment=setup.experiment.name, preset=setup.preset, arms=tuple(one.arms)),
        )
        return self._of_file(sweep) if setup.study.file else sweep

    def _of_file(self, sweep: Sweep) -> Sweep:
        """The sweep of a study in a user's file, which no other process knows by its name: its base in full."""
        data = self.setup.study.base(sweep.preset).spec.builtins()
        assign_all(Spec, data, sweep.base)
        base = {name: value for name, value in data.items() if name not in ("members", "vary")}
        return replace(sweep, study=None, preset="quick", base=base)

    def specs(self) -> dict[str, Spec]:
        """The spec of every arm, with all its members."""
        base, found = self.sweep.builtins(), {}
        for name, point in self.comparison.arms.items():
            data = copy.deepcopy(base)
            assign_all(Spec, data, point)
            found[name] = replace(from_builtins(data), members=self.comparison.members)
        return found

    def check(self) -> None:
        """Raises `InputError` unless this describes a grid, and it could be judged."""
        self.sweep.check()
        if self.setup.fields:
            self.check_judgeable()

    def check_judgeable(self) -> None:
        """Raises `InputError`, naming the fields that were changed, where a claim needs what would not be there."""
        usual = self.setup._replace(fields=()).plan()
        assert isinstance(usual, SweepPlan)
        specs, experiment = self.specs(), self.setup.experiment
        for spec in specs.values():
            spec.check_integers()
        evidence = UntrainedEvidence(specs, UntrainedEvidence(usual.specs()))

        def judging() -> None:
            if experiment.check:
                for spec in specs.values():
                    experiment.check(spec)
            for claim in experiment.claims_on(self.comparison.arms):
                claim.estimate(evidence)

        rehearse(judging, self.setup.name(), self.setup.changed())

    def work_digest(self) -> str:
        """SHA-256 of the sweep's description and its base spec."""
        return verdict_digest(self.sweep)

    def seed_words(self) -> str:
        """The seeds of every arm."""
        return seed_words(self.sweep, self.comparison.members)

    def claims(self) -> tuple[Claim, ...]:
        """The claims that compare these arms."""
        return self.setup.experiment.claims_on(self.comparison.arms)

    def folder_in(self, runs: Path) -> Path:
        """The folder of the sweep in `runs`."""
        return folder_in(runs, self.sweep)

    def conclude(self, folder: Path) -> Verdict:
        """The verdict on the sweep in a folder, which is written there with the figures."""
        return conclude_sweep(self.setup.study, self.setup.experiment, self.setup.preset, SweepFolder(folder))


def _from_donor(point: Point, old: Donor | None, new: Donor) -> Point:
    """An arm that starts from the old donor, started from the new one; any other arm as it is."""
    start = point.get("start")
    if isinstance(start, dict) and old is not None and start.get("run") == old.path:
        return point | {"start": {**start, "run": new.path}}
    return point


def _arms_with(arms: dict[str, Point], changed: Point) -> dict[str, Point]:
    """The arms with those changed fields that some arm has values of its own for."""
    owned = {own for point in arms.values() for own in point}
    inner = [field for field in changed if any(field == own or field.startswith(f"{own}.") for own in owned)]
    found: dict[str, Point] = {}
    for name, point in arms.items():
        new = point | {field: changed[field] for field in inner}
        same = [other for other, point in found.items() if point == new]
        for field in inner[:1]:
            require(not same, field, changed[field], f"is what the arms {' and '.join([*same, name])} differ in")
        found[name] = new
    return found


def _axis(point: Point) -> Axis:
    return Axis(zip=tuple(Axis(field=name, values=[value]) for name, value in point.items()))


def description_digest(sweep: Sweep) -> str:
    """SHA-256 of a sweep's description: a folder's name, and what verdicts of earlier versions named."""
    return hashlib.sha256(sweep.to_json()).hexdigest()


def question_digest(sweep: Sweep) -> str:
    """SHA-256 of what a sweep's description asks, without what its tasks are given and how often they are tried."""
    usual = Sweep(name=sweep.name)
    how = {name: getattr(usual, name) for name in ("resources", "task_minutes", "task_members", "tries")}
    return description_digest(replace(sweep, **how))


def verdict_digest(sweep: Sweep) -> str:
    """SHA-256 of the basis of a verdict on a sweep: `question_digest`, and the base spec at that time."""
    return hashlib.sha256(f"{question_digest(sweep)} {sweep.spec().digest()}".encode()).hexdigest()


def seed_words(sweep: Sweep, members: int) -> str:
    """The seeds of every arm of a sweep, in words."""
    seeds = {name: value for name, value in sweep.base.items() if "seed" in name}
    words = ", ".join(f"{name} {value}" for name, value in seeds.items())
    return f"{members} members an arm ({MEMBER} 0 to {members - 1}); {words}"


def folder_in(runs: Path, sweep: Sweep) -> Path:
    """The folder of an experiment's sweep in `runs`: by its name, or one that was made when its tasks were given less
    or more; where there is neither, the name of the one to make."""
    usual = runs / f"{sweep.name}-{description_digest(sweep)[:8]}"
    if not (usual / SWEEP).is_file():
        for path in inside(runs):
            if path.name.startswith(f"{sweep.name}-") and (path / SWEEP).is_file():
                with contextlib.suppress(InputError):
                    if question_digest(SweepFolder(path).sweep) == question_digest(sweep):
                        return path
    return usual


def judge_sweep(study: Study, experiment: Experiment, preset: str, folder: SweepFolder) -> tuple[Verdict, Evidence]:
    """Every claim of the experiment on a sweep that has been run, and what they were judged on. `preset` ends in *
    when fields were changed."""
    size = experiment.preset(preset.rstrip("*"))
    assert isinstance(size.work, Comparison)
    arms, members = list(size.work.arms), size.work.members
    evidence = evidence_of_sweep(load(folder.path), arms)
    basis = Basis(
        name=study.full_name(experiment),
        paper=study.paper,
        question=experiment.question,
        preset=preset,
        digest=verdict_digest(folder.sweep),
        sequences=evidence.sequences(),
        scaled=size.scaled,
        seeds=seed_words(folder.sweep, members),
        command="" if preset.endswith("*") else Setup(study, experiment, preset).command("--check"),
        registrations=study.registrations_folder(),
        trained_by=trained_by(run for arm in arms for _, run in evidence.runs(arm) if run is not None),
    )
    summary = {
        f"{arm}: {name}": evidence.scalar(arm, name) for arm in evidence.recorded_arms() for name in experiment.scalars
    }
    return verdict_on(basis, experiment.claims_on(arms), evidence, summary), evidence


def conclude_sweep(study: Study, experiment: Experiment, preset: str, folder: SweepFolder) -> Verdict:
    """Judges a sweep and writes verdict.json and the figures into its folder."""
    verdict, evidence = judge_sweep(study, experiment, preset, folder)
    write_verdict(folder.path, verdict, {})  # a verdict does not wait for a figure
    title = f"{study.name}, {experiment.name} ({preset})"
    drawn = experiment.figures(evidence, title) if experiment.figures and evidence.finished_arms() else {}
    write_verdict(folder.path, verdict, _curves(experiment, evidence, title) | drawn)
    return verdict


def _curves(experiment: Experiment, evidence: Evidence, title: str) -> Figures:
    """The curves that the experiment shows, a panel each, and the training loss."""
    panels = []
    for name in (*experiment.shows, "train_loss"):
        arms = [arm for arm in evidence.recorded_arms() if name in evidence.curves(arm)]
        levels = {evidence.chance(arm).get(name) for arm in arms}
        lines = {arm: (evidence.curves(arm)["sequences"].astype(float), evidence.curves(arm)[name]) for arm in arms}
        if lines:
            panels.append(Panel(name, lines, levels.pop() if len(levels) == 1 else None))
    unit = unit_of(evidence.headline()) if evidence.headline() else ""
    return arms_figure(panels, evidence.arms, f"{title}: {experiment.question}", unit) if panels else {}


def find_verdict(folder: Path) -> Verdict | None:
    """The verdict in a sweep's folder, if it is of this sweep; None when there is none. Raises `InputError` when it is
    damaged."""
    verdict = verdict_in(folder)
    if verdict is None:
        return None
    sweep = SweepFolder(folder).sweep
    return verdict if verdict.digest in (verdict_digest(sweep), description_digest(sweep)) else None
