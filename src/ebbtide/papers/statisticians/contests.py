r"""Errors of models of functions and of classical predictors at the query of the same prompts.

Of real responses the error of a prediction is $(\hat f - w'q)^2 + \sigma^2$, its expectation over the query's own
noise, which is the same for all predictors; its mean less $\sigma^2$ is the *excess*. Of labels it is whether the more
probable one is wrong: 0 or 1.
"""

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Answers
from ebbtide.errors import require
from ebbtide.evaluation.baselines import averaging, least_squares, linear_posterior, nearest
from ebbtide.evaluation.baselines_convex import lasso, logistic
from ebbtide.evaluation.bayes import mixed_ridge, penalty_of
from ebbtide.sources.functions import Functions
from ebbtide.tasks.regression import Regression

LASSO_PENALTIES = (1.0, 0.1, 0.01, 0.001)
LOGISTIC_PENALTY = 0.1
"""Of logistic regression: nearly none, enough for separable labels."""

Errors = Float[np.ndarray, " prompt"]


def _task(found: Answers) -> tuple[Regression, Functions]:
    """Raises `InputError` unless the prompts are of plain linear functions, drawn anew for every prompt."""
    task, source = found.spec.task, found.spec.source
    assert isinstance(task, Regression) and isinstance(source, Functions)
    require(source.layers == 0, "source.layers", source.layers, "must be 0: the predictors are linear in x")
    return task, source


def errors_of(found: Answers, predictions: Errors, noise: float) -> Errors:
    """The error of real predictions for the query at every prompt, the noise of the query expected."""
    _task(found)
    clean = (found.inputs[-1] * found.latent["weights"]).sum(-1)
    return (predictions - clean) ** 2 + noise**2


def model_errors(found: Answers, noise: float) -> Errors:
    """Those of a member's last checkpoint."""
    said = found.outputs[-1, -1]
    if _task(found)[0].link == "sign":
        return (said.argmax(-1) != found.responses[-1]).astype(np.float64)
    return errors_of(found, said[:, 0], noise)


def wrong_signs(found: Answers, said: Errors) -> Errors:
    """0 or 1 at every prompt: whether a real prediction has another sign than w'q."""
    _task(found)
    return ((said > 0) != ((found.inputs[-1] * found.latent["weights"]).sum(-1) > 0)).astype(np.float64)


def predictors(found: Answers, noise: float) -> dict[str, Errors]:
    """Errors of the classical predictors of a kind of prompt, by name: logistic regression and others for labels;
    least squares, ridge with the posterior's penalty (where there is noise), the Lasso (where weights are sparse: of
    the paper's penalties all), averaging and 3 nearest neighbours."""
    task, source = _task(found)
    x, y, last = found.inputs, found.responses, len(found.inputs) - 1
    if task.link == "sign":
        said = classifiers(x, 2.0 * y - 1)
        return {name: ((one > 0) != (y[-1] > 0)).astype(np.float64) for name, one in said.items()}
    made = {"least squares": least_squares(x, y, [last])[0]}
    if noise > 0:
        made["ridge"] = linear_posterior(x, y, penalty_of(noise, source.deviation)).mean[-1]
    if source.nonzero is not None:
        made |= {f"Lasso {p:g}": lasso(x, y, p, [last])[0] for p in LASSO_PENALTIES}
    made |= {"averaging": averaging(x, y)[-1], "3 nearest": nearest(x, y)[-1]}
    return {name: errors_of(found, one, noise) for name, one in made.items()}


def classifiers(
    x: Float[np.ndarray, "slots prompt dim"], signs: Float[np.ndarray, "slots prompt"]
) -> dict[str, Float[np.ndarray, " prompt"]]:
    """What classical predictors say of the query where responses are -1 or +1: above 0 for +1."""
    last = len(x) - 1
    return {
        "logistic": logistic(x, signs, LOGISTIC_PENALTY, [last])[0] - 0.5,
        "least squares": least_squares(x, signs, [last])[0],
        "averaging": averaging(x, signs)[-1],
        "3 nearest": nearest(x, signs)[-1],
    }


def best_of(errors: dict[str, Errors]) -> str:
    """The predictor with the smallest mean error."""
    return min(errors, key=lambda name: errors[name].mean())


def mixed_errors(found: Answers, noise: float, noises: tuple[float, ...]) -> Errors:
    """Those of the optimum where a prompt's noise is one of `noises`, on prompts whose noise is `noise`. Raises
    `InputError` for a noise of 0: its posterior is a point."""
    made = mixed_ridge(found.inputs, found.responses, noises, _task(found)[1].deviation)
    return errors_of(found, made.predictions[-1], noise)


def ridge_errors(found: Answers, noise: float, penalty: float) -> Errors:
    """Those of ridge with a fixed penalty."""
    return errors_of(found, linear_posterior(found.inputs, found.responses, penalty).mean[-1], noise)


def below_frontier(
    point: Float[np.ndarray, "member 2"], frontier: Float[np.ndarray, "penalty 2"]
) -> Float[np.ndarray, " member"]:
    """By how much a point of two errors is below a curve of them, given by points that are joined by straight lines:
    the smallest over the curve of the larger of the two gains. Above 0: every point of the curve is worse in one of
    the two at least; below 0: some point is better in both.
    """
    gains = frontier[None] - point[:, None]
    ends = gains.max(-1).min(-1)
    if len(frontier) < 2:
        return ends
    first, last = gains[:, :-1], gains[:, 1:]
    before, after = (part[..., 0] - part[..., 1] for part in (first, last))
    crosses = before * after < 0  # on the line from one to the next both gains are equal: there the larger is smallest
    along = np.divide(before, before - after, out=np.zeros_like(before), where=crosses)
    equal = first[..., 0] + along * (last[..., 0] - first[..., 0])
    return np.minimum(ends, np.where(crosses, equal, np.inf).min(-1))
