"""What studies of concepts measure: how far a model is from the exact average over concepts, and what it regrets."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from ebbtide.analysis.predictions import Answers, answers, by_member, of_prompts
from ebbtide.evaluation.concepts import concept_average, marginal
from ebbtide.sources.concepts import Concepts
from ebbtide.studies.evidence import Evidence


class Exact(NamedTuple):
    """The exact predictors on the prompts of an arm: the Bayesian model average, the marginal over concepts, and the
    true concept (nan where it is of no pool), all log-probabilities; log posteriors of the concepts."""

    average: Float[np.ndarray, "slots prompt responses"]
    marginal: Float[np.ndarray, "slots prompt responses"]
    truth: Float[np.ndarray, "slots prompt responses"]
    posterior: Float[np.ndarray, "slots prompt concepts"]


@of_prompts
def exact(found: Answers) -> Exact:
    """The exact predictors on the prompts."""
    assert isinstance(found.spec.source, Concepts)
    logs = np.asarray(found.spec.source.build().logs, np.float64)
    cues = found.inputs.argmax(-1)
    likelihood = np.moveaxis(logs[:, cues], 0, 2)
    average = concept_average(likelihood, found.responses)
    concept = found.latent["concept"]
    truth = np.take_along_axis(likelihood, concept[None, :, None, None], axis=2)[:, :, 0]
    truth = np.where(concept[None, :, None] < 0, np.nan, truth)
    return Exact(average.predictive, marginal(likelihood), truth, average.posterior)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) of log-probabilities over the last axis, in nats."""
    return (np.exp(p) * (p - q)).sum(-1)


def said(logs: np.ndarray, responses: Int[np.ndarray, "slots prompt"]) -> np.ndarray:
    """The log-probability of the responses that were given."""
    return np.take_along_axis(logs, responses[..., None], axis=-1)[..., 0]


def each(
    evidence: Evidence, arm: str, evaluator: str, of: Callable[[Answers], float], *, last: bool = True
) -> np.ndarray:
    """A number of every member."""
    return by_member(answers(evidence, arm, evaluator, last=last), of)


def log(found: Answers) -> np.ndarray:
    """The model's log-probabilities at every checkpoint."""
    return log_softmax(found.outputs, axis=-1)


def distance(predictor: Float[np.ndarray, "slots prompt words"], found: Answers) -> Float[np.ndarray, " checkpoint"]:
    """KL(predictor || model) at every checkpoint, mean over slots and prompts, nats."""
    return divergence(predictor, log(found)).mean((1, 2))


def gap(evidence: Evidence, arm: str) -> np.ndarray:
    """KL(average || model) at the end, mean over slots and prompts, nats."""
    return each(evidence, arm, "train", lambda one: distance(exact(one).average, one)[-1])


def slot_regret(found: Answers) -> Float[np.ndarray, " slots"]:
    """The mean regret of every slot to the true concept, nats."""
    truth, model = said(exact(found).truth, found.responses), said(log(found)[-1], found.responses)
    return (truth - model).mean(1)


def regret(evidence: Evidence, arm: str) -> np.ndarray:
    """The regret of a whole prompt: log loss of the model - of the true concept, summed over slots."""
    return each(evidence, arm, "train", lambda one: slot_regret(one).sum())
