"""Divergence of members: from some evaluation on, the evaluators of a member are not finite."""

import numpy as np
from jaxtyping import Bool, Float

Curves = dict[str, np.ndarray]
NO_EVALUATORS = ("sequences", "steps", "train_loss")


def names_of_evaluators(curves: Curves) -> list[str]:
    """Names of the evaluators among curves (see `Run.metrics`)."""
    return [name for name in curves if "/" not in name and name not in NO_EVALUATORS]


def finite_evaluations(curves: Curves) -> Bool[np.ndarray, "member evaluation"]:
    """Mask of the evaluations at which all evaluators of a member are finite and the training loss is not infinite. (A
    nan of the training loss does not count: it is nan at the first evaluation, and after a member has stopped.)"""
    read = [np.isfinite(curves[name]) for name in names_of_evaluators(curves)]
    return np.all([~np.isinf(curves["train_loss"]), *read], axis=0)


def diverged_at(curves: Curves) -> Float[np.ndarray, " member"]:
    """Sequences at the first evaluation from which on a member has no finite evaluation; nan for a member that has not
    diverged."""
    bad = ~finite_evaluations(curves)
    good_after = np.cumsum(~bad[:, ::-1], axis=1)[:, ::-1]
    lost = good_after == 0
    return np.where(lost.any(axis=1), curves["sequences"].astype(float)[np.argmax(lost, axis=1)], np.nan)


def diverged(curves: Curves) -> Bool[np.ndarray, " member"]:
    """Mask of the members that have diverged."""
    return np.isfinite(diverged_at(curves))
