"""Experiments: a question asked of several arms that differ in one thing and train on the same seeds."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from msgspec.structs import replace

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.metrics import TABLE
from ebbtide.evaluation.statistics import INTERVAL
from ebbtide.evaluation.summary import Curves, summarise
from ebbtide.runs.folder import Run, inside
from ebbtide.studies.donor import Donor
from ebbtide.studies.study import (
    Claim,
    Lacking,
    Study,
    Verdict,
    digest_of_claims,
    judge_claims,
    number,
    verdict_in,
    write_verdict,
)
from ebbtide.sweeps.axes import MEMBER, Axis, Point
from ebbtide.sweeps.folder import SWEEP, SweepFolder
from ebbtide.sweeps.results import Results, Row, load
from ebbtide.sweeps.sweep import Origin, Resources, Sweep
from ebbtide.tasks.fewshot import METRICS

SEEDS: Point = {"seeds.init": 50, "seeds.data": 50, "seeds.evaluation": 50}
"""Where the verdicts of experiments take their random numbers from: no tuning run has used these."""


ENDED = ("finished", "diverged")
"""States of a member (`Results`) that has trained to its end."""
AXES = ("sequences", "steps")
"""What curves have once, not for every member."""


class Setting(NamedTuple):
    """A size at which an experiment runs: the arms, each by the fields in which it differs from the study's preset
    `preset` with `base`; `members` models an arm. `minutes` is what two cores take (None: not seen to finish);
    `scaled` says how it differs from the paper's setting; `needs` names data that must be there; `donor` is the run
    that arms start from, trained before them."""

    arms: dict[str, Point]
    base: Point
    minutes: float | None
    scaled: str
    preset: str = "quick"
    members: int = 5
    needs: str = ""
    resources: Resources = Resources()
    task_members: int | None = None
    donor: Donor | None = None


class Experiment(NamedTuple):
    """One of a paper's questions, with its claims, its settings by preset, and the curves its figure shows
    (evaluators, one panel each); `scalars` are listed for every arm; `figures` draws what is not a curve."""

    name: str
    question: str
    section: str
    claims: tuple[Claim, ...]
    settings: dict[str, Setting]
    shows: tuple[str, ...] = ("icl", "ciwl", "iwl")
    scalars: tuple[str, ...] = ("icl_peak", "icl_final", "transience", "ciwl_final", "iwl_final", "train_loss_final")
    figures: "Callable[[Arms, str], dict[str, bytes]] | None" = None

    def setting(self, name: str) -> Setting:
        """The setting of a preset. Raises `InputError` for an unknown one."""
        known = ", ".join(self.settings)
        require(name in self.settings, "preset", name, f"{self.name} has {known}{nearest(name, self.settings)}")
        return self.settings[name]

    def asked(self, arms: Iterable[str]) -> tuple[Claim, ...]:
        """The claims about these arms."""
        return tuple(claim for claim in self.claims if set(claim.arms) <= set(arms))


class Arms:
    """What an experiment measured: the curves and scalars of every arm's members, in the order of their seeds, so that
    arms may be compared member by member. A member that has not finished is nan."""

    def __init__(self, results: Results, names: list[str]):
        rows, self.names = results.rows, names
        self._results = results
        self._rows: dict[str, list[Row]] = {}
        each = len(rows) // len(names)
        self._curves: dict[str, Curves] = {}
        self._chance: dict[str, dict[str, float]] = {}
        self._probed: dict[tuple[Path, str, str] | None, np.ndarray] = {}
        for i, name in enumerate(names):
            self._rows[name] = rows[i * each : (i + 1) * each]
            found = [(row, results.metrics(row)) for row in self._rows[name]]
            measured = [(row, curves) for row, curves in found if curves is not None]
            if not measured:
                continue
            some, longest = max(measured, key=lambda one: len(one[1]["sequences"]))
            blank = {n: np.full_like(c[0], np.nan) for n, c in longest.items() if n not in AXES}
            members = [blank if c is None else _padded(c, row.place, blank) for row, c in found]
            stacked = {n: np.stack([one[n] for one in members]) for n in blank}
            self._curves[name] = {n: longest[n] for n in AXES} | stacked
            assert some.task is not None
            run = results.folder.run(some.task)
            assert run is not None
            self._chance[name] = run.chance()

    def curves(self, arm: str) -> Curves:
        """An arm's curves [member, evaluation] by evaluator, `train_loss`, and where they were taken: `sequences`.
        Raises `InputError` when no member of it has finished."""
        require(arm in self._curves, "arm", arm, "no member has finished")
        return self._curves[arm]

    def recorded(self) -> list[str]:
        """The arms that have curves: a member has finished, or diverged."""
        return [name for name in self.names if name in self._curves]

    def measured(self) -> list[str]:
        """The arms of which a member has finished and not diverged."""
        return [name for name in self.names if any(row.state == "finished" for row in self._rows[name])]

    def lacking(self, claim: Claim) -> Lacking | None:
        """The members of a claim's arms that have not finished, or diverged; None where there are none."""
        unfinished, diverged, words = [], [], []
        for arm in claim.arms:
            states = [row.state for row in self._rows[arm]]
            unfinished.append(np.asarray([state not in ENDED for state in states]))
            diverged.append(np.asarray([state == "diverged" for state in states]))
            for what, members in (("not finished", unfinished[-1]), ("diverged", diverged[-1])):
                words += [f"{members.sum()} of {len(members)} members of {arm} {what}"] if members.any() else []
        if not words:
            return None
        return Lacking(np.any(unfinished, axis=0), np.any(diverged, axis=0), ", ".join(words))

    def sequences(self, arm: str) -> Int[np.ndarray, " evaluation"]:
        """Where an arm was evaluated."""
        return self.curves(arm)["sequences"]

    def checkpoints(self, arm: str) -> Int[np.ndarray, " checkpoint"]:
        """Where an arm's kept checkpoints are, in sequences: the axis of `probed`, and of what is asked of models at
        every checkpoint. Raises `InputError` when no member of it has finished."""
        from ebbtide.training.probe import checkpoints

        run = next((run for _, run in self.runs(arm) if run is not None), None)
        if run is None:
            raise InputError("arm", arm, "no member has finished")
        return np.asarray([at for at, _ in checkpoints(run)])

    def scalar(self, arm: str, name: str) -> Float[np.ndarray, " member"]:
        """A scalar of `summarise` for an arm's members. Raises `InputError` for an unknown arm or scalar."""
        require(arm in self.names, "arm", arm, f"must be one of {', '.join(self.names)}")
        if arm not in self._curves:
            return np.full(len(self._rows[arm]), np.nan)
        found = summarise(self.curves(arm), self.chance(arm))
        require(name in found, "scalar", name, f"must be one of {', '.join(found)}{nearest(name, found)}")
        return found[name].astype(np.float64)

    def headline(self) -> str:
        """The metric by which the evaluators of the arms are read."""
        tasks = (row.task for arm in self.recorded() for row in self._rows[arm] if row.task is not None)
        run = next(run for task in tasks if (run := self._results.folder.run(task)) is not None)
        return run.header.instruments[0].headline

    def best_again(self, arm: str, evaluator: str = "icl") -> Float[np.ndarray, " member"]:
        """An evaluator of every member's best kept model, on fresh prompts: neither training nor the choice of the
        model has seen them (evaluation seed + 1)."""
        from ebbtide.training.engine import Engine
        from ebbtide.training.members import unnamed
        from ebbtide.training.run import spec_of

        found: list[float] = []
        for place, run in self.runs(arm):
            if run is None:
                found.append(np.nan)
                continue
            spec = spec_of(run)
            seeds = replace(spec.seeds, evaluation=spec.seeds.evaluation + 1)
            engine = Engine(replace(spec, seeds=seeds, evaluators=(evaluator,)))
            best = {name: array[place] for name, array in run.best().items()}
            params = unnamed(engine.init(place).params, best)
            suite = engine.suite(place)
            measured = np.asarray(engine.measure(params, suite))[0, :, 0]
            found.append(float(measured[METRICS.index(suite.evaluators[0].headline)]))
        return np.asarray(found)

    def runs(self, arm: str) -> list[tuple[int, Run | None]]:
        """For every member its place in the run that it was trained in, and that run (None: it has not finished)."""
        found = []
        for row in self._rows[arm]:
            done = row.task is not None and row.state == "finished"
            found.append((row.place, self._results.folder.run(row.task) if done and row.task else None))
        return found

    def probed(self, arm: str, measure: str, evaluator: str) -> Float[np.ndarray, "member checkpoint *axes"]:
        """A measure (`mechanisms.measures`) of every member at every kept checkpoint; nan where it has not finished."""
        from ebbtide.training.probe import probe_run

        found: list[np.ndarray | None] = []
        for place, run in self.runs(arm):
            key = (run.path, measure, evaluator) if run else None
            if run is not None and key not in self._probed:
                self._probed[key] = probe_run(run, [measure], evaluator)[0].values
            found.append(None if run is None else self._probed[key][:, place])
        whole = next((one for one in found if one is not None), np.full((1, 1), np.nan))
        return np.stack([np.full_like(whole, np.nan) if one is None else one for one in found])

    def chance(self, arm: str) -> dict[str, float]:
        """Chance level of every evaluator."""
        return self._chance[arm]


