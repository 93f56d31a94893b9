"""Measures of study `affine-recurrence`: stages of the answer by layer, and the heads of the last layer."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.analysis.predictions import PromptSet, map_members
from ebbtide.evaluation.recurrences import naive_predictions
from ebbtide.evaluation.statistics import rank_correlation
from ebbtide.papers.affine_recurrence import passes
from ebbtide.papers.affine_recurrence.passes import Pass
from ebbtide.runs.folder import Snapshot
from ebbtide.studies.evidence import Evidence, Series, stack_members

FIRST = 5
"""The first slot of which errors are counted: it predicts s_6, from six terms."""

Values = Float[np.ndarray, "slots prompt"]


class Stages(NamedTuple):
    """Numbers of one checkpoint, over the slots from `FIRST` on. Errors are mean squared errors in units of the best
    naive predictor's on the same prompts.

    - `answer`: error of the model's answer; `r2`: the share of the terms' variance that it explains;
    - `lens`, `probe`: error of the logit lens and of a linear probe after each layer;
    - `lens_copies`, `probe_copies`: correlation of either with the multiple of s_n and s_(n-1) that is nearest to it;
    - `similarity`: for every head of the last layer, the mean over prompts and slots of Spearman's correlation, over
      earlier terms s_i, of the attention score and -|s_i - s_n|;
    - `same_distance`: the same correlation over prompts, at a fixed slot n and a fixed i, mean over both: similarity
      that is not recency;
    - `slope`: slope of the head's direct addition to the answer on the mean term it attends to;
    - `harm`: what the mean squared error gains without the head, in units of the best naive predictor's.
    """

    answer: float
    r2: float
    lens: Float[np.ndarray, " layer"]
    probe: Float[np.ndarray, " layer"]
    lens_copies: Float[np.ndarray, " layer"]
    probe_copies: Float[np.ndarray, " layer"]
    similarity: Float[np.ndarray, " head"]
    same_distance: Float[np.ndarray, " head"]
    slope: Float[np.ndarray, " head"]
    harm: Float[np.ndarray, " head"]


def stages_of(one: Pass, prompts: PromptSet) -> Stages:
    """The numbers of a pass."""
    x, y = prompts.inputs[..., 0], prompts.responses[FIRST:, :, 0]
    naive = min(_error(own[FIRST:, :, 0], y) for own in naive_predictions(prompts.inputs).values())
    lens, probed = one.lens[:, FIRST:], one.probed[:, FIRST:]
    answer = _error(lens[-1], y)
    attended = np.einsum("bhqs,sb->qbh", one.pattern, x)[FIRST:]
    similarity, same_distance = _similarity(one.scores, x)
    return Stages(
        answer / naive,
        float(1 - answer / y.var()),
        np.asarray([_error(own, y) for own in lens]) / naive,
        np.asarray([_error(own, y) for own in probed]) / naive,
        np.asarray([_likeness_to_copies(own, x) for own in lens]),
        np.asarray([_likeness_to_copies(own, x) for own in probed]),
        similarity,
        same_distance,
        _slopes(attended, one.direct[FIRST:]),
        np.asarray([_error(own[FIRST:], y) - answer for own in one.ablated]) / naive,
    )


def _error(predicted: Values, truth: Values) -> float:
    return float(((predicted - truth) ** 2).mean())


def _likeness_to_copies(predicted: Float[np.ndarray, "late prompt"], x: Values) -> float:
    """Correlation with the nearest multiple of s_n and s_(n-1), plus a constant; 0 for a constant prediction."""
    copies = np.stack([x[FIRST:].ravel(), x[FIRST - 1 : -1].ravel(), np.ones(predicted.size)], axis=1)
    wanted = predicted.ravel()
    if wanted.std() < 1e-9:
        return 0.0
    nearest = copies @ np.linalg.lstsq(copies, wanted, rcond=None)[0]
    return float(np.sqrt(max(0.0, 1 - ((wanted - nearest) ** 2).mean() / wanted.var())))


def _similarity(
    scores: Float[np.ndarray, "prompt head query key"], x: Values
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, " head"]]:
    """`similarity` and `same_distance` of every head; a correlation with what is constant counts as 0."""
    within, across = [], []
    for n in range(FIRST, len(x)):
        near = -np.abs(x[:n] - x[n]).T[:, None]
        both = scores[:, :, n, :n], np.broadcast_to(near, (*scores.shape[:2], n))
        within.append(np.nan_to_num(rank_correlation(*both, axis=2)).mean(0))
        across.append(np.nan_to_num(rank_correlation(*both, axis=0)).mean(1))
    return np.mean(within, axis=0), np.mean(across, axis=0)


def _slopes(
    attended: Float[np.ndarray, "slots prompt head"], direct: Float[np.ndarray, "slots prompt head"]
) -> Float[np.ndarray, " head"]:
    a, b = (one - one.mean((0, 1)) for one in (attended, direct))
    size = (a**2).sum((0, 1))
    return (a * b).sum((0, 1)) / np.where(size > 0, size, 1)


class Course(NamedTuple):
    """`Stages` of one member over training."""

    sequences: Int[np.ndarray, " checkpoint"]
    stages: list[Stages]


@lru_cache(maxsize=256)
def measure_member(run: Snapshot, place: int, last: bool = False) -> Course:
    """Stages of one member of a run at every kept checkpoint, or at the last alone."""
    every = [(at, stages_of(one, prompts)) for at, one, prompts in passes.passes(run, place, last)]
    return Course(np.asarray([at for at, _ in every]), [stages for _, stages in every])


def final_stages(evidence: Evidence, arm: str) -> list[Stages | None]:
    """Stages of every member's last checkpoint; None for a member that has not finished."""
    return map_members(evidence, arm, lambda run, place: measure_member(run, place, True).stages[-1])


def stage_series(evidence: Evidence, arm: str, field: str) -> Series:
    """A field of `Stages` over training [member, checkpoint, *axes]; nan for a member that has not finished."""
    courses = map_members(evidence, arm, measure_member)
    one = next((course for course in courses if course is not None), None)
    times = np.zeros(1, int) if one is None else one.sequences
    rows = [course and np.stack([np.asarray(getattr(each, field)) for each in course.stages]) for course in courses]
    absent = (1,) if field in ("answer", "r2") else (1, 1)  # of no member there is neither a time nor an axis to copy
    shape = next((row.shape for row in rows if row is not None), absent)
    return Series(stack_members(rows, shape), times)
