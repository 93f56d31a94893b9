"""Experiment `phases` of `chains`: from the uniform answer by way of unigrams to bigrams (Edelman et al. 2024)."""

import numpy as np
from jaxtyping import Float

from ebbtide.papers.chains.figures import draw_distances
from ebbtide.papers.chains.measures import (
    BIGRAM,
    INFERENCE,
    NEAR,
    UNIFORM,
    UNIGRAM,
    distance_between,
    distances,
    leads,
)
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

EVERY = "every prompt its own"
HALFWAY = 0.5


def order_margin(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Smallest of three leads, nats: of unigram inference where it is greatest, of the uniform answer at its greatest
    before that, of bigram inference at the end. Above 0: the model is nearest to each of the three in this order."""
    found = leads(distances(evidence, arm, INFERENCE))
    uniform, unigram, bigram = (found[name].values for name in INFERENCE)
    margins = []
    for first, second, last in zip(uniform, unigram, bigram, strict=True):
        if np.isnan(second).any():
            margins.append(np.nan)
            continue
        at = int(second.argmax())
        before = first[1:at].max() if at > 1 else -np.inf  # not as the model is drawn, which is uniform in any case
        margins.append(float(min(before, second[at], last[-1])))
    return np.asarray(margins)


def unigram_margin(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """1/2 - KL(unigram inference || model) at its smallest / KL(unigram inference || uniform)."""
    nearest = distances(evidence, arm, INFERENCE)[UNIGRAM].values.min(1)
    return HALFWAY - nearest / distance_between(evidence, arm, UNIGRAM, UNIFORM)


CLAIMS = (
    Claim(
        "order",
        "the model is nearest to the uniform answer first, then to unigrams, and to bigrams at the end",
        "Edelman et al. 2024, abstract: phases of training",
        "smallest of three leads, nats: of unigrams at its greatest, of uniform before that and after the first "
        f"checkpoint, of bigrams at the end; lead: distance to the nearest other - distance ({EVERY})",
        0.0,
        lambda evidence: order_margin(evidence, EVERY),
        (EVERY,),
    ),
    Claim(
        "unigrams",
        "between the two it comes more than half of the way from the uniform answer to unigrams",
        "the same: a phase of unigrams; half: own",
        f"1/2 - KL(unigram inference || model) at its smallest / KL(unigram inference || uniform) ({EVERY})",
        0.0,
        lambda evidence: unigram_margin(evidence, EVERY),
        (EVERY,),
    ),
    Claim(
        "bigrams",
        "it ends at bigram inference, the Bayes-optimal prediction, within .02 nats a symbol",
        "the same: the end of training; .02: own limit, as in bayesian-averaging",
        f"{NEAR:g} - KL(bigram inference || model) at the end ({EVERY})",
        0.0,
        lambda evidence: NEAR - distances(evidence, EVERY, INFERENCE)[BIGRAM].values[:, -1],
        (EVERY,),
    ),
)
ARMS: dict[str, Point] = {EVERY: {"source.pool": 0}}


def _draw(evidence: Evidence, title: str) -> Figures:
    """distances.png: KL from each of three algorithms to the model over training."""
    lines = {name: (one.sequences, one.values) for name, one in distances(evidence, EVERY, INFERENCE).items()}
    return {"distances.png": draw_distances(title, INFERENCE, {EVERY: lines})}


SCALED = "5 states, 32 symbols, 2 layers of width 32 with MLPs, learned positions; the paper's chains are longer"
PHASES = Experiment(
    name="phases",
    question="Does a model of Markov chains go from uniform answers to unigrams to bigrams?",
    section="Edelman et al. 2024: phases of training",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=ARMS, base={"sequences": 96_000, "schedule.first": 400}, round=1), 2, SCALED),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw,
)
