"""Study `affine-recurrence`: how does a transformer continue a sequence of which each term is affine in the last?"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ebbtide.papers.affine_recurrence.figures import draw_stages
from ebbtide.papers.affine_recurrence.measures import Stages, final_stages, stage_series
from ebbtide.papers.affine_recurrence.pools import POOLS
from ebbtide.papers.affine_recurrence.settings import PAPER, QUICK, SCALED, WIDER
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study

ARM = "three layers"
LEARNED = 0.1
"""Error, in units of the best naive predictor's, below which a model counts as having learned the recurrence."""
ALIKE = 0.9
"""Correlation with a mixture of s_n and s_(n-1) from which on an estimate is a copy."""
FACTOR = 2.0
"""Largest factor between the errors of two predictors that are about as good."""
SIMILAR = 0.3
"""Rank correlation of attention score and similarity from which on a head attends to similar terms."""
APART = 0.1
"""The same at a fixed distance, where recency gives 0."""

Values = Float[np.ndarray, " member"]


def of_members(evidence: Evidence, measure: Callable[[Stages], float], learned: bool = True) -> Values:
    """`measure` of every member's last checkpoint; nan for a member that has not finished and, with `learned`, for one
    that has not learned the recurrence: what its parts do says nothing."""
    members = final_stages(evidence, ARM)
    known = [one is not None and (not learned or one.answer < LEARNED) for one in members]
    return np.asarray(
        [measure(one) if one is not None and ok else np.nan for one, ok in zip(members, known, strict=True)]
    )


def copy_margin(error: float, likeness: float) -> float:
    """By how much an estimate is a copy, above 0 if it is: the smallest of its likeness to a mixture of s_n and s_(n-1)
    less .9, and of the room, in powers of two, that its error has within a factor of two of the best naive
    predictor's."""
    return float(min(likeness - ALIKE, 1 - abs(np.log2(max(error, 1e-12)) / np.log2(FACTOR))))


def negative_margins(one: Stages) -> Float[np.ndarray, " head"]:
    """By how much each head of the last layer is a negative similarity head, above 0 if it is: it attends to earlier
    terms that are like the last one, and what it adds to the answer falls with the term it attends to."""
    return np.minimum(one.similarity - SIMILAR, -one.slope)


def strongest_negative(one: Stages) -> int | None:
    """The negative similarity head whose ablation does most harm; None where there is no such head."""
    heads = np.flatnonzero(negative_margins(one) > 0)
    return int(heads[one.harm[heads].argmax()]) if heads.size else None


def harm_ratio(one: Stages) -> float:
    """Harm of ablating the strongest negative similarity head, in units of the mean harm of the layer's other heads;
    nan where there is no such head, or no harm."""
    head = strongest_negative(one)
    if head is None or len(one.harm) < 2 or one.harm[head] <= 0:
        return float("nan")
    return float(one.harm[head] / max(np.delete(one.harm, head).mean(), 1e-9))


def apart_margin(one: Stages) -> float:
    """`same_distance` of the strongest negative similarity head; nan where there is none."""
    head = strongest_negative(one)
    return float("nan") if head is None else float(one.same_distance[head])


def sequences_after_copying(evidence: Evidence) -> Values:
    """Sequences from the checkpoint at which the answer is first as good as the best naive predictor, within a factor
    of two, to the one from which on a negative similarity head is always there; nan for a member that has not learned,
    or has no such head at the end."""
    answer = stage_series(evidence, ARM, "answer")
    rho, slope = (stage_series(evidence, ARM, name).values for name in ("similarity", "slope"))
    there = np.minimum(rho - SIMILAR, -slope).max(-1) > 0
    copied = answer.first_crossing(FACTOR, falling=True, interpolate=False)
    since = np.asarray([_sequences_of_last_run(row, answer.sequences) for row in there])
    return np.where(answer.values[:, -1] < LEARNED, since - copied, np.nan)


def _sequences_of_last_run(there: np.ndarray, sequences: np.ndarray) -> float:
    """The sequences from which on all values are true; nan where the last is not."""
    if not there[-1]:
        return float("nan")
    missing = np.flatnonzero(~there)
    return float(sequences[missing[-1] + 1] if missing.size else sequences[0])


