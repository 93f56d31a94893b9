"""Experiment `pools` of `chains`: algorithms by the number of chains and by training (Park et al. 2025)."""

import numpy as np
from jaxtyping import Float

from ebbtide.papers.chains.figures import draw_distances
from ebbtide.papers.chains.measures import (
    ALGORITHMS,
    BIGRAM,
    BIGRAM_POOL,
    NEAR,
    UNIFORM,
    distance_between,
    distances,
    kl_to_truth,
    leads,
    nearest_time,
)
from ebbtide.report.phases_figure import draw_phases
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

POOLS = (4, 16, 32, 128)
EVERY = "every prompt its own"
TENTH = 0.1
"""A tenth of a way: what a figure shows."""


def arm_of(pool: int) -> str:
    """The name of the arm with so many chains."""
    return f"{pool} chains"


FEW, SOME = arm_of(POOLS[0]), arm_of(32)
ARMS: dict[str, Point] = {arm_of(pool): {"source.pool": pool} for pool in POOLS} | {EVERY: {"source.pool": 0}}


def peak_lead(evidence: Evidence, arm: str, name: str) -> Float[np.ndarray, " member"]:
    """Greatest lead of an algorithm over training, nats, the first checkpoint left out."""
    return leads(distances(evidence, arm))[name].values[:, 1:].max(1)


def final_lead(evidence: Evidence, arm: str, name: str) -> Float[np.ndarray, " member"]:
    """Lead of an algorithm at the end, nats."""
    return leads(distances(evidence, arm))[name].values[:, -1]


