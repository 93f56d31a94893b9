"""Made-up evidence of toy laws and of functions in context: what a paper's ideal would give, and an untrained net."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis import layer_probes, predictions
from ebbtide.analysis.layer_probes import ProbeScores, Targets, score_layers
from ebbtide.analysis.predictions import (
    TRAINING_PROMPTS,
    Predictions,
    PromptSet,
    compile_forward,
    fresh_prompts,
    training_prompts,
)
from ebbtide.evaluation.baselines import least_squares, linear_posterior
from ebbtide.evaluation.baselines_convex import lasso
from ebbtide.evaluation.bayes import mixed_ridge, penalty_of
from ebbtide.models.model import Model, Params
from ebbtide.models.transformer import Transformer
from ebbtide.papers.bayesian_averaging import scaling as bayesian_scaling
from ebbtide.papers.bayesian_averaging import study as bayesian_averaging
from ebbtide.papers.bayesian_averaging.measures import exact_predictions
from ebbtide.papers.positions import measures as positions_measures
from ebbtide.papers.positions import study as positions
from ebbtide.papers.statisticians import links, selection
from ebbtide.papers.statisticians import study as statisticians
from ebbtide.papers.statisticians.contests import LASSO_PENALTIES, classifier_scores, squared_errors
from ebbtide.papers.toy_laws import study as toy_laws
from ebbtide.papers.transient_ridge import study as transient_ridge
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.sources.functions import Functions
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


def law_curves(setting: toy_laws.ToyLaws, points: Callable[[str], Points], stay: int) -> dict[str, np.ndarray]:
    """Curves that run through these points; the last `stay` seeds of the competition do not move."""
    curves: dict[str, np.ndarray] = {}
    for name in LAWS:
        law = name.partition("/")[0]
        how = getattr(setting, f"{law}_descent")
        steps = np.arange(0, how.steps + 1, how.every)
        times, losses = zip(*points(name), strict=True)
        curve = np.interp(steps / how.steps, times, losses)
        curves[f"{law}/steps"], curves[name] = steps, np.tile(curve, (setting.seeds, 1))
        if law == "competition":
            curves[name][setting.seeds - stay :] = 1.0
    for arm in toy_laws.COMPETITION:
        curves[f"competition/{arm}/stopped"] = np.full(setting.seeds, -1)
    return curves


def laws(points: Callable[[str], Points], stay: int) -> Evidence:
    """The scalars of `law_curves`."""
    setting = replace(toy_laws.QUICK, seeds=SEEDS)
    return Evidence({ONLY: Arm(scalars=toy_laws.summarise(setting, law_curves(setting, points, stay)))})


def laws_of_the_papers(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """What the laws do in the papers, where 2 of 12 seeds stay on the plateau; and laws that never take a step."""
    return laws(LAWS.__getitem__, SEEDS // 6), laws(lambda name: STUCK, 0)


Says = Callable[[Predictions, float, bool], np.ndarray]
"""Answers [slots, prompt, outputs] to prompts, at a share of training from 0 to 1; whether training had them."""
FEWER = 400
"""Prompts at most: enough for exact predictors, and quick."""
MEMBERS = 6
"""Members of an arm: the fewest with which a claim can hold."""


class MadeUpRun(RunFolder):
    """A run whose members answer what `says` makes of their prompts."""

    def __init__(self, spec: Spec, says: Says):
        self.spec, self.says, self.path = spec, says, Path(f"made up/{len(RUNS)}")
        RUNS.append(self)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.path, "")

    def predict(self, place: int, evaluator: str, prompts: int, last: bool, changes: Any = ()) -> Predictions:
        """What `predict_member` returns of a trained model."""
        spec, many, seen = self.spec.world(place), min(prompts, FEWER), evaluator == TRAINING_PROMPTS
        own = training_prompts(spec, place, many) if seen else fresh_prompts(spec, evaluator, many, **dict(changes))
        times = np.linspace(0, 1, 11)[-1 if last else 0 :]
        blank = Predictions((times * spec.sequences).astype(int), np.zeros((0, 0, 0, 1)), own, spec)
        return blank._replace(outputs=np.stack([self.says(blank, time, seen) for time in times]))

    def probe(self, place: int, targets: Callable[[Predictions], Targets]) -> ProbeScores:
        """What linear probes of a model that holds all targets in its residual stream are worth."""
        wanted = targets(self.predict(place, "train", FEWER, last=True))
        inputs, responses = ({name: np.ones(1) for name in one} for one in wanted)
        return ProbeScores(inputs, responses)


class UntrainedNets(MadeUpRun):
    """A run whose members are as they were drawn before training, of at most two layers and 32 units."""

    def __init__(self, spec: Spec):
        model: Any = spec.model
        small = {"layers": min(model.layers, 2), "width": min(model.width, 32)}
        if isinstance(model, Transformer):
            small["heads"] = min(model.heads, 4)
        super().__init__(replace(spec, model=replace(model, **small)), self.answer)
        self.answers: dict[PromptSet, np.ndarray] = {}

    def params(self, spec: Spec) -> Params:
        return compile_init(spec.model, **spec.shape())(jax.random.key(spec.seeds.evaluation))

    def answer(self, asked: Predictions, share: float, seen: bool) -> np.ndarray:
        if asked.prompt_set not in self.answers:
            answer = compile_forward(asked.spec.model, asked.spec.product_precision())(
                self.params(asked.spec), asked.prompt_set.prompt
            )
            self.answers[asked.prompt_set] = np.asarray(answer, np.float64)
        return self.answers[asked.prompt_set]

    def probe(self, place: int, targets: Callable[[Predictions], Targets]) -> ProbeScores:
        answered = self.predict(place, "train", FEWER, last=True)
        return score_layers(self.params(answered.spec), answered, targets)


measure_errors = positions_measures._query_errors

RUNS: list[MadeUpRun] = []
"""All that were made; a snapshot names its own by its path."""


@lru_cache
def compile_init(model: Model, **shape: int) -> Callable[[Any], Params]:
    """Function from a key to a network as it is before training."""
    return jax.jit(lambda key: model.init(key, **shape))


@lru_cache(maxsize=1024)
def predict_made_up(snapshot: Snapshot, place: int, *asked: Any) -> Predictions:
    """In place of `predict_member`."""
    return run_of(snapshot).predict(place, *asked)


def probe_made_up(snapshot: Snapshot, place: int, targets: Callable[[Predictions], Targets]) -> ProbeScores:
    """In place of `_probe_member`."""
    return run_of(snapshot).probe(place, targets)


def run_of(snapshot: Snapshot) -> MadeUpRun:
    return RUNS[int(snapshot.path.name)]


def evidence_of(runs: Mapping[str, MadeUpRun], learns: bool) -> Evidence:
    """Evidence of arms of these runs, whose training loss falls if they learn."""
    arms = {}
    for arm, run in runs.items():
        curves = UntrainedRun(replace(run.spec, members=MEMBERS)).metrics()
        if learns:
            curves["train_loss"] = np.tile(np.linspace(1, 0, len(curves["sequences"])), (MEMBERS, 1))
        arms[arm] = Arm(curves, states=("finished",) * MEMBERS, runs=tuple((m, run) for m in range(MEMBERS)))
    return Evidence(arms)


def both_of(specs: Mapping[str, Spec], says: Mapping[str, Says]) -> tuple[Evidence, Evidence]:
    """The evidence of arms that answer so, and of arms before training."""
    ideal = evidence_of({arm: MadeUpRun(spec, says[arm]) for arm, spec in specs.items()}, learns=True)
    return ideal, evidence_of({arm: UntrainedNets(spec) for arm, spec in specs.items()}, learns=False)


Predictor = Callable[[Predictions], np.ndarray]


def path_of(*stops: tuple[float, Predictor]) -> Says:
    """Answers that go from one predictor to the next, at these shares of training, beginning with an answer of 0."""

    def says(asked: Predictions, share: float, seen: bool) -> np.ndarray:
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
    return both_of(specs, says)


def average(asked: Predictions) -> np.ndarray:
    """Log-probabilities of the Bayesian average over concepts."""
    return exact_predictions(asked).average


def mixed(weight: float) -> Predictor:
    """Log-probabilities that have this share of the average's, the rest of the marginal's."""
    return lambda asked: weight * average(asked) + (1 - weight) * exact_predictions(asked).marginal


def averages(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """A model that comes to the marginal, then to the average; and one of half the depth that comes less near."""
    specs = specs_of(bayesian_averaging.BAYESIAN_AVERAGING, experiment, preset)
    half = path_of((0.2, mixed(0)), (1.0, mixed(0.9)))
    return both_of(
        specs, dict.fromkeys(specs, path_of((0.2, mixed(0)), (1.0, average))) | {bayesian_averaging.EIGHT: half}
    )


def averages_of_more(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Models that come the nearer to the average the more prompts they have; of the fewest, one that then knows their
    responses and answers others as the marginal does."""
    specs = specs_of(bayesian_averaging.BAYESIAN_AVERAGING, experiment, preset)

    def memorise(asked: Predictions, share: float, seen: bool) -> np.ndarray:
        if share < 0.5:
            return path_of((0.2, mixed(0)), (0.5, mixed(0.8)))(asked, share, seen)
        return 9.0 * np.eye(4)[asked.responses] if seen else mixed(0)(asked)

    says: dict[str, Says] = dict.fromkeys(specs, path_of((1.0, average)))
    says |= {f"8 concepts, {n:,} prompts": path_of((1.0, mixed(w))) for n, w in ((8_000, 0.8), (32_000, 0.9))}
    return both_of(specs, says | {bayesian_scaling.FEW: memorise})


