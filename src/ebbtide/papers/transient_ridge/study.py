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
from ebbtide.studies.evidence import Evidence, Series, stack_members
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

PAPER = "Carroll et al. 2025, Dynamics of Transient Structure in In-Context Linear Regression Transformers, 2501.17745"

QUICK = Spec(
    task=Regression(context=8, noise=(0.25,)),
    source=Functions(dim=2, pool=12, scale=1.0),
    model=Transformer(layers=2, width=64, heads=4, positions=Learned(init_sd=1.0)),
    optimizer=Adam(lr=2e-3, schedule=Constant(warmup=200)),
    batch=32,
    sequences=512_000,
    schedule=Schedule(evaluations=31, spacing="log", first=3200, checkpoints=31),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
)
FEW, SOME, MANY = "few functions", "some functions", "every prompt its own"
BRIEF = "some functions, briefly"
"""Some functions for so short a time that the model only comes past ridge and does not leave it by much."""
SHIFTED = "prior"
"""Evaluator whose prompts have functions that training never drew: only on these do ridge and the pool's predictor
differ much."""


@cache_per_prompt_set
def predictor_outputs(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
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
        predictors = predictor_outputs(predictions)
        scale = (predictors[0] ** 2).mean()
        return np.stack([((predictions.values() - one) ** 2).mean((1, 2)) / scale for one in predictors], axis=1)

    return member_series(predict_arm(evidence, arm, evaluator), measure, 2)


def distance_between_predictors(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Mean squared difference between ridge and the pool's predictor, in units of the mean square of ridge's
    predictions."""
    members = [one and predictor_outputs(one) for one in predict_arm(evidence, arm, SHIFTED)]
    return np.asarray([np.nan if b is None else ((b[0] - b[1]) ** 2).mean() / (b[0] ** 2).mean() for b in members])


def reach_of_predictors(evidence: Evidence, arm: str) -> Float[np.ndarray, "member predictor"]:
    """The distance within which a model is near ridge or the pool's predictor: that between the two, or half of the
    distance of an answer of 0, whichever is smaller."""

    def measure(predictions: Predictions) -> Float[np.ndarray, " predictor"]:
        predictors = np.stack(predictor_outputs(predictions))
        squares = (predictors**2).mean((1, 2))
        return np.minimum(squares / 2, ((predictors[0] - predictors[1]) ** 2).mean()) / squares[0]

    members = predict_arm(evidence, arm, SHIFTED)
    return stack_members([one and measure(one) for one in members], (2,))


def leads_of_predictors(evidence: Evidence, arm: str) -> Series:
    """By how much a model is nearer to a predictor than it has to be to count as near it, and nearer than to the other
    predictor [member, checkpoint, predictor]: the smaller of the predictor's reach (`reach_of_predictors`) and the
    distance to the other one, less the distance to this one. Not above 0 for an answer of 0."""
    distances = distances_to_predictors(evidence, arm)
    others = np.minimum(distances.values[:, :, ::-1], reach_of_predictors(evidence, arm)[:, None])
    return Series(others - distances.values, distances.sequences)


def _sequences_nearest_to_ridge(distances: Series) -> Int[np.ndarray, " member"]:
    """Sequences after which each member is nearest to ridge, the first checkpoint left out."""
    later = np.nan_to_num(distances.values[:, 1:, 0], nan=np.inf)
    return distances.sequences[1:][later.argmin(1)] if later.shape[1] else np.full(len(later), distances.sequences[0])


def _lead_of_ridge(evidence: Evidence, arm: str) -> np.ndarray:
    """`leads_of_predictors` of ridge where a member is nearest to it."""
    nearest = _sequences_nearest_to_ridge(distances_to_predictors(evidence, arm))
    return leads_of_predictors(evidence, arm).at(nearest)[:, 0]


def _final_lead_of_pool(evidence: Evidence, arm: str) -> np.ndarray:
    """`leads_of_predictors` of the pool's predictor at the end."""
    return leads_of_predictors(evidence, arm).values[:, -1, 1]


def _return_share(evidence: Evidence, arm: str) -> np.ndarray:
    """Distance to ridge at the end - at its smallest, in units of the distance between the two predictors; nan for a
    member that has no ridge phase (`_lead_of_ridge`)."""
    distances = distances_to_predictors(evidence, arm)
    rise = distances.values[:, -1, 0] - distances.at(_sequences_nearest_to_ridge(distances))[:, 0]
    return np.where(_lead_of_ridge(evidence, arm) > 0, rise / distance_between_predictors(evidence, arm), np.nan)


def _loss_fall(evidence: Evidence, arm: str) -> np.ndarray:
    """Share by which the training loss falls from the checkpoint where a member is nearest to ridge to the end."""
    nearest = _sequences_nearest_to_ridge(distances_to_predictors(evidence, arm))
    return evidence.curve(arm, "train_loss").fall_since(nearest)


TENTH = 0.1
"""A tenth of a way: what a figure shows."""
LEAD = "smallest of: distance to the other predictor, between the two, half that of an answer of 0; - distance to"


def _first_claim(arm: str) -> Claim:
    return Claim(
        f"nears: {arm}",
        f"with {arm} ridge comes first: at its nearest, the model is nearer to it than to the pool's predictor",
        "Fig. 1: the path of intermediate diversity",
        f"{LEAD} ridge, where ridge is nearest ({arm})",
        0.0,
        lambda evidence: _lead_of_ridge(evidence, arm),
        (arm,),
    )


def _last_claim(arm: str) -> Claim:
    return Claim(
        f"ends: {arm}",
        f"with {arm} the model is nearer to the pool's predictor at the end",
        "Fig. 1",
        f"{LEAD} the pool's predictor, at the end ({arm})",
        0.0,
        lambda evidence: _final_lead_of_pool(evidence, arm),
        (arm,),
    )


CLAIMS = (
    _first_claim(BRIEF),
    _last_claim(BRIEF),
    _first_claim(SOME),
    Claim(
        "leaves",
        "and it is transient: from there the model goes back a tenth of the way to the pool's predictor",
        "abstract; a tenth: what a figure shows",
        f"(distance to ridge at the end - at the nearest) / distance of the two predictors, of members that have a "
        f"ridge phase ({SOME})",
        TENTH,
        lambda evidence: _return_share(evidence, SOME),
        (SOME,),
    ),
    Claim(
        "hidden",
        "the training loss falls while ridge is left by that much",
        "abstract: the loss alone does not show it",
        f"smaller of: 1 - training loss at the end / at the nearest, share of the way back - {TENTH:g} ({SOME})",
        0.0,
        lambda evidence: np.minimum(_loss_fall(evidence, SOME), _return_share(evidence, SOME) - TENTH),
        (SOME,),
    ),
    _last_claim(SOME),
    Claim(
        "direct",
        "with few functions there is no ridge phase: the model comes to the pool's predictor, and not even where it is "
        "nearest to ridge is it near it",
        "Fig. 1: low diversity goes to dMMSE directly",
        f"smaller of: distance by which ridge is missed where it is nearest, lead of the pool's predictor at the end; "
        f"lead: {LEAD} a predictor ({FEW})",
        0.0,
        lambda evidence: np.minimum(-_lead_of_ridge(evidence, FEW), _final_lead_of_pool(evidence, FEW)),
        (FEW,),
    ),
    Claim(
        "stays",
        "where every prompt has its own function, the model ends at ridge",
        "Fig. 1: high diversity; a tenth of the way from an answer of 0",
        f"{TENTH:g} - distance to ridge at the end ({MANY})",
        0.0,
        lambda evidence: TENTH - distances_to_predictors(evidence, MANY).values[:, -1, 0],
        (MANY,),
    ),
)


def _arms(some: str, sequences: int) -> dict[str, Point]:
    """The three arms. The arm of some functions gets more sequences: its claims are about what comes after ridge."""
    return {
        FEW: {"source.pool": 4, "sequences": 256_000},
        some: {"source.pool": 12, "sequences": sequences},
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
    return figures | _draw_plane(evidence, title)


def _draw_plane(evidence: Evidence, title: str) -> dict[str, bytes]:
    """paths.png: joint-trajectory PCA of the predictions on the same prompts, with the exact predictors marked in the
    same plane: of the first member that has finished in all arms drawn, since members answer prompts of their own."""
    answers = {arm: predict_arm(evidence, arm, SHIFTED) for arm in evidence.finished_arms()}
    together = [m for m, one in enumerate(zip(*answers.values(), strict=True)) if None not in one]
    if not together:
        return {}
    drawn = {arm: members[together[0]] for arm, members in answers.items()}
    paths: dict[str, np.ndarray] = {}
    stars: dict[str, np.ndarray] = {}
    for arm, predictions in drawn.items():
        assert predictions is not None
        paths[arm] = predictions.values()[:, :, :PLANE_PROMPTS].reshape(len(predictions.sequences), -1)
        best, pooled = predictor_outputs(predictions)
        stars["ridge"] = best[:, :PLANE_PROMPTS].ravel()
        if arm != MANY:
            stars[f"pool of {arm}"] = pooled[:, :PLANE_PROMPTS].ravel()
    still = [np.repeat(star[None], len(next(iter(paths.values()))), axis=0) for star in stars.values()]
    plane = joint_plane(np.stack([*paths.values(), *still]))
    own = {arm: plane.points[i : i + 1] for i, arm in enumerate(paths)}
    marks = {name: plane.points[len(paths) + i, 0] for i, name in enumerate(stars)}
    words = f"{title}: answers in the plane of their joint components"
    return {"paths.png": paths_figure(words, own, marks, plane.explained)["png"]}


SCALED = (
    "2 dimensions, 8 pairs, 2 layers of width 64, pools of 4 and 12, in place of 8, 16, 512 and pools up to 2^15, and "
    "some hundred times fewer sequences: models come past ridge at a distance"
)
POOLS = Experiment(
    name="pools",
    question="Does a model trained on a finite pool of functions first generalise, then memorise?",
    section="Fig. 1 and 2: joint trajectories by task diversity",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison(arms=_arms(BRIEF, 512_000), base={}, round=1),
            11,
            f"too short for ridge to be left again, which the preset cpu asks; {SCALED}",
        ),
        "cpu": Preset(
            Comparison(arms=_arms(SOME, 1_280_000), base={}, round=1),
            25,
            f"some functions 2.5 times as long as in quick; {SCALED}",
        ),
        "paper": Preset(
            Comparison(
                arms={FEW: {"source.pool": 16}, SOME: {"source.pool": 256}, MANY: {"source.pool": 0}},
                base={},
                preset="paper",
                round=1,
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
    source=Functions(dim=8, pool=256, scale=1.0),
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
