r"""What the three exact predictors of a cell cost: their mean loss on training prompts, and their description in bits.

The generalising predictor answers from the context by a rule that holds for any task of the prior, the memorising one
from the finite set of training tasks, and guessing is uniform over the labels. Two kinds of cells have them.

*Streams* of a finite pool (task `Markov` on `Chains` or `Urns`): averages over the posterior of the prior and of the
pool (`evaluation.pool_predictors`), with losses a symbol.

*Few-shot sequences.* With exemplars centred and divided by their root mean square, x_q the query's and x_j those of the
context, the generalising predictor is a softmax over the context,
$$p(y) = \pi \frac{\sum_j e^{-\beta |x_q - r x_j|^2} 1[y_j = y]}{\sum_j e^{-\beta |x_q - r x_j|^2}}
+ \frac{1 - \pi}{\text{labels}},$$
with $\pi$ the share of training sequences whose context has the target, r the share of the variance that is between
classes, and $\beta$ the value with the least loss. For Gaussian classes with noise $\epsilon$ and dimension D the exact
posterior has this form, with $r = 1/(1 + \epsilon^2)$ and $\beta = D / (2 (1 - r^2))$. The memorising predictor knows
every training exemplar and its label, so that its loss is 0 where each has one label; of infinitely many exemplars it
knows the classes' means, and averages their labels by $p(c)\, e^{-|x_q - \mu_c|^2 / 2 \sigma^2}$. It does not look at
the context.
"""

import zlib
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, logsumexp

from ebbtide.analysis.pool_fractions import pool_losses
from ebbtide.compile import compile_fast
from ebbtide.contest.fitting import minimise_value
from ebbtide.errors import InputError
from ebbtide.evaluation.pool_predictors import check_pool
from ebbtide.evaluation.pools import pool_weights
from ebbtide.keys import Purpose, root
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.urns import Urns
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence, Polysemy
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.prompt import Prompt
from ebbtide.traced import kind_name
from ebbtide.training.spec import Seeds, Spec

Complexity = Literal["mdl", "code"]
PerStrategy = Float[np.ndarray, " strategy"]
PROMPTS = 2**16
"""Training prompts over which losses are averaged, where these have fewer than `VALUES` features in all."""
VALUES = 2**24
MOST_BITS = 24.0
"""Bits of a number at most: those of float32, in which it is stored."""


class Costs(NamedTuple):
    """Loss (nats a target) and description (bits) of the generalising, the memorising and the guessing predictor."""

    losses: PerStrategy
    bits: PerStrategy


def costs(spec: Spec, complexity: Complexity) -> Costs:
    r"""The costs of the exact predictors of a cell, on the data of its first member.

    Bits by `mdl`: the number of numbers that a predictor stores, each to the precision that a training prompt can
    tell: $\frac12 \log_2 (1 + I)$ bits, with I the Fisher information of one prompt on it, in units of the prior's
    spread (`MOST_BITS` at most), and log2 of the number of labels for each that it stores. By `code`: 8 times the
    bytes of the `zlib` archive of the task's and source's canonical JSON and, for the memorising predictor, its numbers
    in float32. Guessing needs 0 bits by either.

    Raises `InputError` for a cell that has no exact predictors.
    """
    world = spec.world(0)
    task, source = world.task, world.source
    if isinstance(task, FewShot):
        exact = _few_shot(task, source)
    elif isinstance(task, Markov):
        exact = _stream(task, source, world.seeds.evaluation)
    else:
        raise InputError("task", kind_name(task), "must be few_shot or markov: no other task has exact costs")
    if complexity == "mdl":
        return Costs(exact.losses, exact.bits)
    text = msgspec.json.encode({name: spec.builtins()[name] for name in ("task", "source")}, order="sorted")
    sizes = [len(zlib.compress(text + own, 9)) for own in (b"", exact.stored.tobytes())]
    return Costs(exact.losses, np.array([8.0 * sizes[0], 8.0 * sizes[1], 0.0]))


class _Exact(NamedTuple):
    """Losses, bits by `mdl`, and the numbers that the memorising predictor stores, in float32."""

    losses: PerStrategy
    bits: PerStrategy
    stored: np.ndarray


