"""Study `transient-ridge`: a model of few functions first predicts like ridge, then like its finite pool."""

import numpy as np
from jaxtyping import Float, Int
from msgspec.structs import replace

from ebbtide.analysis.predictions import Answers, answers, of_prompts, series
from ebbtide.evaluation.baselines import ridge
from ebbtide.evaluation.bayes import finite_pool, penalty_of
from ebbtide.mechanisms.linear import joint_plane
from ebbtide.models.positions import Learned
from ebbtide.models.transformer import Transformer
from ebbtide.report.functions_figure import Line, distances_figure, paths_figure
from ebbtide.sources.functions import Functions
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence, Series
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Seeds, Spec

PAPER = "Carroll et al. 2025, Dynamics of Transient Structure in In-Context Linear Regression Transformers, 2501.17745"

QUICK = Spec(
    task=Regression(context=8, noise=(0.25,)),
    source=Functions(dim=2, pool=12, scale=1.0, seed=5),
    model=Transformer(layers=2, width=64, heads=4, positions=Learned(init_sd=1.0)),
    optimizer=Adam(lr=2e-3, schedule=Constant(warmup=200)),
    batch=32,
    sequences=512_000,
    schedule=Schedule(evaluations=31, spacing="log", first=3200, checkpoints=31),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
    seeds=Seeds(init=50, data=50, evaluation=50),
)
FEW, SOME, MANY = "few functions", "some functions", "every prompt its own"
SHIFTED = "prior"
"""Prompts of functions that training never drew: only there do ridge and the pool's predictor differ much."""


