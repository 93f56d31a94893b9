"""What is asked of models whose contexts are converted."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ebbtide.analysis.predictions import map_members
from ebbtide.papers.context_to_weights import measures
from ebbtide.papers.context_to_weights.measures import FEATURES, Members, Recall, Weights
from ebbtide.studies.claim import Claim
from ebbtide.studies.evidence import Evidence

LINEARIZED, SOFTMAX, LINEAR = "linearized", "softmax", "linear"
LABELS = 32
"""Labels of the recall task, its vocabulary."""
SYMBOLS = 45
"""Symbols of the induction-head task, the trigger among them."""
PAIRS, DIM, NOISE = 16, 4, 0.5
"""Pairs of a prompt, dimensions and standard deviation of the noise of the regression."""
LEARNED = 0.9
"""Accuracy with the context from which on a model counts as one that has learned to recall."""
ANSWERED = 0.99
"""Accuracy with the context that is asked of the induction-head task, where the paper reports 99.95 %: own limit."""


def _of(evidence: Evidence, arm: str, measure: str, value: Callable[[Any], float]) -> Members:
    """A value of one of the functions in `measures`, of every member of an arm; nan for one that has not finished."""
    members = map_members(evidence, arm, getattr(measures, measure))
    return np.asarray([np.nan if one is None else value(one) for one in members])


def _recall(value: Callable[[Recall], float]) -> Callable[[Evidence], Members]:
    """A value of members that have learned to recall; -1 of the others, of which it says nothing."""
    return lambda evidence: _of(
        evidence, LINEARIZED, "measure_recall", lambda one: value(one) if one.told >= LEARNED else -1.0
    )


def slope(errors: tuple[float, ...]) -> float:
    """The slope of the log error against the log number of features."""
    return float(np.polyfit(np.log(FEATURES), np.log(errors), 1)[0])


def _features(value: Callable[[Recall, tuple[float, ...]], float]) -> Callable[[Evidence], Members]:
    return lambda evidence: _of(
        evidence, SOFTMAX, "measure_features", lambda one: value(*one) if one[0].told >= LEARNED else -1.0
    )


def _weights(value: Callable[[Weights], float]) -> Callable[[Evidence], Members]:
    return lambda evidence: _of(evidence, LINEAR, "measure_weights", value)


_CONDITION = f"-1 for a member below {LEARNED:g} with the context"
CONVERTED = Claim(
    "converted",
    "without its tokens, the converted context gives the same answers to all of 2,000 prompts, and right ones",
    "the induction-head task: 99.95 % with the context and converted, 2.23 % without; size: own",
    "accuracy converted - accuracy without the context; -1 unless every answer is as with the context",
    0.9,
    _recall(lambda one: one.converted - one.dropped if one.differing == 0 else -1.0),
    (LINEARIZED,),
)


def _context_only(count: int, what: str) -> Claim:
    """The claim that answers without the context are guesses among `count` labels."""
    return Claim(
        "context-only",
        "what is recalled is not in the weights: without the context a model guesses",
        "the induction-head task: 2.23 % without the context; the limit of two guesses is own",
        f"2 / {count} {what} - accuracy without the context; {_CONDITION}",
        0.0,
        _recall(lambda one: 2 / count - one.dropped),
        (LINEARIZED,),
    )


RECALL = (CONVERTED, _context_only(LABELS, "labels"))
INDUCTION = (
    Claim(
        "learned",
        "with its context a model says which symbol followed the trigger",
        f"the induction-head task: 99.95 % with the context; {ANSWERED:g}: own limit",
        "accuracy with the context",
        ANSWERED,
        lambda evidence: _of(evidence, LINEARIZED, "measure_recall", lambda one: one.told),
        (LINEARIZED,),
    ),
    CONVERTED,
    _context_only(SYMBOLS, "symbols"),
)
APPROXIMATE = (
    Claim(
        "better-than-nothing",
        f"with {FEATURES[-1]:,} random features the converted context is nearer than no context",
        "GPT-2 with converted contexts: a relative error of 9.17 % in place of 16.56 %",
        f"log(error without the context / error by {FEATURES[-1]:,} features); {_CONDITION}",
        0.0,
        _features(lambda one, errors: float(np.log(one.dropped_error / errors[-1]))),
        (SOFTMAX,),
    ),
    Claim(
        "rate",
        "the error falls as the number of random features to the power -1/2",
        "own: the standard error of a mean of independent features, where their variance is small",
        f"0.15 - |slope of log error against log features + 1/2|; {_CONDITION}",
        0.0,
        _features(lambda one, errors: 0.15 - abs(slope(errors) + 0.5)),
        (SOFTMAX,),
    ),
)
STEP = PAIRS / (PAIRS + DIM + 1 + DIM * NOISE**2)
"""The best rate for one step (1/N) X'y of inputs N(0, I), weights N(0, I/d) and this noise: N / (N + d + 1 + d s^2),
which is E(w'X'y) / E|X'y|^2 N."""
REGRESSION = (
    Claim(
        "gradient-step",
        "the function that the biases hold is a step of gradient descent, (1/N) X'y times a rate",
        "own: linear attention's optimum on regression is one step (von Oswald et al. 2023, arXiv 2212.07677)",
        "0.1 - |weights in the biases - rate (1/N) X'y| / |weights in the biases|, over 2,000 prompts",
        0.0,
        _weights(lambda one: 0.1 - one.error),
        (LINEAR,),
    ),
    Claim(
        "best-rate",
        "and its rate is the best one",
        "own: the rate with the least expected squared error",
        f"0.1 - |rate / {STEP:.3f} - 1|, the best rate being N / (N + d + 1 + d s^2)",
        0.0,
        _weights(lambda one: 0.1 - abs(one.rate / STEP - 1)),
        (LINEAR,),
    ),
)
