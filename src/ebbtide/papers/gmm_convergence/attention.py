"""Experiment `attention` of `gmm-convergence`: stochastic training of the one matrix and of transformers, compared with
the exact optimum and with classical predictors on the same prompts."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from ebbtide.analysis.predictions import PROMPTS, Predictions, cache_per_prompt_set, member_values, predict_arm
from ebbtide.evaluation.baselines_convex import logistic
from ebbtide.evaluation.mixtures import bayes_posterior, linear_discriminant, total_variation
from ebbtide.mechanisms.one_matrix import Square, answer, draw_sums, draw_worlds, pool_of, repeat_worlds
from ebbtide.report.functions_figure import Line, context_figure
from ebbtide.sources.mixtures import Mixtures
from ebbtide.studies.claim import Claim
from ebbtide.studies.evidence import Evidence
from ebbtide.sweeps.axes import Point

ONE, LINEAR, SOFTMAX, THREE = "one matrix", "linear attention", "softmax attention", "three layers"
ONE_OF_FIVE, THREE_OF_FIVE = "one matrix, 5 classes", "three layers, 5 classes"
FEW_PAIRS, MANY_PAIRS = 10, 160
"""Lengths of the tests that are compared: a quarter and four times the pairs of training at the preset `quick`."""
POOL = 4000
"""Number of prompts, each with its mirror image, of the pool on which the best matrix is computed."""
PENALTY = 0.1
"""Penalty of logistic regression: small, and large enough that separable labels have a solution."""
MATRIX, KNOWN, ESTIMATED = "best matrix", "discriminant, known covariance", "discriminant, all estimated"
LOGISTIC = "logistic regression"

Members = Float[np.ndarray, " member"]
Probabilities = Float[np.ndarray, "prompt classes"]


@lru_cache(maxsize=256)
def best_matrix(source: Mixtures, pairs: int) -> Square:
    """The matrix with the smallest population loss on prompts of so many pairs, for the source's covariance."""
    random = np.random.default_rng(source.seed)
    root = np.asarray(source.build().root, np.float64)
    worlds = repeat_worlds(draw_worlds(root, source.classes, POOL, random))
    return pool_of(worlds, draw_sums(worlds, pairs, random, mirrored=True)).optimum()


def class_sums(x: Float[np.ndarray, "slots prompt dim"], labels: np.ndarray, classes: int) -> np.ndarray:
    """The sum of the inputs of every class divided by the number of pairs, [prompt, class, dim]: what the one matrix
    reads of the context."""
    own = labels[:-1, :, None] == np.arange(classes)
    return np.einsum("spk,spd->pkd", own, x[:-1]) / (len(x) - 1)


@cache_per_prompt_set
def exact_probabilities(predictions: Predictions) -> Probabilities:
    """The Bayes classifier's probabilities at the query, given the means and the covariance of every prompt."""
    latent = {name: predictions.latent[name].astype(np.float64) for name in ("means", "covariance")}
    return bayes_posterior(predictions.inputs[-1], latent["means"], latent["covariance"])


@cache_per_prompt_set
def _by_best_matrix(predictions: Predictions) -> Probabilities:
    x, source = predictions.inputs, _source(predictions)
    w = best_matrix(source, predictions.spec.task.context)
    return answer(w, class_sums(x, predictions.responses, source.classes), x[-1])


@cache_per_prompt_set
def _by_known_covariance(predictions: Predictions) -> Probabilities:
    covariance = predictions.latent["covariance"].astype(np.float64)
    return linear_discriminant(predictions.inputs, predictions.responses, _source(predictions).classes, covariance)


@cache_per_prompt_set
def _by_estimates(predictions: Predictions) -> Probabilities:
    return linear_discriminant(predictions.inputs, predictions.responses, _source(predictions).classes)


@cache_per_prompt_set
def _by_logistic(predictions: Predictions) -> Probabilities:
    x = predictions.inputs
    second = logistic(x, 2.0 * predictions.responses - 1, PENALTY, [len(x) - 1])[0]
    return np.stack([1 - second, second], axis=-1)


def _source(predictions: Predictions) -> Mixtures:
    source = predictions.spec.source
    assert isinstance(source, Mixtures)
    return source


YARDSTICKS: dict[str, Callable[[Predictions], Probabilities]] = {
    MATRIX: _by_best_matrix,
    KNOWN: _by_known_covariance,
    ESTIMATED: _by_estimates,
    LOGISTIC: _by_logistic,
}
"""Probabilities of the classes by predictors that read the same prompts, by name: the best matrix for training's
covariance and length, linear discriminants, and logistic regression of two classes."""


