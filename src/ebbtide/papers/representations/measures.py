"""What the study `representations` measures: exact predictors of linear functions of a fixed representation, and the
errors of models and of predictors at the query."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import Answers, answers, by_member, of_prompts
from ebbtide.evaluation.baselines import Inputs, Responses, linear_posterior
from ebbtide.evaluation.bayes import mixed_features, penalty_of
from ebbtide.models.positions import Learned
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions, represented
from ebbtide.studies.evidence import Evidence
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Cosine, Schedule
from ebbtide.training.spec import Seeds, Spec

QUICK = Spec(
    task=Regression(context=12, noise=(0.1,)),
    source=Functions(dim=3, layers=1, seed=5),
    model=Transformer(layers=4, width=32, heads=4, positions=Learned(init_sd=1.0)),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=300)),
    batch=64,
    sequences=256_000,
    schedule=Schedule(evaluations=21, spacing="log", first=3200, checkpoints=2),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
    seeds=Seeds(init=50, data=50, evaluation=50),
)
SCALED = (
    "3 dimensions, 12 pairs, noise .1, 4 layers of width 32, in place of 20 dimensions, 40 pairs, 12 layers of "
    "width 256"
)
PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=40, noise=(0.1,)),
    source=Functions(dim=20, layers=1, seed=5),
    model=Transformer(layers=12, width=256, heads=8),
    optimizer=Adam(lr=1e-4, schedule=Constant()),
    sequences=19_200_000,
    schedule=Schedule(evaluations=41, spacing="log", first=3200, checkpoints=2),
)
FIVE = "5 members an arm, the paper trains one"
PENALTIES = tuple(float(p) for p in np.geomspace(1e-3, 10, 20))
"""Of the baselines that do not know the representation: the best of them counts."""


def setting(found: Answers) -> tuple[Functions, float]:
    """The functions, and the standard deviation of the responses' noise."""
    source, task = found.spec.source, found.spec.task
    assert isinstance(source, Functions) and isinstance(task, Regression)
    return source, task.noise[0]


@lru_cache(maxsize=16)
def maps_of(source: Functions) -> Float[np.ndarray, "representations layers features features"]:
    """The layers of every representation, in float64."""
    return np.asarray(source.build().maps, np.float64)


def features(found: Answers) -> list[Inputs]:
    """The inputs under every representation of the source, in float64."""
    return [represented(one, found.inputs) for one in maps_of(setting(found)[0])]


def clean(found: Answers) -> Responses:
    """The responses without their noise."""
    chosen = np.stack(features(found))[found.latent["representation"], :, np.arange(found.inputs.shape[1])]
    return np.einsum("bsd,bd->sb", chosen, found.latent["weights"])


def best_ridge(found: Answers, inputs: Inputs) -> Float[np.ndarray, " prompt"]:
    """The query's squared error of ridge on `inputs`, with the best of the penalties."""
    truth = clean(found)[-1]
    errors = [(linear_posterior(inputs, found.responses, p).mean[-1] - truth) ** 2 for p in PENALTIES]
    return min(errors, key=lambda one: one.mean())


@of_prompts
def exact(found: Answers) -> Responses:
    """The posterior mean at every slot: ridge on the representation, or where there are several the average of ridge
    on each, weighed by the evidence."""
    source, noise = setting(found)
    return mixed_features(features(found), found.responses, noise, source.deviation).predictions


@of_prompts
def predictors(found: Answers) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Squared errors at the query, before its noise, of what does and of what does not know the representation: ridge
    on the inputs, and on random features (8 leaky layers of other random maps side by side: 8 dim of them)."""
    source, noise = setting(found)
    known = features(found)
    made = {"posterior mean": (exact(found)[-1] - clean(found)[-1]) ** 2}
    if len(known) > 1:
        every = [linear_posterior(x, found.responses, penalty_of(noise, source.deviation)).mean[-1] for x in known]
        made["mean of ridges"] = (np.mean(every, axis=0) - clean(found)[-1]) ** 2
        made["ridge on all"] = best_ridge(found, np.concatenate(known, axis=-1))
    other = replace(source, representations=8, layers=1, seed=source.seed + 1000)
    made["ridge on x"] = best_ridge(found, found.inputs)
    random = np.concatenate([represented(one, found.inputs) for one in maps_of(other)], axis=-1)
    return made | {"random features": best_ridge(found, random)}


def last(evidence: Evidence, arm: str) -> list[Answers | None]:
    """What every member of an arm answers at the end, on fresh prompts as in training."""
    return answers(evidence, arm, "train", last=True)


def model_errors(found: Answers) -> Float[np.ndarray, " prompt"]:
    """Those of a member's last checkpoint."""
    return (found.values()[-1, -1] - clean(found)[-1]) ** 2


def lost(found: Answers, to: str) -> float:
    """What the model loses to the posterior mean, in units of what the predictor `to` loses to it."""
    made = predictors(found)
    best = made["posterior mean"].mean()
    return float((model_errors(found).mean() - best) / (made[to].mean() - best))


def gain(found: Answers, over: str) -> float:
    """How much smaller the model's mean error is than that of the predictor `over`."""
    return float(predictors(found)[over].mean() - model_errors(found).mean())


def each(evidence: Evidence, arm: str, measure: Callable[[Answers], float]) -> Float[np.ndarray, " member"]:
    """A number of every member at the end, nan where it has not finished."""
    return by_member(last(evidence, arm), measure)


def layers_after(answer: Float[np.ndarray, " layer"], features: Float[np.ndarray, " layer"]) -> float:
    """How many layers after the features, to 95 % of their best R^2, half of the answer's last R^2 can be read."""
    return float(np.argmax(answer >= 0.5 * answer[-1])) - float(np.argmax(features >= 0.95 * features.max()))
