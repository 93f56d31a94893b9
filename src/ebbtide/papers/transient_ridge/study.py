"""Study `transient-ridge`: a model of few functions first predicts like ridge, then like its finite pool."""

import numpy as np
from jaxtyping import Float, Int
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set, member_series, predict_arm
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
"""Evaluator whose prompts have functions that training never drew: only on these do ridge and the pool's predictor
differ much."""


@cache_per_prompt_set
def _predictor_outputs(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of ridge and of the pool's predictor (ridge again where there is no pool)."""
    source, task = predictions.spec.source, predictions.spec.task
    assert isinstance(source, Functions) and isinstance(task, Regression)
    noise = task.noise[0]
    best = ridge(predictions.inputs, predictions.responses, penalty_of(noise, source.deviation))
    if not source.pool:
        return best, best
    pool = np.asarray(source.build().pool, np.float64)
    return best, finite_pool(predictions.inputs, predictions.responses, pool, noise)


def distances_to_predictors(evidence: Evidence, arm: str, evaluator: str = SHIFTED) -> Series:
    """Mean squared difference to ridge and to the pool's predictor [member, checkpoint, predictor], over prompts and
    slots, in units of the mean square of ridge's predictions: always predicting 0 has distance 1."""

    def measure(predictions: Predictions) -> Float[np.ndarray, "checkpoint predictor"]:
        predictors = _predictor_outputs(predictions)
        scale = (predictors[0] ** 2).mean()
        return np.stack([((predictions.values() - one) ** 2).mean((1, 2)) / scale for one in predictors], axis=1)

    return member_series(predict_arm(evidence, arm, evaluator), measure, 2)


def distance_between_predictors(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Mean squared difference between ridge and the pool's predictor, in units of the mean square of ridge's
    predictions."""
    members = [one and _predictor_outputs(one) for one in predict_arm(evidence, arm, SHIFTED)]
    return np.asarray([np.nan if b is None else ((b[0] - b[1]) ** 2).mean() / (b[0] ** 2).mean() for b in members])


def _sequences_nearest_to_ridge(distances: Series) -> Int[np.ndarray, " member"]:
    """Sequences after which each member is nearest to ridge, the first checkpoint left out."""
    later = np.nan_to_num(distances.values[:, 1:, 0], nan=np.inf)
    return distances.sequences[1:][later.argmin(1)] if later.shape[1] else np.full(len(later), distances.sequences[0])


def _distances_nearest_to_ridge(evidence: Evidence, arm: str) -> np.ndarray:
    """Distances to ridge and to the pool's predictor where a member is nearest to ridge, the first checkpoint left
    out."""
    distances = distances_to_predictors(evidence, arm)
    return distances.at(_sequences_nearest_to_ridge(distances))


def _return_share(evidence: Evidence, arm: str) -> np.ndarray:
    """Distance to ridge at the end - at its smallest, in units of the distance between the two predictors."""
    rise = distances_to_predictors(evidence, arm).values[:, -1, 0] - _distances_nearest_to_ridge(evidence, arm)[:, 0]
    return rise / distance_between_predictors(evidence, arm)


def _loss_fall(evidence: Evidence, arm: str) -> np.ndarray:
    """Share by which the training loss falls from the checkpoint where a member is nearest to ridge to the end."""
    nearest = _sequences_nearest_to_ridge(distances_to_predictors(evidence, arm))
    return evidence.curve(arm, "train_loss").fall_since(nearest)


CLAIMS = (
    Claim(
        "nears",
        "with some functions ridge comes first: at its nearest, the model is nearer to it than to the pool's predictor",
        "Fig. 1: the path of intermediate diversity",
        f"distance to the pool's predictor - to ridge, where ridge is nearest ({SOME})",
        0.0,
        lambda evidence: (
            _distances_nearest_to_ridge(evidence, SOME)[:, 1] - _distances_nearest_to_ridge(evidence, SOME)[:, 0]
        ),
        (SOME,),
    ),
    Claim(
        "leaves",
        "and it is transient: the model goes back a tenth of the way to the pool's predictor",
        "abstract; a tenth: what a figure shows",
        f"(distance to ridge at the end - at the nearest) / distance of the two predictors ({SOME})",
        0.1,
        lambda evidence: _return_share(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "ends",
        "at the end it is nearer to the pool's predictor",
        "Fig. 1",
        f"distance to ridge - to the pool's predictor, at the end ({SOME})",
        0.0,
        lambda evidence: -np.diff(distances_to_predictors(evidence, SOME).values[:, -1])[:, 0],
        (SOME,),
    ),
    Claim(
        "loss",
        "the training loss falls while ridge is left",
        "abstract: the loss alone does not show it",
        f"1 - training loss at the end / at the nearest ({SOME})",
        0.0,
        lambda evidence: _loss_fall(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "direct",
        "with few functions there is no ridge phase: even at its nearest, the pool's predictor is nearer",
        "Fig. 1: low diversity goes to dMMSE directly",
        f"distance to ridge - to the pool's predictor, where ridge is nearest ({FEW})",
        0.0,
        lambda evidence: (
            _distances_nearest_to_ridge(evidence, FEW)[:, 0] - _distances_nearest_to_ridge(evidence, FEW)[:, 1]
        ),
        (FEW,),
    ),
    Claim(
        "stays",
        "where every prompt has its own function, the model ends at ridge",
        "Fig. 1: high diversity; a tenth of the way from an answer of 0",
        f".1 - distance to ridge at the end ({MANY})",
        0.0,
        lambda evidence: 0.1 - distances_to_predictors(evidence, MANY).values[:, -1, 0],
        (MANY,),
    ),
)


def _arms(some: int) -> dict[str, Point]:
    """The three arms. The arm of some functions gets more sequences: its claims are about what comes after ridge."""
    return {
        FEW: {"source.pool": 4, "sequences": 256_000},
        SOME: {"source.pool": 12, "sequences": some},
        MANY: {"source.pool": 0, "sequences": 256_000},
    }


PLANE_PROMPTS = 100
"""Number of prompts whose predictions are the coordinates that the plane is fitted to."""


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """distances.png: distance of each arm to either predictor (Fig. 1b); paths.png: the joint-trajectory plane."""
    panels: dict[str, dict[str, Line]] = {"to ridge": {}, "to the pool's predictor": {}}
    for arm in evidence.finished_arms():
        distances = distances_to_predictors(evidence, arm)
        for i, lines in enumerate(panels.values()):
            if i == 0 or arm != MANY:
                lines[arm] = distances.sequences, distances.values[:, :, i]
    unit = "mean squared difference / mean square of ridge"
    words = f"{title}: distance on functions never trained"
    figures = {"distances.png": distances_figure(words, unit, panels)["png"]}
    return figures | {"paths.png": _draw_plane(evidence, title)}


def _draw_plane(evidence: Evidence, title: str) -> bytes:
    """PNG of the joint-trajectory PCA of the predictions on the same prompts, with the exact predictors marked in the
    same plane."""
    paths: list[np.ndarray] = []
    owners: list[str] = []
    stars: dict[str, np.ndarray] = {}
    for arm in evidence.finished_arms():
        for predictions in predict_arm(evidence, arm, SHIFTED):
            if predictions is None:
                continue
            paths.append(predictions.values()[:, :, :PLANE_PROMPTS].reshape(len(predictions.sequences), -1))
            owners.append(arm)
            best, pooled = _predictor_outputs(predictions)
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
        "quick": Preset(Comparison(arms=_arms(512_000), base={}), 11, SCALED),
        "cpu": Preset(Comparison(arms=_arms(1_280_000), base={}), 25, f"some functions 2.5 times as long; {SCALED}"),
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
    figures=_draw_figures,
)

PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=16, noise=(0.125**0.5,)),
    source=Functions(dim=8, pool=256, scale=1.0, seed=5),
    model=Transformer(layers=2, width=512, heads=4),
    optimizer=Adam(lr=3e-4, schedule=Constant(warmup=1000)),
    batch=1024,
    sequences=153_600_000,
    members=9,
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
