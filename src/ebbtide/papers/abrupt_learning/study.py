"""Study `abrupt-learning`: which data make a network learn in context, and why it does so all at once."""

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.abrupt_learning.settings import PAPER_SCALE, PAPER_SIZE, QUICK, QUICK_SCALE
from ebbtide.papers.abrupt_learning.transition import TRANSITION
from ebbtide.papers.transience.claims import HALF, TENTH
from ebbtide.papers.transience.models import ACCELERATOR
from ebbtide.studies.claim import Claim, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point

PAPER = "Reddy 2023, The mechanistic basis of data dependence and abrupt learning in an ICL task, arXiv 2312.03002"

Values = Float[np.ndarray, " member"]
MANY, SINGLE = "1,024 classes", "1,024 classes, burst 1"
FEW, NOISY = "384 classes", "384 classes, noise .7"
EVEN, SKEWED = "2,048 classes, 90 % bursty", "2,048 classes, 90 % bursty, Zipf 1"
ICL = "icl_holdout_final"


def lower_iwl(evidence: Evidence) -> Values:
    """Smaller of: ICL at the end with bursts - half the way to 1, and how much lower IWL is than with single copies -
    .1."""
    iwl = {arm: evidence.scalar(arm, "iwl_final") for arm in (MANY, SINGLE)}
    return np.minimum(evidence.scalar(MANY, ICL) - HALF, iwl[SINGLE] - iwl[MANY] - TENTH)


def halted_ciwl(evidence: Evidence) -> Values:
    """Rise of CIWL until ICL has covered half the way from chance to 1, minus its rise from there to the end (a fall
    counts as no rise); nan where ICL does not end above half the way. CIWL is what the weights know of the labels in
    context: until ICL comes, the model takes one of these."""
    ciwl = evidence.curve(MANY, "ciwl")
    ciwl = ciwl._replace(values=smooth(ciwl.values))
    middle = ciwl.at(evidence.curve(MANY, "icl_holdout").first_crossing(HALF))
    before, after = middle - ciwl.values[:, 0], ciwl.values[:, -1] - middle
    return np.where(evidence.scalar(MANY, ICL) > HALF, before - np.maximum(after, 0), np.nan)


def both_strategies(evidence: Evidence, arm: str) -> Values:
    """Smaller of: ICL at the end - half the way from chance to 1, IWL of common classes at the end - one half."""
    return np.minimum(evidence.scalar(arm, ICL) - HALF, evidence.scalar(arm, "iwl_common_final") - 0.5)


ARMS: dict[str, Point] = {
    MANY: {"source.classes": 1024},
    SINGLE: {"source.classes": 1024, "task.burst": 1},
    FEW: {"source.classes": 384},
    NOISY: {"source.classes": 384, "source.noise": 0.7},
    EVEN: {"source.classes": 2048, "task.p_bursty": 0.9},
    SKEWED: {"source.classes": 2048, "task.p_bursty": 0.9, "task.zipf": 1.0},
}
"""Arms. With bursts in every sequence IWL is never asked for: those on skew have none in one sequence of ten."""
_BOTH = f"smaller of: {ICL} - {HALF:g}, iwl_common_final - 0.5"
DEPENDENCE = Experiment(
    name="data",
    question="Which data give in-context learning, and does it stop learning in the weights?",
    section="abstract: burstiness, many classes, noise and skew decide between ICL and IWL, which compete",
    claims=(
        larger("classes", "more classes: more ICL", "more K favours ICL", ICL, MANY, FEW, TENTH),
        larger("weights", "fewer classes: IWL instead", "less K favours IWL", "iwl_final", FEW, MANY, 0.5),
        larger("bursts", "bursts: more ICL", "more B favours ICL", ICL, MANY, SINGLE, TENTH),
        larger("noise", "noise: more ICL", "more eps favours ICL", ICL, NOISY, FEW, TENTH),
        Claim(
            "skew",
            "Zipf exponent 1: ICL, and IWL of common classes, in one model",
            "alpha near 1: both; half the way to 1 each",
            f"{_BOTH} ({SKEWED})",
            0.0,
            lambda evidence: both_strategies(evidence, SKEWED),
            (SKEWED,),
        ),
        Claim(
            "more of both",
            "and more of both than without skew",
            "alpha near 1: both",
            f"{_BOTH}: {SKEWED} - {EVEN}",
            0.0,
            lambda evidence: both_strategies(evidence, SKEWED) - both_strategies(evidence, EVEN),
            (SKEWED, EVEN),
        ),
        Claim(
            "competes",
            "the same classes: where ICL comes, less IWL",
            "abstract: ICL competes with IWL; a tenth of all answers",
            f"smaller of: {ICL} ({MANY}) - {HALF:g}, iwl_final: {SINGLE} - {MANY} - {TENTH:g}",
            0.0,
            lower_iwl,
            (MANY, SINGLE),
        ),
        Claim(
            "stops",
            "CIWL rises until ICL comes, and less after it",
            "ICL stops IWL",
            f"ciwl: rise until icl_holdout is {HALF:g} - rise from there to the end, or 0 ({MANY})",
            0.0,
            halted_ciwl,
            (MANY,),
        ),
    ),
    presets={
        "quick": Preset(Comparison(round=1, arms=ARMS, base={}), 6, QUICK_SCALE),
        "paper": Preset(
            Comparison(round=1, arms=ARMS, base=PAPER_SIZE, resources=ACCELERATOR, task_members=9), None, PAPER_SCALE
        ),
    },
    shows=("icl_holdout", "iwl", "iwl_common", "ciwl"),
    scalars=(ICL, "iwl_final", "iwl_common_final", "ciwl_final", "train_loss_final"),
)

ABRUPT_LEARNING = Study(
    name="abrupt-learning",
    paper=PAPER,
    question="Which data make a network learn in context, and why all at once?",
    bases={"quick": Base(QUICK, "fresh noisy exemplars of Gaussian classes, 8 pairs, 16 shared labels")},
    experiments=(DEPENDENCE, TRANSITION),
)
