"""The study and experiment that a folder's sweep belongs to."""

import contextlib
from typing import NamedTuple

from ebbtide.errors import InputError
from ebbtide.papers import registry
from ebbtide.studies.comparison import Comparison, SweepPlan, verdict_digest
from ebbtide.studies.describe import field_text
from ebbtide.studies.study import Experiment, Setup, Study, setup
from ebbtide.studies.verdict import Verdict
from ebbtide.sweeps.axes import Point
from ebbtide.sweeps.sweep import Origin, Sweep


class KnownSweep(NamedTuple):
    """The experiment that a sweep is: preset (with * when fields were changed), arms, and the command that makes the
    sweep (empty: a preset has changed since, and this version makes another one)."""

    study: Study
    experiment: Experiment
    preset: str
    arms: dict[str, Point]
    command: str


def known_sweep(sweep: Sweep, verdict: Verdict | None = None) -> KnownSweep | None:
    """The experiment that a sweep is, None when it is none: as its folder says; where an earlier version made that, the
    one that makes exactly this sweep, or the one that its verdict names."""
    match = _match(sweep)
    origin = sweep.origin or (match[0] if match else None) or (_origin_of_verdict(sweep, verdict) if verdict else None)
    study = study_named(sweep.study or "")
    if origin is None or study is None or origin.experiment not in [one.name for one in study.experiments]:
        return None
    if sweep.name != f"{study.name}-{origin.experiment}-{origin.preset.rstrip('*')}":
        return None
    each = list(sweep.axes[0].points()) if sweep.axes else []
    arms = dict(zip(origin.arms, each, strict=True)) if len(each) == len(origin.arms) else {}
    return KnownSweep(study, study.experiment(origin.experiment), origin.preset, arms, match[1] if match else "")


def study_named(name: str) -> Study | None:
    """The study of this name, or of which it names an experiment."""
    return next((one for one in registry.STUDIES if name == one.name or name.startswith(f"{one.name}/")), None)


def _match(sweep: Sweep) -> tuple[Origin, str] | None:
    """The experiment of this version that makes exactly this sweep, and its command."""
    presets = ((s, e, p) for s in registry.STUDIES for e in s.experiments for p in e.presets)
    for study, one, preset in presets:
        if sweep.study != study.name or sweep.name != f"{study.name}-{one.name}-{preset}":
            continue
        if not isinstance(one.presets[preset].work, Comparison):
            continue
        usual = _sweep_of(setup(study, one.name, preset)).base
        changed = {name: value for name, value in sweep.base.items() if name not in usual or usual[name] != value}
        with contextlib.suppress(InputError):
            fields = ((name, field_text(value)) for name, value in changed.items())
            wanted = setup(study, one.name, preset, fields)
            again = _sweep_of(wanted)
            if again.origin is not None and verdict_digest(again) == verdict_digest(sweep):
                return again.origin, wanted.command("--check")
    return None


def _sweep_of(wanted: Setup) -> Sweep:
    plan = wanted.plan()
    assert isinstance(plan, SweepPlan)
    return plan.sweep


def _origin_of_verdict(sweep: Sweep, verdict: Verdict) -> Origin | None:
    """Origin of a sweep as its verdict records it; the verdict's summary names the arms, unless an arm has not
    finished."""
    study, _, experiment = verdict.study.partition("/")
    names = tuple(dict.fromkeys(name.rpartition(": ")[0] for name in verdict.summary))
    if study != sweep.study or not experiment:
        return None
    return Origin(experiment=experiment, preset=verdict.preset, arms=names)
