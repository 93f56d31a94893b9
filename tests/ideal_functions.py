"""Made-up evidence of toy laws and of functions in context: what a paper's ideal would give, and an untrained net."""

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from msgspec.structs import replace

from ebbtide.analysis.predictions import (
    TRAINING_PROMPTS,
    Predictions,
    PromptSet,
    compile_forward,
    fresh_prompts,
    training_prompts,
)
from ebbtide.models.model import Model, Params
from ebbtide.models.transformer import Transformer
from ebbtide.papers.toy_laws import study as toy_laws
from ebbtide.papers.transient_ridge import study as transient_ridge
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.evidence import ONLY, Arm, Evidence
from ebbtide.studies.rehearsal import UntrainedRun
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_tools import specs_of

SEEDS = 24
Points = list[tuple[float, float]]
"""Steps of a descent, as shares of all, with the loss there; straight lines between them."""

STUCK: Points = [(0.0, 2.0)]
LAWS: dict[str, Points] = {
    "product/none": [(0.0, 2.0), (0.01, 1.0), (0.4, 1.0), (0.5, 0.0)],
    "product/c": [(0.0, 2.0), (0.01, 1.0), (0.04, 1.0), (0.1, 0.0)],
    "product/b and c": [(0.0, 2.0), (0.02, 0.0)],
    "competition/unequal/L1": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.35, 0.0), (0.4, 0.0), (0.6, 1.0)],
    "competition/unequal/L2": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.35, 1.03), (0.6, 0.0)],
    "competition/equal/L1": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.35, 0.0)],
    "competition/equal/L2": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.5, 4.0)],
    "nested/none": [(0.0, 1.6), (0.4, 1.0), (0.41, 0.0)],
    "nested/first": [(0.0, 1.6), (0.2, 1.0), (0.22, 0.0)],
    "nested/read": [(0.0, 1.0), (0.1, 1.0), (0.15, 0.0)],
    "nested/first and read": [(0.0, 1.0), (0.01, 0.0)],
}
"""Losses of every law and arm in units of its plateau, as the papers show them."""


def laws(points: Callable[[str], Points], stay: int) -> Evidence:
    """The scalars of curves that run through these points; the last `stay` seeds of the competition do not move."""
    setting = replace(toy_laws.QUICK, seeds=SEEDS)
    curves: dict[str, np.ndarray] = {}
    for name in LAWS:
        law = name.partition("/")[0]
        how = getattr(setting, f"{law}_descent")
        steps = np.arange(0, how.steps + 1, how.every)
        times, losses = zip(*points(name), strict=True)
        curve = np.interp(steps / how.steps, times, losses)
        curves[f"{law}/steps"], curves[name] = steps, np.tile(curve, (SEEDS, 1))
        if law == "competition":
            curves[name][SEEDS - stay :] = 1.0
    for arm in toy_laws.COMPETITION:
        curves[f"competition/{arm}/stopped"] = np.full(SEEDS, -1)
    return Evidence({ONLY: Arm(scalars=toy_laws.summarise(setting, curves))})


