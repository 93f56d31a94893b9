"""Made-up evidence of few-shot experiments: what scripted oracles would score over training, and an untrained net."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec.structs import replace

from ebbtide.evaluation.oracles import expected
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import ONLY, Arm, Evidence, Series
from ebbtide.studies.rehearsal import UntrainedRun
from ebbtide.studies.single_run import SingleRun
from ebbtide.studies.study import setup
from ebbtide.training.spec import Spec

Mixture = Mapping[str, float]
"""Shares of oracles by name (the rest answers at random); or values of curves, which come first: scores of evaluators,
`train_loss`, `icl/loss`."""
Course = list[tuple[float, Mixture]]
"""What a member does at shares of its training; between them, in between."""
Probes = Mapping[tuple[str, str, str], list[tuple[float, np.ndarray]]]
"""By arm, measure and evaluator: values of a measure of heads at shares of the training."""

NEVER: Course = [(0.0, {})]
TRANSIENT: Course = [(0.0, {}), (0.25, {"ICL": 0.85}), (0.35, {"ICL": 0.85}), (0.7, {"IWL": 1.0})]
WEAK: Course = [(0.0, {}), (0.25, {"ICL": 0.6}), (0.35, {"ICL": 0.6}), (0.7, {"IWL": 1.0})]
LATE: Course = [(0.0, {}), (0.25, {"ICL": 0.88}), (0.6, {"ICL": 0.88}), (1.0, {"ICL": 0.3, "IWL": 0.7})]
LATER: Course = [(0.0, {}), (0.25, {"ICL": 0.9}), (0.8, {"ICL": 0.9}), (1.0, {"ICL": 0.7, "IWL": 0.3})]
LATEST: Course = [(0.0, {}), (0.25, {"ICL": 0.92}), (1.0, {"ICL": 0.9})]
PERSISTENT: Course = [(0.0, {}), (0.25, {"ICL": 0.98}), (1.0, {"ICL": 0.98})]
SHORT_LIVED: Course = [(0.0, {}), (0.25, {"ICL": 0.9}), (0.5, {})]
WEIGHTS: Course = [(0.0, {}), (0.5, {"IWL": 1.0})]
BOTH: Course = [(0.0, {}), (0.3, {name: 0.95 for name in ("icl", "icl_holdout", "icl_rare", "iwl_common", "ciwl")})]


class MadeUp(Evidence):
    """Evidence of curves, with the score of every arm's best model beside them."""

    best: Mapping[str, float] = {}

    def score_best(self, arm: str, evaluator: str = "icl") -> np.ndarray:
        return np.full(self._arm(arm).members(), self.best[arm])


def specs_of(study: Any, experiment: Any, preset: str) -> dict[str, Spec]:
    """The specs of an experiment's arms."""
    plan: Any = setup(study, experiment.name, preset).plan()
    work = experiment.presets[preset].work
    assert isinstance(work, Comparison | SingleRun)
    return plan.specs() if isinstance(work, Comparison) else {ONLY: plan.spec}


def evidence_of(
    specs: Mapping[str, Spec], courses: Mapping[str, Course], best: Mapping[str, float], probes: Probes | None = None
) -> Evidence:
    """Evidence of arms whose members take these courses, and of whose heads this was measured."""
    series = {key: _series(specs[key[0]], values) for key, values in (probes or {}).items() if key[0] in specs}
    made = MadeUp({arm: _arm(spec, courses[arm]) for arm, spec in specs.items()}, series)
    made.best = best
    return made


def untrained(specs: Mapping[str, Spec], probes: Probes | None = None) -> Evidence:
    """Evidence of arms whose members stay as they were drawn: at chance, with the loss of a guess."""
    return evidence_of(specs, dict.fromkeys(specs, NEVER), dict.fromkeys(specs, 0.5), probes)


def _series(spec: Spec, values: list[tuple[float, np.ndarray]]) -> Series:
    rows = np.stack([value for _, value in values])
    return Series(
        np.tile(rows, (spec.members, *[1] * rows.ndim)), np.asarray([at * spec.sequences for at, _ in values])
    )


def _arm(spec: Spec, course: Course) -> Arm:
    spec = replace(spec, source=spec.source.stand_in())
    run = UntrainedRun(spec)
    curves = run.metrics()
    at = curves["sequences"] / curves["sequences"][-1]
    times = [time for time, _ in course]
    outputs, chance = spec.outputs(), {name: 0.5 for name in spec.evaluators}
    for name in spec.evaluators:
        scores = [_score(mixture, name, outputs) for _, mixture in course]
        curves[name] = np.tile(np.interp(at, times, scores), (spec.members, 1))
    known = [1 - _score(mixture, "train", outputs) for _, mixture in course]
    progress = 0 if course is NEVER else at  # the loss goes on falling whatever the strategy
    loss = np.log(max(outputs, 2)) * (1 - 0.9 * progress) + np.interp(at, times, known)
    curves["train_loss"] = np.tile(loss, (spec.members, 1))
    for name in {name for _, mixture in course for name in mixture if name in curves and name not in spec.evaluators}:
        when, given = zip(*((time, mixture[name]) for time, mixture in course if name in mixture), strict=True)
        curves[name] = np.tile(np.interp(at, when, given), (spec.members, 1))
    return Arm(curves, chance, headline="in_context_accuracy")


def _score(mixture: Mixture, evaluator: str, outputs: int) -> float:
    if evaluator in mixture:
        return mixture[evaluator]
    oracles = {name: share for name, share in mixture.items() if name in ("ICL", "IWL", "CIWL")}
    rest = 1 - sum(oracles.values())
    scores = {name: expected(name, evaluator, 0.5, outputs) for name in (*oracles, "random")}
    return sum(share * (scores[name] or 0.0) for name, share in {**oracles, "random": rest}.items())
