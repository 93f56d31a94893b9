"""Claims about how soon a loss is reached, which study `coopetition` makes too."""

import numpy as np
from jaxtyping import Float

from ebbtide.studies.claim import Claim
from ebbtide.studies.evidence import Evidence

HALF = float(np.log(2) / 2)
"""Half the loss of copying either label of the context at random, ln 2."""


def sequences_to_loss(evidence: Evidence, arm: str, loss: float) -> Float[np.ndarray, " member"]:
    """Sequences after which a member's training loss is first below `loss` (nats), interpolated between evaluations;
    the length of the run where the loss never is; nan for a member that has not finished."""
    curve = evidence.curve(arm, "train_loss")
    crossed = curve.first_crossing(loss, falling=True)
    ends = np.where(np.isnan(crossed), curve.sequences[-1], crossed)
    return np.where(np.isnan(curve.values[:, 1:]).any(1) | (curve.values.shape[1] < 2), np.nan, ends)


def saved_share(evidence: Evidence, arm: str, than: str) -> Float[np.ndarray, " member"]:
    """Share of the sequences that `than` takes to a training loss of ln(2)/2 by which `arm` is there sooner; 0 where
    neither is there by the end."""
    return 1 - sequences_to_loss(evidence, arm, HALF) / sequences_to_loss(evidence, than, HALF)


def sooner_claim(name: str, statement: str, source: str, arm: str, than: str, by: float = 0.0) -> Claim:
    """The claim that `arm` reaches a training loss of ln(2)/2 after fewer sequences than `than`, by more than the share
    `by` of the sequences that `than` takes."""
    metric = f"1 - sequences until loss ln(2)/2: {arm} / {than}"
    return Claim(name, statement, source, metric, by, lambda evidence: saved_share(evidence, arm, than), (arm, than))
