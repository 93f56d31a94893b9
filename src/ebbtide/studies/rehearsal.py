"""A study tried on made-up curves before anything is trained: what it judges must be there to be measured."""

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.runs.folder import Found, Run
from ebbtide.studies.experiment import Arms, Experiment, make_sweep, overridden
from ebbtide.studies.study import Study
from ebbtide.sweeps.axes import Point
from ebbtide.training.fields import assign_all
from ebbtide.training.spec import Spec, from_builtins


class _NoModelError(Exception):
    """A made-up run was asked for more than curves."""


class _Header(msgspec.Struct, frozen=True):
    spec: dict[str, Any]
    digest: str
    label: dict[str, str]


class _MadeUp(Run):
    """A run of a spec that has not been trained: curves of ones at the sequences where it would be evaluated."""

    def __init__(self, spec: Spec):
        spec = msgspec.structs.replace(spec, source=spec.source.stand_in())
        self._spec, self.path = spec, Path("not trained")
        self.header: Any = _Header(msgspec.to_builtins(spec), spec.digest(), {})

    def metrics(self) -> dict[str, np.ndarray]:
        spec = self._spec
        at = np.asarray(spec.schedule.points(spec.sequences, spec.batch))
        ones = np.ones((spec.members, len(at)), np.float32)
        out: dict[str, np.ndarray] = {"sequences": at, "steps": at // spec.batch, "train_loss": ones}
        for name in spec.evaluators:
            headline = spec.task.evaluator(name, spec.source).headline
            for metric in dict.fromkeys([*spec.metrics(), headline]):
                out |= {f"{name}/{metric}": ones, f"{name}/{metric}/error": ones}
            out |= {name: ones, f"{name}/error": ones}
        return out

    def chance(self) -> dict[str, float]:
        return dict.fromkeys(self._spec.evaluators, 0.5)

    def manifests(self) -> Iterator[Found]:
        raise _NoModelError


class _MadeUpArms(Arms):
    """The arms of an experiment before they are trained: their curves are made up, and no member is there to be asked
    anything else. A scalar that is a number in `usual`, the arms as the preset has them, must be one here."""

    def __init__(self, arms: dict[str, Spec], members: int, usual: "_MadeUpArms | None" = None):
        runs = {name: _MadeUp(spec) for name, spec in arms.items()}
        self.names, self._specs, self._members, self._usual = list(arms), arms, members, usual
        self._curves = {name: run.metrics() for name, run in runs.items()}
        self._chance = {name: run.chance() for name, run in runs.items()}

    def scalar(self, arm: str, name: str) -> np.ndarray:
        values = super().scalar(arm, name)
        if self._usual is not None and np.isnan(values).all() and not np.isnan(self._usual.scalar(arm, name)).all():
            raise KeyError(name)
        return values

    def runs(self, arm: str) -> list[tuple[int, Run | None]]:
        return [(place, None) for place in range(self._members)]

    def checkpoints(self, arm: str) -> np.ndarray:
        return self.sequences(arm)

    def best_again(self, arm: str, evaluator: str = "icl") -> np.ndarray:
        spec = self._specs[arm]
        allowed = f"must be one of the evaluators: a claim asks the best model of {arm}"
        require(spec.best_evaluator() is not None, "keep_best", spec.keep_best, allowed)
        return np.full(self._members, np.nan)

    def probed(self, arm: str, measure: str, evaluator: str) -> np.ndarray:
        if evaluator not in self._specs[arm].evaluators:
            raise KeyError(evaluator)
        return np.full((self._members, len(self.checkpoints(arm)), HEADS, HEADS), np.nan)


HEADS = 16
"""Layers and heads of what is made up: as many as any claim picks one of."""


def check_judgeable(study: Study, spec: Spec, changed: dict[str, Any]) -> None:
    """Raises `InputError`, naming the fields that were `changed`, where a run of this spec could not be judged by the
    study: a curve that a claim needs would not be there. What a study asks of the models themselves is not tried."""

    def tried() -> None:
        scalars = study.summarise(_MadeUp(spec))
        for claim in study.claims:
            claim.estimate(scalars)

    _rehearse(tried, study.name, changed)


def check_judgeable_arms(study: Study, experiment: Experiment, preset: str, changed: Point) -> None:
    """The same for an experiment, before its arms are trained."""
    setting = experiment.setting(preset)
    usual = _MadeUpArms(_specs(study, experiment, preset, {}), setting.members)
    arms = _MadeUpArms(_specs(study, experiment, preset, changed), setting.members, usual)

    def tried() -> None:
        for claim in experiment.asked(setting.arms):
            claim.estimate(arms)

    _rehearse(tried, f"{study.name}/{experiment.name}", changed)


def _specs(study: Study, experiment: Experiment, preset: str, changed: Point) -> dict[str, Spec]:
    """The spec of every arm, with all its members."""
    setting = overridden(study, experiment, preset, changed)
    base = make_sweep(study, experiment, preset, changed).builtins()
    found = {}
    for name, point in setting.arms.items():
        data = copy.deepcopy(base)
        assign_all(Spec, data, point)
        found[name] = msgspec.structs.replace(from_builtins(data), members=setting.members)
    return found


def _rehearse(tried: Callable[[], None], name: str, changed: dict[str, Any]) -> None:
    field, values = ", ".join(changed) or "spec", list(changed.values())
    value = values[0] if len(values) == 1 else values
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about numbers that are made up
            tried()
    except _NoModelError:
        pass
    except InputError as error:
        if error.field == "scalar":
            raise InputError(
                field, value, f"then {name} cannot be judged: there would be no {error.value!r}"
            ) from error
        raise
    except (KeyError, IndexError) as error:
        lacking = f"there would be no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise InputError(field, value, f"then {name} cannot be judged: {lacking}") from error
