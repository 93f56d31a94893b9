"""Exact checks of function tasks: identities between formulas of one predictor, invariance to the order of pairs, and
transformers with constructed weights that compute predictors to rounding."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from msgspec.structs import replace

from ebbtide.checks import Check
from ebbtide.compile import compile_fast
from ebbtide.evaluation.baselines import kernel_smoother, ridge
from ebbtide.evaluation.bayes import finite_pool
from ebbtide.evaluation.concepts import concept_average
from ebbtide.evaluation.invariance import draw_orders, invariance_gap
from ebbtide.models.deepset import DeepSet
from ebbtide.models.model import Model
from ebbtide.models.positions import Identical, NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions, represent_float64
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.verify.constructions import lasso_descent, representation_ridge, ridge_descent, selection, smoother

SLOTS, BATCH, DIM = 13, 64, 5
PENALTY = 0.3
CONCEPTS = 8

Inputs = Float[np.ndarray, "slots batch dim"]


def prompts(seed: int) -> tuple[Inputs, Float[np.ndarray, "batch dim"]]:
    """Standard normal inputs and weights."""
    random = np.random.default_rng(seed)
    return random.standard_normal((SLOTS, BATCH, DIM)), random.standard_normal((BATCH, DIM))


def _noisy(seed: int) -> tuple[Inputs, Float[np.ndarray, "slots batch"]]:
    x, w = prompts(seed)
    return x, np.einsum("sbd,bd->sb", x, w) + 0.5 * np.random.default_rng(seed + 1).standard_normal(x.shape[:2])


def _differs(name: str, mine: Float[np.ndarray, "..."], theirs: Float[np.ndarray, "..."], most: float) -> Check:
    error = float(np.abs(mine - theirs).max())
    return Check(name, error <= most, f"largest difference {error:.1e} in {mine.size} predictions, allowed {most:.0e}")


def primal_and_dual() -> Check:
    """Ridge in its dual form, Y'(XX' + penalty I)^-1 Xq, a weighted sum of responses, equals its primal form, q'(X'X +
    penalty I)^-1 X'Y."""
    x, y = _noisy(0)
    by_weights, by_pairs = np.zeros(y.shape), np.zeros(y.shape)
    for t in range(1, SLOTS):
        for b in range(BATCH):
            inputs, q, targets = x[:t, b], x[t, b], y[:t, b]
            by_weights[t, b] = q @ np.linalg.solve(inputs.T @ inputs + PENALTY * np.eye(DIM), inputs.T @ targets)
            by_pairs[t, b] = targets @ np.linalg.solve(inputs @ inputs.T + PENALTY * np.eye(t), inputs @ q)
    ours = ridge(x, y, PENALTY)
    both = np.stack([ours, ours])
    return _differs("ridge: primal = dual", both, np.stack([by_weights, by_pairs]), 1e-12)


def set_of_pairs() -> Check:
    """Ridge as a linear DeepSet: pairs are embedded as (vec(x x'), x y) and summed, and decoded as q'(A + penalty I)^-1
    b. So ridge is a function of a set, and the order of the pairs cannot matter."""
    x, y = _noisy(2)
    tokens = np.concatenate([np.einsum("sbi,sbj->sbij", x, x).reshape(SLOTS, BATCH, -1), x * y[:, :, None]], axis=-1)
    pooled = np.cumsum(tokens, axis=0) - tokens
    a, b = pooled[..., : DIM * DIM].reshape(SLOTS, BATCH, DIM, DIM), pooled[..., DIM * DIM :]
    decoded = np.einsum("sbd,sbd->sb", x, np.linalg.solve(a + PENALTY * np.eye(DIM), b[..., None])[..., 0])
    return _differs("ridge: a linear DeepSet", ridge(x, y, PENALTY), decoded, 1e-10)


def vanishing_noise() -> Check:
    """With the true weights in the pool and almost no noise, one pair is enough to identify the task."""
    x, w = prompts(4)
    y = np.einsum("sbd,bd->sb", x, w)
    return _differs("finite pool: the task itself", finite_pool(x, y, w, 1e-9)[1:], y[1:], 1e-12)


def regret() -> Check:
    """The Bayesian average over concepts has a regret of at most log Z to every concept on every sequence, and can come
    close to it."""
    random = np.random.default_rng(6)
    tables = np.log(random.dirichlet(np.full(4, 0.6), (CONCEPTS, 6)))
    cues = random.integers(0, 6, (40, 500))
    log_likelihood = tables[:, cues].transpose(1, 2, 0, 3)
    truth = random.integers(0, CONCEPTS, 500)
    noise = random.gumbel(size=(40, 500, 4))
    responses = (log_likelihood[:, np.arange(500), truth] + noise).argmax(-1)
    at = responses[:, :, None]
    log_probs = np.take_along_axis(log_likelihood, at[..., None], axis=3)[..., 0].sum(0)
    averaged = np.take_along_axis(concept_average(log_likelihood, responses).predictive, at, axis=2).sum(0)
    worst = float((log_probs - averaged).max())
    passed = worst <= math.log(CONCEPTS) + 1e-10 and worst > math.log(CONCEPTS) - 0.01
    detail = f"largest {worst:.10f} in 500 sequences x {CONCEPTS} concepts, log Z = {math.log(CONCEPTS):.10f}"
    return Check("regret of averaging <= log Z", passed, detail)


