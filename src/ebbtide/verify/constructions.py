r"""Transformers with weights that are written down, not trained: they run statistical algorithms on the prompt.

After Bai et al. 2023 (arXiv 2306.04637, sections 3 and 4), for *our* transformer: joint tokens, no mask, no norms,
attention relu(q.k) / n over all n = N + 1 tokens of a prompt with N pairs, the query among them. A token is

    [ x | y | scratch: weights w, starting at 0 | 1 | 1 at the query | ... ]

where the constants come from the table of learned positions. Every token carries the same w at all times.

*A step of gradient descent* is a layer of two heads with scores $\pm(w'x_j - y_j) - M [j = q]$ and values
$\mp \eta n x_j$: relu(s) - relu(-s) = s, the factor n undoes the attention's 1/n exactly, and M = 1e9 silences the
query, which has no response ([j = q] is exactly 0 elsewhere, so M costs no digits; it takes |w'x_q| < M). A prompt that
holds t < N of the N pairs it was written for has n = t + 1 tokens, so its step is $\eta (N + 1) / (t + 1)$: the rate
is exact for one length.
*Decay*, $-\eta\lambda w$, is a head with score 1 and values $-\eta\lambda w_j$: all w_j are w, and their mean is w.
*The read-out* w'x_q is a product of two activations, so it takes a layer: q = x_i against k = w_j, two heads of both
signs whose value is 1, $\frac1n\sum_j [\mathrm{relu}(x_i'w_j) - \mathrm{relu}(-x_i'w_j)] = w'x_i$. L steps are L + 1
layers.

*Softmax attention* is a kernel smoother without more ado (`smoother`).

What does not fit exactly: logistic regression (its link is smooth, a ReLU network approximates it: the paper's Theorem
for generalised linear models has an error), and the paper's selection among classifiers, for the same reason.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.evaluation.baselines import positive
from ebbtide.mechanisms.construction import ConstructedModel, Head, Layer, Place, Unit, construct_model
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import SLOPE

SILENCE = 1e9
"""M: the amount by which the score of a token that must not count is lowered."""
Inputs = Float[np.ndarray, "slots batch dim"]
Responses = Float[np.ndarray, "context batch"]


def _model(layers: int, width: int, heads: int, mlp_ratio: int) -> Transformer:
    model = Transformer(
        layers=layers,
        width=width,
        heads=heads,
        mlp_ratio=mlp_ratio,
        pairing="joint",
        attention="relu",
        mask="none",
        norm="none",
        activation="relu",
    )
    model.check()
    return model


def _check_sizes(dim: int, context: int, steps: int, rate: float) -> None:
    _require_counts(dim=dim, context=context, steps=steps)
    positive("rate", rate, ", the step size")


def _require_counts(**counts: int) -> None:
    for name, value in counts.items():
        require(value >= 1, name, value, "must be at least 1")


def _gradient(x: slice, y: int, w: slice, one: int, silent: int, rate: float) -> list[Head]:
    """Heads for w <- w - rate / n * sum of (w'x_j - y_j) x_j over tokens where `silent` is 0."""
    heads = []
    for sign in (1.0, -1.0):
        score: list[tuple[Place, Place, float]] = [(w, x, sign), (one, y, -sign), (one, silent, -SILENCE)]
        heads.append(Head(score, [(x, w, -sign * rate)]))
    return heads


def _product(x: slice, w: slice, one: int, to: int) -> list[Head]:
    """Heads for h_i[to] + w'x_i, at every token i."""
    return [Head([(x, w, sign)], [(one, to, sign)]) for sign in (1.0, -1.0)]


def ridge_descent(dim: int, context: int, steps: int, rate: float, penalty: float) -> ConstructedModel:
    r"""`steps` steps $w \leftarrow w - \eta (X'(Xw - Y) + \lambda w)$ from w = 0 on `context` pairs, then w'q: it tends
    to `ridge` with the same penalty for $\eta < 2 / (\lambda_{max}(X'X) + \lambda)$. Penalty 0 is least squares.

    steps + 1 layers of three heads, width 3 (dim + 2), no MLP. Raises `InputError` for a rate that is not above 0 or a
    penalty below 0.
    """
    return _ridge(dim, context, steps, rate, penalty)


def _ridge(
    dim: int, context: int, steps: int, rate: float, penalty: float, before: Sequence[Layer] = (), mlp_ratio: int = 0
) -> ConstructedModel:
    """The layers `before`, then the layers of `ridge_descent`."""
    _check_sizes(dim, context, steps, rate)
    require(0 <= penalty < np.inf, "penalty", penalty, "must be a number from 0 on")
    model = _model(len(before) + steps + 1, 3 * (dim + 2), 3, mlp_ratio)
    x, y, w, one, query = slice(0, dim), dim, slice(dim + 1, 2 * dim + 1), 2 * dim + 1, 2 * dim + 2
    marks = np.zeros((context + 1, model.width))
    marks[:, one], marks[-1, query] = 1.0, 1.0
    decay = Head([(one, one, 1.0)], [(w, w, -rate * penalty)])
    step = Layer([*_gradient(x, y, w, one, query, rate * (context + 1)), decay])
    # the query's token has no response: y is 0 there, and the answer goes to its place
    layers = [*before, *[step] * steps, Layer(_product(x, w, one, y))]
    return construct_model(model, layers, x=x, y=y, marks=marks, reads=[(y, 1.0)])


def representation_ridge(
    maps: Float[np.ndarray, "layers dim dim"], context: int, steps: int, rate: float, penalty: float
) -> ConstructedModel:
    r"""`ridge_descent` on $\phi(x)$ in place of x, $\phi$ the layers $z \leftarrow \mathrm{leaky}(Q z)$ of a fixed
    representation (Guo et al. 2023, arXiv 2310.10616, section 4: transform the inputs, then learn linearly in context).

    One layer without attention for each of `maps`: its MLP adds $\mathrm{relu}(Qz) - .01\,\mathrm{relu}(-Qz) -
    \mathrm{relu}(z) + \mathrm{relu}(-z)$ to z at every token, so that $\phi$ takes the place of x. Then
    `ridge_descent`. layers + steps + 1 layers of three heads, width 3 (dim + 2), four units a coordinate.

    Raises `InputError` as `ridge_descent` does.
    """
    dim = maps.shape[1]
    transforms = []
    for q in maps:
        units = []
        for i in range(dim):
            row = list(enumerate(q[i]))
            units += [Unit(row, 0.0, [(i, 1.0)]), Unit([(j, -a) for j, a in row], 0.0, [(i, -SLOPE)])]
            units += [Unit([(i, 1.0)], 0.0, [(i, -1.0)]), Unit([(i, -1.0)], 0.0, [(i, 1.0)])]
        transforms.append(Layer(units=units))
    return _ridge(dim, context, steps, rate, penalty, transforms, mlp_ratio=2)


def lasso_descent(dim: int, context: int, steps: int, rate: float, penalty: float) -> ConstructedModel:
    r"""`steps` steps of iterative soft thresholding (ISTA; Daubechies et al. 2004) from w = 0, then w'q:

    $w \leftarrow S_{\eta\lambda}(w - \frac{\eta}{N} X'(Xw - Y))$, $S_\theta(u) = \mathrm{relu}(u - \theta) -
    \mathrm{relu}(-u - \theta)$, which tends to `lasso` with the same penalty for
    $\eta < 2 N / \lambda_{max}(X'X)$. The MLP adds $S_\theta(u) - \mathrm{relu}(u) + \mathrm{relu}(-u)$ to u: four
    units a coordinate, and what is below the threshold becomes exactly 0.

    steps + 1 layers of two heads, width 2 (dim + 2), MLP twice as wide. Raises `InputError` for a rate or penalty that
    is not above 0.
    """
    _check_sizes(dim, context, steps, rate)
    positive("penalty", penalty, "; without one use ridge_descent with penalty 0")
    model = _model(steps + 1, 2 * (dim + 2), 2, 2)
    x, y, w, one, query = slice(0, dim), dim, slice(dim + 1, 2 * dim + 1), 2 * dim + 1, 2 * dim + 2
    marks = np.zeros((context + 1, model.width))
    marks[:, one], marks[-1, query] = 1.0, 1.0
    soft = [
        Unit([(at, sign)], -threshold, [(at, sign if threshold else -sign)])
        for at in range(w.start, w.stop)
        for sign in (1.0, -1.0)
        for threshold in (rate * penalty, 0.0)
    ]
    step = Layer(_gradient(x, y, w, one, query, rate * (context + 1) / context), soft)
    return construct_model(
        model, [step] * steps + [Layer(_product(x, w, one, y))], x=x, y=y, marks=marks, reads=[(y, 1.0)]
    )


def smoother(dim: int, context: int, scale: float) -> ConstructedModel:
    r"""The kernel smoother $\sum_j y_j e^{\gamma q'x_j} / \sum_j e^{\gamma q'x_j}$ over the pairs, $\gamma$ the scale:
    one head of softmax attention, q and x_j compared, y_j moved, the query's own token silenced (Zhang et al. 2023,
    arXiv 2305.19420: attention as kernel smoother; `baselines.kernel_smoother`).

    One layer, one head, width dim + 3. Raises `InputError` for a scale that is not above 0.
    """
    _require_counts(dim=dim, context=context)
    positive("scale", scale, ": at 0 it is the plain mean")
    model = replace(_model(1, dim + 3, 1, 0), attention="softmax")
    x, y, one, query = slice(0, dim), dim, dim + 1, dim + 2
    marks = np.zeros((context + 1, model.width))
    marks[:, one], marks[-1, query] = 1.0, 1.0
    head = Head([(x, x, scale * model.width**0.5), (one, query, -SILENCE)], [(y, y, 1.0)])
    return construct_model(model, [Layer([head])], x=x, y=y, marks=marks, reads=[(y, 1.0)])


def selection(
    dim: int,
    context: int,
    steps: int,
    rates: tuple[float, float],
    penalties: tuple[float, float],
    *,
    by: Literal["validation", "labels"],
    held: int,
    margin: float,
) -> ConstructedModel:
    r"""Two ridge regressions side by side, $f_1, f_2$ with their `penalties`, and the weight $g$ of the first:
    $f = f_2 + g (f_1 - f_2)$. Both are fitted by `steps` steps on the first `context - held` pairs.

    - `by = "validation"` (the paper's post-ICL validation, section 4.1): with $V_k = \sum_j (f_k(x_j) - y_j)^2$ over
      the `held` last pairs, $g = \mathrm{clip}((V_2 - V_1) / \gamma + 1/2, 0, 1)$, $\gamma$ the `margin`. So wherever
      the losses are $\gamma/2$ apart it takes the better one, exactly.
    - `by = "labels"` (pre-ICL testing, section 4.2): g = 1 if all responses of the prompt are -1 or +1, exactly, and
      0 if $\sum_j ||y_j| - 1| \ge \gamma$: $g = 1 - \mathrm{clip}(\sum_j ||y_j| - 1| / \gamma, 0, 1)$.

    After the steps: a layer that makes $r_k = f_k(x_j) - y_j$ at every token j. A layer that sums
    relu(r) r - relu(-r) r over the held pairs, or $||y_j| - 1|$, which the first layer's MLP made, over all; its MLP
    makes g. A layer in which the query's token attends to itself with score g and value $n (r_1 - r_2)$, a product
    once more; the query's y is 0. steps + 3 layers of six heads, width 6 (dim + 2), MLP as wide.

    Raises `InputError` for rates, penalties or a margin that are not above 0, and unless 0 <= held < context (0 < held
    for validation).
    """
    least = 1 if by == "validation" else 0
    allowed = f"must be from {least} to context - 1 = {context - 1}: some pairs to choose by, some to fit"
    require(least <= held < context, "held", held, allowed)
    positive("margin", margin, "")
    for rate, penalty in zip(rates, penalties, strict=True):
        _check_sizes(dim, context, steps, rate)
        positive("penalties", penalty, "")
    model = _model(steps + 3, 6 * (dim + 2), 6, 1)
    x, y = slice(0, dim), dim
    w = (slice(dim + 1, 2 * dim + 1), slice(2 * dim + 1, 3 * dim + 1))
    one, query, unfit, unheld, first, second, odd, gate, chosen, told = range(3 * dim + 1, 3 * dim + 11)
    n = context + 1
    marks = np.zeros((n, model.width))
    marks[:, one], marks[-1, query], marks[context - held :, unfit] = 1.0, 1.0, 1.0
    marks[: context - held, unheld], marks[-1, unheld] = 1.0, 1.0
    fit: list[Head] = []
    for k in (0, 1):
        fit += _gradient(x, y, w[k], one, unfit, rates[k] * n)
        fit.append(Head([(one, one, 1.0)], [(w[k], w[k], -rates[k] * penalties[k])]))
    answers = Layer(
        [*_product(x, w[0], one, first), *_product(x, w[1], one, second)],
        [Unit([(y, -sign)], 0.0, [(first, sign), (second, sign)]) for sign in (1.0, -1.0)],
    )
    if by == "validation":
        gap = [
            Head([(one, r, sign), (one, unheld, -SILENCE)], [(r, gate, sign * side * n)])
            for r, side in ((first, -1.0), (second, 1.0))
            for sign in (1.0, -1.0)
        ]
        choice = [Unit([(gate, 1 / margin)], 0.5 * sign, [(chosen, sign)]) for sign in (1.0, -1.0)]
    else:
        gap = [Head([(one, one, 1.0), (one, query, -SILENCE)], [(odd, gate, float(n))])]
        choice = [Unit([(gate, 1 / margin)], bias, [(chosen, -1.0 - 2 * bias)]) for bias in (0.0, -1.0)]
        choice.append(Unit([(one, 1.0)], 0.0, [(chosen, 1.0)]))
    gated = Head([(chosen, query, 1.0)], [(first, told, float(n)), (second, told, -float(n))])
    layers = [
        Layer(fit, _oddness(y, one, odd)),
        *[Layer(fit)] * (steps - 1),
        answers,
        Layer(gap, choice),
        Layer([gated]),
    ]
    return construct_model(model, layers, x=x, y=y, marks=marks, reads=[(second, 1.0), (told, 1.0)])


def _oddness(y: int, one: int, to: int) -> list[Unit]:
    """Units for ||y| - 1|, a piecewise linear function with kinks at -1, 0 and 1: -y - 1 + 2 relu(y + 1) - 2 relu(y) +
    2 relu(y - 1)."""
    line = [
        Unit([(y, -1.0)], 0.0, [(to, 1.0)]),
        Unit([(y, 1.0)], 0.0, [(to, -3.0)]),
        Unit([(one, 1.0)], 0.0, [(to, -1.0)]),
    ]
    return line + [Unit([(y, 1.0)], bias, [(to, 2.0)]) for bias in (1.0, -1.0)]
