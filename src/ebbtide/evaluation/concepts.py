r"""Predictors of sequences of cues and discrete responses that follow one of finitely many hidden concepts.

A concept z is drawn uniformly for the whole prompt, and then $r_t \sim P(\cdot|c_t, z)$ for every cue $c_t$. The
concepts enter as an array `log_likelihood` [slots, batch, concepts, responses], log P(r | c_t, z) for every possible
response, not only the observed one; -inf is a response that a concept excludes. As everywhere, slot t is predicted from
the cue at t and the pairs 0 ... t-1.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, logsumexp

from ebbtide.errors import require

LogLikelihood = Float[np.ndarray, "slots batch concepts responses"]
LogPredictive = Float[np.ndarray, "slots batch responses"]
Symbols = Int[np.ndarray, "slots batch"]


class Averaged(NamedTuple):
    """Logarithms of the averaged predictive distribution, of the posterior over concepts before the slot, and of the
    predictive distribution of the most probable concept (the first of equals)."""

    predictive: LogPredictive
    posterior: Float[np.ndarray, "slots batch concepts"]
    map_predictive: LogPredictive


def concept_average(log_likelihood: LogLikelihood, responses: Symbols) -> Averaged:
    r"""Bayesian model averaging over concepts with a uniform prior,

    $$P(r|c_t, S_t) = \sum_z P(z|S_t)\, P(r|c_t, z), \quad P(z|S_t) \propto \prod_{s<t} P(r_s|c_s, z).$$

    For every sequence, and every concept z, $\sum_t \log P(r_t|c_t,z) - \log P(r_t|c_t,S_t) \le \log Z$: averaging
    never regrets more than the number of concepts (Zhang et al. 2023, arXiv 2305.19420).

    Raises `InputError` for shapes that disagree, nan or +inf, responses that are not there, and where the pairs before
    the last slot exclude every concept, so that nothing is left to average.
    """
    log_likelihood, shape = _likelihood(log_likelihood), log_likelihood.shape
    _symbols("responses", responses, shape[:2], shape[3])
    likelihoods = np.take_along_axis(log_likelihood, responses[:, :, None, None], axis=3)[..., 0]
    evidence = np.zeros(likelihoods.shape)
    np.cumsum(likelihoods[:-1], axis=0, out=evidence[1:])
    possible = np.isfinite(evidence).any(-1).all(0)
    lost = f"must leave a concept possible, and does not in {np.sum(~possible)} of {shape[1]} prompts"
    require(bool(possible.all()), "log_likelihood", -math.inf, lost)
    posterior = log_softmax(evidence, axis=-1)
    best = posterior.argmax(-1)[:, :, None, None]
    return Averaged(
        np.asarray(logsumexp(posterior[..., None] + log_likelihood, axis=2)),
        posterior,
        np.take_along_axis(log_likelihood, best, axis=2)[:, :, 0],
    )


def marginal(log_likelihood: LogLikelihood) -> LogPredictive:
    r"""The predictive distribution from the cue alone, without context: $\log \frac1Z \sum_z P(r|c_t, z)$.

    [slots, batch, responses]. Raises `InputError` for nan or +inf.
    """
    log_likelihood = _likelihood(log_likelihood)
    return np.asarray(logsumexp(log_likelihood, axis=2)) - math.log(log_likelihood.shape[2])


def cue_frequencies(
    cues: Symbols, responses: Symbols, number: int, smoothing: float = 1.0
) -> Float[np.ndarray, "slots batch responses"]:
    """Relative frequencies with which each of `number` responses followed the slot's cue so far, $(n_{cr} + a) / (n_c
    + a R)$ with a the smoothing and R the number: an in-context n-gram (probabilities, not logarithms). A new cue has
    the uniform distribution, also without smoothing. This predictor needs no concepts, and is the posterior mean where
    the rows of the table are Dirichlet(a).

    [slots, batch, responses]. Raises `InputError` for shapes that disagree, unknown responses, a number below 1 and a
    smoothing below 0.
    """
    require(number >= 1, "number", number, "must be at least 1 response")
    require(0 <= smoothing < math.inf, "smoothing", smoothing, "must be 0 or a number above")
    require(cues.ndim == 2, "shape of cues", list(cues.shape), "must be [slots, batch]")
    _symbols("responses", responses, cues.shape, number)
    names, cue = np.unique(cues, return_inverse=True)
    slots, batch = cues.shape
    each, cue = np.arange(batch), cue.reshape(cues.shape)
    counts = np.zeros((batch, len(names), number))
    answer = np.empty((slots, batch, number))
    for t in range(slots):
        smooth = counts[each, cue[t]] + smoothing
        total = smooth.sum(-1, keepdims=True)
        answer[t] = np.divide(smooth, total, out=np.full_like(smooth, 1 / number), where=total > 0)
        counts[each, cue[t], responses[t]] += 1
    return answer


def _likelihood(values: LogLikelihood) -> LogLikelihood:
    require(
        values.ndim == 4, "shape of log_likelihood", list(values.shape), "must be [slots, batch, concepts, responses]"
    )
    require(min(values.shape[2:]) > 0, "shape of log_likelihood", list(values.shape), "needs a concept and a response")
    wrong = values[np.isnan(values) | (values == math.inf)]
    require(wrong.size == 0, "log_likelihood", float(wrong[0]) if wrong.size else None, "must be finite or -inf")
    return values.astype(np.float64)


def _symbols(name: str, values: Symbols, shape: tuple[int, ...], number: int) -> None:
    require(values.shape == shape, f"shape of {name}", list(values.shape), f"must be [slots, batch] = {list(shape)}")
    wrong = values[(values < 0) | (values >= number)]
    require(wrong.size == 0, name, int(wrong[0]) if wrong.size else None, f"must be from 0 to {number - 1}")
