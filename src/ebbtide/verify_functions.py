"""Exact checks of predictors of functions: identities between ways to compute the same thing, and what the order of
pairs may change, to rounding."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.checks import Check
from ebbtide.evaluation.baselines import ridge
from ebbtide.evaluation.bayes import finite_pool
from ebbtide.evaluation.concepts import concept_average
from ebbtide.evaluation.invariance import invariance_gap, shuffles
from ebbtide.models.deepset import DeepSet
from ebbtide.models.model import Model
from ebbtide.models.positions import Identical, NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.once import quick_jit
from ebbtide.tasks.prompt import FunctionPrompt

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
    """Y'(XX' + penalty I)^-1 Xq, attention that solves for its weights, is (X'X + penalty I)^-1 X'Y of weights."""
    x, y = _noisy(0)
    by_weights, by_pairs = np.zeros(y.shape), np.zeros(y.shape)
    for t in range(1, SLOTS):
        for b in range(BATCH):
            seen, q, said = x[:t, b], x[t, b], y[:t, b]
            by_weights[t, b] = q @ np.linalg.solve(seen.T @ seen + PENALTY * np.eye(DIM), seen.T @ said)
            by_pairs[t, b] = said @ np.linalg.solve(seen @ seen.T + PENALTY * np.eye(t), seen @ q)
    ours = ridge(x, y, PENALTY)
    both = np.stack([ours, ours])
    return _differs("ridge: primal = dual", both, np.stack([by_weights, by_pairs]), 1e-12)


def set_of_pairs() -> Check:
    """A linear DeepSet is ridge: pairs become (vec(x x'), x y), which are added up; the decoder is q'(A + penalty I)^-1
    b. So ridge is a function of a set, and the order of the pairs cannot matter."""
    x, y = _noisy(2)
    tokens = np.concatenate([np.einsum("sbi,sbj->sbij", x, x).reshape(SLOTS, BATCH, -1), x * y[:, :, None]], axis=-1)
    pooled = np.cumsum(tokens, axis=0) - tokens
    a, b = pooled[..., : DIM * DIM].reshape(SLOTS, BATCH, DIM, DIM), pooled[..., DIM * DIM :]
    decoded = np.einsum("sbd,sbd->sb", x, np.linalg.solve(a + PENALTY * np.eye(DIM), b[..., None])[..., 0])
    return _differs("ridge: a linear DeepSet", ridge(x, y, PENALTY), decoded, 1e-10)


def vanishing_noise() -> Check:
    """With the true weights in the pool and next to no noise one pair is enough to know the task."""
    x, w = prompts(4)
    y = np.einsum("sbd,bd->sb", x, w)
    return _differs("finite pool: the task itself", finite_pool(x, y, w, 1e-9)[1:], y[1:], 1e-12)


def regret() -> Check:
    """Averaging over concepts regrets at most log Z against every concept on every sequence, and can come close."""
    random = np.random.default_rng(6)
    tables = np.log(random.dirichlet(np.full(4, 0.6), (CONCEPTS, 6)))
    cues = random.integers(0, 6, (40, 500))
    log_likelihood = tables[:, cues].transpose(1, 2, 0, 3)
    truth = random.integers(0, CONCEPTS, 500)
    noise = random.gumbel(size=(40, 500, 4))
    responses = (log_likelihood[:, np.arange(500), truth] + noise).argmax(-1)
    at = responses[:, :, None]
    said = np.take_along_axis(log_likelihood, at[..., None], axis=3)[..., 0].sum(0)
    averaged = np.take_along_axis(concept_average(log_likelihood, responses).predictive, at, axis=2).sum(0)
    worst = float((said - averaged).max())
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
"""Models whose answer to a query depends on the set of pairs before it alone."""
ORDERED: dict[str, Model] = {
    "two causal layers": CAUSAL,
    "with identical positions": replace(CAUSAL, positions=Identical()),
}
"""Models that have no positions either, but in which the mask tells the pairs apart: a later one sees the earlier."""


def order_of_pairs() -> Check:
    """In float64, with random weights: the order of the pairs changes no answer of `SETS` by more than 1e-12 of the
    responses' size, and the answers of `ORDERED` by far more. So it takes more than leaving out positions to make a
    transformer a function of a set."""
    x, y = _noisy(8)
    with jax.enable_x64(True):
        inputs, responses = jnp.asarray(x), jnp.asarray(y)
        prompt = FunctionPrompt(inputs, responses, jnp.ones((SLOTS - 1, BATCH), bool), {})
        order = shuffles(jax.random.key(0), SLOTS - 1, BATCH)

        def moved(model: Model) -> float:
            params = model.init(jax.random.key(1), context=SLOTS - 1, dim=DIM, labels=0)
            double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
            return float(quick_jit(lambda p: invariance_gap(model, p, prompt, order))(double).max()) ** 0.5

        sets = {name: moved(model) for name, model in SETS.items()}
        ordered = {name: moved(model) for name, model in ORDERED.items()}
    passed = max(sets.values()) <= 1e-12 and min(ordered.values()) > 0.01
    detail = f"{len(sets)} set models move by {max(sets.values()):.1e}, {len(ordered)} causal ones by "
    detail += f"{min(ordered.values()):.2f} or more"
    return Check("order of pairs: only through a causal mask", passed, detail)


FUNCTION_CHECKS: tuple[Callable[[], Check], ...] = (
    primal_and_dual,
    set_of_pairs,
    vanishing_noise,
    regret,
    order_of_pairs,
)
