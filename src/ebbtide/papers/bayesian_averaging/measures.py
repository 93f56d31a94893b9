"""Measures of models of concepts: KL divergence from the exact average over concepts, and regret."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set, member_values, predict_arm
from ebbtide.evaluation.concepts import concept_average, marginal
from ebbtide.sources.concepts import Concepts
from ebbtide.studies.evidence import Evidence

NEAR = 0.02
"""KL(average || model), nats a slot, below which a model counts as at the average: the limit set beforehand."""


class ExactPredictions(NamedTuple):
    """Log-probabilities of the responses under the exact predictors on the prompts of an arm: the Bayesian model
    average, the marginal over concepts, and the true concept (nan where that is in no pool); and the log posterior of
    the concepts."""

    average: Float[np.ndarray, "slots prompt responses"]
    marginal: Float[np.ndarray, "slots prompt responses"]
    truth: Float[np.ndarray, "slots prompt responses"]
    posterior: Float[np.ndarray, "slots prompt concepts"]


@cache_per_prompt_set
def exact_predictions(predictions: Predictions) -> ExactPredictions:
    """Log-probabilities of the exact predictors on the prompts."""
    assert isinstance(predictions.spec.source, Concepts)
    logs = np.asarray(predictions.spec.source.build().logs, np.float64)
    cues = predictions.inputs.argmax(-1)
    likelihood = np.moveaxis(logs[:, cues], 0, 2)
    average = concept_average(likelihood, predictions.responses)
    concept = predictions.latent["concept"]
    truth = np.take_along_axis(likelihood, concept[None, :, None, None], axis=2)[:, :, 0]
    truth = np.where(concept[None, :, None] < 0, np.nan, truth)
    return ExactPredictions(average.predictive, marginal(likelihood), truth, average.posterior)


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) of log-probabilities over the last axis, in nats."""
    return (np.exp(p) * (p - q)).sum(-1)


def response_log_probs(logs: np.ndarray, responses: Int[np.ndarray, "slots prompt"]) -> np.ndarray:
    """Log-probabilities of the true responses, nats."""
    return np.take_along_axis(logs, responses[..., None], axis=-1)[..., 0]


def measure_arm(
    evidence: Evidence, arm: str, evaluator: str, measure: Callable[[Predictions], float], *, last: bool = True
) -> np.ndarray:
    """`measure` of every member's predictions on fresh prompts of an evaluator, by default at the last checkpoint."""
    return member_values(predict_arm(evidence, arm, evaluator, last=last), measure)


def model_log_probs(predictions: Predictions) -> np.ndarray:
    """Log-probabilities of the model at every checkpoint."""
    return log_softmax(predictions.outputs, axis=-1)


def kl_to_model(
    predictor: Float[np.ndarray, "slots prompt words"], predictions: Predictions
) -> Float[np.ndarray, " checkpoint"]:
    """KL(predictor || model) at every checkpoint, mean over slots and prompts, nats."""
    return kl_divergence(predictor, model_log_probs(predictions)).mean((1, 2))


def final_kl_to_average(evidence: Evidence, arm: str) -> np.ndarray:
    """KL(average || model) at the last checkpoint, mean over slots and prompts, nats."""
    return measure_arm(evidence, arm, "train", lambda one: kl_to_model(exact_predictions(one).average, one)[-1])


def distance_of_marginal(evidence: Evidence, arm: str) -> np.ndarray:
    """KL(average || marginal), mean over slots and prompts, nats: how far a predictor that ignores the context is from
    the average."""

    def distance(predictions: Predictions) -> float:
        exact = exact_predictions(predictions)
        return float(kl_divergence(exact.average, exact.marginal).mean())

    return measure_arm(evidence, arm, "train", distance)


def regret_by_slot(
    predictions: Predictions, logs: Float[np.ndarray, "slots prompt responses"]
) -> Float[np.ndarray, " slots"]:
    """Mean regret at every slot of a predictor that gives these log-probabilities: its log loss - that of the true
    concept, nats."""
    responses = predictions.responses
    truth = response_log_probs(exact_predictions(predictions).truth, responses)
    return (truth - response_log_probs(logs, responses)).mean(1)


def prompt_regret(evidence: Evidence, arm: str) -> np.ndarray:
    """Mean regret of a whole prompt: log loss of the model - of the true concept, summed over slots, nats."""
    return measure_arm(evidence, arm, "train", lambda one: regret_by_slot(one, model_log_probs(one)[-1]).sum())


def exact_regret(evidence: Evidence, arm: str) -> np.ndarray:
    """Regret of the exact average itself on an arm's prompts, nats a prompt."""
    return measure_arm(evidence, arm, "train", lambda one: regret_by_slot(one, exact_predictions(one).average).sum())