CLAIMS = (
    Claim(
        "learned",
        "the recurrence is learned in context",
        "the paper trains such models; a tenth of the best naive predictor's error: set beforehand",
        f"{LEARNED:g} - error of s_6 to s_15 / best naive predictor's ({ARM})",
        0.0,
        lambda evidence: LEARNED - of_members(evidence, lambda one: one.answer, learned=False),
        (ARM,),
    ),
    Claim(
        "explained",
        "nearly all of the terms' variance is explained",
        "the same; .99: set beforehand",
        f"R^2 of s_6 to s_15 ({ARM})",
        0.99,
        lambda evidence: of_members(evidence, lambda one: one.r2, learned=False),
        (ARM,),
    ),
    Claim(
        "lens",
        "the first layer copies: the residual stream after it is read out as a mixture of s_n and s_(n-1), about as "
        "good as the best naive predictor",
        "abstract: layer 0 forms an initial estimate by copying; .9 and a factor of two: set beforehand",
        f"smaller of: correlation - {ALIKE:g}, 1 - |log2 of error / naive error|, of the logit lens after layer 0, of "
        f"members that have learned ({ARM})",
        0.0,
        lambda evidence: of_members(evidence, lambda one: copy_margin(one.lens[0], one.lens_copies[0])),
        (ARM,),
    ),
    Claim(
        "no more",
        "and no more than a copy can be read there, even by a read-out of the layer's own",
        "own: the logit lens needs streams that the model's read-out can read before the last layer; a factor of two: "
        "as for lens",
        f"error of a linear probe after layer 0 / best naive predictor's, of members that have learned ({ARM})",
        1 / FACTOR,
        lambda evidence: of_members(evidence, lambda one: one.probe[0]),
        (ARM,),
    ),
    Claim(
        "refined",
        "the last layer refines the estimate, read by read-outs of the layers' own",
        "abstract: refined in the last layer; a factor of 5: set beforehand. Not by the logit lens, so far off before "
        "the last layer that any model would meet the claim",
        f"error of a linear probe before / after the last layer, of members that have learned ({ARM})",
        5.0,
        lambda evidence: of_members(evidence, lambda one: one.probe[-2] / one.probe[-1]),
        (ARM,),
    ),
    Claim(
        "heads",
        "the last layer has a negative similarity head: it attends to terms that are like the last one, and what it "
        "adds to the answer falls with them",
        "abstract: negative similarity heads in layer 2; .3: set beforehand",
        f"best over heads of the smaller of: rank correlation of score and similarity - {SIMILAR:g}, -slope of what "
        f"the head adds, of members that have learned ({ARM})",
        0.0,
        lambda evidence: of_members(evidence, lambda one: float(negative_margins(one).max())),
        (ARM,),
    ),
    Claim(
        "similar",
        "such a head attends to similar terms and not only to recent ones, which are the more similar",
        "own: at a fixed distance recency gives 0",
        f"rank correlation of score and similarity over prompts at a fixed distance, of the head ({ARM})",
        APART,
        lambda evidence: of_members(evidence, apart_margin),
        (ARM,),
    ),
    Claim(
        "needed",
        "ablating it hurts at least three times as much as another head of the layer",
        "abstract: these heads refine the estimate; a factor of 3: set beforehand",
        f"harm of the mean ablation of the head / mean over the layer's other heads ({ARM})",
        3.0,
        lambda evidence: of_members(evidence, harm_ratio),
        (ARM,),
    ),
    Claim(
        "order",
        "copying comes before such heads in training",
        "own, after the two parts of the mechanism",
        f"sequences from which on there is such a head - at which the error is first below {FACTOR:g} times the best "
        f"naive predictor's, of members that have learned ({ARM})",
        0.0,
        sequences_after_copying,
        (ARM,),
    ),
)

IN_CONTEXT = Experiment(
    name="in-context",
    question="Does the first layer copy and the last subtract what is similar?",
    section="abstract: the two parts of the mechanism",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms={ARM: {"source.pool": 0}}, base={}, round=1, task_members=5), 5, SCALED),
        "cpu": Preset(
            Comparison(arms={ARM: {"source.pool": 0}}, base=WIDER, round=1),
            None,
            "width 64, batch 128 and ten times the sequences; the rest as in quick",
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=lambda evidence, title: draw_stages(evidence, title, ARM),
)

AFFINE_RECURRENCE = Study(
    name="affine-recurrence",
    paper=PAPER,
    question="How does a transformer continue a sequence of which each term is affine in the last?",
    bases={"quick": Base(QUICK, "16 terms, 3 layers of width 32")},
    experiments=(IN_CONTEXT, POOLS),
)
