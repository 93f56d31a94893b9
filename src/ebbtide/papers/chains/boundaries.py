"""Experiment `boundaries` of `chains`: a race decides with few chains, and capacity with many (Gibson et al. 2026)."""

import numpy as np
from jaxtyping import Float

from ebbtide.papers.chains.figures import draw_effects
from ebbtide.papers.chains.measures import BIGRAM
from ebbtide.papers.chains.pools import peak_lead, return_share
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

FEW, MANY = 16, 64
"""Numbers of chains: near the boundary between retrieval at once and a phase of inference, and far above it."""
SLOW, FAST, NARROW, WIDE = "rate .001", "rate .01", "width 16", "width 32"
CHANGES: dict[str, Point] = {
    SLOW: {"optimizer.lr": 1e-3},
    FAST: {"optimizer.lr": 1e-2},
    NARROW: {"model.width": 16},
    WIDE: {"model.width": 32},
}


def arm_of(chains: int, change: str) -> str:
    """The name of the arm with so many chains, and a rate or a width."""
    return f"{chains} chains, {change}"


ARMS: dict[str, Point] = {
    arm_of(chains, change): {"source.pool": chains, **fields}
    for chains in (FEW, MANY)
    for change, fields in CHANGES.items()
}
FEW_ARMS, MANY_ARMS = (tuple(arm_of(chains, change) for change in CHANGES) for chains in (FEW, MANY))


def lead_change(evidence: Evidence, low: str, high: str) -> Float[np.ndarray, " member"]:
    """Greatest lead of bigram inference with few chains: of arm `high` - of arm `low`, nats."""
    first, second = (peak_lead(evidence, arm_of(FEW, change), BIGRAM) for change in (high, low))
    return first - second


def way_change(evidence: Evidence, low: str, high: str) -> Float[np.ndarray, " member"]:
    """Share of the way from inference to retrieval that is gone by the end with many chains: `high` - `low`."""
    first, second = (return_share(evidence, arm_of(MANY, change)) for change in (high, low))
    return first - second


def race_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: effect of the rate on the lead with few chains, that effect - the effect of the width, nats."""
    rate = lead_change(evidence, SLOW, FAST)
    return np.minimum(rate, rate - lead_change(evidence, NARROW, WIDE))


def capacity_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: effect of the width on the way with many chains, that effect - the effect of the rate."""
    width = way_change(evidence, NARROW, WIDE)
    return np.minimum(width, width - way_change(evidence, SLOW, FAST))


_LEAD = f"greatest lead of bigram inference with {FEW} chains, nats"
_WAY = f"share of the way from inference to retrieval with {MANY} chains"
_FIRST, _SECOND = "Gibson et al. 2026, abstract: the first boundary is kinetic", "the same: the second is a bottleneck"
CLAIMS = (
    Claim(
        "rate",
        "with few chains a larger learning rate moves the model towards a phase of inference",
        f"{_FIRST}; the direction: own, after tuning",
        f"{_LEAD}: {FAST} - {SLOW}",
        0.0,
        lambda evidence: lead_change(evidence, SLOW, FAST),
        (arm_of(FEW, SLOW), arm_of(FEW, FAST)),
    ),
    Claim(
        "race",
        "and moves it more than twice the width does",
        f"{_FIRST}, and no matter of capacity",
        f"smaller of: {FAST} - {SLOW}, that - ({WIDE} - {NARROW}); {_LEAD}",
        0.0,
        race_margin,
        FEW_ARMS,
    ),
    Claim(
        "width",
        "with many chains a wider model goes farther back to retrieval",
        f"{_SECOND}, which a wider model has less of",
        f"{_WAY}: {WIDE} - {NARROW}",
        0.0,
        lambda evidence: way_change(evidence, NARROW, WIDE),
        (arm_of(MANY, NARROW), arm_of(MANY, WIDE)),
    ),
    Claim(
        "capacity",
        "and twice the width moves it more than ten times the rate does",
        f"{_SECOND}, and no matter of speed",
        f"smaller of: {WIDE} - {NARROW}, that - ({FAST} - {SLOW}); {_WAY}",
        0.0,
        capacity_margin,
        MANY_ARMS,
    ),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """boundaries.png: what rate and width do, member by member, with few chains and with many."""
    done = evidence.finished_arms()
    if not set(ARMS) <= set(done):
        return {}
    panels = {
        _LEAD: {change: peak_lead(evidence, arm_of(FEW, change), BIGRAM) for change in CHANGES},
        _WAY: {change: return_share(evidence, arm_of(MANY, change)) for change in CHANGES},
    }
    return {"boundaries.png": draw_effects(title, panels)}


SCALED = (
    "5 states, streams of 32 symbols, 2 layers of width 16 and 32; the paper: 10 states, width 64, boundaries at "
    "about 94 and 7,000 chains"
)
BOUNDARIES = Experiment(
    name="boundaries",
    question="Is it speed that decides between inference and retrieval with few chains, and capacity with many?",
    section="Gibson et al. 2026: two boundaries of the number of chains",
    claims=CLAIMS,
    presets={"quick": Preset(Comparison(arms=ARMS, base={"sequences": 384_000}, round=1), 30, SCALED)},
    shows=("train", "prior"),
    scalars=("train_final", "prior_peak", "prior_final", "train_loss_final"),
    figures=_draw,
)