CAUSAL = Transformer(layers=2, width=16, heads=2, mlp_ratio=2, positions=NoPositions())
BOTH_WAYS = Transformer(layers=2, width=16, heads=2, mlp_ratio=2, positions=NoPositions(), mask="none", pairing="joint")
SETS: dict[str, Model] = {
    "DeepSet": DeepSet(layers=2, width=16),
    "DeepSet, sum": DeepSet(layers=2, width=16, pool="sum"),
    "no mask": BOTH_WAYS,
    "no mask, identical positions": replace(BOTH_WAYS, positions=Identical()),
    "one causal layer": replace(CAUSAL, layers=1),
    "one causal layer, identical positions": replace(CAUSAL, layers=1, positions=Identical(kinds="token")),
}
"""Models whose output for a query depends only on the set of pairs before it."""
ORDERED: dict[str, Model] = {
    "two causal layers": CAUSAL,
    "with identical positions": replace(CAUSAL, positions=Identical()),
}
"""Models without positional encodings in which the causal mask distinguishes the pairs: a later pair attends to earlier
ones."""


def order_of_pairs() -> Check:
    """In float64, with random weights: the order of the pairs changes no output of `SETS` by more than 1e-12 of the
    responses' size, and the outputs of `ORDERED` by far more. So leaving out positional encodings does not make a
    transformer a function of a set."""
    x, y = _noisy(8)
    with jax.enable_x64(True):
        inputs, responses = jnp.asarray(x), jnp.asarray(y)
        prompt = FunctionPrompt(inputs, responses, jnp.ones((SLOTS - 1, BATCH), bool), {})
        order = draw_orders(jax.random.key(0), SLOTS - 1, BATCH)

        def largest_gap(model: Model) -> float:
            shapes = jax.eval_shape(lambda: model.init(jax.random.key(1), context=SLOTS - 1, dim=DIM, labels=0))
            random = np.random.default_rng(1)

            def draw(leaf: jax.ShapeDtypeStruct) -> Array:  # by NumPy: nothing to compile
                scale = 1 / math.sqrt(leaf.shape[0]) if len(leaf.shape) > 1 else 0.1
                return jnp.asarray(random.standard_normal(leaf.shape) * scale + (len(leaf.shape) == 1))

            params = jax.tree.map(draw, shapes)
            return float(compile_fast(lambda p: invariance_gap(model, p, prompt, order))(params).max()) ** 0.5

        sets = {name: largest_gap(model) for name, model in SETS.items()}
        ordered = {name: largest_gap(model) for name, model in ORDERED.items()}
    passed = max(sets.values()) <= 1e-12 and min(ordered.values()) > 0.01
    detail = f"{len(sets)} set models move by {max(sets.values()):.1e}, {len(ordered)} causal ones by "
    detail += f"{min(ordered.values()):.2f} or more"
    return Check("order of pairs: only through a causal mask", passed, detail)


Fitted = Float[np.ndarray, "batch dim"]


def descent(
    x: Inputs, y: Float[np.ndarray, "context batch"], steps: int, rate: float, penalty: float, sparse: bool = False
) -> Fitted:
    """Weights after gradient descent from 0 on |Y - Xw|^2 / 2 + penalty |w|^2 / 2; with `sparse` after proximal
    gradient descent on |Y - Xw|^2 / 2N + penalty |w|_1 (ISTA)."""
    inputs, targets = x[: len(y)].swapaxes(0, 1), y.T
    w = np.zeros(inputs[:, 0].shape)
    for _ in range(steps):
        slope = np.einsum("bnd,bn->bd", inputs, np.einsum("bnd,bd->bn", inputs, w) - targets)
        if sparse:
            u = w - rate / len(y) * slope
            w = np.sign(u) * np.maximum(np.abs(u) - rate * penalty, 0.0)
        else:
            w = w - rate * (slope + penalty * w)
    return w


def _predict(x: Inputs, w: Fitted) -> Float[np.ndarray, " batch"]:
    return (x[-1] * w).sum(-1)


PAIRS = 10
STEPS, RATE = 250, 0.03
"""Enough steps to forget the initial weights to rounding, at a rate that converges: X'X of 10 pairs in 5 dimensions
stays below 50 on these prompts."""


def ridge_by_transformer() -> Check:
    """A ReLU-attention transformer takes the steps of gradient descent on the loss of ridge regression."""
    x, y = (part[: PAIRS + 1] for part in _noisy(8))
    steps, penalty = (1, 5), 10 * PENALTY
    ours = [ridge_descent(DIM, PAIRS, n, RATE, penalty).answer(x, y[:-1]) for n in steps]
    exact = [_predict(x, descent(x, y[:-1], n, RATE, penalty)) for n in steps]
    return _differs("ridge: 2, 6 layers = 1, 5 descents", np.stack(ours), np.stack(exact), 1e-12)