def _padded(curves: Curves, member: int, blank: Curves) -> Curves:
    """A member's curves, as long as `blank`: one whose run ended early keeps its model, and trains no more."""
    own = {}
    for name, longest in blank.items():
        curve = curves[name][member]
        rest = np.nan if name == "train_loss" else curve[-1]
        own[name] = np.concatenate([curve, np.full(len(longest) - len(curve), rest, curve.dtype)])
    return own


def above(name: str, statement: str, source: str, scalar: str, arm: str, threshold: float) -> Claim:
    """The claim that a scalar of one arm exceeds a threshold."""
    metric = f"{scalar} ({arm})"
    return Claim(name, statement, source, metric, threshold, lambda arms: arms.scalar(arm, scalar), (arm,))


def below(name: str, statement: str, source: str, scalar: str, arm: str, limit: float) -> Claim:
    """The claim that a scalar of one arm is below a limit."""
    metric = f"{limit:g} - {scalar} ({arm})"
    return Claim(name, statement, source, metric, 0.0, lambda arms: limit - arms.scalar(arm, scalar), (arm,))


def larger(name: str, statement: str, source: str, scalar: str, arm: str, than: str, threshold: float = 0.0) -> Claim:
    """The claim that a scalar is larger in one arm than in another, member by member."""

    def estimate(arms: Arms) -> np.ndarray:
        return arms.scalar(arm, scalar) - arms.scalar(than, scalar)

    return Claim(name, statement, source, f"{scalar}: {arm} - {than}", threshold, estimate, (arm, than))


