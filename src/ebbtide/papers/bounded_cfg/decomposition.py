"""Experiment `decomposition` of `bounded-cfg`: are stacks kept with segments of their own, and without, by targets that
are aligned with the symbols?"""

import numpy as np
from jaxtyping import Float

from ebbtide.papers.bounded_cfg.figures import draw_depths
from ebbtide.papers.bounded_cfg.measures import cell_accuracies, members_of, place_accuracies, stack_accuracies
from ebbtide.papers.bounded_cfg.settings import ARMS, CAUSAL, LSTM, PAIRS, SCALED, WHOLE, arm_of
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset

LEARNED = 0.98
"""Accuracy from which on a stack counts as kept."""
FEW, MANY = 0.03, 0.05
"""Largest loss of accuracy of a model that keeps its stack, smallest of one that does not."""

Values = Float[np.ndarray, " member"]


def forced_margin(evidence: Evidence, *models: str) -> Values:
    """Smallest accuracy of these models with forced decomposition - .98."""
    return np.min([cell_accuracies(evidence, arm_of(model, "forced")) for model in models], axis=0) - LEARNED


def lost(evidence: Evidence, model: str) -> Values:
    """Accuracy with forced decomposition - with latent."""
    return cell_accuracies(evidence, arm_of(model, "forced")) - cell_accuracies(evidence, arm_of(model, "latent"))


def kept_margin(evidence: Evidence, model: str) -> Values:
    """Smaller of: .03 - what a model loses with latent decomposition, its accuracy with forced - .98."""
    return np.minimum(FEW - lost(evidence, model), forced_margin(evidence, model))


def lost_margin(evidence: Evidence, model: str) -> Values:
    """Smaller of: what a model loses with latent decomposition - .05, its accuracy with forced - .98."""
    return np.minimum(lost(evidence, model) - MANY, forced_margin(evidence, model))


def depth_margin(evidence: Evidence, model: str) -> Values:
    """Smaller of: smallest rise of what is lost from one place of the stack to the next, from the bottom, and
    `lost_margin`."""
    forced, latent = (place_accuracies(evidence, arm_of(model, one)) for one in ("forced", "latent"))
    return np.minimum(np.diff(forced - latent, axis=1).min(1), lost_margin(evidence, model))


CLAIMS = (
    Claim(
        "forced",
        "with forced decomposition the LSTM and the transformer keep the stack alike: both answer 98 % of its cells "
        "right, and so are at most 2 points apart",
        "Shi et al. 2022, abstract: close upper bounds; .98: set beforehand",
        f"smallest accuracy of {LSTM} and {CAUSAL} on cells that are not empty, forced - {LEARNED:g}",
        0.0,
        lambda evidence: forced_margin(evidence, LSTM, CAUSAL),
        tuple(arm_of(model, "forced") for model in (LSTM, CAUSAL)),
    ),
    Claim(
        "transformer",
        "with latent decomposition the transformer loses at most 3 points",
        "the same: hardly changes; .03: set beforehand",
        f"smaller of: {FEW:g} - (accuracy forced - latent), accuracy forced - {LEARNED:g} ({CAUSAL})",
        0.0,
        lambda evidence: kept_margin(evidence, CAUSAL),
        PAIRS[CAUSAL],
    ),
    Claim(
        "whole",
        "and so does the transformer that sees the whole word",
        "the same: the paper's transformer without a mask",
        f"smaller of: {FEW:g} - (accuracy forced - latent), accuracy forced - {LEARNED:g} ({WHOLE})",
        0.0,
        lambda evidence: kept_margin(evidence, WHOLE),
        PAIRS[WHOLE],
    ),
    Claim(
        "LSTM",
        "with latent decomposition the LSTM loses at least 5 points",
        "the same: fails to capture the stack; .05: set beforehand",
        f"smaller of: accuracy forced - latent - {MANY:g}, accuracy forced - {LEARNED:g} ({LSTM})",
        0.0,
        lambda evidence: lost_margin(evidence, LSTM),
        PAIRS[LSTM],
    ),
    Claim(
        "depth",
        "and the deeper into the stack, the more it loses",
        "own, after the paper's accuracy by depth",
        f"smallest of: rises of (accuracy forced - latent) from one place of the stack to the next, accuracy forced - "
        f"latent - {MANY:g}, accuracy forced - {LEARNED:g} ({LSTM})",
        0.0,
        lambda evidence: depth_margin(evidence, LSTM),
        PAIRS[LSTM],
    ),
)


def draw(evidence: Evidence, title: str) -> Figures:
    """depths.png: accuracy by place of the stack and by its depth."""
    done = [arm for arm in ARMS if arm in evidence.finished_arms()]
    if not done:
        return {}
    some = next(one for one in members_of(evidence, done[0]) if one is not None)
    cells = {arm: place_accuracies(evidence, arm) for arm in done}
    stacks = {arm: stack_accuracies(evidence, arm) for arm in done}
    return {"depths.png": draw_depths(title, cells, stacks, (some.causal.places, some.causal.stacks), "latent")}


DECOMPOSITION = Experiment(
    name="decomposition",
    question="Does an LSTM fail to keep a stack without segments of its own, where a transformer does not?",
    section="abstract: forced and latent decomposition",
    claims=CLAIMS,
    presets={"quick": Preset(Comparison(arms=ARMS, base={}, round=1), 15, SCALED)},
    shows=("held_out",),
    scalars=("held_out_final", "train_loss_final"),
    figures=draw,
)