def ridge_at_the_end() -> Check:
    """With enough layers that transformer computes ridge regression itself."""
    x, y = (part[: PAIRS + 1] for part in _noisy(8))
    ours = ridge_descent(DIM, PAIRS, STEPS, RATE, 10 * PENALTY).answer(x, y[:-1])
    return _differs(f"ridge: {STEPS + 1} layers = solution", ours, ridge(x, y, 10 * PENALTY)[-1], 1e-12)


def representation_by_transformer() -> Check:
    """MLPs map the inputs to a fixed representation, layer by layer, and the same gradient descent learns linearly on
    it."""
    source = Functions(dim=DIM, layers=2, seed=3)
    maps = np.asarray(source.build().maps[0], np.float64)
    x, y = (part[: PAIRS + 1] for part in _noisy(14))
    ours = representation_ridge(maps, PAIRS, 5, RATE, PENALTY).answer(x, y[:-1])
    phi = represent_float64(maps, x)
    exact = _predict(phi, descent(phi, y[:-1], 5, RATE, PENALTY))
    return _differs("representation, then ridge: 8 layers = 2 + 5 steps", ours, exact, 1e-12)


def lasso_by_transformer() -> Check:
    """With soft thresholds in its MLPs a transformer takes the steps of ISTA."""
    x, y = (part[: PAIRS + 1] for part in _noisy(10))
    steps = (1, 5, 40)
    ours = [lasso_descent(DIM, PAIRS, n, 10 * RATE, PENALTY).answer(x, y[:-1]) for n in steps]
    exact = [_predict(x, descent(x, y[:-1], n, 10 * RATE, PENALTY, sparse=True)) for n in steps]
    return _differs("Lasso: 2, 6, 41 layers = 1, 5, 40 of ISTA", np.stack(ours), np.stack(exact), 1e-12)


SCALE, KEYS = 4.0, 64
"""With so many keys evenly around a circle, sums over them equal integrals to rounding."""


def smoother_by_transformer() -> Check:
    """A head of softmax attention is a kernel smoother. Where keys lie evenly on a circle and values are linear in
    them, y = b'x, its output is A_2 b'q with A_2 = I_1(scale) / I_0(scale), a ratio of Bessel functions: the function
    itself up to a constant."""
    from scipy.special import iv

    x, y = (part[: PAIRS + 1] for part in _noisy(16))
    ours = [smoother(DIM, PAIRS, SCALE).answer(x, y[:-1])]
    exact = [kernel_smoother(x, y, SCALE)[-1]]
    around = 2 * np.pi * np.arange(KEYS) / KEYS
    angles = np.concatenate([np.repeat(around[:, None], BATCH, axis=1), np.random.default_rng(16).random((1, BATCH))])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    y = x @ np.array([2.0, -1.0])
    ours.append(smoother(2, KEYS, SCALE).answer(x, y[:-1]))
    exact.append(iv(1, SCALE) / iv(0, SCALE) * y[-1])
    return _differs("softmax attention: a smoother, I1/I0 on a circle", np.stack(ours), np.stack(exact), 1e-12)


def selection_by_transformer() -> Check:
    """A transformer fits two ridge regressions at once and outputs the one that is better on two held-out pairs, or the
    first where all responses are -1 or +1."""
    x, y = (part[: PAIRS + 1] for part in _noisy(12))
    y = y[:-1].copy()
    y[:, ::2] = np.sign(y[:, ::2])
    words = {"rates": (RATE, RATE / 2), "penalties": (PENALTY, 20.0)}
    each = list(zip(*words.values(), strict=True))
    held, margin = 2, 1e-9
    fits = [descent(x, y[:-held], 4, *one) for one in each]
    losses = [np.square(np.einsum("sbd,bd->sb", x[PAIRS - held : -1], w) - y[-held:]).sum(0) for w in fits]
    best = np.where(losses[0] < losses[1], *[_predict(x, w) for w in fits])
    sure = np.abs(losses[0] - losses[1]) > margin
    whole = [_predict(x, descent(x, y, 4, *one)) for one in each]
    tested = np.where(np.arange(y.shape[1]) % 2 == 0, *whole)
    ours = selection(DIM, PAIRS, 4, **words, by="validation", held=held, margin=margin).answer(x, y)
    other = selection(DIM, PAIRS, 4, **words, by="labels", held=0, margin=0.1).answer(x, y)
    mine, theirs = np.concatenate([ours[sure], other]), np.concatenate([best[sure], tested])
    return _differs("selection: by validation, by labels", mine, theirs, 1e-12)


FUNCTION_CHECKS: tuple[Callable[[], Check], ...] = (
    primal_and_dual,
    set_of_pairs,
    vanishing_noise,
    regret,
    order_of_pairs,
    ridge_by_transformer,
    ridge_at_the_end,
    representation_by_transformer,
    lasso_by_transformer,
    smoother_by_transformer,
    selection_by_transformer,
)
