r"""Exact checks of affine recurrences $s_{n+1} = A s_n + b$: identities that any model of them could use, of numbers,
of vectors and modulo a prime, and the predictors that are exact."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ebbtide.checks import Check
from ebbtide.evaluation.recurrences import COPY_LAST, affine_ridge, modular_posterior, naive_predictions

SLOTS, BATCH = 12, 1000
PRIME = 13

Batch = Float[np.ndarray, "batch dim dim"]
States = Float[np.ndarray, "terms batch dim"]


def _draw(dim: int) -> tuple[Batch, Float[np.ndarray, "batch dim"], States]:
    """Matrices of norm 1 at most and 1/4 at least, offsets, and `SLOTS` + 1 terms, in float64."""
    random = np.random.default_rng(dim)
    size = random.uniform(0.25, 1, (BATCH, 1, 1)) * random.choice([-1, 1], (BATCH, 1, 1))
    a = size * np.linalg.qr(random.standard_normal((BATCH, dim, dim)))[0]
    b, terms = random.uniform(-1, 1, (BATCH, dim)), [random.uniform(-1, 1, (BATCH, dim))]
    for _ in range(SLOTS):
        terms.append(_times(a, terms[-1]) + b)
    return a, b, np.stack(terms)


def _times(a: Batch, x: Float[np.ndarray, "*terms batch dim"]) -> Float[np.ndarray, "*terms batch dim"]:
    return np.einsum("bij,...bj->...bi", a, x)


def _most(name: str, errors: dict[str, float], allowed: float) -> Check:
    worst = max(errors.values())
    return Check(name, worst <= allowed, f"{len(errors)} identities, largest error {worst:.1e}, allowed {allowed:.0e}")


def identities() -> Check:
    r"""In one and in three dimensions, with $D_n = s_n - s_{n-1}$: $D_{n+1} = A D_n$; $s_{n+1} = (I + A) s_n - A
    s_{n-1}$; the error of copying $s_n$ is $-A D_n$; the fixed point $s^* = (I - A)^{-1} b$ is kept; $s_n - s^*
    = A^n (s_0 - s^*)$."""
    errors: dict[str, float] = {}
    for dim in (1, 3):
        a, b, s = _draw(dim)
        d = s[1:] - s[:-1]
        away = (np.linalg.norm(np.linalg.inv(np.eye(dim) - a), axis=(1, 2)) < 20)[:, None]  # no fixed point at A = I
        still = np.where(away, np.linalg.solve(np.eye(dim) - a, b[..., None])[..., 0], 0)
        powers = [s[0] - still]
        for _ in range(SLOTS):
            powers.append(_times(a, powers[-1]))
        both = {
            "differences": d[1:] - _times(a, d[:-1]),
            "three terms": s[2:] - s[1:-1] - _times(a, s[1:-1]) + _times(a, s[:-2]),
            "copy": naive_predictions(s)[COPY_LAST][1:-1] - s[2:] + _times(a, d[:-1]),
            "fixed point": away * (_times(a, still) + b - still),
            "distance to it": away * (s - still - np.stack(powers)),
        }
        errors |= {f"{name}, {dim}": float(np.abs(one).max()) for name, one in both.items()}
    return _most("recurrences: identities of numbers and vectors", errors, 1e-12)


def three_term_formula() -> Check:
    r"""The next term from three terms alone, without a and b: $s_{n+1} = s_n + D_n^2 / D_{n-1}$, where $D_{n-1}$ is not
    small. No linear combination of terms does it for all recurrences: the weights depend on them."""
    s = _draw(1)[2][..., 0]
    d = s[1:] - s[:-1]
    large = np.abs(d[:-2]) > 1e-2
    error = np.abs(s[3:] - s[2:-1] - d[1:-1] ** 2 / np.where(large, d[:-2], 1))[large].max()
    return _most("recurrences: three terms give the next", {"three terms": float(error)}, 1e-11)


def least_squares_is_exact() -> Check:
    """Least squares of the pairs of neighbours on a term and a constant is exact from the third term on (in three
    dimensions from the fifth), up to its penalty, where the differences seen are not tiny."""
    errors = {}
    for dim in (1, 3):
        s = _draw(dim)[2]
        d = (s[1 : dim + 1] - s[:dim]).swapaxes(0, 1)
        known = np.linalg.svd(d, compute_uv=False)[:, -1] > 0.1
        error = np.abs(affine_ridge(s[:-1], 1e-12) - s[1:])[dim + 1 :, known]
        errors[f"{dim}"] = float(error.max())
    return _most("recurrences: least squares is exact", errors, 1e-7)


def modular_identities() -> Check:
    """Modulo a prime, for all its recurrences and first terms: differences, three terms, the fixed point b / (1 - a)
    where a is not 1 and that a is D_(n+1) / D_n where D_n is not 0; and the posterior over all recurrences is sure, and
    right, as soon as two terms differ and the third is seen. Whole numbers: nothing is rounded."""
    p = PRIME
    a, b, first = (one.ravel() for one in np.meshgrid(*[np.arange(p)] * 3))
    terms = [first]
    for _ in range(5):
        terms.append((a * terms[-1] + b) % p)
    s = np.stack(terms)
    d = (s[1:] - s[:-1]) % p
    inverse = np.asarray([0, *(pow(i, -1, p) for i in range(1, p))])
    still = (b * inverse[(1 - a) % p]) % p
    wrong = {
        "differences": (d[1:] - a * d[:-1]) % p,
        "three terms": (s[2:] - (1 + a) * s[1:-1] + a * s[:-2]) % p,
        "fixed point": np.where(a == 1, 0, (a * still + b - still) % p),
        "slope": np.where(d[0] == 0, 0, (d[1] * inverse[d[0]] - a) % p),
    }
    chance = modular_posterior(s[:-1], p)[2:]
    said = np.take_along_axis(chance, s[3:, :, None], axis=-1)[..., 0]
    wrong["posterior"] = np.where((d[0] == 0) | (said == 1), 0, 1)
    errors = {name: float(np.abs(one).max()) for name, one in wrong.items()}
    return _most(f"recurrences: identities modulo {p}", errors, 0.0)


RECURRENCE_CHECKS: tuple[Callable[[], Check], ...] = (
    identities,
    three_term_formula,
    least_squares_is_exact,
    modular_identities,
)
