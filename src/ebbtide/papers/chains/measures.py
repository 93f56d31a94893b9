"""Measures of models of Markov chains: KL divergence from each exact algorithm to the model, over training."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from ebbtide.analysis import predictions
from ebbtide.analysis.predictions import PROMPTS, Predictions, cache_per_prompt_set, map_members
from ebbtide.evaluation.chains import (
    LogPredictive,
    frequency_log_probs,
    retrieval_log_probs,
    row_log_probs,
    true_log_probs,
)
from ebbtide.evaluation.pools import pool_weights
from ebbtide.runs.folder import Snapshot
from ebbtide.sources.chains import Chains
from ebbtide.studies.evidence import Evidence, Series, stack_members
from ebbtide.tasks.markov import Markov

NEAR = 0.02
"""KL(algorithm || model), nats a symbol, below which a model counts as at the algorithm: as in `bayesian-averaging`."""
FRESH = "prior"
"""Evaluator whose chains are in no pool: only there do the algorithms differ much."""
UNIFORM, UNIGRAM, BIGRAM = "uniform", "unigram inference", "bigram inference"
UNIGRAM_POOL, BIGRAM_POOL = "unigram retrieval", "bigram retrieval"
INFERENCE = (UNIFORM, UNIGRAM, BIGRAM)
"""Algorithms that know no pool: equal probabilities, the stationary distribution of the chain whose rows are counts + a
(Park et al. 2025), and its rows. Frequencies of symbols + a are no good yardstick of unigrams: the prior of a
stationary distribution is much narrower than that of a row."""
ALGORITHMS = (*INFERENCE, UNIGRAM_POOL, BIGRAM_POOL)
"""All algorithms. Retrieval by unigrams answers with stationary distributions, by bigrams with rows."""


@cache_per_prompt_set
def exact_predictions(predictions: Predictions) -> dict[str, LogPredictive]:
    """Log-probabilities of every algorithm on the prompts, by name; those of retrieval only where there is a pool."""
    source, task, symbols = predictions.spec.source, predictions.spec.task, predictions.inputs.argmax(-1)
    assert isinstance(source, Chains) and isinstance(task, Markov)
    found = {
        UNIFORM: np.full((*symbols.shape, source.states), -np.log(source.states)),
        UNIGRAM: frequency_log_probs(symbols, source.states, source.concentration, of="rows"),
        BIGRAM: row_log_probs(symbols, source.states, source.concentration),
    }
    if source.pool:
        logs = log_softmax(np.asarray(source.build().logs, np.float64), axis=-1)
        weights = pool_weights(source.pool, task.zipf)
        found[UNIGRAM_POOL] = retrieval_log_probs(symbols, logs, "unigram", "stationary", weights)
        found[BIGRAM_POOL] = retrieval_log_probs(symbols, logs, weights=weights)
    return found


class Course(NamedTuple):
    """What is measured of one member on chains of no pool, nats a symbol: KL(algorithm || model) and KL(true rows ||
    model) at every kept checkpoint, and KL(first || second) of every two algorithms; nan for one without a pool."""

    sequences: Int[np.ndarray, " checkpoint"]
    distances: Float[np.ndarray, "checkpoint algorithm"]
    truth: Float[np.ndarray, " checkpoint"]
    between: Float[np.ndarray, "first second"]


def measure_course(asked: Predictions) -> Course:
    """The `Course` of a member from its predictions."""
    exact = exact_predictions(asked)
    rows = true_log_probs(asked.inputs.argmax(-1), asked.latent["transitions"].astype(np.float64))
    said = [log_softmax(one, axis=-1) for one in asked.outputs]
    nothing = np.full(max(len(said), len(ALGORITHMS)), np.nan)
    others = [exact.get(name) for name in ALGORITHMS]
    own = [nothing[: len(said)] if one is None else kl_divergences(one, said) for one in others]
    pairs = [[np.nan if a is None or b is None else kl_divergences(a, [b])[0] for b in others] for a in others]
    return Course(asked.sequences, np.stack(own, axis=1), kl_divergences(rows, said), np.asarray(pairs))


def kl_divergences(p: LogPredictive, many: list[LogPredictive]) -> Float[np.ndarray, " many"]:
    """KL(p || q) for each of many q, mean over slots and prompts, nats."""
    weights = np.exp(p) / (p.shape[0] * p.shape[1])
    own = float((weights * p).sum())
    return np.asarray([own - float((weights * q).sum()) for q in many])


@lru_cache(maxsize=1024)
def _course_of(run: Snapshot, place: int) -> Course:
    return measure_course(predictions.predict_member(run, place, FRESH, PROMPTS, False))


def courses(evidence: Evidence, arm: str) -> list[Course | None]:
    """The `Course` of every member of an arm, None for a member that has not finished."""
    return map_members(evidence, arm, _course_of)


def _series(found: list[Course | None], rows: list[np.ndarray | None]) -> Series:
    """Values over training, nan for members that have not finished; of none there are two times, as the first is left
    out of every comparison."""
    times = next((one.sequences for one in found if one is not None), np.zeros(2, int))
    return Series(stack_members(rows, (len(times),)), times)


def distances(evidence: Evidence, arm: str, names: tuple[str, ...] = ALGORITHMS) -> dict[str, Series]:
    """KL(algorithm || model) of every member over training, by algorithm; nan where an algorithm has no pool."""
    found = courses(evidence, arm)
    return {
        name: _series(found, [None if one is None else one.distances[:, ALGORITHMS.index(name)] for one in found])
        for name in names
    }


def leads(found: dict[str, Series]) -> dict[str, Series]:
    """By how much a model is nearer to each algorithm than to any other, nats: the smallest distance to another one
    less the distance to this one; -inf for an algorithm without a pool."""
    finished = np.isfinite(found[BIGRAM].values)
    there = {name: one.values for name, one in found.items() if np.isfinite(one.values).any()}

    def lead(name: str) -> np.ndarray:
        if name not in there:
            return np.where(finished, -np.inf, np.nan)
        return np.min([values for other, values in there.items() if other != name], axis=0) - there[name]

    return {name: Series(lead(name), found[name].sequences) for name in found}


def distance_between(evidence: Evidence, arm: str, first: str, second: str) -> Float[np.ndarray, " member"]:
    """KL(first || second) of two algorithms on chains of no pool, nats; nan for an algorithm without a pool."""
    at = ALGORITHMS.index(first), ALGORITHMS.index(second)
    return np.asarray([np.nan if one is None else one.between[at] for one in courses(evidence, arm)])


def kl_to_truth(evidence: Evidence, arm: str) -> Series:
    """KL(the chain's own rows || model) over training, nats: the divergence out of distribution."""
    found = courses(evidence, arm)
    return _series(found, [None if one is None else one.truth for one in found])


def nearest_time(distance: Series) -> Float[np.ndarray, " member"]:
    """Sequences after which each member has its smallest distance, the first checkpoint left out."""
    later = np.nan_to_num(distance.values[:, 1:], nan=np.inf)
    return distance.sequences[1:][later.argmin(1)].astype(float)
