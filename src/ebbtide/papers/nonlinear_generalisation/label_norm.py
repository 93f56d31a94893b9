"""Experiment `label-norm` of study `nonlinear-generalisation`: in context or by heart, and whether either is transient.

The paper fixes the norm of a label's embedding. Here it is varied, together with the number of pairs of patterns that
training draws from: with small labels and few pairs a prompt's pair of patterns is more easily seen than its labels.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.nonlinear_generalisation.figures import draw_map
from ebbtide.papers.nonlinear_generalisation.settings import BATCH
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

NORMS = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
PAIRS = (6, 12, 24)
LARGE, SMALL = 1.0, 0.2
FEW, ALL_BUT_FEW = PAIRS[0], PAIRS[-1]
LEARNED = 0.01
"""Largest error of a model that has learned."""
TENTH = 0.1
SEEN = 0.05
"""Smallest change of an accuracy that counts: some four standard errors of a difference on 1,000 prompts."""


def name_of(norm: float, pairs: int) -> str:
    """The name of the arm of a norm and a number of pairs."""
    return f"norm {norm:g}, {pairs} pairs"


CELLS = {(norm, pairs): name_of(norm, pairs) for pairs in PAIRS for norm in NORMS}
BY_HEART, IN_CONTEXT, MANY_PAIRS = CELLS[SMALL, FEW], CELLS[LARGE, FEW], CELLS[SMALL, ALL_BUT_FEW]


def error_curves(evidence: Evidence, arm: str, evaluator: str) -> Float[np.ndarray, "member evaluation"]:
    """Share of wrong signs over training, smoothed over three evaluations."""
    return 1 - smooth(evidence.curve(arm, evaluator).values.astype(np.float64))


def _final_error(evidence: Evidence, arm: str, evaluator: str) -> Float[np.ndarray, " member"]:
    return 1 - evidence.curve(arm, evaluator).values[:, -1].astype(np.float64)


def _memorises(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: .01 - error on trained pairs, error on unseen pairs - .1; above 0 where the trained pairs are known
    and others are not."""
    return np.minimum(
        LEARNED - _final_error(evidence, BY_HEART, "train"), _final_error(evidence, BY_HEART, "unseen") - TENTH
    )


def _weights_first(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: peak of the error on reversed pairs - .5 - .05, that peak - the error at the end - .1."""
    errors = error_curves(evidence, BY_HEART, "reversed")
    peak = errors.max(axis=1)
    return np.minimum(peak - 0.5 - SEEN, peak - errors[:, -1] - TENTH)


def fall_of_icl(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Fall of the accuracy on unseen pairs from its peak to the end of training."""
    errors = error_curves(evidence, arm, "unseen")
    return errors[:, -1] - errors.min(axis=1)


CLAIMS = (
    Claim(
        "in context",
        "with labels of norm 1 six trained pairs are enough to learn in context",
        "in-domain generalisation, on the trained pairs of the paper; 1 %: as in its figures (from memory)",
        f"{LEARNED:g} - share of wrong signs on unseen pairs at the end ({IN_CONTEXT})",
        0.0,
        lambda evidence: LEARNED - _final_error(evidence, IN_CONTEXT, "unseen"),
        (IN_CONTEXT,),
    ),
    Claim(
        "by heart",
        "with labels a fifth as large the same model knows the six pairs, and errs on others",
        "own; .01 and ten times as much",
        f"smaller of: .01 - wrong signs on trained pairs at the end, wrong signs on unseen pairs - .1 ({BY_HEART})",
        0.0,
        _memorises,
        (BY_HEART,),
    ),
    Claim(
        "more pairs",
        "with 24 of the 30 pairs it learns in context at that norm too",
        "own: what cannot be known by heart has to be read; 1 %: as above",
        f"{LEARNED:g} - share of wrong signs on unseen pairs at the end ({MANY_PAIRS})",
        0.0,
        lambda evidence: LEARNED - _final_error(evidence, MANY_PAIRS, "unseen"),
        (MANY_PAIRS,),
    ),
    Claim(
        "weights first",
        "where six pairs are known by heart, the weights answer first, against the labels in context, and less later",
        "own: the order of transience, turned around; .05 and .1: own limits",
        f"smaller of: peak of wrong signs on reversed pairs - .55, peak - end - .1 ({BY_HEART})",
        0.0,
        _weights_first,
        (BY_HEART,),
    ),
    Claim(
        "transient",
        "learning in context is transient somewhere on the map: accuracy on unseen pairs falls after its peak",
        "the question of Singh et al. 2023 (2311.08360), in this model; .05: own limit",
        "largest fall of the accuracy on unseen pairs from its peak to the end, of all norms and numbers of pairs",
        SEEN,
        lambda evidence: np.max([fall_of_icl(evidence, arm) for arm in CELLS.values()], axis=0),
        tuple(CELLS.values()),
    ),
)


def _arms() -> dict[str, Point]:
    """A norm and a number of pairs for each arm. With 24 pairs no pair's reverse is unseen, so it is not asked."""
    arms: dict[str, Point] = {}
    for (norm, pairs), name in CELLS.items():
        arms[name] = {"task.label_norm": norm, "source.pairs": pairs}
        if pairs == ALL_BUT_FEW:
            arms[name]["evaluators"] = ["train", "unseen"]
    return arms


def _draw(evidence: Evidence, title: str) -> Figures:
    """map.png: errors on unseen pairs by norm and number of pairs, at three times, and by how much accuracy falls."""
    done = [arm for arm in CELLS.values() if arm in evidence.finished_arms()]
    if not done:
        return {}
    times = evidence.curve(done[0], "unseen").sequences
    chosen = [int(np.abs(times - share * times[-1]).argmin()) for share in (1 / 16, 1 / 4, 1)]
    blank = np.full((len(PAIRS), len(NORMS)), np.nan)
    panels: dict[str, Any] = {}
    for at in chosen:
        panels[f"wrong signs on unseen pairs\nafter {times[at]:,} sequences"] = blank.copy()
    panels["fall of that accuracy\nfrom its peak to the end"] = blank.copy()
    for (norm, pairs), arm in CELLS.items():
        if arm in done:
            errors = error_curves(evidence, arm, "unseen")
            values = [*(np.nanmedian(errors[:, at]) for at in chosen), np.nanmedian(fall_of_icl(evidence, arm))]
            for panel, value in zip(panels.values(), values, strict=True):
                panel[PAIRS.index(pairs), NORMS.index(norm)] = value
    return draw_map(title, NORMS, PAIRS, panels)


LABEL_NORM = Experiment(
    name="label-norm",
    question="When does the model learn in context, when by heart, and is either transient?",
    section="own; the paper fixes the norm of label embeddings and the number of trained pairs",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison(
                arms=_arms(),
                base={
                    "sequences": BATCH * 3200,
                    "evaluators": ["train", "unseen", "reversed"],
                    "evaluation_sequences": 1000,
                    "schedule.checkpoints": 2,
                    "schedule.evaluations": 17,
                },
                round=1,
            ),
            None,
            "the model and data of in-context, for twice as long",
        )
    },
    shows=("train", "unseen"),
    scalars=("train_final", "unseen_final", "unseen_peak"),
    figures=_draw,
)