class ScoredRun(MadeUpRun):
    """A run whose members err so much at the query: by the kind of prompts, and their length in units of training's."""

    def __init__(self, spec: Spec, errors: Callable[[str, float], float]):
        super().__init__(spec, path_of())
        self.errors = errors

    def params(self, spec: Spec) -> Params:
        return {}


def errors_made_up(snapshot: Snapshot, place: int, evaluator: str, pairs: int, prompts: int) -> np.ndarray:
    """In place of `_query_errors`: errors that prompts spread alike in all arms."""
    run = run_of(snapshot)
    if not isinstance(run, ScoredRun):
        return measure_errors(snapshot, place, evaluator, pairs, min(prompts, FEWER))
    spread = np.random.default_rng(place).exponential(size=FEWER)
    return run.errors(evaluator, pairs / run.spec.task.context) * spread / spread.mean()


def model_made_up(path: Path, place: int) -> tuple[Spec, Params]:
    """In place of `model_at`."""
    run: Any = run_of(Snapshot(path, ""))
    return run.spec, run.params(run.spec.world(place))


def invariance_helps(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Chen et al.: models are alike in distribution; under shifts, and beyond training's length, identical positions
    are best, then models of sets, then models with positions."""
    specs = specs_of(positions.POSITIONS, experiment, preset)
    factor = {positions.SET_SAME: 1.2, positions.DEEPSET: 1.5, positions.SET: 1.5, positions.SAME: 2.0}

    def errors(arm: str) -> Callable[[str, float], float]:
        beyond = 0.5 if arm in positions.INVARIANT else 2.0
        return lambda kind, length: 0.1 * (factor.get(arm, 3.0) if kind != "train" else beyond ** np.log2(length))

    ideal = evidence_of({arm: ScoredRun(spec, errors(arm)) for arm, spec in specs.items()}, learns=True)
    return ideal, evidence_of({arm: UntrainedNets(spec) for arm, spec in specs.items()}, learns=False)


def at_query(predictor: Callable[[np.ndarray, np.ndarray, Predictions], np.ndarray]) -> Says:
    """Answers to the query of what a predictor makes of inputs, responses and task: [1, prompt, outputs]."""

    def says(asked: Predictions, share: float, seen: bool) -> np.ndarray:
        answer = predictor(asked.inputs, asked.responses, asked)
        return answer.reshape(1, len(asked.inputs[0]), -1)

    return says


def fit(x: np.ndarray, y: np.ndarray, _: Predictions) -> np.ndarray:
    return least_squares(x, y, [len(x) - 1])[0]


def shrink(noise: float) -> Callable[[np.ndarray, np.ndarray, Predictions], np.ndarray]:
    """Ridge with the posterior's penalty at this noise."""
    return lambda x, y, asked: linear_posterior(x, y, penalty_of(noise, deviation_of(asked))).mean[-1]


def deviation_of(asked: Predictions) -> float:
    source = asked.spec.source
    assert isinstance(source, Functions)
    return source.deviation


def select_weights(x: np.ndarray, y: np.ndarray, asked: Predictions) -> np.ndarray:
    """The Lasso with the penalty that is best on these prompts."""
    answers = [lasso(x, y, penalty, [len(x) - 1])[0] for penalty in LASSO_PENALTIES]
    return min(answers, key=lambda one: squared_errors(asked, one, 0.0).mean())


def classify(x: np.ndarray, y: np.ndarray, _: Predictions) -> np.ndarray:
    """Logits of both labels by logistic regression."""
    score = classifier_scores(x, 2.0 * y - 1)["logistic"]
    return np.stack([-score, score], axis=-1)


def best_of_base_tasks(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Bai et al.: every model is the best statistical method for its task."""
    specs = specs_of(statisticians.STATISTICIANS, experiment, preset)
    best = {
        statisticians.LINEAR: at_query(fit),
        statisticians.NOISY: at_query(shrink(selection.HIGH)),
        statisticians.DECODER: at_query(shrink(selection.HIGH)),
        statisticians.SPARSE: at_query(select_weights),
        statisticians.LABELS: at_query(classify),
    }
    return both_of(specs, best)


def best_of_two_noises(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Bai et al.: the model of both noises weighs them by the prompt, those of one have its penalty."""
    levels = (selection.LOW, selection.HIGH)
    both = at_query(lambda x, y, asked: mixed_ridge(x, y, levels, deviation_of(asked)).predictions[-1])
    one = {arm: at_query(shrink(noise)) for arm, noise in zip((selection.QUIET, selection.LOUD), levels, strict=True)}
    return both_of(specs_of(statisticians.STATISTICIANS, experiment, preset), {selection.BOTH: both, **one})


def best_of_two_links(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Bai et al.: the model of both links is least squares or logistic regression, as the labels say; those of one link
    are the one or the other whatever the labels."""

    def score(x: np.ndarray, y: np.ndarray, _: Predictions) -> np.ndarray:
        return classifier_scores(x, np.sign(y))["logistic"]

    def either(x: np.ndarray, y: np.ndarray, asked: Predictions) -> np.ndarray:
        return score(x, y, asked) if (np.abs(y) == 1).all() else fit(x, y, asked)

    answers = {links.REGRESSION: fit, links.SIGNS: score, links.EITHER: either}
    says = {arm: at_query(predictor) for arm, predictor in answers.items()}
    return both_of(specs_of(statisticians.STATISTICIANS, experiment, preset), says)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts made-up runs in the place of trained ones."""
    monkeypatch.setattr(predictions, "predict_member", predict_made_up)
    monkeypatch.setattr(layer_probes, "_probe_member", probe_made_up)
    monkeypatch.setattr(positions_measures, "_query_errors", errors_made_up)
    monkeypatch.setattr(positions_measures, "model_at", model_made_up)


FUNCTIONS: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    "toy-laws": laws_of_the_papers,
    "transient-ridge/pools": ridge_and_pool,
    "positions/shifts": invariance_helps,
    "positions/order": invariance_helps,
    "statisticians/base": best_of_base_tasks,
    "statisticians/selection": best_of_two_noises,
    "statisticians/links": best_of_two_links,
    "bayesian-averaging/averaging": averages,
    "bayesian-averaging/scaling": averages_of_more,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
