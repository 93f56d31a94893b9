"""Study `transient-ridge`: a model of few functions first predicts like ridge, then like its finite pool."""

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.baselines import ridge
from ebbtide.evaluation.bayes import finite_pool, penalty_of
from ebbtide.models.positions import Learned
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.studies.answers import Answers, answers
from ebbtide.studies.experiment import Arms
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Seeds, Spec

PAPER = "Carroll et al. 2025, Dynamics of Transient Structure in In-Context Linear Regression Transformers, 2501.17745"

QUICK = Spec(
    task=Regression(context=6, noise=(0.25,)),
    source=Functions(dim=2, pool=24, scale=1.0, seed=5),
    model=Transformer(layers=2, width=64, heads=4, positions=Learned(init_sd=1.0)),
    optimizer=Adam(lr=2e-3, schedule=Constant(warmup=200)),
    batch=64,
    sequences=384_000,
    schedule=Schedule(evaluations=31, spacing="log", first=3200, checkpoints=31),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
    seeds=Seeds(init=50, data=50, evaluation=50),
)
FEW, SOME, MANY = "few functions", "some functions", "every prompt its own"
SHIFTED = "prior"
"""Prompts of functions that training never drew: only there do ridge and the pool's predictor differ much."""


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


def distances(arms: Arms, arm: str, evaluator: str = SHIFTED) -> Float[np.ndarray, "member checkpoint predictor"]:
    """Mean squared difference to ridge and to the pool's predictor, over prompts and slots, in units of the mean square
    of ridge's answers: 1 is as far as an answer of 0."""
    rows: list[np.ndarray | None] = []
    for found in answers(arms, arm, evaluator):
        if found is None:
            rows.append(None)
            continue
        both = _baselines(found)
        scale = (both[0] ** 2).mean()
        rows.append(np.stack([((found.values() - one) ** 2).mean((1, 2)) / scale for one in both], axis=1))
    whole = next((row for row in rows if row is not None), np.full((1, 2), np.nan))
    return np.stack([np.full_like(whole, np.nan) if row is None else row for row in rows])


def apart(arms: Arms, arm: str) -> Float[np.ndarray, " member"]:
    """How far ridge and the pool's predictor are from each other, in the same unit."""
    found = [one and _baselines(one) for one in answers(arms, arm, SHIFTED)]
    return np.asarray([np.nan if b is None else ((b[0] - b[1]) ** 2).mean() / (b[0] ** 2).mean() for b in found])


def _nearest(arms: Arms, arm: str) -> np.ndarray:
    return distances(arms, arm)[:, :, 0].min(1)


def _leaves(arms: Arms, arm: str) -> np.ndarray:
    """From the nearest point to the end, as a share of the way from ridge to the pool's predictor."""
    to_ridge = distances(arms, arm)[:, :, 0]
    return (to_ridge[:, -1] - to_ridge.min(1)) / apart(arms, arm)


def _sides(arms: Arms, arm: str) -> np.ndarray:
    last = distances(arms, arm)[:, -1]
    return last[:, 0] - last[:, 1]
