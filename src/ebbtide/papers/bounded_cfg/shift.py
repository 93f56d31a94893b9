"""Experiment `shift` of `bounded-cfg`: targets one symbol later, as in the public code, which only a model that sees
later symbols can know."""

import numpy as np

from ebbtide.papers.bounded_cfg.decomposition import LEARNED, MANY, Values, draw
from ebbtide.papers.bounded_cfg.measures import cell_accuracies, divergences
from ebbtide.papers.bounded_cfg.settings import ARMS, CAUSAL, LSTM, PAIRS, SCALED, WHOLE, arm_of
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset

NEAR = 0.1
"""KL(exact causal probabilities || model), nats a slot of five cells, below which a model counts as at them: .02 nats a
cell, as in `chains`."""
LATENT = {model: arm_of(model, "latent") for model in (LSTM, CAUSAL, WHOLE)}


def gap(evidence: Evidence, model: str) -> Values:
    """Accuracy of the transformer that sees the whole word - accuracy of a model, latent decomposition."""
    return cell_accuracies(evidence, LATENT[WHOLE]) - cell_accuracies(evidence, LATENT[model])


def causal_margin(evidence: Evidence, model: str) -> Values:
    """.1 - the larger KL(exact causal probabilities || model), forced and latent, nats a slot."""
    return NEAR - np.max([divergences(evidence, arm) for arm in PAIRS[model]], axis=0)


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
        "the LSTM answers, with either decomposition, as well as any causal model can: within .1 nats a slot of the "
        "exact probabilities given the symbols that it has seen",
        "own; .1: .02 nats a cell, as in chains",
        f"{NEAR:g} - larger KL(exact causal probabilities || model), forced and latent ({LSTM})",
        0.0,
        lambda evidence: causal_margin(evidence, LSTM),
        PAIRS[LSTM],
    ),
    Claim(
        "transformer",
        "and so does the causal transformer",
        "the same",
        f"{NEAR:g} - larger KL(exact causal probabilities || model), forced and latent ({CAUSAL})",
        0.0,
        lambda evidence: causal_margin(evidence, CAUSAL),
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
            Comparison(arms=ARMS, base={"task.shifted": True, "source.language": "blocks"}, round=1), 13, SCALED
        )
    },
    shows=("held_out",),
    scalars=("held_out_final", "train_loss_final"),
    figures=draw,
)
