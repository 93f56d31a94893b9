"""A study tried on made-up curves before anything is trained: what it judges must be there to be measured."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.errors import InputError
from ebbtide.evaluation.evaluators import evaluator
from ebbtide.runs.folder import Found, Run
from ebbtide.studies.study import Study
from ebbtide.training.spec import Spec


class _NoModelError(Exception):
    """A made-up run was asked for more than curves."""


class _Header(msgspec.Struct, frozen=True):
    spec: dict[str, Any]
    digest: str
    label: dict[str, str]


class _MadeUp(Run):
    """A run of a spec that has not been trained: curves of ones at the sequences where it would be evaluated."""

    def __init__(self, spec: Spec):
        self._spec, self.path = spec, Path("not trained")
        self.header: Any = _Header(msgspec.to_builtins(spec), spec.digest(), {})

    def metrics(self) -> dict[str, np.ndarray]:
        spec = self._spec
        at = np.asarray(spec.schedule.points(spec.sequences, spec.batch))
        ones = np.ones((spec.members, len(at)), np.float32)
        out: dict[str, np.ndarray] = {"sequences": at, "steps": at // spec.batch, "train_loss": ones}
        for name in spec.evaluators:
            headline = evaluator(name, spec.task, spec.source.sizes().classes).headline
            for metric in dict.fromkeys([*spec.metrics(), headline]):
                out |= {f"{name}/{metric}": ones, f"{name}/{metric}/error": ones}
            out |= {name: ones, f"{name}/error": ones}
        return out

    def chance(self) -> dict[str, float]:
        return dict.fromkeys(self._spec.evaluators, 0.5)

    def manifests(self) -> Iterator[Found]:
        raise _NoModelError


def check_judgeable(study: Study, spec: Spec, changed: dict[str, Any]) -> None:
    """Raises `InputError`, naming the fields that were `changed`, where a run of this spec could not be judged by the
    study: a curve that a claim needs would not be there. What a study asks of the models themselves is not tried."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about numbers that are made up
            scalars = study.summarise(_MadeUp(spec))
            for claim in study.claims:
                claim.estimate(scalars)
    except (InputError, _NoModelError) as error:
        if isinstance(error, InputError):
            raise
    except (KeyError, IndexError) as error:
        lacking = f"there would be no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        field, values = ", ".join(changed) or "spec", list(changed.values())
        value = values[0] if len(values) == 1 else values
        raise InputError(field, value, f"then {study.name} cannot be judged: {lacking}") from error
