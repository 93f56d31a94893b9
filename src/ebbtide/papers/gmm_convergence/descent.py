"""Experiment `descent` of `gmm-convergence`: full-batch gradient descent of one matrix on the population loss."""

from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import require
from ebbtide.evaluation.mixtures import total_variation
from ebbtide.mechanisms.one_matrix import (
    Square,
    Worlds,
    answer,
    descend,
    draw_root,
    draw_sums,
    draw_worlds,
    pool_of,
    repeat_worlds,
)
from ebbtide.studies.claim import Claim
from ebbtide.studies.computation import Computed, Setting
from ebbtide.studies.evidence import Evidence, Scalars

Count = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
SHIFTS = ("train", "norms", "covariance")
"""Prompts of the tests: as in training, means without one norm, another covariance."""
ROUNDING = 1e-10
"""Share of the first distance below which the course is not fitted: rounding may then count."""


class Descents(Setting, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The mixtures (`dim`, `spread` as of the source `Mixtures`; `classes`: one descent for each), the descent (from
    prompts of `pairs` pairs, `steps` steps, recorded every `every`), and the numbers of prompts: of the pool of a
    descent and of a test (`prompts`), and of a pool whose optimum is computed directly (`large`)."""

    dim: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    spread: Annotated[float, msgspec.Meta(ge=1)] = 4.0
    classes: tuple[Annotated[int, msgspec.Meta(ge=2, le=64)], ...] = (2, 5)
    pairs: Count = 100
    steps: Count = 4000
    every: Count = 20
    prompts: Count = 4000
    large: Count = 8000
    test_pairs: tuple[Count, ...] = (10, 20, 40, 80, 160, 640, 2560)
    train_pairs: tuple[Count, ...] = (160, 640, 2560)

    def check(self) -> None:
        """Raises `InputError` for what cannot be computed."""
        super().check()
        require(self.steps % self.every == 0, "every", self.every, f"must divide the {self.steps} steps")
        for name in ("classes", "test_pairs", "train_pairs"):
            values: tuple[int, ...] = getattr(self, name)
            ascending = sorted(set(values)) == list(values) and len(values) >= (1 if name == "classes" else 2)
            require(ascending, name, list(values), "must be ascending, and two or more for a slope")


def compute(setting: Descents) -> Computed:
    """Courses and errors of every seed, whose covariance, prompts and tests are its own; for c classes under `c/...`.

    - distance [seed, record]: of W from the pool's optimum, Frobenius norm; expected [seed]: log(1 - rate x least
      eigenvalue of the Hessian at the optimum), the slope of the logarithm of the distance against steps;
    - accuracy/SHIFT, error/SHIFT [seed, record]: expected accuracy, and total variation distance from Bayes, on tests
      with as many pairs as in training; bayes/SHIFT [seed]: Bayes' accuracy; guess/SHIFT: error of equal probabilities;
    - test [seed, length]: error at the optimum for infinitely many pairs, by the pairs of a test;
    - train [seed, length]: error on tests with infinitely many pairs, by the pairs in training.
    """
    seeds = [_compute_seed(setting, seed) for seed in range(setting.seed, setting.seed + setting.seeds)]
    curves = {name: np.stack([one[name] for one in seeds]) for name in seeds[0]}
    return curves | {"steps": _steps(setting)}


def _steps(setting: Descents) -> Int[np.ndarray, " record"]:
    return np.arange(0, setting.steps + 1, setting.every)


def _compute_seed(setting: Descents, seed: int) -> Computed:
    found: Computed = {}
    for classes in setting.classes:
        random = np.random.default_rng((seed, classes))
        root, other = (draw_root(setting.dim, setting.spread, random) for _ in range(2))
        values = _descent(setting, classes, root, other, random) | _lengths(setting, classes, root, random)
        found |= {f"{classes}/{name}": value for name, value in values.items()}
    return found


def _descent(setting: Descents, classes: int, root: Square, other: Square, random: np.random.Generator) -> Computed:
    """The course of one descent, at the largest rate at which the first step is sure not to overshoot."""
    worlds = draw_worlds(root, classes, setting.prompts, random)
    pool = pool_of(worlds, draw_sums(worlds, setting.pairs, random))
    optimum = pool.optimum()
    rate = 1 / np.linalg.eigvalsh(pool.hessian(pool.start()))[-1]
    course = descend(pool, rate, _steps(setting)).matrices
    found: Computed = {
        "distance": np.linalg.norm(course - optimum, axis=(1, 2)),
        "expected": np.log(1 - rate * np.linalg.eigvalsh(pool.hessian(optimum))[0]),
    }
    tests = {
        "train": draw_worlds(root, classes, setting.prompts, random),
        "norms": draw_worlds(root, classes, setting.prompts, random, equal_norms=False),
        "covariance": draw_worlds(other, classes, setting.prompts, random),
    }
    for name, test in tests.items():
        sums = draw_sums(test, setting.pairs, random)
        answers = [answer(w, sums, test.query) for w in course]
        found[f"error/{name}"] = np.array([total_variation(one, test.bayes).mean() for one in answers])
        found[f"accuracy/{name}"] = np.array([_accuracy(one, test) for one in answers])
        found[f"bayes/{name}"] = np.array(_accuracy(test.bayes, test))
        found[f"guess/{name}"] = np.array(_guess(test))
    return found


def _lengths(setting: Descents, classes: int, root: Square, random: np.random.Generator) -> Computed:
    """Errors by the number of pairs of a test, and by that of training, where the other one is infinite."""
    test = draw_worlds(root, classes, setting.large, random)
    best = classes * np.linalg.inv(root @ root)
    pool = repeat_worlds(draw_worlds(root, classes, setting.large, random))

    def error(w: Square, pairs: float) -> float:
        return float(total_variation(answer(w, draw_sums(test, pairs, random), test.query), test.bayes).mean())

    trained = [pool_of(pool, draw_sums(pool, n, random, mirrored=True)).optimum() for n in setting.train_pairs]
    return {
        "test": np.array([error(best, pairs) for pairs in setting.test_pairs]),
        "train": np.array([error(w, np.inf) for w in trained]),
    }


def _accuracy(probabilities: Float[np.ndarray, "prompt classes"], test: Worlds) -> float:
    """Expected accuracy of the most probable class; of equally probable ones the first."""
    return float(np.take_along_axis(test.bayes, probabilities.argmax(-1)[:, None], axis=1).mean())


def _guess(test: Worlds) -> float:
    return float(total_variation(test.bayes, np.full_like(test.bayes, 1 / test.bayes.shape[1])).mean())


def summarise(setting: Descents, curves: Computed) -> Scalars:
    """Scalars that the claims are about, one number for each seed; names begin with `c classes: `."""
    found: Scalars = {}
    for classes in setting.classes:
        own = {name.partition("/")[2]: values for name, values in curves.items() if name.startswith(f"{classes}/")}
        fits = np.array([fit_line(curves["steps"], one) for one in own["distance"]])
        errors = {name: own[f"error/{name}"][:, -1] / own[f"guess/{name}"] for name in SHIFTS}
        accuracy = {name: own[f"accuracy/{name}"] for name in SHIFTS}
        values = {
            "straightness": fits[:, 1],
            "slope / expected": fits[:, 0] / own["expected"],
            "slope of error by test pairs": log_slope(setting.test_pairs, own["test"]),
            "slope of error by training pairs": log_slope(setting.train_pairs, own["train"]),
            "learned": (accuracy["train"][:, -1] - 1 / classes) / (own["bayes/train"] - 1 / classes),
        }
        values |= {f"error / guess, {name}": value for name, value in errors.items()}
        values |= {f"fall of accuracy, {name}": one.max(1) - one[:, -1] for name, one in accuracy.items()}
        found |= {f"{classes} classes: {name}": np.asarray(value, np.float64) for name, value in values.items()}
    return found


def fit_line(steps: Int[np.ndarray, " record"], distance: Float[np.ndarray, " record"]) -> tuple[float, float]:
    """Slope of log distance against steps by least squares, over the records from the first on that are above
    `ROUNDING` of the first; and R^2 of that line. (0, 0) where the distance never changes or begins at 0."""
    kept = distance > ROUNDING * distance[0]
    count = len(kept) if kept.all() else int((~kept).argmax())
    x, y = steps[:count].astype(float), np.log(np.maximum(distance[:count], np.finfo(float).tiny))
    if count < 3 or np.ptp(y) == 0:
        return 0.0, 0.0
    line = np.polyfit(x, y, 1)
    return float(line[0]), float(1 - np.square(y - np.polyval(line, x)).sum() / np.square(y - y.mean()).sum())


def log_slope(pairs: tuple[int, ...], errors: Float[np.ndarray, "seed length"]) -> Float[np.ndarray, " seed"]:
    """Slope of the logarithm of every seed's error against the logarithm of the number of pairs, by least squares."""
    x = np.log(pairs) - np.log(pairs).mean()
    return np.log(errors) @ x / (x @ x)


