"""Experiment `pools` of `urns`: counts or memory, by the number of urns and by training (Wurgaft et al. 2025)."""

import numpy as np
from jaxtyping import Float

from ebbtide.papers.urns.figures import draw_relative
from ebbtide.papers.urns.measures import (
    COUNTS,
    HALFWAY,
    STRATEGIES,
    divergences,
    kl_to_truth,
    relative_distances,
    turn_slope,
    turn_times,
)
from ebbtide.report.phases_figure import draw_phases
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

POOLS = (4, 24, 32, 48, 64, 256)
PAPER_POOLS = (4, 8, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 2048, 4096)
NEAR = 0.02
"""Divergence, nats a symbol, below which a model counts as at a predictor: as in `chains` and `bayesian-averaging`."""
TENTH = 0.1
"""A tenth of the way: what a figure shows."""


def arm_of(pool: int) -> str:
    """The name of the arm with so many urns."""
    return f"{pool:,} urns"


FEW, SOME, MANY = arm_of(4), arm_of(48), arm_of(256)
TURNS = (24, 32, 48, 64)
"""Numbers of urns whose turns give the slope."""


def arms_of(pools: tuple[int, ...]) -> dict[str, Point]:
    """Arms with so many urns."""
    return {arm_of(pool): {"source.pool": pool} for pool in pools}


def direct_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smallest relative distance after the start - 1/2, with few urns, and at most the end's - 9/10."""
    relative = relative_distances(evidence, FEW).values
    return np.minimum(relative.min(1) - HALFWAY, relative[:, -1] - (1 - TENTH))


def stay_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: 1/2 - relative distance at the end, .02 - divergence from counts there, with many urns."""
    near = NEAR - divergences(evidence, MANY).values[:, -1, COUNTS]
    return np.minimum(near, HALFWAY - relative_distances(evidence, MANY).values[:, -1])


def first_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Greatest lead of counts over training with some urns, nats: divergence from the nearest other predictor less that
    from counts."""
    course = divergences(evidence, SOME).values
    return (np.delete(course, COUNTS, axis=2).min(2) - course[:, :, COUNTS]).max(1)


def turn_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: `first_margin`, relative distance at the end - 1/2, with some urns."""
    return np.minimum(first_margin(evidence), relative_distances(evidence, SOME).values[:, -1] - HALFWAY)


def rise_outside(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """KL(the urn || model) on urns of no pool at the end less that at its smallest, as a share of the latter, with some
    urns."""
    course = kl_to_truth(evidence, SOME).values
    return course[:, -1] / course.min(1) - 1


def hidden_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Smaller of: share by which the training loss falls from where the model is nearest to counts to the end, way that
    its relative distance goes meanwhile - a tenth."""
    relative = relative_distances(evidence, SOME)
    least = np.nan_to_num(relative.values, nan=np.inf).argmin(1)
    fall = evidence.curve(SOME, "train_loss").fall_since(relative.sequences[least])
    return np.minimum(fall, relative.values[:, -1] - relative.values.min(1) - TENTH)


def slope_margin(evidence: Evidence) -> Float[np.ndarray, " member"]:
    """Slope of log turn time by log urns - 1."""
    times = np.stack([turn_times(relative_distances(evidence, arm_of(pool))) for pool in TURNS])
    return turn_slope(np.asarray(TURNS), times) - 1


