"""Classical predictors of a response from the pairs before it: baselines for in-context learning.

Inputs x are [slots, batch, dim] and responses y [slots, batch], token-major as everywhere. Slot t of a prompt is
predicted from its pairs 0 ... t-1, so slot 0 from no pairs, and no prediction sees its own response. Below, X and Y are
the t pairs before a slot, and q is the slot's input. All is in float64, all prompts of a batch at once.

Iterative predictors are in `baselines_convex.py`, predictors that know the prior in `bayes.py`, predictors of discrete
responses in `concepts.py`. Ridge on a representation is `ridge` of the represented inputs.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ebbtide.errors import require

BLOCK = 2**22
"""Largest number of numbers that a block of prompts may need at a time: 32 MB, whatever the batch."""

Inputs = Float[np.ndarray, "slots batch dim"]
Responses = Float[np.ndarray, "slots batch"]


class LinearPosterior(NamedTuple):
    """At every slot: the ridge prediction, and its posterior variance in units of the noise, q'(X'X + penalty I)^-1
    q."""

    mean: Responses
    spread: Responses


def pairs(x: Inputs, y: Responses) -> tuple[Inputs, Responses]:
    """x and y in float64. Raises `InputError` unless both are finite, x is [slots, batch, dim] and y [slots, batch]."""
    require(x.ndim == 3, "shape of x", list(x.shape), "must be [slots, batch, dim]")
    require(y.shape == x.shape[:2], "shape of y", list(y.shape), f"must be [slots, batch] = {list(x.shape[:2])} of x")
    for name, values in (("x", x), ("y", y)):
        wrong = values[~np.isfinite(values)]
        require(wrong.size == 0, name, float(wrong[0]) if wrong.size else None, "must hold finite numbers")
    return x.astype(np.float64), y.astype(np.float64)


def positive(name: str, value: float, why: str) -> None:
    """Raises `InputError` unless `value` is above 0 and finite."""
    require(0 < value < math.inf, name, value, f"must be a number above 0{why}")


def predicted_slots(slots: Sequence[int] | None, total: int) -> Sequence[int]:
    """The given slots, all of them for None. Raises `InputError` for a slot outside the prompt."""
    for slot in slots or ():
        require(0 <= slot < total, "slots", slot, f"must be from 0 to {total - 1}")
    return range(total) if slots is None else slots


def blocks(batch: int, numbers: int) -> Iterator[slice]:
    """Consecutive parts of a batch whose prompts need `numbers` numbers of memory each."""
    size = max(1, BLOCK // max(1, numbers))
    for start in range(0, batch, size):
        yield slice(start, start + size)


def linear_posterior(x: Inputs, y: Responses, penalty: float) -> LinearPosterior:
    r"""$\hat y = q'(X'X + \lambda I)^{-1} X'Y$ and $q'(X'X + \lambda I)^{-1} q$, with $\lambda$ the penalty.

    While t < dim the t equations of the dual are solved, $u = (XX' + \lambda I)^{-1} Xq$, and then $\hat y = u'Y$ and
    the spread is $|u|^2 + |q - X'u|^2/\lambda$; after that the dim equations of the primal. So the system never has the
    penalty as its smallest eigenvalue for want of pairs, and small penalties cost no digits.

    Raises `InputError` for shapes that disagree and for a penalty that is not above 0.
    """
    x, y = pairs(x, y)
    positive("penalty", penalty, "; without one use least_squares")
    slots, batch, dim = x.shape
    mean, spread = np.empty((slots, batch)), np.empty((slots, batch))
    for part in blocks(batch, (slots + dim) * dim):
        for t, solution in enumerate(_slot_by_slot(x[:, part].swapaxes(0, 1), y[:, part].T, penalty)):
            mean[t, part], spread[t, part] = solution
    return LinearPosterior(mean, spread)


def _slot_by_slot(
    x: Float[np.ndarray, "batch slots dim"], y: Float[np.ndarray, "batch slots"], penalty: float
) -> Iterator[tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]]:
    slots, dim = x.shape[1:]
    shrink = penalty * np.eye(dim)
    gram, moment = np.zeros(0), np.zeros(0)
    for t in range(slots):
        q, seen = x[:, t], x[:, :t]
        if t < dim:
            u = np.linalg.solve(seen @ seen.mT + shrink[:t, :t], seen @ q[:, :, None])[:, :, 0]
            rest = q - (u[:, None] @ seen)[:, 0]
            yield (u * y[:, :t]).sum(-1), (u * u).sum(-1) + (rest * rest).sum(-1) / penalty
            continue
        if t == dim:
            gram, moment = seen.mT @ seen, (y[:, None, :t] @ seen)[:, 0]
        u = np.linalg.solve(gram + shrink, q[:, :, None])[:, :, 0]
        yield (u * moment).sum(-1), (u * q).sum(-1)
        gram += q[:, :, None] * q[:, None]
        moment += q * y[:, t, None]


def ridge(x: Inputs, y: Responses, penalty: float) -> Responses:
    r"""Ridge regression $q'(X'X + \lambda I)^{-1} X'Y$ without an intercept.

    With weights $N(0, \tau^2 I)$ and noise of variance $\sigma^2$ it is the posterior mean, the best there is in
    squared error, if the penalty $\lambda$ is $\sigma^2/\tau^2$ (Garg et al. 2022, arXiv 2208.01066; Bai et al. 2023,
    arXiv 2306.04637, section 3). Predictions are [slots, batch], 0 at slot 0.

    Raises `InputError` for shapes that disagree and for a penalty that is not above 0.
    """
    return linear_posterior(x, y, penalty).mean


def least_squares(x: Inputs, y: Responses, slots: Sequence[int] | None = None) -> Float[np.ndarray, "predicted batch"]:
    r"""Least squares $q'X^+Y$ without an intercept, of all solutions the one with the smallest norm.

    $X^+$ is the pseudoinverse by singular values; those below eps max(t, dim) times the largest count as 0, as in
    LAPACK's drivers, so that repeated pairs and degenerate designs are no special case (Garg et al. 2022, arXiv
    2208.01066, section 3). Predictions are [slots, batch], for the given `slots` only if there are any; 0 at slot 0.

    Raises `InputError` for shapes that disagree and for slots that are not there.
    """
    x, y = pairs(x, y)
    total, batch, dim = x.shape
    predicted = predicted_slots(slots, total)
    answer = np.zeros((len(predicted), batch))
    for part in blocks(batch, 4 * total * dim):
        xs, ys = x[:, part].swapaxes(0, 1), y[:, part].T
        for row, t in enumerate(predicted):
            if t:
                u, s, v = np.linalg.svd(xs[:, :t], full_matrices=False)
                kept = s > np.finfo(np.float64).eps * max(t, dim) * s[:, :1]
                inverse = np.divide(1.0, s, out=np.zeros_like(s), where=kept)
                along = (v @ xs[:, t, :, None])[:, :, 0]
                answer[row, part] = (along * inverse * (u.mT @ ys[:, :t, None])[:, :, 0]).sum(-1)
    return answer


def averaging(x: Inputs, y: Responses) -> Responses:
    r"""Averaging estimator $q' \frac1t \sum_i x_i y_i$: one step of gradient descent from 0, and least squares where
    $X'X = tI$.

    The baseline "averaging" of Garg et al. 2022 (arXiv 2208.01066, section 3). Predictions are [slots, batch], 0 at
    slot 0. Raises `InputError` for shapes that disagree.
    """
    x, y = pairs(x, y)
    total, answer = np.zeros(x.shape[1:]), np.zeros(y.shape)
    for t in range(1, len(x)):
        total += x[t - 1] * y[t - 1, :, None]
        answer[t] = (x[t] * total).sum(-1) / t
    return answer


def nearest(x: Inputs, y: Responses, k: int = 3) -> Responses:
    """The k-nearest-neighbour prediction: the mean response of the k pairs whose inputs are nearest to q by $|x_i -
    q|$, of all pairs while there are fewer.

    Of equally near pairs the earlier ones count. Three neighbours are the baseline of Garg et al. 2022 (arXiv
    2208.01066, section 3). Predictions are [slots, batch], 0 at slot 0.

    Raises `InputError` for shapes that disagree and for k below 1.
    """
    x, y = pairs(x, y)
    require(k >= 1, "k", k, "must be at least 1")
    answer = np.zeros(y.shape)
    for t in range(1, len(x)):
        for part in blocks(y.shape[1], t * x.shape[2]):
            far = np.square(x[:t, part] - x[t, part]).sum(-1)
            near = np.argsort(far, axis=0, kind="stable")[:k]
            answer[t, part] = np.take_along_axis(y[:t, part], near, axis=0).mean(0)
    return answer


def kernel_smoother(x: Inputs, y: Responses, scale: float) -> Responses:
    r"""The kernel smoother $\sum_i y_i e^{\gamma q'x_i} / \sum_i e^{\gamma q'x_i}$ with $\gamma$ the scale: the output
    of one head of softmax attention with keys $x_i$ and values $y_i$.

    For keys on a sphere of radius 1 it is the smoother of Nadaraya and Watson with a Gaussian kernel, and for $y_i =
    \beta'x_i$ it tends to $A_d(\gamma)\,\beta'q$ with the number of pairs, in three dimensions $A_3 = \coth\gamma -
    1/\gamma$: proportional to the function, not equal (after Zhang et al. 2023, arXiv 2305.19420). Scale 0 is the plain
    mean. Predictions are [slots, batch], 0 at slot 0.

    Raises `InputError` for shapes that disagree and for a scale that is not finite.
    """
    x, y = pairs(x, y)
    require(math.isfinite(scale), "scale", scale, "must be a finite number")
    answer = np.zeros(y.shape)
    for t in range(1, len(x)):
        score = scale * np.einsum("sbd,bd->sb", x[:t], x[t])
        weight = np.exp(score - score.max(0))
        answer[t] = (weight * y[:t]).sum(0) / weight.sum(0)
    return answer
