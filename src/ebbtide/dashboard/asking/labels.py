"""Answers that are labels: the most probable ones of every member, and what kind of label the first is."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.dashboard.asking.inputs import short

TOP = 5
"""Labels that are listed for each answer, the most probable first."""
DIGITS = 6
"""Decimal places of a probability."""


def softmax(logits: Float[np.ndarray, "*rows labels"]) -> Float[np.ndarray, "*rows labels"]:
    """Probabilities of the labels, in float64; nan where a logit is."""
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def top_labels(p: Float[np.ndarray, " labels"]) -> list[list[float]]:
    """The most probable labels, each with its probability. Of equally probable ones the smaller number comes first, as
    in `argmax`."""
    order = np.argsort(-p, kind="stable")[:TOP]
    return [[int(label), round(float(p[label]), DIGITS)] for label in order]


def label_answer(
    logits: Float[np.ndarray, " labels"],
    target: int,
    context: set[int] | None = None,
    own: int = -1,
    group: int = 1,
) -> dict[str, Any]:
    """One member's answer: `top` labels, whether the first is `right`, the probability of the `target`. With the labels
    of the `context` also the probability of these together and of the query's `own` label (-1: it has none), and the
    `kind` of the first label: "context", "own", "both" or "other"; and `right_in_context`, whether the most probable
    label of the context is the target. `group` labels of a class count as right."""
    if not np.isfinite(logits).all():
        return {"diverged": True}
    p = softmax(logits)
    first = int(p.argmax())
    answer = {"top": top_labels(p), "right": first // group == target // group, "target": share(p[target])}
    if context is None:
        return answer
    shown = np.asarray(sorted(context))
    answer |= {"context": share(p[shown].sum()), "own": share(p[own]) if own >= 0 else None}
    answer["kind"] = {(1, 1): "both", (1, 0): "context", (0, 1): "own", (0, 0): "other"}[
        (int(first in context), int(first == own))
    ]
    return answer | {"right_in_context": int(shown[p[shown].argmax()]) == target}


def share(value: Any) -> float:
    """A probability as it is sent."""
    return round(float(value), DIGITS)


def finite_values(values: Any, known: Any) -> list[float | None]:
    """A value of every member as it is sent; None for those that are not `known`."""
    return [short(value) if ok else None for value, ok in zip(values.tolist(), known.tolist(), strict=True)]
