"""Made-up evidence of models that read words: stacks that are kept or lost as the paper says, and an untrained net."""

from collections.abc import Callable, Mapping

import numpy as np

from ebbtide.analysis.predictions import Predictions, PromptSet
from ebbtide.evaluation.words import next_cell_probs
from ebbtide.papers.bounded_cfg import pairings
from ebbtide.papers.bounded_cfg.settings import ARMS, LSTM, WHOLE, arm_of
from ebbtide.papers.bounded_cfg.study import BOUNDED_CFG
from ebbtide.sources.words import Words
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_functions import MadeUpRun, Says, UntrainedNets, evidence_of
from ideal_tools import specs_of


def right(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """Logits of the right cells."""
    source = asked.spec.source
    assert isinstance(source, Words)
    return 9 * np.eye(source.values)[asked.responses].reshape(*asked.responses.shape[:2], -1)


def forgetful(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """The same, but a tenth of the cells at the bottom of the stack is empty, two tenths of those above, and so on."""
    source, cells = asked.spec.source, asked.responses.copy()
    assert isinstance(source, Words)
    chance = np.concatenate([[0], 0.1 * np.arange(1, cells.shape[-1])])
    cells[np.random.default_rng(0).random(cells.shape) < chance] = 0
    return 9 * np.eye(source.values)[cells].reshape(*cells.shape[:2], -1)


def best_causal(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """Log-probabilities of the cells after the next symbol."""
    source, symbols = asked.spec.source, asked.inputs.argmax(-1)
    assert isinstance(source, Words)
    probs = next_cell_probs(symbols, source)
    return np.log(np.maximum(probs, 1e-9)).reshape(*symbols.shape, -1)


class UntrainedReaders(UntrainedNets):
    """A run whose members are as they were drawn, of their full width: it is cut into segments."""

    def __init__(self, spec: Spec):
        MadeUpRun.__init__(self, spec, self.answer)
        self.answers: dict[PromptSet, np.ndarray] = {}


def both_of(specs: Mapping[str, Spec], says: Mapping[str, Says]) -> tuple[Evidence, Evidence]:
    """The evidence of arms that answer so, and of arms before training."""
    ideal = evidence_of({arm: MadeUpRun(spec, says[arm]) for arm, spec in specs.items()}, learns=True)
    return ideal, evidence_of({arm: UntrainedReaders(spec) for arm, spec in specs.items()}, learns=False)


def lost_by_the_lstm(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Shi et al.: all keep the stack in segments, and without them the LSTM alone loses it."""
    says: dict[str, Says] = dict.fromkeys(ARMS, right) | {arm_of(LSTM, "latent"): forgetful}
    return both_of(specs_of(BOUNDED_CFG, experiment, preset), says)


def not_yet_seen(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Whoever sees the next symbol knows the stack after it; no other model does."""
    says: dict[str, Says] = {arm: right if WHOLE in arm else best_causal for arm in ARMS}
    return both_of(specs_of(BOUNDED_CFG, experiment, preset), says)


def logs_of(probs: Callable[[Predictions], np.ndarray]) -> Says:
    """Logarithms of exact probabilities."""
    return lambda asked, share, seen: np.log(np.maximum(probs(asked), 1e-9))


def inferred_or_retrieved(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Pairings are inferred where they are new in every word, retrieved where they are not; the LSTM knows the brackets
    that may follow, and not which closes which."""

    def unpaired(asked: Predictions) -> np.ndarray:
        probs = pairings.inference_probs(asked)
        closing = probs[..., 5:].sum(-1, keepdims=True)
        return np.concatenate([probs[..., :5], np.repeat(closing / 3, 3, axis=-1)], axis=-1)

    answers = {
        pairings.OWN: pairings.inference_probs,
        pairings.POOLED: pairings.retrieval_probs,
        pairings.OWN_LSTM: unpaired,
    }
    specs = specs_of(BOUNDED_CFG, experiment, preset)
    return both_of(specs, {arm: logs_of(probs) for arm, probs in answers.items()})


ON_WORDS: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    "bounded-cfg/decomposition": lost_by_the_lstm,
    "bounded-cfg/shift": not_yet_seen,
    "bounded-cfg/pairings": inferred_or_retrieved,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