_DIVERSITY = "Wurgaft et al. 2025, urns, effect of task diversity"
_TRANSIENCE = "Wurgaft et al. 2025, urns, transience"
CLAIMS = (
    Claim(
        "direct",
        "with few urns the model goes to memory without ever being nearer to counts",
        f"{_DIVERSITY}: few tasks, the memorising predictor; a tenth: own",
        "smaller of: smallest relative distance after the start - 1/2, relative distance at the end - 9/10 "
        f"({FEW}); relative distance: 0 at counts, 1 at memory",
        0.0,
        direct_margin,
        (FEW,),
    ),
    Claim(
        "stays",
        "with many urns it is at counts at the end, within .02 nats a symbol, and nearer to them than to memory",
        f"{_DIVERSITY}: many tasks, the generalising predictor; .02: own limit, as in chains",
        f"smaller of: {NEAR:g} - divergence from counts at the end, 1/2 - relative distance there ({MANY})",
        0.0,
        stay_margin,
        (MANY,),
    ),
    Claim(
        "first",
        "in between counts come first: they are the nearest of the three predictors for a time",
        f"{_TRANSIENCE}: the generalising predictor early in training",
        f"greatest lead of counts, nats: divergence from the nearest other predictor - from counts ({SOME})",
        0.0,
        first_margin,
        (SOME,),
    ),
    Claim(
        "turns",
        "and then the model turns to memory",
        f"{_TRANSIENCE}: the memorising predictor later",
        f"smaller of: greatest lead of counts, nats; relative distance at the end - 1/2 ({SOME})",
        0.0,
        turn_margin,
        (SOME,),
    ),
    Claim(
        "outside",
        "on urns that it was never trained on it becomes worse again, by a twentieth",
        f"{_TRANSIENCE} out of distribution; a twentieth: own",
        f"KL(the urn || model) on urns of no pool at the end / at its smallest - 1 ({SOME})",
        0.05,
        rise_outside,
        (SOME,),
    ),
    Claim(
        "hidden",
        "the training loss falls meanwhile",
        "own: as in transience",
        "smaller of: 1 - training loss at the end / where the model is nearest to counts, way of the relative distance "
        f"meanwhile - {TENTH:g} ({SOME})",
        0.0,
        hidden_margin,
        (SOME,),
    ),
    Claim(
        "superlinear",
        "the time of the turn grows faster than the number of urns",
        "Wurgaft et al. 2025, abstract: a superlinear trend of the time scale of the transition with task diversity",
        "slope of log sequences at the turn by log urns - 1, over the pools whose turn was seen, three at least "
        f"({', '.join(map(str, TURNS))} urns)",
        0.0,
        slope_margin,
        tuple(arm_of(pool) for pool in TURNS),
    ),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """phases.png: which predictor is nearest, by urns and training; relative.png: the way from counts to memory."""
    pools = [pool for pool in PAPER_POOLS if arm_of(pool) in evidence.finished_arms()]
    if not pools:
        return {}
    arms = tuple(arm_of(pool) for pool in pools)
    relative = {arm: relative_distances(evidence, arm) for arm in arms}
    lines = {arm: (one.sequences, one.values) for arm, one in relative.items()}
    turns = np.stack([turn_times(one) for one in relative.values()])
    found = [divergences(evidence, arm) for arm in arms]
    figures = {"relative.png": draw_relative(title, lines, pools, turns, float(found[0].sequences[-1]))}
    if len({len(one.sequences) for one in found}) > 1:
        return figures
    votes = [np.nan_to_num(one.values, nan=np.inf).argmin(2) for one in found]
    shares = np.stack([[(own == i).mean(0) for i in range(len(STRATEGIES))] for own in votes])
    words = "the nearest predictor on urns of no pool"
    drawn = draw_phases(title, STRATEGIES, arms, found[0].sequences, shares.argmax(1), shares.max(1), words)
    return figures | {"phases.png": drawn}


SCALED = (
    "8 colours, 16 draws, 4 to 256 urns and width 32, in place of 8 to 16 colours, 128 to 320 draws, 4 to 4,096 urns "
    "and width 64"
)
POOLS_EXPERIMENT = Experiment(
    name="pools",
    question="Does a model of a pool of urns answer by counts or by memory, by the number of urns and training?",
    section="Wurgaft et al. 2025: balls and urns",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=arms_of(POOLS), base={}, round=1), 40, SCALED),
        "paper": Preset(
            Comparison(arms=arms_of(PAPER_POOLS), base={}, preset="paper", round=1),
            None,
            "pools of 24 and 48 urns beside the paper's powers of two; pre-norm blocks with learned positions and Adam "
            "without clipping, in place of GPT-NeoX blocks and clipping at 1",
        ),
    },
    shows=("train", "prior"),
    scalars=("train_final", "prior_peak", "prior_final", "train_loss_final"),
    figures=_draw,
)
