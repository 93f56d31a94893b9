"""Experiment `shift` of `bounded-cfg`: targets one symbol later, as in the public code, which only a model that sees
later symbols can know."""

import numpy as np

from ebbtide.papers.bounded_cfg.decomposition import LEARNED, MANY, Values, draw
from ebbtide.papers.bounded_cfg.measures import best_accuracies, cell_accuracies
from ebbtide.papers.bounded_cfg.settings import ARMS, CAUSAL, LSTM, PAIRS, SCALED, WHOLE, arm_of
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset

NEAR = 0.02
"""Distance from the best causal answers within which a model counts as at them."""
LATENT = {model: arm_of(model, "latent") for model in (LSTM, CAUSAL, WHOLE)}


def gap(evidence: Evidence, model: str) -> Values:
    """Accuracy of the transformer that sees the whole word - accuracy of a model, latent decomposition."""
    return cell_accuracies(evidence, LATENT[WHOLE]) - cell_accuracies(evidence, LATENT[model])


def ceiling_margin(evidence: Evidence, model: str) -> Values:
    """.02 - (accuracy of the best causal answers - the smaller accuracy of a model, forced and latent)."""
    least = np.min([cell_accuracies(evidence, arm) for arm in PAIRS[model]], axis=0)
    return NEAR - (best_accuracies(evidence, LATENT[model]) - least)


CLAIMS = (
    Claim(
        "gap",
        "with the targets of the public code the transformer that sees the whole word keeps the stack, and the LSTM "
        "does not: the paper's finding in its own setting",
        "Shi et al. 2022, abstract; 98 and 5 points: as in decomposition",
        f"smaller of: accuracy of {WHOLE} - of {LSTM} - {MANY:g}, accuracy of {WHOLE} - {LEARNED:g}; latent",
        0.0,
        lambda evidence: np.minimum(gap(evidence, LSTM) - MANY, cell_accuracies(evidence, LATENT[WHOLE]) - LEARNED),
        (LATENT[WHOLE], LATENT[LSTM]),
    ),
    Claim(
        "causal",
        "a transformer that does not see later symbols is as far behind",
        "own: what it shares with the LSTM is that it cannot see what is asked",
        f"smaller of: accuracy of {WHOLE} - of {CAUSAL} - {MANY:g}, accuracy of {WHOLE} - {LEARNED:g}; latent",
        0.0,
        lambda evidence: np.minimum(gap(evidence, CAUSAL) - MANY, cell_accuracies(evidence, LATENT[WHOLE]) - LEARNED),
        (LATENT[WHOLE], LATENT[CAUSAL]),
    ),
    Claim(
        "LSTM",
        "the LSTM is, with either decomposition, within 2 points of the best that any causal model can answer",
        "own: exact probabilities of the next symbol; 2 points: set beforehand",
        f"{NEAR:g} - (accuracy of the best causal answers - smaller accuracy, forced and latent) ({LSTM})",
        0.0,
        lambda evidence: ceiling_margin(evidence, LSTM),
        PAIRS[LSTM],
    ),
    Claim(
        "transformer",
        "and so is the causal transformer",
        "the same",
        f"{NEAR:g} - (accuracy of the best causal answers - smaller accuracy, forced and latent) ({CAUSAL})",
        0.0,
        lambda evidence: ceiling_margin(evidence, CAUSAL),
        PAIRS[CAUSAL],
    ),
)
SHIFT = Experiment(
    name="shift",
    question="Is what the LSTM fails at the stack, or symbols that it has not seen?",
    section="public code: targets of the state and the stack",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison(arms=ARMS, base={"task.shifted": True, "source.language": "blocks"}, round=1), None, SCALED
        )
    },
    shows=("held_out",),
    scalars=("held_out_final", "train_loss_final"),
    figures=draw,
)