@lru_cache(maxsize=256)
def _few_shot(task: FewShot, source: Any) -> _Exact:
    task.check(source)
    sizes, bank = source.sizes(), source.build()
    split = sizes.split()
    sample = compile_fast(lambda bank, key, index: task.sample(key, index, source, bank, split))
    number = min(PROMPTS, VALUES // ((task.context + 1) * sizes.dim))
    prompt = sample(bank, root(0, Purpose.EVALUATION, 2**30), jnp.arange(number, dtype=jnp.uint32))
    outputs, drawn = task.outputs(source), jax.tree.map(np.asarray, prompt)
    infinite = isinstance(source, Gaussian) and source.infinite
    stored = np.asarray(bank.features[: sizes.classes, : 1 if infinite else sizes.exemplars], np.float32)
    between = 1 / (1 + float(source.noise) ** 2) if infinite else share_between(stored.astype(np.float64))
    loss, _ = fit_context(drawn, outputs, between)
    information = (task.context + 1) * between / max(1 - between, 1e-12)
    each = min(0.5 * np.log2(1 + information), MOST_BITS)
    labels = np.log2(task.labels.total(sizes.classes)) * stored.shape[0] * stored.shape[1]
    return _Exact(
        np.array([loss, _memory_loss(task, source, stored, drawn), np.log(outputs)]),
        np.array([2 * each, stored.size * each + labels, 0.0]),
        stored,
    )


@lru_cache(maxsize=256)
def _stream(task: Markov, source: Any, seed: int) -> _Exact:
    check_pool(source, task)
    losses = pool_losses(Spec(task=task, source=source, seeds=Seeds(evaluation=seed)))
    stored = np.exp(np.asarray(source.build().logs, np.float32))
    if isinstance(source, Urns):  # an urn's probabilities are about 1/V, and all draws tell of each
        stored, information = stored[:, 0], (task.context + 1) * source.states
    else:  # a row's are about 1/k, and one in k symbols tells of each
        information = task.context + 1
    each, degrees = 0.5 * np.log2(1 + information), (source.states - 1) / source.states
    return _Exact(losses, np.array([each, stored.size * degrees * each, 0.0]), stored)


def share_between(features: Float[np.ndarray, "classes exemplars dim"]) -> float:
    """The share of the variance of exemplars that is between classes, 0 to 1, without the part that few exemplars have
    by chance; 1 where every class has one exemplar.

    >>> from ebbtide.contest.predictors import share_between
    >>> share_between(np.array([[[0.0], [0.0]], [[1.0], [1.0]]]))
    1.0
    """
    exemplars = features.shape[1]
    if exemplars == 1:
        return 1.0
    means = features.mean(axis=1)
    within = float(((features - means[:, None]) ** 2).sum()) / (means.size * (exemplars - 1))
    between = float(((means - means.mean(axis=0)) ** 2).mean()) - within / exemplars
    return max(between, 0.0) / (max(between, 0.0) + within)


def fit_context(prompt: Prompt, outputs: int, between: float) -> tuple[float, float]:
    """Loss (nats) and sharpness beta of the generalising predictor of few-shot sequences, with r = `between` (the
    module's text has its equation)."""
    exemplars = np.asarray(prompt.exemplars, np.float64)
    exemplars = exemplars - exemplars.mean(axis=(0, 1))
    exemplars = exemplars / np.sqrt((exemplars**2).sum(-1).mean())
    squares = ((exemplars[-1] - between * exemplars[:-1]) ** 2).sum(-1)
    match = np.asarray(prompt.labels) == np.asarray(prompt.target)
    share = float(match.any(axis=0).mean())
    with np.errstate(divide="ignore"):
        present, absent = np.log(share), np.log((1 - share) / outputs)

    def loss(at: np.ndarray) -> float:
        right = _log_sum(log_softmax(-np.exp(at[0]) * squares, axis=0), match, axis=0)
        return float(-np.logaddexp(present + right, absent).mean())

    best = minimise_value(loss, [(-4.0, 10.0)], [[0.0], [2.0], [4.0]])
    return loss(best), float(np.exp(best[0]))


def _memory_loss(task: FewShot, source: Any, stored: np.ndarray, prompt: Prompt) -> float:
    labels = task.labels
    if isinstance(labels, PerSequence):
        return float(np.log(labels.count))
    several = np.log(labels.per_class) if isinstance(labels, Polysemy) else 0.0
    if not (isinstance(source, Gaussian) and source.infinite):
        return float(several)
    v = float(source.noise) ** 2
    scale = np.sqrt(source.dim) if source.scale == "coordinate" else 1.0
    means = scale * stored[:, 0].astype(np.float64) / np.sqrt(1 + v)
    variance = scale**2 * v / (1 + v) / source.dim
    classes, modulus = np.arange(source.classes), labels.modulus(source.classes)
    own: Int[np.ndarray, " batch"] = np.asarray(prompt.classes)[-1]
    match = classes[None] % modulus == own[:, None] % modulus
    query = np.asarray(prompt.exemplars, np.float64)[-1]
    squares = (query**2).sum(-1)[:, None] - 2 * query @ means.T + (means**2).sum(-1)
    scores = np.log(pool_weights(source.classes, float(task.zipf))) - squares / (2 * max(variance, 1e-12))
    return float(several) - float(np.mean(_log_sum(log_softmax(scores, axis=1), match, axis=1)))


def _log_sum(logs: np.ndarray, where: np.ndarray, axis: int) -> np.ndarray:
    """The logarithm of the sum of exp(logs) `where` true; -inf where it is nowhere."""
    with np.errstate(divide="ignore"):
        return np.asarray(logsumexp(logs, axis=axis, b=where))