@of_prompts
def _baselines(found: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Ridge's answers and the pool's (ridge's again where there is no pool)."""
    source, task = found.spec.source, found.spec.task
    assert isinstance(source, Functions) and isinstance(task, Regression)
    noise = task.noise[0]
    best = ridge(found.inputs, found.responses, penalty_of(noise, source.deviation))
    if not source.pool:
        return best, best
    pool = np.asarray(source.build().pool, np.float64)
    return best, finite_pool(found.inputs, found.responses, pool, noise)


def distances(evidence: Evidence, arm: str, evaluator: str = SHIFTED) -> Series:
    """Mean squared difference to ridge and to the pool's predictor [member, checkpoint, predictor], over prompts and
    slots, in units of the mean square of ridge's answers: 1 is as far as an answer of 0."""

    def of(found: Answers) -> Float[np.ndarray, "checkpoint predictor"]:
        both = _baselines(found)
        scale = (both[0] ** 2).mean()
        return np.stack([((found.values() - one) ** 2).mean((1, 2)) / scale for one in both], axis=1)

    return series(answers(evidence, arm, evaluator), of, 2)


def distance_between_predictors(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """How far ridge and the pool's predictor are from each other, in the same unit."""
    found = [one and _baselines(one) for one in answers(evidence, arm, SHIFTED)]
    return np.asarray([np.nan if b is None else ((b[0] - b[1]) ** 2).mean() / (b[0] ** 2).mean() for b in found])


def _nearest_to_ridge(found: Series) -> Int[np.ndarray, " member"]:
    """The sequences of the checkpoint after the first where each member is nearest to ridge."""
    later = np.nan_to_num(found.values[:, 1:, 0], nan=np.inf)
    return found.sequences[1:][later.argmin(1)] if later.shape[1] else np.full(len(later), found.sequences[0])


def _nearest(evidence: Evidence, arm: str) -> np.ndarray:
    """Distances to both at the checkpoint after the first where a member is nearest to ridge."""
    found = distances(evidence, arm)
    return found.at(_nearest_to_ridge(found))


def _leaves(evidence: Evidence, arm: str) -> np.ndarray:
    return (distances(evidence, arm).values[:, -1, 0] - _nearest(evidence, arm)[:, 0]) / distance_between_predictors(
        evidence, arm
    )


def _falls(evidence: Evidence, arm: str) -> np.ndarray:
    """How much the training loss falls from the checkpoint where a member is nearest to ridge to the end."""
    return evidence.curve(arm, "train_loss").fall_since(_nearest_to_ridge(distances(evidence, arm)))


CLAIMS = (
    Claim(
        "nears",
        "with some functions ridge comes first: at its nearest, the model is nearer to it than to the pool's predictor",
        "Fig. 1: the path of intermediate diversity",
        f"distance to the pool's predictor - to ridge, where ridge is nearest ({SOME})",
        0.0,
        lambda evidence: _nearest(evidence, SOME)[:, 1] - _nearest(evidence, SOME)[:, 0],
        (SOME,),
    ),
    Claim(
        "leaves",
        "and it is transient: the model goes back a tenth of the way to the pool's predictor",
        "abstract; a tenth: what a figure shows",
        f"(distance to ridge at the end - at the nearest) / distance of the two predictors ({SOME})",
        0.1,
        lambda evidence: _leaves(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "ends",
        "at the end it is nearer to the pool's predictor",
        "Fig. 1",
        f"distance to ridge - to the pool's predictor, at the end ({SOME})",
        0.0,
        lambda evidence: -np.diff(distances(evidence, SOME).values[:, -1])[:, 0],
        (SOME,),
    ),
    Claim(
        "loss",
        "the training loss falls while ridge is left",
        "abstract: the loss alone does not show it",
        f"1 - training loss at the end / at the nearest ({SOME})",
        0.0,
        lambda evidence: _falls(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "direct",
        "with few functions there is no ridge phase: even at its nearest, the pool's predictor is nearer",
        "Fig. 1: low diversity goes to dMMSE directly",
        f"distance to ridge - to the pool's predictor, where ridge is nearest ({FEW})",
        0.0,
        lambda evidence: _nearest(evidence, FEW)[:, 0] - _nearest(evidence, FEW)[:, 1],
        (FEW,),
    ),
    Claim(
        "stays",
        "where every prompt has its own function, the model ends at ridge",
        "Fig. 1: high diversity; a tenth of the way from an answer of 0",
        f".1 - distance to ridge at the end ({MANY})",
        0.0,
        lambda evidence: 0.1 - distances(evidence, MANY).values[:, -1, 0],
        (MANY,),
    ),
)


def _arms(some: int) -> dict[str, Point]:
    """Of some functions it is asked what comes after ridge: they get more sequences than the others."""
    return {
        FEW: {"source.pool": 4, "sequences": 256_000},
        SOME: {"source.pool": 12, "sequences": some},
        MANY: {"source.pool": 0, "sequences": 256_000},
    }


PLANE_PROMPTS = 100
"""Prompts whose answers span the plane."""


def _figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """distances.png: how far each arm is from either predictor (Fig. 1b); paths.png: the joint-trajectory plane."""
    panels: dict[str, dict[str, Line]] = {"to ridge": {}, "to the pool's predictor": {}}
    for arm in evidence.finished():
        found = distances(evidence, arm)
        for i, lines in enumerate(panels.values()):
            if i == 0 or arm != MANY:
                lines[arm] = found.sequences, found.values[:, :, i]
    unit = "mean squared difference / mean square of ridge"
    words = f"{title}: distance on functions never trained"
    drawn = {"distances.png": distances_figure(words, unit, panels)["png"]}
    return drawn | {"paths.png": _plane(evidence, title)}


def _plane(evidence: Evidence, title: str) -> bytes:
    """Joint-trajectory PCA of the answers to the same prompts, and where the exact predictors are in that plane."""
    paths: list[np.ndarray] = []
    owners: list[str] = []
    stars: dict[str, np.ndarray] = {}
    for arm in evidence.finished():
        for found in answers(evidence, arm, SHIFTED):
            if found is None:
                continue
            paths.append(found.values()[:, :, :PLANE_PROMPTS].reshape(len(found.sequences), -1))
            owners.append(arm)
            best, pooled = _baselines(found)
            stars["ridge"] = best[:, :PLANE_PROMPTS].ravel()
            if arm != MANY:
                stars[f"pool of {arm}"] = pooled[:, :PLANE_PROMPTS].ravel()
    still = [np.repeat(star[None], len(paths[0]), axis=0) for star in stars.values()]
    plane = joint_plane(np.stack(paths + still))
    own = {
        arm: np.stack([p for p, a in zip(plane.points, owners, strict=False) if a == arm])
        for arm in dict.fromkeys(owners)
    }
    marks = {name: plane.points[len(paths) + i, 0] for i, name in enumerate(stars)}
    return paths_figure(f"{title}: answers in the plane of their joint components", own, marks, plane.explained)["png"]


SCALED = "2 dimensions, 8 pairs, 2 layers of width 64, pools of 4 and 12, in place of 8, 16, 512 and pools up to 2^15"
POOLS = Experiment(
    name="pools",
    question="Does a model trained on a finite pool of functions first generalise, then memorise?",
    section="Fig. 1 and 2: joint trajectories by task diversity",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=_arms(512_000), base={}), 6, SCALED),
        "cpu": Preset(Comparison(arms=_arms(1_280_000), base={}), 14, f"some functions 2.5 times as long; {SCALED}"),
        "paper": Preset(
            Comparison(
                arms={FEW: {"source.pool": 16}, SOME: {"source.pool": 256}, MANY: {"source.pool": 0}},
                base={},
                preset="paper",
            ),
            None,
            "pools of 16 and 256 among the paper's powers of two",
        ),
    },
    shows=("train", "prior"),
    scalars=("train_final", "prior_peak", "prior_final", "train_loss_final"),
    figures=_figures,
)

PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=16, noise=(0.125**0.5,)),
    source=Functions(dim=8, pool=256, scale=1.0, seed=5),
    model=Transformer(layers=2, width=512, heads=4),
    optimizer=Adam(lr=3e-4, schedule=Constant(warmup=1000)),
    batch=1024,
    sequences=153_600_000,
    members=5,
)

TRANSIENT_RIDGE = Study(
    name="transient-ridge",
    paper=PAPER,
    question="Do the weights take over from a general solution in regression as well?",
    bases={
        "quick": Base(QUICK, "2 dimensions, 8 pairs, a pool of 12 functions"),
        "paper": Base(PAPER_SIZE, "8 dimensions, 16 pairs, width 512"),
    },
    experiments=(POOLS,),
)