def _distance(predictions: Predictions, probabilities: Probabilities) -> float:
    """Mean total variation distance from Bayes, in units of that of equal probabilities for all classes."""
    exact = exact_probabilities(predictions)
    guess = total_variation(exact, np.full_like(exact, 1 / exact.shape[1])).mean()
    return float(total_variation(probabilities, exact).mean() / guess)


def _predict(evidence: Evidence, arm: str, evaluator: str, pairs: int | None, prompts: int) -> list[Predictions | None]:
    changes = {} if pairs is None else {"context": pairs}
    return predict_arm(evidence, arm, evaluator, prompts=prompts, last=True, **changes)


def errors(
    evidence: Evidence, arm: str, evaluator: str = "train", pairs: int | None = None, prompts: int = PROMPTS
) -> Members:
    """Distances of an arm's members from Bayes at the end of training, in units of a guess's; with as many pairs as in
    training, or with `pairs`."""
    members = _predict(evidence, arm, evaluator, pairs, prompts)
    return member_values(members, lambda one: _distance(one, softmax(one.outputs[-1, -1], axis=-1)))


def yardstick_errors(
    evidence: Evidence,
    arm: str,
    name: str,
    evaluator: str = "train",
    pairs: int | None = None,
    prompts: int = PROMPTS,
) -> Members:
    """Distances from Bayes of one of `YARDSTICKS` on the prompts of an arm's members."""
    members = _predict(evidence, arm, evaluator, pairs, prompts)
    return member_values(members, lambda one: _distance(one, YARDSTICKS[name](one)))


RATIO = 1.1
LEARNED = 2 / 3
"""Share of a guess's error below which a model has learned in the claims on falls."""
FALL = 0.01
"""Fall of the share of the labels' entropy that is explained: one point."""
_BAYES = "error: total variation distance from Bayes / that of a guess"


def _near_claim(name: str, statement: str, source: str, arm: str) -> Claim:
    return Claim(
        name,
        statement,
        source,
        f"{RATIO:g} - error of {arm} / error of the best matrix on the same prompts ({_BAYES})",
        0.0,
        lambda evidence: RATIO - errors(evidence, arm) / yardstick_errors(evidence, arm, MATRIX),
        (arm,),
    )


def _length_claim(name: str, arm: str, source: str) -> Claim:
    return Claim(
        name,
        f"{arm}: with {MANY_PAIRS} pairs it is nearer to Bayes than with {FEW_PAIRS}",
        f"{source}; size: own, the bound without its floor gives 4",
        f"error with {FEW_PAIRS} pairs / error with {MANY_PAIRS} pairs",
        1.5,
        lambda evidence: errors(evidence, arm, pairs=FEW_PAIRS) / errors(evidence, arm, pairs=MANY_PAIRS),
        (arm,),
    )


def _shift_claim(name: str, words: str, arm: str, evaluator: str) -> Claim:
    return Claim(
        name,
        f"{arm}: {words}, it is further from Bayes",
        "the theorems' conditions on the test's means and covariance; the direction",
        f"error with the shift - error without ({_BAYES})",
        0.0,
        lambda evidence: errors(evidence, arm, evaluator) - errors(evidence, arm),
        (arm,),
    )


def _control_claim(name: str, arm: str, source: str) -> Claim:
    """Met only by an arm that has learned and has kept what it learned."""

    def estimate(evidence: Evidence) -> Members:
        fall = evidence.scalar(arm, "train_peak") - evidence.scalar(arm, "train_final")
        return np.minimum(FALL - fall, LEARNED - errors(evidence, arm))

    return Claim(
        name,
        f"{arm}: on prompts as in training what is learned is not lost again",
        source,
        f"the smaller of {FALL:g} - (peak - final explained share) and 2/3 - error ({_BAYES})",
        0.0,
        estimate,
        (arm,),
    )