def make_sweep(study: Study, experiment: Experiment, preset: str, overrides: Point | None = None) -> Sweep:
    """The grid of an experiment: arms by members. Members share seeds across arms. `overrides` are fields that every
    arm gets, also where an arm has its own, and the donor too (`Donor.overridden`). Raises `InputError` when two arms
    are the same then."""
    setting = overridden(study, experiment, preset, overrides or {})
    return Sweep(
        name=f"{study.name}-{experiment.name}-{preset}",
        study=study.name,
        preset=setting.preset,
        base=setting.base,
        axes=(Axis(chain=tuple(_arm(point) for point in setting.arms.values())), Axis(seeds=setting.members)),
        resources=setting.resources,
        task_members=setting.task_members,
        origin=Origin(
            experiment=experiment.name, preset=f"{preset}*" if overrides else preset, arms=tuple(setting.arms)
        ),
    )


def overridden(study: Study, experiment: Experiment, preset: str, overrides: Point) -> Setting:
    """The setting of a preset, its seeds in `base`, with fields that a user has changed: in `base`, in arms that have
    fields of their own there, and in the donor, from which the arms start then. Raises `InputError` when two arms are
    the same then."""
    setting = experiment.setting(preset)
    arms, donor = _overridden(setting.arms, overrides), setting.donor
    if donor and overrides:
        before = Sweep(name="arms", study=study.name, preset=setting.preset, base={**SEEDS, **setting.base})
        owned = {own for point in setting.arms.values() for own in point}
        donor = donor.overridden(before.builtins(), owned, overrides)
        arms = {name: _from_donor(point, setting.donor, donor) for name, point in arms.items()}
    return setting._replace(arms=arms, base={**SEEDS, **setting.base, **overrides}, donor=donor)


def _from_donor(point: Point, old: Donor | None, new: Donor) -> Point:
    """An arm that starts from the old donor, started from the new one; any other arm as it is."""
    start = point.get("start")
    if isinstance(start, dict) and old is not None and start.get("run") == old.path:
        return point | {"start": {**start, "run": new.path}}
    return point


def _overridden(arms: dict[str, Point], overrides: Point) -> dict[str, Point]:
    owned = {own for point in arms.values() for own in point}
    inside = [field for field in overrides if any(field == own or field.startswith(f"{own}.") for own in owned)]
    found: dict[str, Point] = {}
    for name, point in arms.items():
        made = point | {field: overrides[field] for field in inside}
        same = [other for other, point in found.items() if point == made]
        for field in inside[:1]:
            require(not same, field, overrides[field], f"is what the arms {' and '.join([*same, name])} differ in")
        found[name] = made
    return found


def _arm(point: Point) -> Axis:
    return Axis(zip=tuple(Axis(field=name, values=[value]) for name, value in point.items()))


