r"""Predictors of a label in context where every class is Gaussian and all classes have one covariance: the Bayes
classifier and linear discriminant analysis, as probabilities of the query's classes [batch, classes].

Inputs x are [slots, batch, dim] and labels [slots, batch], token-major as everywhere; the query is the last slot, and
its own label is not read. All is in float64.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from ebbtide.errors import require

Inputs = Float[np.ndarray, "slots batch dim"]
Labels = Int[np.ndarray, "slots batch"]
Means = Float[np.ndarray, "batch classes dim"]
Covariances = Float[np.ndarray, "#batch dim dim"]
"""A covariance for every prompt, or one for all: [batch, dim, dim] or [1, dim, dim]."""
Probabilities = Float[np.ndarray, "batch classes"]


def bayes_posterior(query: Float[np.ndarray, "batch dim"], means: Means, covariance: Covariances) -> Probabilities:
    r"""Probabilities of the classes given the query, the means and the covariance: the softmax of $\mu_k' \Lambda^{-1}
    x - \mu_k' \Lambda^{-1} \mu_k / 2$ with equal prior probabilities. No predictor has a smaller expected log-loss.

    >>> query, means = np.array([[1.0, 0.0]]), np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    >>> bayes_posterior(query, means, np.eye(2)[None]).round(3).tolist()  # logits 1 and -1
    [[0.881, 0.119]]
    """
    scaled = np.linalg.solve(covariance.astype(np.float64), means.astype(np.float64).mT).mT
    logits = (scaled * (query[:, None] - 0.5 * means)).sum(-1)
    return softmax(logits, axis=-1)


def linear_discriminant(
    x: Inputs, labels: Labels, classes: int, covariance: Covariances | None = None
) -> Probabilities:
    """Linear discriminant analysis: `bayes_posterior` with the means of the context's inputs by class, and with the
    given covariance or, without one, the pooled estimate (divided by pairs - classes).

    A class of which the context shows nothing has the mean 0. Raises `InputError` where there are too few pairs to
    estimate the covariance (classes + dim), and for labels that are not from 0 to classes - 1.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    require(wrong.size == 0, "labels", int(wrong[0]) if wrong.size else None, f"must be from 0 to {classes - 1}")
    seen, own = x[:-1].astype(np.float64), labels[:-1, :, None] == np.arange(classes)
    means = np.einsum("sbd,sbk->bkd", seen, own) / np.maximum(own.sum(0), 1)[:, :, None]
    if covariance is None:
        covariance = _pooled_covariance(seen, labels[:-1], means)
    return bayes_posterior(x[-1].astype(np.float64), means, covariance)


def _pooled_covariance(seen: Inputs, labels: Labels, means: Means) -> Covariances:
    pairs, batch, dim = seen.shape
    classes = means.shape[1]
    allowed = f"must be at least classes + dim = {classes + dim} to estimate the covariance"
    require(pairs >= classes + dim, "pairs", pairs, allowed)
    rest = seen - means[np.arange(batch), labels]
    return np.einsum("sbi,sbj->bij", rest, rest) / (pairs - classes)


def total_variation(first: Probabilities, second: Probabilities) -> Float[np.ndarray, " batch"]:
    """Total variation distance of two distributions over the classes, from 0 to 1: half the sum of the differences."""
    return 0.5 * np.abs(first - second).sum(-1)
