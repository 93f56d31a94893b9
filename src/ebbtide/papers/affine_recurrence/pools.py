"""Experiment `pools` of `affine-recurrence`: does learning in context fade where training has few recurrences?"""

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set, member_series, member_values, predict_arm
from ebbtide.evaluation.recurrences import naive_predictions
from ebbtide.papers.affine_recurrence.measures import FIRST
from ebbtide.papers.affine_recurrence.settings import SCALED
from ebbtide.report.functions_figure import distances_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence, Series
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

FRESH, MANY, SOME, FEW = "every prompt its own", "128 recurrences", "64 recurrences", "32 recurrences"
SECOND = 1
"""The slot that predicts s_2, from one pair of terms: enough to tell the recurrences of a pool, too few for others."""
RETURN = 0.5
"""Rise of the error, in powers of ten, that counts as fading: three times the error."""
KNOWN = 0.5
"""Share of the error of a model without a pool, below which a model counts as knowing its pool."""

Values = Float[np.ndarray, " member"]


@cache_per_prompt_set
def naive_error(predictions: Predictions) -> float:
    """Mean squared error of the best naive predictor from slot `FIRST` on."""
    y = predictions.responses
    return min(float(((one - y)[FIRST:] ** 2).mean()) for one in naive_predictions(predictions.inputs).values())


def late_errors(evidence: Evidence, arm: str, evaluator: str, *, last: bool = False) -> Series:
    """Mean squared error over s_6, s_7, ... [member, checkpoint], in units of the best naive predictor's; with `last`
    of the last checkpoint alone."""

    def measure(one: Predictions) -> Float[np.ndarray, " checkpoint"]:
        return ((one.outputs - one.responses)[:, FIRST:] ** 2).mean((1, 2, 3)) / naive_error(one)

    return member_series(predict_arm(evidence, arm, evaluator, last=last), measure)


def second_error(evidence: Evidence, arm: str) -> Values:
    """Mean squared error of s_2 at the end, on prompts as in training, in units of its variance."""

    def measure(one: Predictions) -> float:
        wanted = one.responses[SECOND]
        return float(((one.outputs[-1, SECOND] - wanted) ** 2).mean() / wanted.var())

    return member_values(predict_arm(evidence, arm, "train", last=True), measure)


def lowest_error(evidence: Evidence, arm: str) -> Values:
    """Smallest error over training on recurrences outside the pool."""
    return late_errors(evidence, arm, "prior").values.min(1)


def rise(evidence: Evidence, arm: str) -> Values:
    """Powers of ten by which the error on recurrences outside the pool is larger at the end than at its smallest."""
    values = late_errors(evidence, arm, "prior").values
    return np.log10(values[:, -1] / values.min(1))


def known_share(evidence: Evidence, arm: str) -> Values:
    """Final error of s_2 on the pool's own recurrences, in units of that of the model without a pool on its own."""
    return second_error(evidence, arm) / second_error(evidence, FRESH)


def excess_outside(evidence: Evidence, arm: str) -> Values:
    """Powers of ten by which the last error on recurrences outside the pool is above that on its own."""
    outside, inside = (late_errors(evidence, arm, name, last=True).values[:, -1] for name in ("prior", "train"))
    return np.log10(outside / inside)


def _known_claim(arm: str) -> Claim:
    return Claim(
        f"known: {arm}",
        f"of {arm} something is in the weights: the third term, which two terms do not determine, is predicted with "
        "less than half the error of a model without a pool",
        "own: what is in the weights",
        f"{KNOWN:g} - error of s_2 at the end: {arm} / {FRESH}",
        0.0,
        lambda evidence: KNOWN - known_share(evidence, arm),
        (arm, FRESH),
    )


def _comes_claim(arm: str) -> Claim:
    return Claim(
        f"comes: {arm}",
        f"{arm} are enough for learning in context: recurrences that training never shows are predicted better than by "
        "any naive predictor",
        "own: learning in context",
        f"1 - smallest error over training on fresh recurrences / best naive predictor's ({arm})",
        0.0,
        lambda evidence: 1 - lowest_error(evidence, arm),
        (arm,),
    )


def _fades_claim(arm: str) -> Claim:
    return Claim(
        f"fades: {arm}",
        f"with {arm} it fades: at the end the error on fresh recurrences is three times its smallest",
        "own: transience; three times, half a power of ten: set beforehand",
        f"powers of ten from the smallest error on fresh recurrences to the last, of members in which learning in "
        f"context comes ({arm})",
        RETURN,
        lambda evidence: np.where(lowest_error(evidence, arm) < 1, rise(evidence, arm), np.nan),
        (arm,),
    )


CLAIMS = (
    Claim(
        "stays",
        "where every prompt has its own recurrence, learning in context comes and stays",
        "own: the control; as in-context, and less than three times the smallest error",
        f"smaller of: -log10 of (10 x error at the end), {RETURN:g} - powers of ten from its smallest to its last "
        f"({FRESH})",
        0.0,
        lambda evidence: np.minimum(
            -np.log10(10 * late_errors(evidence, FRESH, "prior").values[:, -1]), RETURN - rise(evidence, FRESH)
        ),
        (FRESH,),
    ),
    _comes_claim(MANY),
    _fades_claim(MANY),
    _comes_claim(SOME),
    _fades_claim(SOME),
    Claim(
        "by heart",
        "32 recurrences are known by heart: at the end the model has ten times the error on others that it has on its "
        "own",
        "own: what is in the weights",
        f"powers of ten, last error on fresh recurrences / on its own ({FEW})",
        1.0,
        lambda evidence: excess_outside(evidence, FEW),
        (FEW,),
    ),
    _known_claim(FEW),
    _known_claim(SOME),
)

ARMS: dict[str, Point] = {
    FRESH: {"source.pool": 0},
    MANY: {"source.pool": 128},
    SOME: {"source.pool": 64},
    FEW: {"source.pool": 32},
}


def draw_pools(evidence: Evidence, title: str) -> Figures:
    """pools.png and pools.svg: errors of the last term over training, on recurrences outside the pool and on its
    own, as the run recorded them."""
    panels = {"recurrences never trained": "prior/query_loss", "as in training": "train/query_loss"}
    arms = [arm for arm in ARMS if arm in evidence.finished_arms()]
    if not arms:
        return {}
    curves = {
        words: {arm: (one.sequences, one.values) for arm in arms if (one := evidence.curve(arm, name))}
        for words, name in panels.items()
    }
    drawn = distances_figure(f"{title}: finite pools of recurrences", "mean squared error of s_15", curves)
    return {f"pools.{kind}": image for kind, image in drawn.items()}


POOLS = Experiment(
    name="pools",
    question="Does learning in context fade where training has a finite pool of recurrences?",
    section="own: the in-weights side of the task",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=ARMS, base={"schedule.checkpoints": 16}, round=1), 15, SCALED),
        "cpu": Preset(
            Comparison(arms=ARMS, base={"sequences": 1_024_000, "schedule.checkpoints": 16}, round=1),
            None,
            f"four times as long; {SCALED}",
        ),
    },
    shows=("train", "prior"),
    scalars=("train_final", "prior_peak", "prior_final", "train_loss_final"),
    figures=draw_pools,
)