def direct_margin(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Smaller of: by how much bigram inference misses being nearest at its greatest lead, final lead of bigram
    retrieval, nats."""
    return np.minimum(-peak_lead(evidence, arm, BIGRAM), final_lead(evidence, arm, BIGRAM_POOL))


def return_share(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """(KL(bigram inference || model) at the end - at its smallest) / KL(bigram inference || bigram retrieval): nan for
    a member that was never nearest to bigram inference."""
    inference = distances(evidence, arm)[BIGRAM]
    rise = inference.values[:, -1] - inference.values.min(1)
    gap = distance_between(evidence, arm, BIGRAM, BIGRAM_POOL)
    had = (peak_lead(evidence, arm, BIGRAM) > 0) & (gap > 0)
    return np.divide(rise, gap, out=np.full_like(rise, np.nan), where=had)


def rise_outside(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """KL(true rows || model) on chains of no pool at the end less that at its smallest, nats."""
    course = kl_to_truth(evidence, arm).values
    return course[:, -1] - course.min(1)


def hidden_margin(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Smaller of: share by which the training loss falls from where bigram inference is nearest to the end,
    `return_share` - a tenth."""
    nearest = nearest_time(distances(evidence, arm)[BIGRAM])
    fall = evidence.curve(arm, "train_loss").fall_since(nearest)
    return np.minimum(fall, return_share(evidence, arm) - TENTH)


def phases_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smallest over the four algorithms of their greatest lead in any arm at any time, nats."""
    greatest = [np.max([peak_lead(evidence, arm, name) for arm in ARMS], axis=0) for name in ALGORITHMS[1:]]
    return np.min(greatest, axis=0)


_ABSTRACT = "Park et al. 2025, abstract"
CLAIMS = (
    Claim(
        "phases",
        "each of four algorithms, inference and retrieval by unigrams and by bigrams, is nearest somewhere on the map "
        "of chains and training",
        f"{_ABSTRACT}: four algorithms, each with a phase of its own",
        "smallest over the four of their greatest lead in any arm at any time, nats; lead: distance to the nearest "
        "other algorithm - distance",
        0.0,
        phases_margin,
        tuple(ARMS),
    ),
    Claim(
        "direct",
        "with few chains the model comes to retrieval without ever being nearest to bigram inference",
        "Park et al. 2025 and Gibson et al. 2026: few chains are memorised at once",
        f"smaller of: - greatest lead of bigram inference, lead of bigram retrieval at the end, nats ({FEW})",
        0.0,
        lambda evidence: direct_margin(evidence, FEW),
        (FEW,),
    ),
    Claim(
        "nears",
        "with some chains bigram inference comes first: it is the nearest algorithm for a time",
        f"{_ABSTRACT}: transience",
        f"greatest lead of bigram inference, nats ({SOME})",
        0.0,
        lambda evidence: peak_lead(evidence, SOME, BIGRAM),
        (SOME,),
    ),
    Claim(
        "leaves",
        "and it is transient: the model then goes a tenth of the way to bigram retrieval",
        f"{_ABSTRACT}: transience; a tenth: what a figure shows",
        "(KL(bigram inference || model) at the end - at its smallest) / KL(inference || retrieval), of members that "
        f"had the phase ({SOME})",
        TENTH,
        lambda evidence: return_share(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "outside",
        "on chains that it was never trained on it becomes worse again, by .02 nats a symbol",
        f"{_ABSTRACT}: out-of-distribution KL falls, then rises; .02: own limit",
        f"KL(true rows || model) at the end - at its smallest ({SOME})",
        NEAR,
        lambda evidence: rise_outside(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "hidden",
        "the training loss falls meanwhile",
        "own: as in transience",
        "smaller of: 1 - training loss at the end / where bigram inference is nearest, share of the way to retrieval - "
        f"{TENTH:g} ({SOME})",
        0.0,
        lambda evidence: hidden_margin(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "stays",
        "where every prompt has a chain of its own, the model ends at bigram inference, within .02 nats a symbol",
        "Park et al. 2025: many chains; .02: own limit",
        f"{NEAR:g} - KL(bigram inference || model) at the end ({EVERY})",
        0.0,
        lambda evidence: NEAR - distances(evidence, EVERY)[BIGRAM].values[:, -1],
        (EVERY,),
    ),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """phases.png: which algorithm is nearest, by chains and training; distances.png: the distances themselves."""
    done = tuple(arm for arm in ARMS if arm in evidence.finished_arms())
    if not done:
        return {}
    panels, nearest, share = {}, [], []
    for arm in done:
        found = distances(evidence, arm)
        panels[arm] = {
            name: (one.sequences, one.values)
            for name, one in found.items()
            if name != UNIFORM and np.isfinite(one.values).any()
        }
        values = np.stack([one.values for one in found.values()])
        values = np.nan_to_num(values[:, np.isfinite(values[0]).all(1)], nan=np.inf)
        votes = np.stack([(values.argmin(0) == i).mean(0) for i in range(len(ALGORITHMS))])
        nearest.append(votes.argmax(0))
        share.append(votes.max(0))
    times = {len(one) for one in nearest}
    figures = {"distances.png": draw_distances(title, ALGORITHMS, panels)}
    if len(times) > 1:
        return figures
    sequences = next(iter(panels[done[0]].values()))[0]
    words = "the nearest algorithm on chains of no pool"
    drawn = draw_phases(title, ALGORITHMS, done, sequences, np.stack(nearest), np.stack(share), words)
    return figures | {"phases.png": drawn}


SCALED = (
    "5 states, streams of 32 symbols, 4 to 128 chains, 2 layers of width 32, in place of 10 states, 512 symbols, 4 to "
    "2,048 chains and width 64"
)
POOLS_EXPERIMENT = Experiment(
    name="pools",
    question="Which algorithm does a model of a pool of Markov chains come to, by the number of chains and training?",
    section="Park et al. 2025: phases and transience",
    claims=CLAIMS,
    presets={"quick": Preset(Comparison(arms=ARMS, base={}, round=1), 40, SCALED)},
    shows=("train", "prior"),
    scalars=("train_final", "prior_peak", "prior_final", "train_loss_final"),
    figures=_draw,
)
