r"""The share of a model's behaviour that each scripted strategy explains.

On prompt s let p_s(y) be the model's probability of label y and q_ks(y) that of oracle k (`oracles.ORACLES`; spread
evenly over labels between which it cannot decide). The *fractions* are the weights w_k >= 0 with sum 1 of the mixture
of oracles that is closest to the model in Kullback-Leibler divergence:

$$w = \arg\max_w \frac1S \sum_s \sum_y p_s(y) \log \sum_k w_k\, q_{ks}(y).$$

One of the oracles guesses uniformly at random; its weight is the share that no strategy explains. By Gibbs' inequality
a model that is a mixture of the oracles gets back its own weights: exactly if it spreads its probability (p = .6 ICL +
.4 IWL on every prompt), and up to sampling error if it plays ICL on 60 % of the prompts. Counting how often the model's
first choice equals an oracle's does neither: the first model would count as pure ICL, and the shares of oracles that
often agree would sum to more than one. The maximum is unique where the oracles' predictions are linearly independent
(`mixture_weights` computes it).

The prompts are those of the evaluators in `NEEDED`: their classes are trained, and the query's class is in context, so
that every strategy has a prediction and the predictions differ (`oracles.expected`). Where the query's class is not in
context (`iwl`, `ciwl`) ICL has none: the oracle still takes the nearest exemplar, a trained network does not.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls

from ebbtide.evaluation.metrics import first_of_label
from ebbtide.evaluation.oracles import Oracle
from ebbtide.keys import Purpose, root
from ebbtide.tasks.prompt import Prompt

NEEDED = ("icl", "flip")
"""Evaluators that together determine the weights. On `flip` ICL is against IWL and CIWL. On `icl` ICL is right, IWL
predicts the query's own label, which is mostly not in context, and CIWL any label in context."""
TOLERANCE = 1e-7
"""Nats of log-likelihood below the maximum at which the iteration stops; the log-likelihood is concave, and max_k
slope_k - 1 bounds the difference."""
MOST_STEPS = 200
FLOOR = 1e-12
"""Smallest probability of a part, so that a mixture is never 0 where the model's probability is not."""
RIDGE = 1e-10
"""Added to the curvature, so that parts that hardly differ do not make a step infinite."""
ARMIJO = 1e-4
"""Share of the gain that the slope promises from which a step is taken in full."""
ALIKE = 0.01
"""Largest difference of probability between oracles that count as one."""
DEPENDENT = 1e-4
"""Smallest eigenvalue of the oracles' inner products (mean over prompts) from which their weights are determined."""
INSIDE = 1e-4
"""Smallest weight that has a standard error; smaller weights are held at 0."""


class Fraction(NamedTuple):
    """The share of a model's behaviour that an oracle explains, 0 to 1, and its standard error over prompts."""

    share: float
    error: float


class OracleProbabilities(NamedTuple):
    """Probabilities that oracles give to the outcomes of every prompt. The outcomes are the labels in context and the
    query's own label (`support`), and last all other labels together, to which every oracle gives the same probability
    per label. Outcomes that repeat a label, or stand for an own label that does not exist, are not `valid` and have
    probability 0."""

    support: Int[np.ndarray, "sequences points"]
    valid: Bool[np.ndarray, "sequences points"]
    oracles: dict[str, Float[np.ndarray, "sequences outcomes"]]

    @classmethod
    def join(cls, parts: list["OracleProbabilities"]) -> "OracleProbabilities":
        """Probabilities for several batches of prompts, joined into one batch."""
        oracles = {name: np.concatenate([one.oracles[name] for one in parts]) for name in parts[0].oracles}
        return cls(np.concatenate([p.support for p in parts]), np.concatenate([p.valid for p in parts]), oracles)

    def outcomes(
        self, logits: Float[np.ndarray, "batch labels"], start: int = 0
    ) -> Float[np.ndarray, "batch outcomes"]:
        """Probabilities that a model with these logits gives to the outcomes of the prompts from `start` on."""
        rows = slice(start, start + logits.shape[0])
        return _outcomes(logits, self.support[rows], self.valid[rows])


def oracle_probabilities(prompt: Prompt, outputs: int, oracles: Mapping[str, Oracle]) -> OracleProbabilities:
    """Probabilities of every oracle for a batch of prompts; `outputs` is the number of labels."""
    prompt = jax.tree.map(jnp.asarray, prompt)
    named = jnp.concatenate([prompt.labels, prompt.own_label[None]])
    valid = np.asarray(first_of_label(named) & (named >= 0)).T
    support = np.maximum(np.asarray(named).T, 0)
    probabilities = {}
    for i, (name, oracle) in enumerate(oracles.items()):
        logits = np.asarray(oracle(prompt, outputs, root(0, Purpose.ORACLE, i)))
        probabilities[name] = _outcomes(logits, support, valid)
    return OracleProbabilities(support, valid, probabilities)