_THEOREM = "theorems on convergence: a convex loss with one optimum"
_BOUND = "theorems on inference: the error's bound falls with the pairs of the test"
_SECTION = "experiments with softmax attention and three layers"
CLAIMS = (
    _near_claim("optimum", "the one matrix, trained by Adam on fresh prompts, comes to the optimum", _THEOREM, ONE),
    _near_claim("optimum-5", "and with five classes", _THEOREM, ONE_OF_FIVE),
    _near_claim("linear", "linear attention with all its matrices trained is as near to Bayes", _SECTION, LINEAR),
    _near_claim("softmax", "softmax attention is as near to Bayes", _SECTION, SOFTMAX),
    _near_claim("three", "three layers with softmax attention and MLPs are as near to Bayes", _SECTION, THREE),
    _near_claim("three-5", "and with five classes", _SECTION, THREE_OF_FIVE),
    _length_claim("pairs", ONE, _BOUND),
    _length_claim("pairs-5", ONE_OF_FIVE, _BOUND),
    _length_claim("pairs-three", THREE, _SECTION),
    _shift_claim("norms", "with means of different norms", ONE, "norms"),
    _shift_claim("covariance", "with another covariance", ONE, "covariance"),
    _shift_claim("norms-5", "with means of different norms", ONE_OF_FIVE, "norms"),
    _shift_claim("covariance-5", "with another covariance", ONE_OF_FIVE, "covariance"),
    Claim(
        "robust",
        "with means of different norms three layers are nearer to Bayes than the one matrix",
        "experiments: one and three layers differ in robustness under shifts; that three are the better is from memory",
        f"error of {ONE} - error of {THREE}, means of different norms ({_BAYES})",
        0.0,
        lambda evidence: errors(evidence, ONE, "norms") - errors(evidence, THREE, "norms"),
        (ONE, THREE),
    ),
    Claim(
        "beats-estimation",
        "three layers are nearer to Bayes than a linear discriminant that estimates means and covariance",
        "own: the covariance is the same in all prompts, so it can be learned in the weights",
        f"error of the discriminant - error of {THREE} ({_BAYES})",
        0.0,
        lambda evidence: yardstick_errors(evidence, THREE, ESTIMATED) - errors(evidence, THREE),
        (THREE,),
    ),
    _control_claim("control", ONE, f"own, the control: {_THEOREM}, so nothing may be lost"),
    _control_claim("control-5", ONE_OF_FIVE, "own, the control, five classes"),
    _control_claim("control-three", THREE, "own: a loss that is not convex, with the same tasks"),
)

LENGTHS = (FEW_PAIRS, 40, MANY_PAIRS)
FIGURE_PROMPTS = 400
"""Prompts of a member for a point of the figure: fewer than the claims ask, since it has 486 such points, a third of
them with the longest prompts."""
KINDS = {"train": "as in training", "norms": "means of different norms", "covariance": "another covariance"}


def draw_lengths(evidence: Evidence, title: str) -> dict[str, bytes]:
    """lengths.png: errors of all arms and predictors by the number of pairs, for two and five classes, on the prompts
    of training and of both shifts."""
    panels: dict[str, dict[str, Line]] = {}
    finished = evidence.finished_arms()
    groups = {"2 classes": (ONE, LINEAR, SOFTMAX, THREE), "5 classes": (ONE_OF_FIVE, THREE_OF_FIVE)}
    for group, arms in groups.items():
        shown = [arm for arm in arms if arm in finished]
        for kind, words in KINDS.items() if shown else ():
            lines = {arm.partition(",")[0]: _line(errors, evidence, arm, kind) for arm in shown}
            for name in YARDSTICKS if group == "2 classes" else (MATRIX, KNOWN, ESTIMATED):
                lines[name] = _line(yardstick_errors, evidence, shown[0], name, kind)
            panels[f"{group}, {words}"] = lines
    unit = "distance from Bayes / a guess's"
    return {"lengths.png": context_figure(title, unit, panels, tuple(YARDSTICKS))["png"]} if panels else {}


def _line(measure: Callable[..., Members], *asked: Any) -> Line:
    return np.array(LENGTHS), np.stack([measure(*asked, pairs, FIGURE_PROMPTS) for pairs in LENGTHS], axis=1)


MATRIX_RATE = 0.02
"""Learning rate of the one matrix, whose entries at the optimum are of the size of c / eigenvalue, far from 0."""
_ONE_LAYER: Point = {"model.layers": 1, "model.mlp_ratio": 0, "model.norm": "none"}
ARMS: dict[str, Point] = {
    ONE: {"model": {"type": "one_matrix"}, "optimizer.lr": MATRIX_RATE},
    LINEAR: _ONE_LAYER | {"model.attention": "linear"},
    SOFTMAX: _ONE_LAYER,
    THREE: {"model.layers": 3},
    ONE_OF_FIVE: {
        "model": {"type": "one_matrix", "classes": 5},
        "source.classes": 5,
        "optimizer.lr": MATRIX_RATE,
    },
    THREE_OF_FIVE: {"source.classes": 5},
}
