"""Predictors defined by convex optimisation: the Lasso and logistic regression.

Conventions are those of `baselines.py`: slot t is predicted from the t pairs X, Y before it, and q is its input. Every
slot of every prompt is a problem of its own; `slots` selects which are solved. The problems of a batch are solved side
by side, and a solved one is left out of the next step.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from ebbtide.errors import require
from ebbtide.evaluation.baselines import Inputs, Responses, blocks, pairs, positive, predicted_slots

GAP = 1e-12
"""Lasso: largest duality gap, as a share of the mean square of the responses."""
EVENTS = 8
"""Largest number of events of a path, in units of the dimension, after which it is abandoned."""
MOST_ROUNDS = 1000
SWEEPS = 10
"""Coordinate sweeps between two evaluations of the gap."""
DECREMENT = 1e-14
"""Logistic regression: Newton decrement (twice the remaining descent) below which the next step is the last."""
MOST_STEPS = 200
MOST_HALVINGS = 50

Weights = Float[np.ndarray, "batch dim"]
Grams = Float[np.ndarray, "batch dim dim"]
Numbers = Float[np.ndarray, " batch"]
Seen = Float[np.ndarray, "batch pairs dim"]


def lasso(
    x: Inputs, y: Responses, penalty: float, slots: Sequence[int] | None = None
) -> Float[np.ndarray, "predicted batch"]:
    r"""$q'\hat w$ with $\hat w = \arg\min_w \frac{1}{2t}|Y - Xw|^2 + \lambda|w|_1$, scikit-learn's `Lasso` without an
    intercept; the best known for sparse weights (Tibshirani 1996; in context Bai et al. 2023, arXiv
    2306.04637, section 3).

    The path of solutions from large penalties to this one is followed exactly, event by event (the homotopy of Osborne
    et al. 2000 and Efron et al. 2004), which takes small penalties as easily as large ones. Where equal columns or ties
    lead it astray, as the duality gap tells, at most 10,000 sweeps of coordinate descent follow, to a gap of 1e-12
    of the mean square of the responses.
    Predictions are [slots, batch], for the given `slots` only if there are any; 0 at slot 0.

    Raises `InputError` for shapes that disagree, a penalty that is not above 0, and slots that are not there.
    """
    x, y = pairs(x, y)
    positive("penalty", penalty, "; without one use least_squares")
    total, batch, dim = x.shape
    predicted = predicted_slots(slots, total)
    answer = np.zeros((len(predicted), batch))
    for part in blocks(batch, total * dim + 4 * dim * dim):
        xs, ys = x[:, part].swapaxes(0, 1), y[:, part].T
        for row, t in enumerate(predicted):
            if t:
                inputs, targets = xs[:, :t], ys[:, :t]
                gram, moment = inputs.mT @ inputs / t, (targets[:, None] @ inputs)[:, 0] / t
                weights = _path(gram, moment, penalty)
                weights = _coordinates(gram, moment, np.square(targets).mean(-1), penalty, weights)
                answer[row, part] = (xs[:, t] * weights).sum(-1)
    return answer


def _path(gram: Grams, moment: Weights, penalty: float) -> Weights:
    """The solution for every prompt, following the path of solutions from the penalty at which it leaves 0 down to
    `penalty`. Between two events, where a coordinate joins or leaves the support, the path is linear, and c = moment -
    gram w shrinks with the penalty on the support."""
    w, level = np.zeros(moment.shape), np.abs(moment).max(-1)
    left = np.flatnonzero(level > penalty)
    on = np.zeros(moment.shape, bool)
    on[left, np.abs(moment[left]).argmax(-1)] = True
    for _ in range(EVENTS * moment.shape[1]):
        if not left.size:
            break
        table, here, inside, high = gram[left], w[left], on[left], level[left, None]
        c = moment[left] - (table @ here[:, :, None])[:, :, 0]
        u = _solve_on(table, inside, np.sign(c))
        a = (table @ u[:, :, None])[:, :, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.where(inside, -here / u, (high - c) / (1 - a)), np.where(inside, np.inf, (high + c) / (1 + a))
        events = np.where(np.stack(ends) > 1e-12 * high, np.stack(ends), np.inf).min(0)
        which, first, last = events.argmin(-1), events.min(-1), high[:, 0] - penalty
        length = np.minimum(first, last)
        w[left] = here + length[:, None] * u
        level[left] -= length
        left, which = left[first < last], which[first < last]
        w[left, which] = np.where(on[left, which], 0.0, w[left, which])
        on[left, which] ^= True
    return w


def _coordinates(gram: Grams, moment: Weights, square: Numbers, penalty: float, w: Weights) -> Weights:
    """The solutions by cyclic coordinate descent of the problems that are not solved yet."""
    solution = w.copy()
    left = np.flatnonzero(_gap(gram, moment, square, penalty, w) > GAP * square)
    for _ in range(MOST_ROUNDS):
        if not left.size:
            break
        table, slope, w = gram[left], moment[left], solution[left]
        for _ in range(SWEEPS):
            for j in range(w.shape[1]):
                own = table[:, j, j]
                rest = slope[:, j] - (table[:, j] * w).sum(-1) + own * w[:, j]
                soft = np.sign(rest) * np.maximum(np.abs(rest) - penalty, 0.0)
                w[:, j] = np.divide(soft, own, out=np.zeros_like(soft), where=own > 0)
        solution[left] = w
        left = left[_gap(table, slope, square[left], penalty, w) > GAP * square[left]]
    return solution


def _solve_on(gram: Grams, on: Bool[np.ndarray, "batch dim"], right: Weights) -> Weights:
    """The solution of the equations of the coordinates in `on`; the others are 0. Where two columns are equal, a small
    number on the diagonal selects one of many solutions."""
    inside = on[:, :, None] & on[:, None]
    tiny = 1e-15 * np.trace(gram, axis1=1, axis2=2)[:, None]
    system = np.where(inside, gram, 0.0) + np.eye(on.shape[1]) * np.where(on, tiny, 1.0)[:, None]
    return np.linalg.solve(system, np.where(on, right, 0.0)[:, :, None])[:, :, 0]


def _gap(gram: Grams, moment: Weights, square: Numbers, penalty: float, w: Weights) -> Numbers:
    """The duality gap: the objective minus the dual objective at the residuals R scaled by c so that |X'R|/t <=
    penalty. In means over pairs: |R|^2 = square - 2 moment'w + w'gram w."""
    fitted = (gram @ w[:, :, None])[:, :, 0]
    residual = square - 2 * (moment * w).sum(-1) + (fitted * w).sum(-1)
    steepest = np.abs(moment - fitted).max(-1)
    c = np.minimum(1.0, penalty / np.maximum(steepest, 1e-300))
    return 0.5 * residual * (1 + c * c) + penalty * np.abs(w).sum(-1) - c * (square - (moment * w).sum(-1))


def logistic(
    x: Inputs, y: Responses, penalty: float, slots: Sequence[int] | None = None
) -> Float[np.ndarray, "predicted batch"]:
    r"""$P(y = +1 | q) = 1/(1 + e^{-q'\hat w})$ with
    $\hat w = \arg\min_w \sum_i \log(1 + e^{-y_i x_i'w}) + \frac{\lambda}{2}|w|^2$ for labels -1 and +1: scikit-learn's
    `LogisticRegression` with C = 1/penalty and without an intercept (Bai et al. 2023, arXiv 2306.04637, section 3).

    By Newton's method, each step halved until the loss descends by a quarter of what the slope promises. The penalty
    keeps the minimum finite where the labels can be separated, however small it is. Probabilities are [slots, batch],
    for the given `slots` only if there are any; 1/2 at slot 0.

    Raises `InputError` for shapes that disagree, labels other than -1 and +1, a penalty that is not above 0, and slots
    that are not there.
    """
    x, y = pairs(x, y)
    wrong = y[np.abs(y) != 1]
    require(wrong.size == 0, "y", float(wrong[0]) if wrong.size else None, "labels must be -1 or +1")
    positive("penalty", penalty, ": separable labels have no finite weights without one")
    total, batch, dim = x.shape
    predicted = predicted_slots(slots, total)
    answer = np.full((len(predicted), batch), 0.5)
    for part in blocks(batch, 3 * total * dim + dim * dim):
        xs = x[:, part].swapaxes(0, 1)
        signed = xs * y[:, part].T[:, :, None]
        weights = np.zeros((len(xs), dim))
        for row, t in enumerate(predicted):
            if t:
                weights = _newton(signed[:, :t], penalty, weights)
                answer[row, part] = expit((xs[:, t] * weights).sum(-1))
    return answer


def _newton(signed: Seen, penalty: float, start: Weights) -> Weights:
    """The minimum for every prompt; `signed` are the inputs times their labels."""
    solution = start.copy()
    left = np.arange(len(solution))
    for _ in range(MOST_STEPS):
        inputs, w = signed[left], solution[left]
        wrong = expit(-(inputs @ w[:, :, None])[:, :, 0])
        slope = penalty * w - (wrong[:, None] @ inputs)[:, 0]
        bend = inputs.mT @ (inputs * (wrong * (1 - wrong))[:, :, None])
        least = 4 * np.finfo(np.float64).eps * np.trace(bend, axis1=1, axis2=2)
        bend += (penalty + least)[:, None, None] * np.eye(w.shape[1])  # solvable, however small the penalty
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        decrement = (slope * step).sum(-1)
        solution[left] = w - _length(inputs, penalty, w, step, decrement)[:, None] * step
        left = left[decrement > DECREMENT]
        if not left.size:
            break
    return solution


def _length(inputs: Seen, penalty: float, w: Weights, step: Weights, decrement: Numbers) -> Numbers:
    before = _logistic_loss(inputs, penalty, w)
    rounding = 1e-13 * (1 + before)
    length = np.ones(len(w))
    for _ in range(MOST_HALVINGS):
        after = _logistic_loss(inputs, penalty, w - length[:, None] * step)
        high = after > before - 0.25 * length * decrement + rounding
        if not high.any():
            break
        length[high] *= 0.5
    return length


def _logistic_loss(inputs: Seen, penalty: float, w: Weights) -> Numbers:
    margins = (inputs @ w[:, :, None])[:, :, 0]
    return np.logaddexp(0.0, -margins).sum(-1) + 0.5 * penalty * np.square(w).sum(-1)
