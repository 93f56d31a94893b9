"""Experiment `heads` of `induction-heads`: what the heads of trained models do, by themselves and together."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.statistics import rank_correlation
from ebbtide.papers.induction_heads.settings import (
    ALL,
    CPU,
    DATA,
    FASTER,
    ORIGINAL,
    PAPER_SCALE,
    SCALED,
    intervene,
)
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset

Values = Float[np.ndarray, "member *axes"]


def final_measure(evidence: Evidence, measure: str) -> Values:
    """A measure of every member's last checkpoint, on prompts as in training."""
    return evidence.probe(ALL, measure, "train").values[:, -1]


def _probe_claim(
    name: str, words: str, source: str, measure: str, what: str, threshold: float, reduce: Callable[[Values], Values]
) -> Claim:
    """A claim about a measure of the last checkpoint; `reduce` leaves one number for each member, `what` in words."""
    metric = f"{measure}: {what}"
    return Claim(
        name, words, source, metric, threshold, lambda evidence: reduce(final_measure(evidence, measure)), (ALL,)
    )


def _strength_ranks(evidence: Evidence) -> Float[np.ndarray, " member"]:
    strength, alone = (final_measure(evidence, name) for name in ("induction_strength", "only_head"))
    return rank_correlation(strength[:, 1], alone)


def _heads_that_add(losses: Float[np.ndarray, "member kept"]) -> Float[np.ndarray, " member"]:
    """Number of heads that lower the loss when they are added to the stronger ones; nan where all together do not halve
    the loss of the strongest alone."""
    falls = (np.diff(losses[:, 1:], axis=-1) < 0).sum(-1).astype(float)
    return np.where(losses[:, -1] < losses[:, 1] / 2, falls, np.nan)


CLAIMS = (
    _probe_claim(
        "strong",
        "one head is a strong induction head",
        "Fig. 3b (.82 to .91)",
        "induction_strength",
        "largest of layer 1",
        0.82,
        lambda x: x[:, 1].max(-1),
    ),
    _probe_claim(
        "several",
        "and it is not alone: the second is strong too",
        "Fig. 3b (.74, one seed); a tenth less",
        "induction_strength",
        "second largest of layer 1",
        0.64,
        lambda x: np.sort(x[:, 1], axis=-1)[:, -2],
    ),
    _probe_claim(
        "redundant",
        "any head of layer 1 can go, the strongest too",
        "Fig. 4a (.99 without the strongest, 1.0 without any other); three times its error",
        "without_head",
        "smallest without a head of layer 1",
        0.97,
        lambda x: x[:, 1].min(-1),
    ),
    _probe_claim(
        "alone",
        "the head that does best alone answers nearly all",
        "Fig. 4a (.98); a tenth less",
        "only_head",
        "largest",
        0.88,
        lambda x: x.max(-1),
    ),
    _probe_claim(
        "unequal",
        "the one that does worst answers far less",
        "Fig. 4a (.98 and .29: .69); half an answer set beforehand",
        "only_head",
        "largest - smallest",
        0.5,
        lambda x: x.max(-1) - x.min(-1),
    ),
    Claim(
        "ranked",
        "what heads do alone is ranked as their induction strengths",
        "Fig. 3b, 4a (rank correlation .95); .74 is what 1 in 40 random orders of 8 heads exceed",
        "Spearman's rank correlation over the heads of layer 1: only_head, induction_strength",
        0.74,
        _strength_ranks,
        (ALL,),
    ),
    _probe_claim(
        "additive",
        "heads add up: each that is added, strongest first, lowers the loss, and all together halve it",
        "Fig. 14; more than five of seven, and half, set beforehand",
        "strongest_heads",
        "number of heads after the first that lower the loss, if it ends below half of the first one's",
        5.0,
        _heads_that_add,
    ),
    _probe_claim(
        "indirect",
        "layer 0 acts through layer 1's attention alone",
        "section 4 (.9999, least of five seeds .995)",
        "composition",
        "heads of layer 0 gone, layer 1's attention kept",
        0.99,
        lambda x: x[:, 1],
    ),
    _probe_claim(
        "needed",
        "and there it is needed",
        "Table 1",
        "composition",
        "layer 1's attention kept - all felt",
        0.2,
        lambda x: x[:, 1] - x[:, 5],
    ),
    _probe_claim(
        "attention",
        "layer 0's previous-token heads act through layer 1's attention, not through its values",
        "Table 1 (.9985 with the attention kept, .699 with the values); a tenth less",
        "wiring",
        "previous-token heads gone, attention kept - values kept",
        0.2,
        lambda x: x[:, 0] - x[:, 1],
    ),
    _probe_claim(
        "values",
        "its other heads act through the values, not through the attention",
        "Table 1 (.993 with the values kept, .343 with the attention); a tenth less",
        "wiring",
        "other heads gone, values kept - attention kept",
        0.55,
        lambda x: x[:, 3] - x[:, 2],
    ),
)

WIRING = Experiment(
    name="heads",
    question="What do the heads of a trained model do?",
    section="Fig. 3b, 4a and 14, Table 1",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(round=2, arms={ALL: intervene()}, base={}), 2, FASTER),
        "cpu": Preset(
            Comparison(round=2, arms={ALL: intervene()}, base=CPU),
            None,
            f"the paper's learning rate and length; {SCALED}",
        ),
        "paper": Preset(Comparison(round=2, arms={ALL: intervene()}, base=ORIGINAL), 2, PAPER_SCALE, needs=DATA),
    },
    shows=("train", "icl_holdout"),
)
