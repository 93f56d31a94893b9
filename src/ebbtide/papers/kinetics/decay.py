"""Experiment `decay` of `kinetics`: the same L2 on the attention, on the MLP, and on both (the paper's transience)."""

from functools import partial

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.kinetics.figures import draw_courses
from ebbtide.papers.kinetics.measures import CHANCE, LEARNED, courses
from ebbtide.papers.kinetics.settings import ALL, ATTENTION, MLP, NONE, PLACES, SCALED
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset

TENTH = 0.1
"""A tenth of all answers: the size that a difference must have where the paper gives only its direction."""


def peak_and_final(evidence: Evidence, arm: str, name: str = "icl") -> tuple[np.ndarray, np.ndarray]:
    """The greatest and the last value of an accuracy of every member, smoothed over three checkpoints."""
    values = smooth(courses(evidence, arm)[name].values)
    return values.max(1), values[:, -1]


def stay_margin(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Smaller of: peak of ICL - .75, a tenth - fall from there to the end."""
    peak, final = peak_and_final(evidence, arm)
    return np.minimum(peak - LEARNED, TENTH - (peak - final))


def end_margin(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Smaller of: peak of ICL - .75, half the way from the peak to chance - ICL at the end."""
    peak, final = peak_and_final(evidence, arm)
    return np.minimum(peak - LEARNED, (peak + CHANCE) / 2 - final)


def between_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: ICL at the end of L2 on all - on the attention, on the MLP - on all."""
    attention, mlp, both = (peak_and_final(evidence, arm)[1] for arm in (ATTENTION, MLP, ALL))
    return np.minimum(both - attention, mlp - both)


def gain_in_weights(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """IWL at the end: L2 on the attention - none."""
    attention, none = (peak_and_final(evidence, arm, "iwl")[1] for arm in (ATTENTION, NONE))
    return attention - none


_STAYS = "smaller of: peak of ICL - .75, .1 - fall from there to the end"
_PAPER = "2412.00104, on transience: regularisation of the attention ends ICL"
CLAIMS = (
    Claim(
        "ends",
        "L2 on the attention alone: ICL is learned, then falls more than half-way to chance",
        f"{_PAPER}; its public code decays the attention and the norm alone",
        f"smaller of: peak of ICL - .75, half-way from there to chance - ICL at the end ({ATTENTION})",
        0.0,
        partial(end_margin, arm=ATTENTION),
        (ATTENTION,),
    ),
    Claim(
        "weights",
        "and the weights know more of the answers than without L2",
        "the same: once the weights know the answer",
        f"IWL at the end: {ATTENTION} - {NONE}",
        TENTH,
        gain_in_weights,
        (ATTENTION, NONE),
    ),
    Claim(
        "stays",
        "without L2 ICL is learned, and stays",
        "2412.00104: without regularisation ICL is not transient",
        f"{_STAYS} ({NONE})",
        0.0,
        partial(stay_margin, arm=NONE),
        (NONE,),
    ),
    Claim(
        "mlp",
        "L2 on the MLP alone: ICL is learned, and stays",
        "2311.08360, Fig. 16; 2412.00104 by its theory: the MLP holds IWL",
        f"{_STAYS} ({MLP})",
        0.0,
        partial(stay_margin, arm=MLP),
        (MLP,),
    ),
    Claim(
        "between",
        "L2 on all weights: ICL ends between the two",
        "own: the theory has both effects at once, and does not say which is larger",
        f"smaller of: ICL at the end of {ALL} - {ATTENTION}, {MLP} - {ALL}",
        0.0,
        between_margin,
        (ALL, ATTENTION, MLP),
    ),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """decay.png: ICL on new items and IWL over training, a line for each place of L2."""
    return {"decay.png": draw_courses(evidence, tuple(PLACES), title)}


DECAY = Experiment(
    name="decay",
    question="Which weights must L2 be put on to end in-context learning?",
    section="2412.00104, on transience, and its public code; 2311.08360, Fig. 16",
    claims=CLAIMS,
    presets={"quick": Preset(Comparison(arms=PLACES, base={}, round=1), 8, SCALED)},
    shows=("icl", "iwl", "flip"),
    scalars=("icl_peak", "icl_final", "iwl_final", "train_loss_final"),
    figures=_draw,
)
