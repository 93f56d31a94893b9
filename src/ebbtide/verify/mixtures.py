"""Exact checks of classification in context by one layer of linear attention (Shen et al. 2024, arXiv 2410.11778): the
optimum, the rate of gradient descent, the correction for finitely many pairs, and the model as a transformer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ebbtide.checks import Check
from ebbtide.compile import compile_fast
from ebbtide.mechanisms.one_matrix import (
    Worlds,
    descend,
    draw_root,
    draw_sums,
    draw_worlds,
    pool_of,
    repeat_worlds,
)
from ebbtide.models.one_matrix import OneMatrix
from ebbtide.models.positions import NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import FunctionPrompt

DIM, SPREAD = 3, 4.0
CLASSES = (2, 3, 5)
FOREVER = np.inf


def _worlds(classes: int, prompts: int, seed: int) -> tuple[Worlds, np.ndarray, np.random.Generator]:
    """Prompts, the inverse of their covariance, and the generator that drew them."""
    random = np.random.default_rng(seed)
    root = draw_root(DIM, SPREAD, random)
    return draw_worlds(root, classes, prompts, random), np.linalg.inv(root @ root), random


def optimum_of_long_prompts() -> Check:
    r"""With infinitely many pairs the optimum is $c \Lambda^{-1}$ for c classes (the paper's theorems: $2 \Lambda^{-1}$
    for two)."""
    errors = {}
    for classes in CLASSES:
        worlds, precision, random = _worlds(classes, 1000, classes)
        sums = draw_sums(worlds, FOREVER, random)
        errors[f"{classes} classes"] = np.abs(pool_of(worlds, sums).optimum() - classes * precision).max()
    return Check(
        "mixtures: the optimum is c times the inverse covariance",
        bool(max(errors.values()) <= 1e-8),
        ", ".join(f"{name} {error:.1e}" for name, error in errors.items()) + ", allowed 1e-08",
    )


def rate_of_descent() -> Check:
    r"""Near the optimum every step of gradient descent shrinks the distance by $1 - \eta \mu$, with $\mu$ the least
    eigenvalue of the Hessian there and $\eta$ the rate: linear convergence."""
    errors = []
    for classes in CLASSES:
        worlds, _, random = _worlds(classes, 500, 10 + classes)
        pool = pool_of(worlds, draw_sums(worlds, 40, random))
        optimum = pool.optimum()
        rate = 1 / np.linalg.eigvalsh(pool.hessian(0 * optimum))[-1]
        least = np.linalg.eigvalsh(pool.hessian(optimum))[0]
        steps = np.array([16, 18]) / (rate * least)  # until the distance is about e^-16, then e^-18
        course = descend(pool, rate, steps.astype(int))
        first, last = np.linalg.norm(course.matrices - optimum, axis=(1, 2))
        slope = np.log(last / first) / (course.steps[1] - course.steps[0])
        errors.append(abs(slope / np.log(1 - rate * least) - 1))
    detail = f"relative difference to log(1 - rate x least eigenvalue) {max(errors):.1e}, allowed 1e-03"
    return Check("mixtures: linear rate of gradient descent", bool(max(errors) <= 1e-3), detail)


PAIRS = (640, 2560, 10240)


def correction_of_short_prompts() -> Check:
    """The optimum for N pairs differs from that for infinitely many by about 1 / N: the slope of the logarithm of the
    difference's norm against log N is from -1.15 to -0.85."""
    worlds, precision, random = _worlds(2, 8000, 20)
    worlds = repeat_worlds(worlds)
    pools = [pool_of(worlds, draw_sums(worlds, pairs, random, mirrored=True)) for pairs in PAIRS]
    norms = [np.linalg.norm(pool.optimum() - 2 * precision) for pool in pools]
    slope = np.polyfit(np.log(PAIRS), np.log(norms), 1)[0]
    products = ", ".join(f"{pairs * norm:.0f}" for pairs, norm in zip(PAIRS, norms, strict=True))
    detail = f"slope {slope:.3f}; N times the norm {products} at N = {', '.join(map(str, PAIRS))}"
    return Check("mixtures: correction for N pairs falls as 1/N", bool(-1.15 <= slope <= -0.85), detail)


def one_matrix_as_transformer() -> Check:
    """A transformer with one layer of linear attention holds the model of one matrix. It divides by N + 1 tokens, where
    the model divides by N pairs."""
    classes, pairs, batch = 3, 7, 20
    random = np.random.default_rng(30)
    width, w = DIM + classes, random.standard_normal((DIM, DIM))
    inputs, outputs = np.eye(width)[:, :DIM], np.eye(width)[:, DIM:]
    queries, by_label = inputs @ w.T @ inputs.T, outputs @ outputs.T
    attention = {"q": queries, "k": inputs @ inputs.T, "v": by_label, "o": by_label}
    params = {
        "exemplar": {"w": inputs.T, "b": np.zeros(width)},
        "label": {"table": outputs.T},
        "position": {},
        "blocks": [{"attn": attention}],
        "readout": {"w": (pairs + 1) / pairs * outputs, "b": np.zeros(classes)},
    }
    model = Transformer(
        layers=1,
        width=width,
        heads=1,
        mlp_ratio=0,
        positions=NoPositions(),
        pairing="joint",
        attention="linear",
        mask="none",
        norm="none",
    )
    x, labels = random.standard_normal((pairs + 1, batch, DIM)), random.integers(0, classes, (pairs + 1, batch))
    with jax.enable_x64(True):
        prompt = FunctionPrompt(jnp.asarray(x), jnp.asarray(labels), jnp.ones((pairs, batch), bool), {})
        mine = compile_fast(OneMatrix(classes=classes).apply)({"w": jnp.asarray(w)}, prompt)
        theirs = compile_fast(model.apply)(jax.tree.map(jnp.asarray, params), prompt)
        error = float(jnp.abs(mine - theirs).max())
    detail = f"largest difference {error:.1e} in {batch * classes} logits, allowed 1e-12"
    return Check("mixtures: one matrix = linear attention", error <= 1e-12, detail)


MIXTURE_CHECKS: tuple[Callable[[], Check], ...] = (
    optimum_of_long_prompts,
    rate_of_descent,
    correction_of_short_prompts,
    one_matrix_as_transformer,
)
