"""Made-up evidence of Markov chains: what the papers' phases would give, and an untrained net."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ebbtide.analysis.predictions import Predictions
from ebbtide.papers.chains import boundaries, phases, pools
from ebbtide.papers.chains.measures import BIGRAM, BIGRAM_POOL, UNIFORM, UNIGRAM, UNIGRAM_POOL, exact_predictions
from ebbtide.papers.chains.study import CHAINS
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_functions import MadeUpRun, Predictor, Says, UntrainedNets, evidence_of, path_of
from ideal_tools import specs_of

FEW_PROMPTS = 100
"""Prompts of a made-up member: retrieval from many chains is slow."""


class AnsweringRun(MadeUpRun):
    """A run that answers few prompts."""

    def predict(self, place: int, evaluator: str, prompts: int, last: bool, changes: Any = ()) -> Predictions:
        return super().predict(place, evaluator, min(prompts, FEW_PROMPTS), last, changes)


class UntrainedRun(UntrainedNets):
    """Untrained members that answer few prompts."""

    def predict(self, place: int, evaluator: str, prompts: int, last: bool, changes: Any = ()) -> Predictions:
        return super().predict(place, evaluator, min(prompts, FEW_PROMPTS), last, changes)


def both_of(specs: Mapping[str, Spec], says: Mapping[str, Says]) -> tuple[Evidence, Evidence]:
    """The evidence of arms that answer so, and of arms before training."""
    ideal = evidence_of({arm: AnsweringRun(spec, says[arm]) for arm, spec in specs.items()}, learns=True)
    return ideal, evidence_of({arm: UntrainedRun(spec) for arm, spec in specs.items()}, learns=False)


def exact(name: str) -> Predictor:
    """Log-probabilities of an algorithm."""

    def log_probs(asked: Predictions) -> np.ndarray:
        return exact_predictions(asked)[name]

    return log_probs


def in_order(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Edelman et al.: a uniform answer, unigrams, bigrams."""
    course = path_of((0.1, exact(UNIFORM)), (0.4, exact(UNIGRAM)), (0.5, exact(UNIGRAM)), (0.9, exact(BIGRAM)))
    return both_of(specs_of(CHAINS, experiment, preset), {phases.EVERY: course})


def four_phases(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Park et al.: few chains are retrieved at once; more are, after bigram inference; without a pool that stays."""
    specs = specs_of(CHAINS, experiment, preset)
    direct = path_of((0.2, exact(UNIGRAM_POOL)), (0.6, exact(BIGRAM_POOL)))
    passing = path_of((0.2, exact(UNIGRAM)), (0.6, exact(BIGRAM)), (1.0, exact(BIGRAM_POOL)))
    lasting = path_of((0.2, exact(UNIGRAM)), (0.6, exact(BIGRAM)))
    return both_of(specs, dict.fromkeys(specs, passing) | {pools.FEW: direct, pools.EVERY: lasting})


def two_boundaries(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Gibson et al.: with few chains the faster learner has a phase of inference, with many the wider one leaves it."""
    specs = specs_of(CHAINS, experiment, preset)
    direct = path_of((0.2, exact(UNIGRAM_POOL)), (0.6, exact(BIGRAM_POOL)))
    passing = path_of((0.2, exact(UNIGRAM)), (0.6, exact(BIGRAM)), (1.0, exact(BIGRAM_POOL)))
    lasting = path_of((0.2, exact(UNIGRAM)), (0.6, exact(BIGRAM)))
    says = dict.fromkeys(boundaries.FEW_ARMS, direct) | dict.fromkeys(boundaries.MANY_ARMS, lasting)
    few, many = boundaries.arm_of(boundaries.FEW, boundaries.FAST), boundaries.arm_of(boundaries.MANY, boundaries.WIDE)
    return both_of(specs, says | {few: passing, many: passing})


ON_CHAINS: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    "chains/phases": in_order,
    "chains/pools": four_phases,
    "chains/boundaries": two_boundaries,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
