r"""Exact training of one layer of linear attention on Gaussian mixtures: the population loss of the matrix W, its
gradient and Hessian, the optimum and gradient descent, in float64.

The model (`models/one_matrix.py`) reads a prompt only through the sum of each class's inputs. Given how many pairs each
class has, these sums are Gaussian, so a prompt of any length N costs as much as a short one, and N may be infinite. The
loss takes the expectation over the query's label, whose probabilities are those of the Bayes classifier, and the mean
over a fixed pool of prompts: gradient descent on it is deterministic.

Source: Shen et al. 2024, arXiv 2410.11778.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

from ebbtide.evaluation.mixtures import bayes_posterior

Square = Float[np.ndarray, "dim dim"]
Means = Float[np.ndarray, "prompt classes dim"]


class Worlds(NamedTuple):
    """Means [prompt, classes, dim] and one query of every prompt, with the Bayes probabilities of its classes; the
    `root` is the symmetric square root of the covariance."""

    root: Square
    means: Means
    query: Float[np.ndarray, "prompt dim"]
    bayes: Float[np.ndarray, "prompt classes"]


def draw_root(dim: int, spread: float, random: np.random.Generator) -> Square:
    """Symmetric square root of a covariance as `Mixtures` draws it: eigenvalues evenly spaced on a logarithmic scale
    with the ratio `spread` of the largest to the smallest and geometric mean 1, in a random basis."""
    basis = np.linalg.qr(random.standard_normal((dim, dim)))[0]
    return basis * spread ** (0.5 * np.linspace(-0.5, 0.5, dim)) @ basis.T


def draw_worlds(
    root: Square, classes: int, prompts: int, random: np.random.Generator, equal_norms: bool = True
) -> Worlds:
    """Means and queries drawn as by the task `Classification`; without `equal_norms` as with its shift "norms"."""
    dim = len(root)
    drawn = random.standard_normal((prompts, 1 if equal_norms else classes, dim))
    radius = np.linalg.norm(drawn @ np.linalg.inv(root), axis=-1, keepdims=True)
    direction = random.standard_normal((prompts, classes, dim))
    means = radius * direction / np.linalg.norm(direction, axis=-1, keepdims=True) @ root
    label = random.integers(0, classes, prompts)
    query = means[np.arange(prompts), label] + random.standard_normal((prompts, dim)) @ root
    return Worlds(root, means, query, bayes_posterior(query, means, (root @ root)[None]))


def draw_sums(worlds: Worlds, pairs: float, random: np.random.Generator, mirrored: bool = False) -> Means:
    r"""Sums $\frac1N \sum_{i: y_i = k} x_i$ of every class k, for prompts of N = `pairs` pairs: with $n_k$ pairs of the
    class (multinomial) $\frac1N (n_k \mu_k + \sqrt{n_k} \Lambda^{1/2} \epsilon)$, and $\mu_k / c$ for infinitely many
    pairs.

    With `mirrored` the second half of the prompts has the negative deviations of the first half, of $\epsilon$ and of
    $n_k$ from N / c (never below 0), so that effects of odd order cancel where both halves have the same worlds.
    """
    prompts, classes, _ = worlds.means.shape
    if pairs == np.inf:
        return worlds.means / classes
    some = prompts // 2 if mirrored else prompts
    counts = random.multinomial(int(pairs), np.full(classes, 1 / classes), some)[..., None]
    noise = random.standard_normal((some, *worlds.means.shape[1:]))
    if mirrored:
        counts = np.concatenate([counts, np.maximum(2 * pairs / classes - counts, 0)])
        noise = np.concatenate([noise, -noise])
    return (counts * worlds.means + np.sqrt(counts) * (noise @ worlds.root)) / pairs


def repeat_worlds(worlds: Worlds) -> Worlds:
    """Every prompt twice, first all of them and then all again, for `draw_sums(mirrored=True)`."""
    rest = (np.concatenate([part, part]) for part in worlds[1:])
    return Worlds(worlds.root, *rest)


def answer(w: Square, sums: Means, query: Float[np.ndarray, "prompt dim"]) -> Float[np.ndarray, "prompt classes"]:
    """Probabilities of the classes: the softmax of sums' W query."""
    return softmax(np.einsum("pkd,pd->pk", sums, query @ w.T), axis=-1)


class Pool(NamedTuple):
    """A pool of prompts as a problem of logistic regression: the logits of outputs k are `features[:, k]` times the
    entries of W, and `targets` the probabilities of the outputs."""

    features: Float[np.ndarray, "prompt outputs entries"]
    targets: Float[np.ndarray, "prompt outputs"]

    def loss(self, w: Square) -> float:
        """Mean cross-entropy, nats."""
        return float(-(self.targets * log_softmax(self.features @ w.ravel(), axis=-1)).sum(-1).mean())

    def gradient(self, w: Square) -> Square:
        """Gradient of the loss."""
        rest = softmax(self.features @ w.ravel(), axis=-1) - self.targets
        return np.tensordot(rest, self.features, 2).reshape(w.shape) / len(rest)

    def hessian(self, w: Square) -> Float[np.ndarray, "entries entries"]:
        """Hessian of the loss with respect to the entries of W."""
        p = softmax(self.features @ w.ravel(), axis=-1)[..., None]
        mean = (p * self.features).sum(1)
        weighed = (np.sqrt(p) * self.features).reshape(-1, self.features.shape[-1])
        return (weighed.T @ weighed - mean.T @ mean) / len(p)

    def start(self) -> Square:
        """W = 0, where training begins."""
        dim = round(self.features.shape[-1] ** 0.5)
        return np.zeros((dim, dim))

    def optimum(self) -> Square:
        """The matrix with the smallest loss, by Newton's method from 0 with halved steps where the loss would rise."""
        w = self.start()
        for _ in range(MOST_STEPS):
            slope = self.gradient(w)
            if np.abs(slope).max() <= FLAT:
                return w
            step, size, before = np.linalg.solve(self.hessian(w), slope.ravel()).reshape(w.shape), 1.0, self.loss(w)
            while self.loss(w - size * step) > before + ROUNDING and size > 1e-4:
                size /= 2
            w = w - size * step
        return w


MOST_STEPS, FLAT, ROUNDING = 60, 1e-14, 1e-14


def pool_of(worlds: Worlds, sums: Means) -> Pool:
    """The pool with one output for each class, logits sums' W query."""
    return Pool(np.einsum("pkd,pe->pkde", sums, worlds.query).reshape(*sums.shape[:2], -1), worlds.bayes)


class Descent(NamedTuple):
    """Gradient descent from W = 0: the matrices at the recorded `steps`."""

    steps: Int[np.ndarray, " record"]
    matrices: Float[np.ndarray, "record dim dim"]


def descend(pool: Pool, rate: float, steps: Int[np.ndarray, " record"]) -> Descent:
    """Gradient descent on the loss of a pool at a constant rate, recorded at `steps` (ascending)."""
    w, records, recorded = pool.start(), [], set(steps.tolist())
    for step in range(int(steps[-1]) + 1):
        if step in recorded:
            records.append(w)
        w = w - rate * pool.gradient(w)
    return Descent(steps, np.stack(records))
