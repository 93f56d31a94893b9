"""Made-up evidence of contexts converted to weights: what the paper's theorem gives, and untrained nets."""

from collections.abc import Callable

import numpy as np
import pytest

from ebbtide.analysis.predictions import PROMPTS
from ebbtide.evaluation.trigger import trigger_probs
from ebbtide.papers.context_to_weights import measures, through_training
from ebbtide.papers.context_to_weights.claims import FEATURES, LABELS, STEP, SYMBOLS
from ebbtide.papers.context_to_weights.measures import Recall, Weights, compare_answers, unseen_prompts
from ebbtide.papers.context_to_weights.study import CONTEXT_TO_WEIGHTS
from ebbtide.papers.context_to_weights.through_training import Carried
from ebbtide.runs.folder import Snapshot
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.tasks.trigger import Trigger
from ebbtide.training.spec import Spec
from ideal_functions import MadeUpRun, evidence_of, run_of
from ideal_tools import specs_of

GUESS = 1 / LABELS


class Measured(MadeUpRun):
    """A run whose members have learned, or are as they began."""

    def __init__(self, spec: Spec, learned: bool):
        super().__init__(spec, lambda asked, share, seen: np.zeros(0))
        self.learned = learned


def _learned(snapshot: Snapshot) -> bool:
    run = run_of(snapshot)
    assert isinstance(run, Measured)
    return run.learned


def recall(snapshot: Snapshot, place: int) -> Recall:
    """In place of `measure_recall`. The conversion is exact for the untrained too: their logits hardly change. What
    has learned the induction-head task answers as the exact predictor does."""
    spec = run_of(snapshot).spec
    if _learned(snapshot) and isinstance(spec.task, Trigger):
        prompts = unseen_prompts(spec, "train", PROMPTS, place)
        symbols, target = np.asarray(prompts.classes), np.asarray(prompts.target)
        told, dropped = trigger_probs(symbols, SYMBOLS), trigger_probs(symbols, SYMBOLS, seen=0)
        return compare_answers(told, dropped, told, target)
    return Recall(1.0, GUESS, 1.0, 0, 3e-7, 1.2) if _learned(snapshot) else Recall(GUESS, GUESS, GUESS, 0, 1e-7, 0.2)


def features(snapshot: Snapshot, place: int) -> tuple[Recall, tuple[float, ...]]:
    """In place of `measure_features`."""
    errors = tuple(2.0 * count**-0.5 for count in FEATURES)
    return recall(snapshot, place)._replace(error=errors[-1]), errors


def weights(snapshot: Snapshot, place: int) -> Weights:
    """In place of `measure_weights`."""
    return Weights(STEP, 0.0) if _learned(snapshot) else Weights(-0.3, 0.99)


def carried(snapshot: Snapshot, place: int) -> Carried:
    """In place of `measure_carried`: a model that reads the context first and knows its classes by heart in the end, or
    one that guesses among four labels."""
    chance = np.full(3, 0.25)
    if not _learned(snapshot):
        return Carried(np.arange(3), chance, chance, chance, chance, chance)
    state, weights = np.asarray([0.25, 1.0, 0.0]), np.asarray([0.25, 0.0, 1.0])
    return Carried(np.arange(3), np.asarray([0.25, 1.0, 1.0]), weights, weights, state, weights)


def as_in_the_theorem(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """The evidence of arms that have learned their task, and of arms before training."""
    specs = specs_of(CONTEXT_TO_WEIGHTS, experiment, preset)
    ideal, none = ({arm: Measured(spec, learned) for arm, spec in specs.items()} for learned in (True, False))
    return evidence_of(ideal, learns=True), evidence_of(none, learns=False)


ON_CONVERSION: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    f"context-to-weights/{name}": as_in_the_theorem
    for name in ("recall", "induction", "approximation", "regression", "through-training")
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""


def stand_in_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts made-up measures in the place of those of trained models."""
    for name, made_up in {"measure_recall": recall, "measure_features": features, "measure_weights": weights}.items():
        monkeypatch.setattr(measures, name, made_up)
    monkeypatch.setattr(through_training, "measure_carried", carried)
