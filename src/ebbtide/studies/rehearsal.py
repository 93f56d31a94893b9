"""A study tried on made-up evidence before anything is trained: what it judges must be there to be measured."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.mechanisms.measures import find_measure
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import Checkpoint
from ebbtide.studies.evidence import Arm, Evidence, Series
from ebbtide.sweeps.axes import Point
from ebbtide.training.spec import Spec

SIZE = 16
"""Layers, heads or parts of made-up probes: as many as any claim picks one of."""

LONGEST_VALUE = 60
"""Largest number of characters of a changed field's value in a message that names several fields."""


class NoModelError(Exception):
    """A run that has not been trained was asked for more than curves."""


class _Header(msgspec.Struct, frozen=True):
    spec: dict[str, Any]
    digest: str
    label: dict[str, str]


class UntrainedRun(RunFolder):
    """A run of a spec that has not been trained: curves of ones at the sequences where it would be evaluated."""

    def __init__(self, spec: Spec):
        spec = msgspec.structs.replace(spec, source=spec.source.stand_in())
        self._spec, self.path = spec, Path("not trained")
        self.header: Any = _Header(spec.builtins(), spec.digest(), {})

    def metrics(self) -> dict[str, np.ndarray]:
        """Curves of ones, by the names that the curves of a trained run have."""
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

    def manifests(self) -> Iterator[Checkpoint]:
        raise NoModelError


class UntrainedEvidence(Evidence):
    """The evidence of arms before they are trained: their curves are made up, and no member is there to be asked
    anything else. A scalar that is a number in `usual`, the arms as the preset has them, must be one here."""

    def __init__(self, arms: Mapping[str, Spec], usual: "UntrainedEvidence | None" = None):
        runs = {name: UntrainedRun(spec) for name, spec in arms.items()}
        super().__init__(
            {
                name: Arm(run.metrics(), run.chance(), runs=tuple((m, None) for m in range(arms[name].members)))
                for name, run in runs.items()
            }
        )
        self._specs, self._usual = dict(arms), usual

    def scalar(self, arm: str, name: str) -> np.ndarray:
        values = super().scalar(arm, name)
        if self._usual is not None and np.isnan(values).all() and not np.isnan(self._usual.scalar(arm, name)).all():
            raise KeyError(name)
        return values

    def score_best(self, arm: str, evaluator: str = "icl") -> np.ndarray:
        spec = self._specs[arm]
        allowed = f"must be one of the evaluators: a claim asks the best model of {arm}"
        require(spec.best_evaluator() is not None, "keep_best", spec.keep_best, allowed)
        return np.full(spec.members, np.nan)

    def probe(self, arm: str, measure: str, evaluator: str) -> Series:
        spec = self._specs[arm]
        if evaluator not in spec.evaluators:
            raise KeyError(evaluator)
        at = self.curves(arm)["sequences"]
        sizes = (SIZE,) * len(find_measure(measure).axes)
        return Series(np.full((spec.members, len(at), *sizes), np.nan), at)


def rehearse(judging: Callable[[], object], name: str, changed: Point) -> None:
    """Raises `InputError`, naming every field that was `changed` with its value, where `judging` an experiment of this
    name needs something that would not be there; a check that names one of these fields itself is left as it is. What
    it asks of the models themselves is not tried."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about numbers that are made up
            judging()
    except NoModelError:
        pass
    except InputError as error:
        if error.field in changed or not changed:
            raise
        absent = f"there would be no {error.value!r}" if error.field in ("scalar", "curve") else str(error)
        raise _not_judged(name, changed, absent) from error
    except (KeyError, IndexError) as error:
        absent = f"there would be no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise _not_judged(name, changed, absent) from error


def _not_judged(name: str, changed: Point, absent: str) -> InputError:
    """The error that names every changed field: `evaluators = ['train'], batch = 64: then NAME cannot be judged`."""
    *before, (last, value) = changed.items() or [("spec", [])]
    field = ", ".join([*(f"{one} = {repr(shown)[:LONGEST_VALUE]}" for one, shown in before), last])
    return InputError(field, value, f"then {name} cannot be judged: {absent}")