STRAIGHT, NEAR_RATE, SLOPE, HALFWAY, POINT, SHIFTED = 0.999, 0.05, 0.15, 0.5, 0.01, 0.05
_THEOREM = "theorems on convergence: gradient descent converges at a linear rate"
_BOUND = "theorems on inference: the error is bounded by terms 1/N and 1/sqrt(M)"
_CONDITION = "the conditions on the test: training's covariance, means of one norm"
_OWN = "own, the control"


def _scalar(classes: int, name: str) -> Callable[[Evidence], np.ndarray]:
    return lambda evidence: evidence[f"{classes} classes: {name}"]


def _claims(classes: int) -> tuple[Claim, ...]:
    """The claims about the descents of one number of classes."""
    end, say = f"-{classes}", f"{classes} classes: "
    straight, slope, learned = (_scalar(classes, name) for name in ("straightness", "slope / expected", "learned"))
    tests, training = (_scalar(classes, f"slope of error by {which} pairs") for which in ("test", "training"))
    error = {name: _scalar(classes, f"error / guess, {name}") for name in SHIFTS}
    fall = {name: _scalar(classes, f"fall of accuracy, {name}") for name in SHIFTS}

    def slope_claim(name: str, words: str, metric: str, ideal: float, value: Callable[[Evidence], np.ndarray]) -> Claim:
        return Claim(
            name + end,
            say + words,
            f"{_BOUND}; size: own",
            f"{SLOPE:g} - |slope of log error against log {metric} - ({ideal:g})|",
            0.0,
            lambda evidence: SLOPE - np.abs(value(evidence) - ideal),
        )

    def shift_claim(name: str, words: str) -> Claim:
        return Claim(
            name + end,
            f"{say}{words} the error is larger",
            f"{_CONDITION}; size: own, what a figure shows",
            "error / a guess's error with the shift - without",
            SHIFTED,
            lambda evidence: error[name](evidence) - error["train"](evidence),
        )

    return (
        Claim(
            "linear-rate" + end,
            f"{say}the logarithm of the distance from the optimum is a straight line from the first step on",
            f"{_THEOREM}; size: own",
            "R^2 of log distance against steps",
            STRAIGHT,
            straight,
        ),
        Claim(
            "rate" + end,
            f"{say}its slope over the whole descent is the least curvature's at the optimum",
            f"{_THEOREM}; size: own",
            f"{NEAR_RATE:g} - |slope / log(1 - rate x least eigenvalue of the Hessian) - 1|",
            0.0,
            lambda evidence: NEAR_RATE - np.abs(slope(evidence) - 1),
        ),
        slope_claim("test-pairs", "the error falls as 1/sqrt(pairs) of the test", "pairs of the test", -0.5, tests),
        slope_claim("floor", "its floor falls as 1/pairs of training", "pairs of training", -1.0, training),
        shift_claim("norms", "with means of different norms"),
        shift_claim("covariance", "with another covariance"),
        Claim(
            "control" + end,
            f"{say}on prompts as in training accuracy is learned and nothing of it is lost again",
            f"{_OWN}: the loss is convex, and every step comes nearer to one optimum",
            f"the smaller of {POINT:g} - (highest - last accuracy), (last - chance) / (Bayes' - chance) - {HALFWAY:g}",
            0.0,
            lambda evidence: np.minimum(POINT - fall["train"](evidence), learned(evidence) - HALFWAY),
        ),
        Claim(
            "fall-elsewhere" + end,
            f"{say}with another covariance accuracy rises and then falls, while the loss is convex",
            f"{_OWN}: the optimum for one covariance is not the best matrix for others; size: one point",
            "highest - last accuracy under the other covariance",
            POINT,
            fall["covariance"],
        ),
    )


CLAIMS = (*_claims(2), *_claims(5))