def description_digest(sweep: Sweep) -> str:
    """SHA-256 of a sweep's description: a folder's name, and what verdicts of earlier versions named."""
    return hashlib.sha256(sweep.to_json()).hexdigest()


def asked_digest(sweep: Sweep) -> str:
    """SHA-256 of what a sweep's description asks, without what its tasks are given and how often they are tried."""
    usual = Sweep(name=sweep.name)
    how = {name: getattr(usual, name) for name in ("resources", "task_minutes", "task_members", "tries")}
    return description_digest(replace(sweep, **how))


def digest(sweep: Sweep) -> str:
    """SHA-256 of what a verdict on a sweep rests on: what was asked, and the base spec as it was then."""
    return hashlib.sha256(f"{asked_digest(sweep)} {sweep.spec().digest()}".encode()).hexdigest()


def folder_in(runs: Path, sweep: Sweep) -> Path:
    """The folder of an experiment's sweep in `runs`: by its name, or one that was made when its tasks were given less
    or more; where there is neither, the name of the one to make."""
    made = runs / f"{sweep.name}-{description_digest(sweep)[:8]}"
    if not (made / SWEEP).is_file():
        for path in inside(runs):
            if path.name.startswith(f"{sweep.name}-") and (path / SWEEP).is_file():
                with contextlib.suppress(InputError):
                    if asked_digest(SweepFolder(path).sweep) == asked_digest(sweep):
                        return path
    return made


def judge_experiment(study: Study, experiment: Experiment, preset: str, folder: SweepFolder) -> tuple[Verdict, Arms]:
    """Every claim of the experiment on a sweep that has been run. `preset` ends in * when fields were overridden."""
    setting = experiment.setting(preset.rstrip("*"))
    asked = experiment.asked(setting.arms)
    arms = Arms(load(folder.path), list(setting.arms))
    summary: dict[str, list[float | None]] = {}
    for arm in arms.recorded():
        for name in experiment.scalars:
            summary[f"{arm}: {name}"] = [number(v) for v in arms.scalar(arm, name)]
    seeds = {name: value for name, value in folder.sweep.base.items() if "seed" in name}
    command = f"ebbtide run {study.name} --experiment {experiment.name} --preset {preset} --check"
    verdict = Verdict(
        study=f"{study.name}/{experiment.name}",
        paper=study.paper,
        preset=preset,
        digest=digest(folder.sweep),
        sequences=max((int(arms.sequences(arm)[-1]) for arm in arms.recorded()), default=0),
        interval=INTERVAL,
        claims=judge_claims(asked, arms, arms.lacking),
        summary=summary,
        question=experiment.question,
        scaled=setting.scaled,
        seeds=f"{setting.members} members an arm ({MEMBER} 0 to {setting.members - 1}); "
        + ", ".join(f"{name} {value}" for name, value in seeds.items()),
        command="" if preset.endswith("*") else command,
        version=version("ebbtide"),
        claims_digest=digest_of_claims(asked),
    )
    return verdict, arms


def conclude_experiment(study: Study, experiment: Experiment, preset: str, folder: SweepFolder) -> Verdict:
    """Judges a sweep and writes verdict.json and the figures into its folder."""
    from ebbtide.report.arms_figure import Panel, arms_figure

    verdict, arms = judge_experiment(study, experiment, preset, folder)
    write_verdict(folder.path, verdict, {})  # a verdict does not wait for a figure
    panels = []
    for name in (*experiment.shows, "train_loss"):
        has = [arm for arm in arms.recorded() if name in arms.curves(arm)]
        levels = {arms.chance(arm).get(name) for arm in has}
        lines = {arm: (arms.sequences(arm).astype(float), arms.curves(arm)[name]) for arm in has}
        if lines:
            panels.append(Panel(name, lines, levels.pop() if len(levels) == 1 else None))
    title = f"{study.name}, {experiment.name} ({preset}): {experiment.question}"
    draw = experiment.figures if arms.measured() else None
    drawn = draw(arms, f"{study.name}, {experiment.name} ({preset})") if draw else {}
    unit = TABLE[arms.headline()].unit if arms.recorded() else ""
    curves = arms_figure(panels, arms.names, title, unit) if panels else {}
    write_verdict(folder.path, verdict, curves | drawn)
    return verdict


def find_verdict(folder: Path) -> Verdict | None:
    """The verdict in a sweep's folder, if it is of this sweep; None when there is none. Raises `InputError` when it is
    damaged."""
    verdict = verdict_in(folder)
    if verdict is None:
        return None
    sweep = SweepFolder(folder).sweep
    return verdict if verdict.digest in (digest(sweep), description_digest(sweep)) else None