def laws_of_the_papers(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """What the laws do in the papers, where 2 of 12 seeds stay on the plateau; and laws that never take a step."""
    return laws(LAWS.__getitem__, SEEDS // 6), laws(lambda name: STUCK, 0)


Says = Callable[[Predictions, float], np.ndarray]
"""Answers [slots, prompt, outputs] to prompts, at a share of training from 0 to 1."""
FEWER = 300
"""Prompts at most: enough for exact predictors, and quick."""
MEMBERS = 6
"""Members of an arm: the fewest with which a claim can hold."""


class MadeUpRun(RunFolder):
    """A run, and its snapshot, whose members answer what `says` makes of their prompts."""

    def __init__(self, spec: Spec, says: Says):
        self.spec, self.says, self.path = spec, says, Path("made up")

    def snapshot(self) -> Any:
        return self

    def predict(self, place: int, evaluator: str, prompts: int, last: bool, changes: Any = ()) -> Predictions:
        """What `predict_member` returns of a trained model."""
        spec, many = self.spec.world(place), min(prompts, FEWER)
        asked = (
            training_prompts(spec, place, many)
            if evaluator == TRAINING_PROMPTS
            else fresh_prompts(spec, evaluator, many, **dict(changes))
        )
        times = np.linspace(0, 1, 11)[-1 if last else 0 :]
        blank = Predictions((times * spec.sequences).astype(int), np.zeros((0, 0, 0, 1)), asked, spec)
        return blank._replace(outputs=np.stack([self.says(blank, time) for time in times]))


@lru_cache(maxsize=1024)
def predict_made_up(run: MadeUpRun, *asked: Any) -> Predictions:
    return run.predict(*asked)


@lru_cache
def compile_init(model: Model, **shape: int) -> Callable[[Any], Params]:
    """Function from a key to a network as it is before training."""
    return jax.jit(lambda key: model.init(key, **shape))


def answer_untrained(spec: Spec) -> Says:
    """The answers of networks as they are drawn before training, of at most two layers and 32 units."""
    model: Any = spec.model
    small = {"layers": min(model.layers, 2), "width": min(model.width, 32)}
    if isinstance(model, Transformer):
        small["heads"] = min(model.heads, 4)
    model = replace(model, **small)
    init = compile_init(model, **spec.shape())

    @cache
    def answer(asked: PromptSet, seed: int) -> np.ndarray:
        return np.asarray(compile_forward(model)(init(jax.random.key(seed)), asked.prompt), np.float64)

    return lambda asked, share: answer(asked.prompt_set, asked.spec.seeds.evaluation)


def evidence_of(specs: Mapping[str, Spec], says: Mapping[str, Says], learns: bool) -> Evidence:
    """Evidence of arms that answer so, whose training loss falls if they learn."""
    arms = {}
    for arm, spec in specs.items():
        spec = replace(spec, members=MEMBERS)
        curves, run = UntrainedRun(spec).metrics(), MadeUpRun(spec, says[arm])
        if learns:
            curves["train_loss"] = np.tile(np.linspace(1, 0, len(curves["sequences"])), (MEMBERS, 1))
        members = tuple((m, run) for m in range(MEMBERS))
        arms[arm] = Arm(curves, states=("finished",) * MEMBERS, runs=members)
    return Evidence(arms)


def path_of(*stops: tuple[float, Callable[[Predictions], np.ndarray]]) -> Says:
    """Answers that go from one predictor to the next, at these shares of training, beginning with an answer of 0."""

    def says(asked: Predictions, share: float) -> np.ndarray:
        times = [0.0, *(time for time, _ in stops)]
        answers = np.stack([predictor(asked) for _, predictor in stops])
        answers = np.concatenate([np.zeros_like(answers[:1]), answers])
        weights = [np.interp(share, times, np.eye(len(times))[i]) for i in range(len(times))]
        return np.tensordot(weights, answers, 1)

    return says


def ridge_and_pool(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Fig. 1 of Carroll et al.: straight to the pool, by way of ridge, and to ridge alone."""
    specs = specs_of(transient_ridge.TRANSIENT_RIDGE, experiment, preset)

    def best(asked: Predictions) -> np.ndarray:
        return transient_ridge.predictor_outputs(asked)[0][..., None]

    def pooled(asked: Predictions) -> np.ndarray:
        return transient_ridge.predictor_outputs(asked)[1][..., None]

    through = path_of((0.3, best), (1.0, pooled))
    says = {arm: through for arm in specs}
    says |= {transient_ridge.FEW: path_of((1.0, pooled)), transient_ridge.MANY: path_of((0.5, best))}
    return evidence_of(specs, says, learns=True), untrained(specs)


def untrained(specs: Mapping[str, Spec]) -> Evidence:
    """Evidence of arms whose networks are as they were drawn."""
    return evidence_of(specs, {arm: answer_untrained(spec) for arm, spec in specs.items()}, learns=False)


FUNCTIONS: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    "toy-laws": laws_of_the_papers,
    "transient-ridge/pools": ridge_and_pool,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