def _outcomes(logits: np.ndarray, support: np.ndarray, valid: np.ndarray) -> np.ndarray:
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=-1), np.float64)
    points = np.where(valid, np.take_along_axis(p, support, axis=1), 0.0)
    rest = np.maximum(1 - points.sum(axis=1, keepdims=True), 0.0)
    whole = np.concatenate([points, rest], axis=1)
    return whole / whole.sum(axis=1, keepdims=True)


def fractions(
    model: Float[np.ndarray, "sequences outcomes"], oracles: Mapping[str, Float[np.ndarray, "sequences outcomes"]]
) -> dict[str, Fraction]:
    """Fraction of the model's behaviour that each oracle explains, by name (sum 1). Oracles that never differ on these
    prompts share one entry, named e.g. `IWL/random`. Empty where the prompts are too few to determine the weights.

    The standard error is the sandwich estimate over prompts, with weights of 0 held there.
    """
    names, q = _distinct(oracles)
    products = np.einsum("kso,lso->kl", q, q) / q.shape[1]
    if np.linalg.eigvalsh(products)[0] < DEPENDENT:
        return {}
    w = mixture_weights(model, q)
    error = _errors(w, model, q)
    return {name: Fraction(float(a), float(b)) for name, a, b in zip(names, w, error, strict=True)}


def mixture_weights(
    model: Float[np.ndarray, "sequences outcomes"], parts: Float[np.ndarray, "parts sequences outcomes"]
) -> Float[np.ndarray, " parts"]:
    """Weights w >= 0 with sum 1 of the mixture of `parts` that is nearest to the model: the mean over sequences of
    KL(model || mixture) is smallest.

    Newton's method on the divergence + sum w, whose minimum over w >= 0 has the sum 1; each step is one problem of
    non-negative least squares (mix-SQP, Kim et al. 2020, arXiv 1806.01412).

    >>> from ebbtide.evaluation.strategies import mixture_weights
    >>> parts = np.array([[[0.9, 0.1]], [[0.1, 0.9]]])
    >>> mixture_weights(0.25 * parts[0] + 0.75 * parts[1], parts).round(3).tolist()
    [0.25, 0.75]
    """
    n, count, parts = model.shape[0], len(parts), np.maximum(parts, FLOOR)
    w, root = np.full(count, 1 / count), np.sqrt(model)
    for _ in range(MOST_STEPS):
        ratio = (parts * (root / _mix(w, parts))).reshape(count, -1)
        slope = ratio @ root.reshape(-1) / n
        if slope.max() - 1 < TOLERANCE:
            break
        lower = np.linalg.cholesky(ratio @ ratio.T / n + RIDGE * np.eye(count))
        move = nnls(lower.T, np.linalg.solve(lower, 2 * slope - 1))[0] - w
        size, before, gain = 1.0, _log_likelihood(w, model, parts), float((slope - 1) @ move)
        while size > TOLERANCE:
            after = w + size * move
            if _log_likelihood(after, model, parts) - after.sum() >= before - 1 + ARMIJO * size * gain:
                break
            size /= 2
        w = (w + size * move) / (w + size * move).sum()
    return w


def _log_likelihood(w: np.ndarray, model: np.ndarray, parts: np.ndarray) -> float:
    return float((model * np.log(_mix(w, parts))).sum() / model.shape[0])


def _mix(w: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.maximum(np.tensordot(w, q, axes=1), 1e-300)


def _distinct(oracles: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    kept: list[np.ndarray] = []
    for name, q in oracles.items():
        same = [i for i, other in enumerate(kept) if np.abs(q - other).max() < ALIKE]
        if same:
            names[same[0]] += f"/{name}"
        else:
            names.append(name)
            kept.append(q)
    return names, np.stack(kept)


def _errors(w: np.ndarray, model: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Standard errors of the weights w: with g the slopes per prompt, H = -d2/dw2 of the mean log-likelihood and Z a
    basis of the directions that keep the sum, cov = Z (Z'HZ)^-1 Z' cov(g) Z (Z'HZ)^-1 Z' / sequences."""
    error, inside = np.zeros_like(w), w > INSIDE
    count, n = int(inside.sum()), model.shape[0]
    if count < 2:
        return error
    ratio = q[inside] / _mix(w, q)
    slopes = (ratio * model).sum(axis=-1)
    curvature = np.einsum("kso,lso,so->kl", ratio, ratio, model) / n
    z = np.concatenate([np.eye(count - 1), -np.ones((1, count - 1))])
    inverse = np.linalg.pinv(z.T @ curvature @ z)
    spread = z @ inverse @ z.T @ np.cov(slopes) @ z @ inverse @ z.T / n
    error[inside] = np.sqrt(np.maximum(np.diag(spread), 0.0))
    return error
