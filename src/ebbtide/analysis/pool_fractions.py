r"""How much of a trained model's behaviour generalises and how much is a memorised pool, over training.

Everything is measured on prompts of the prior, whose urns or chains are in no pool, at all slots: only there do the
predictors of `evaluation.pool_predictors` differ much. The columns of all arrays are in their order: generalising (G),
memorising (M), neither (uniform).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from ebbtide.analysis import predictions
from ebbtide.analysis.predictions import PROMPTS, Predictions, cache_per_prompt_set, fresh_prompts
from ebbtide.evaluation.chains import LogPredictive, true_log_probs
from ebbtide.evaluation.pool_predictors import check_pool, pool_predictors
from ebbtide.evaluation.strategies import mixture_weights
from ebbtide.runs.folder import Snapshot
from ebbtide.training.spec import Spec

FRACTION_PROMPTS = 250
"""Prompts of the prior from which fractions are found: a member's fractions differ from those of all `PROMPTS` prompts
by less than members differ."""
FRESH = "prior"


class PoolCourse(NamedTuple):
    """Divergences of one member on prompts of the prior at every kept checkpoint, nats a symbol.

    Args:
        sequences: training sequences after which the checkpoints were kept.
        nearness: symmetrised divergence, (KL(model || k) + KL(k || model)) / 2, to G, M and the uniform answer.
        truth: KL(the prompt's own probabilities || model).
        between: symmetrised divergence of M and G.
    """

    sequences: Int[np.ndarray, " checkpoint"]
    nearness: Float[np.ndarray, "checkpoint strategy"]
    truth: Float[np.ndarray, " checkpoint"]
    between: float

    def relative_distance(self) -> Float[np.ndarray, " checkpoint"]:
        r"""$(r + 1)/2$ with $r = (d(h, G) - d(h, M)) / d(M, G)$ cut to [-1, 1]: 0 where the model is G, 1 where it is M
        (Wurgaft et al. 2025, arXiv 2506.17859)."""
        r = (self.nearness[:, 0] - self.nearness[:, 1]) / self.between
        return (np.clip(r, -1, 1) + 1) / 2


def pool_fractions(
    run: Snapshot, place: int
) -> tuple[Int[np.ndarray, " checkpoint"], Float[np.ndarray, "checkpoint strategy"]]:
    r"""Fractions of a member's behaviour that generalise, that are the memorised pool, and that are neither: the
    weights of the mixture of G, M and the uniform answer that is nearest to the model's predictive distributions p,

    $$w = \arg\min_w \frac1{ST} \sum_{s,t} KL(p_{st} \,\|\, w_1 G_{st} + w_2 M_{st} + w_3 / V),$$

    over `FRACTION_PROMPTS` streams s of the prior and all their slots t (`evaluation.strategies.mixture_weights`).

    Args:
        run: a run on `Markov` with a pool of `Urns` or `Chains`: `RunFolder(path).snapshot()`.
        place: the member's place in the run.

    Returns:
        Training sequences of the kept checkpoints, of which the first may be 0, and the fractions, whose rows sum to 1.

    Raises:
        InputError: another task or source, or no pool.
    """
    asked = predictions.predict_member(run, place, FRESH, FRACTION_PROMPTS, False)
    return asked.sequences, measure_fractions(asked)


def relative_distance(
    run: Snapshot, place: int
) -> tuple[Int[np.ndarray, " checkpoint"], Float[np.ndarray, " checkpoint"]]:
    """Sequences of a member's kept checkpoints and its `PoolCourse.relative_distance` there; arguments and errors are
    those of `pool_fractions`."""
    course = pool_course(run, place)
    return course.sequences, course.relative_distance()


@lru_cache(maxsize=1024)
def pool_course(run: Snapshot, place: int) -> PoolCourse:
    """The `PoolCourse` of a member; arguments and errors are those of `pool_fractions`."""
    return measure_course(predictions.predict_member(run, place, FRESH, PROMPTS, False))


def measure_fractions(asked: Predictions) -> Float[np.ndarray, "checkpoint strategy"]:
    """The fractions of a member from its predictions on prompts of the prior: see `pool_fractions`."""
    states = asked.outputs.shape[-1]
    parts = np.exp(_exact(asked)).reshape(3, -1, states)
    said = np.exp(log_softmax(asked.outputs, axis=-1))
    return np.stack([mixture_weights(one.reshape(-1, states), parts) for one in said])


def measure_course(asked: Predictions) -> PoolCourse:
    """The `PoolCourse` of a member from its predictions on prompts of the prior."""
    exact = _exact(asked)
    truth = true_log_probs(asked.inputs.argmax(-1), asked.latent["transitions"].astype(np.float64))
    said = [log_softmax(one, axis=-1) for one in asked.outputs]
    nearness = [[symmetrised(one, h) for one in exact] for h in said]
    return PoolCourse(
        asked.sequences,
        np.asarray(nearness),
        np.asarray([divergence(truth, h) for h in said]),
        symmetrised(exact[1], exact[0]),
    )


def divergence(p: LogPredictive, q: LogPredictive) -> float:
    """KL(p || q), mean over slots and prompts, nats a symbol."""
    return float((np.exp(p) * (p - q)).sum() / (p.shape[0] * p.shape[1]))


def symmetrised(p: LogPredictive, q: LogPredictive) -> float:
    """(KL(p || q) + KL(q || p)) / 2, mean over slots and prompts, nats a symbol."""
    return (divergence(p, q) + divergence(q, p)) / 2


def pool_losses(spec: Spec, prompts: int = PROMPTS) -> Float[np.ndarray, " strategy"]:
    """Mean loss of G, M and the uniform answer on streams as in training, nats a symbol: the expectation over the next
    symbol, by the true probabilities, of fresh prompts that no training and no evaluation has seen. Errors are those of
    `pool_fractions`.

    >>> from ebbtide.analysis.pool_fractions import pool_losses
    >>> spec = eb.Spec(task=eb.Markov(context=31), source=eb.Urns(states=8, pool=4))
    >>> generalising, memorising, neither = pool_losses(spec, prompts=200)
    >>> memorising < generalising < neither
    True
    """
    check_pool(spec.source, spec.task)
    asked = fresh_prompts(spec, "train", prompts)
    symbols = asked.inputs.argmax(-1)
    truth = np.exp(true_log_probs(symbols, asked.latent["transitions"].astype(np.float64)))
    said = pool_predictors(spec.source, spec.task, symbols)
    return -(truth * said).sum(-1).mean(axis=(1, 2))


@cache_per_prompt_set
def _exact(asked: Predictions) -> Float[np.ndarray, "strategy slots prompt states"]:
    return pool_predictors(asked.spec.source, asked.spec.task, asked.inputs.argmax(-1))
