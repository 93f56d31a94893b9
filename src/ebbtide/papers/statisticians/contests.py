r"""Errors of models of functions and of classical predictors at the query of the same prompts.

Of real responses the error of a prediction is $(\hat f - w'q)^2 + \sigma^2$, its expectation over the query's own
noise, which is the same for all predictors; its mean less $\sigma^2$ is the *excess*. Of labels it is whether the more
probable one is wrong: 0 or 1.
"""

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Predictions
from ebbtide.errors import require
from ebbtide.evaluation.baselines import averaging, least_squares, linear_posterior, nearest
from ebbtide.evaluation.baselines_convex import lasso, logistic
from ebbtide.evaluation.bayes import mixed_ridge, penalty_of
from ebbtide.sources.functions import Functions
from ebbtide.tasks.regression import Regression

LASSO_PENALTIES = (1.0, 0.1, 0.01, 0.001)
LOGISTIC_PENALTY = 0.1
"""Penalty of logistic regression: small, and large enough that separable labels have a solution."""

Errors = Float[np.ndarray, " prompt"]


def _linear_task(predictions: Predictions) -> tuple[Regression, Functions]:
    """The task and the source of the prompts. Raises `InputError` unless the functions are linear in the inputs."""
    task, source = predictions.spec.task, predictions.spec.source
    assert isinstance(task, Regression) and isinstance(source, Functions)
    require(source.layers == 0, "source.layers", source.layers, "must be 0: the predictors are linear in x")
    return task, source


def squared_errors(predictions: Predictions, values: Errors, noise: float) -> Errors:
    """Squared errors at the query of predicted responses `values`, in expectation over the query's own noise (`noise`,
    a standard deviation): (values - w'q)^2 + noise^2."""
    _linear_task(predictions)
    clean = (predictions.inputs[-1] * predictions.latent["weights"]).sum(-1)
    return (values - clean) ** 2 + noise**2


def model_errors(predictions: Predictions, noise: float) -> Errors:
    """Errors of a member's last checkpoint at the query: squared errors, or for labels 0 (right) or 1 (wrong)."""
    outputs = predictions.outputs[-1, -1]
    if _linear_task(predictions)[0].link == "sign":
        return (outputs.argmax(-1) != predictions.responses[-1]).astype(np.float64)
    return squared_errors(predictions, outputs[:, 0], noise)


def sign_errors(predictions: Predictions, outputs: Errors) -> Errors:
    """1 at every prompt where a real-valued output has another sign than w'q, else 0."""
    _linear_task(predictions)
    return ((outputs > 0) != ((predictions.inputs[-1] * predictions.latent["weights"]).sum(-1) > 0)).astype(np.float64)


def predictor_errors(predictions: Predictions, noise: float) -> dict[str, Errors]:
    """Errors of the classical predictors at the query, by name. For labels: those of `classifier_scores`. Else least
    squares, averaging and 3 nearest neighbours; ridge with the posterior's penalty where there is noise; the Lasso with
    each of the paper's penalties where weights are sparse."""
    task, source = _linear_task(predictions)
    x, y, last = predictions.inputs, predictions.responses, len(predictions.inputs) - 1
    if task.link == "sign":
        outputs = classifier_scores(x, 2.0 * y - 1)
        return {name: ((one > 0) != (y[-1] > 0)).astype(np.float64) for name, one in outputs.items()}
    outputs = {"least squares": least_squares(x, y, [last])[0]}
    if noise > 0:
        outputs["ridge"] = linear_posterior(x, y, penalty_of(noise, source.deviation)).mean[-1]
    if source.nonzero is not None:
        outputs |= {f"Lasso {p:g}": lasso(x, y, p, [last])[0] for p in LASSO_PENALTIES}
    outputs |= {"averaging": averaging(x, y)[-1], "3 nearest": nearest(x, y)[-1]}
    return {name: squared_errors(predictions, one, noise) for name, one in outputs.items()}


def classifier_scores(
    x: Float[np.ndarray, "slots prompt dim"], signs: Float[np.ndarray, "slots prompt"]
) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Scores of classical predictors at the query where responses are -1 or +1, by name: above 0 predicts +1."""
    last = len(x) - 1
    return {
        "logistic": logistic(x, signs, LOGISTIC_PENALTY, [last])[0] - 0.5,
        "least squares": least_squares(x, signs, [last])[0],
        "averaging": averaging(x, signs)[-1],
        "3 nearest": nearest(x, signs)[-1],
    }


def best_predictor(errors: dict[str, Errors]) -> str:
    """Name of the predictor with the smallest mean error."""
    return min(errors, key=lambda name: errors[name].mean())


def noise_mixture_errors(predictions: Predictions, noise: float, noises: tuple[float, ...]) -> Errors:
    """Squared errors, on prompts whose noise is `noise`, of the predictor that is optimal where a prompt's noise is one
    of `noises` (standard deviations). Raises `InputError` for a noise of 0: its posterior is a point."""
    optimum = mixed_ridge(predictions.inputs, predictions.responses, noises, _linear_task(predictions)[1].deviation)
    return squared_errors(predictions, optimum.predictions[-1], noise)


def ridge_errors(
    predictions: Predictions, noise: float, penalties: Float[np.ndarray, " penalty"]
) -> Float[np.ndarray, "penalty prompt"]:
    """Squared errors at the query of ridge with each of these penalties, by one singular value decomposition of every
    prompt."""
    x, y, query = predictions.inputs[:-1].swapaxes(0, 1), predictions.responses[:-1].T, predictions.inputs[-1]
    u, s, v = np.linalg.svd(x, full_matrices=False)
    fit, along = (u.mT @ y[:, :, None])[:, :, 0], (v @ query[:, :, None])[:, :, 0]
    values = [(s / (s**2 + penalty) * fit * along).sum(-1) for penalty in penalties]
    return np.stack([squared_errors(predictions, one, noise) for one in values])


def gain_over_frontier(
    point: Float[np.ndarray, "member 2"], frontiers: Float[np.ndarray, "member penalty 2"]
) -> Float[np.ndarray, " member"]:
    """Gain of a member's pair of errors over its own curve of such pairs (`frontiers`: points joined by straight
    lines): the smallest, over the curve, of the larger of the two differences. Above 0: every point of the curve is
    worse in at least one of the two errors. Below 0: some point of the curve is better in both.
    """
    gains = frontiers - point[:, None]
    ends = gains.max(-1).min(-1)
    if frontiers.shape[1] < 2:
        return ends
    first, last = gains[:, :-1], gains[:, 1:]
    before, after = (part[..., 0] - part[..., 1] for part in (first, last))
    crosses = before * after < 0  # on the line from one to the next both gains are equal: there the larger is smallest
    along = np.divide(before, before - after, out=np.zeros_like(before), where=crosses)
    equal = first[..., 0] + along * (last[..., 0] - first[..., 0])
    return np.minimum(ends, np.where(crosses, equal, np.inf).min(-1))
