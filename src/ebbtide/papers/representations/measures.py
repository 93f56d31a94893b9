"""Measures of the study `representations`: the exact predictor of linear functions of a fixed representation, and the
errors of models and of predictors at the query."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set, member_values, predict_arm
from ebbtide.evaluation.baselines import Inputs, Responses, linear_posterior
from ebbtide.evaluation.bayes import mixed_features, penalty_of
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.models.positions import Learned
from ebbtide.models.transformer import Transformer
from ebbtide.report.contest_figure import Bar
from ebbtide.sources.functions import Functions, represent_float64
from ebbtide.studies.evidence import Evidence
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Cosine, Schedule
from ebbtide.training.spec import Spec

QUICK = Spec(
    task=Regression(context=12, noise=(0.1,)),
    source=Functions(dim=3, layers=1),
    model=Transformer(layers=4, width=32, heads=4, positions=Learned(init_sd=1.0)),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=300)),
    batch=64,
    sequences=256_000,
    schedule=Schedule(evaluations=21, spacing="log", first=3200, checkpoints=2),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
)
SCALED = (
    "3 dimensions, 12 pairs, noise .1, 4 layers of width 32, in place of 20 dimensions, 40 pairs, 12 layers of "
    "width 256"
)
PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=40, noise=(0.1,)),
    source=Functions(dim=20, layers=1),
    model=Transformer(layers=12, width=256, heads=8),
    optimizer=Adam(lr=1e-4, schedule=Constant()),
    sequences=19_200_000,
    schedule=Schedule(evaluations=41, spacing="log", first=3200, checkpoints=2),
)
NINE = "9 members an arm, the paper trains one"
PENALTIES = tuple(float(p) for p in np.geomspace(1e-3, 10, 20))
"""Penalties of the baselines that do not know the representation: the best penalty counts."""


def source_and_noise(predictions: Predictions) -> tuple[Functions, float]:
    """The source of the functions, and the standard deviation of the responses' noise."""
    source, task = predictions.spec.source, predictions.spec.task
    assert isinstance(source, Functions) and isinstance(task, Regression)
    return source, task.noise[0]


@lru_cache(maxsize=16)
def layer_maps(source: Functions) -> Float[np.ndarray, "representations layers features features"]:
    """Weight matrices of the layers of every representation, in float64."""
    return np.asarray(source.build().maps, np.float64)


def represented_inputs(predictions: Predictions) -> list[Inputs]:
    """Inputs under every representation of the source, in float64."""
    return [represent_float64(one, predictions.inputs) for one in layer_maps(source_and_noise(predictions)[0])]


def noiseless_responses(predictions: Predictions) -> Responses:
    """The responses without their noise."""
    chosen = np.stack(represented_inputs(predictions))[
        predictions.latent["representation"], :, np.arange(predictions.inputs.shape[1])
    ]
    return np.einsum("bsd,bd->sb", chosen, predictions.latent["weights"])


def best_ridge_errors(
    features: Float[np.ndarray, "slots prompt features"],
    responses: Float[np.ndarray, "slots prompt dim"],
    truth: Float[np.ndarray, "prompt dim"],
) -> Float[np.ndarray, " prompt"]:
    """Squared errors at the query, mean over coordinates, of ridge on `features` with the best of the penalties, by one
    singular value decomposition of every prompt."""
    u, s, v = np.linalg.svd(features[:-1].swapaxes(0, 1), full_matrices=False)
    fit, along = u.mT @ responses[:-1].swapaxes(0, 1), (v @ features[-1][:, :, None])[:, :, 0]
    values = [np.einsum("bk,bkd->bd", s / (s**2 + penalty) * along, fit) for penalty in PENALTIES]
    return min((((one - truth) ** 2).mean(-1) for one in values), key=lambda one: one.mean())


@cache_per_prompt_set
def posterior_mean(predictions: Predictions) -> Responses:
    """The posterior mean at every slot: ridge on the representation, or where there are several the average of ridge
    on each, weighed by the evidence."""
    source, noise = source_and_noise(predictions)
    return mixed_features(represented_inputs(predictions), predictions.responses, noise, source.deviation).predictions


@cache_per_prompt_set
def predictor_errors(predictions: Predictions) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Squared errors at the query, its noise left out, by predictor: the posterior mean, which knows the
    representation; ridge on the inputs; and ridge on random features (8 leaky layers of other random maps side by side:
    8 dim features). With several representations also the mean of ridge on each, and ridge on all at once."""
    source, noise = source_and_noise(predictions)
    known, truth = represented_inputs(predictions), noiseless_responses(predictions)[-1]

    def best(inputs: Inputs) -> Float[np.ndarray, " prompt"]:
        return best_ridge_errors(inputs, predictions.responses[..., None], truth[:, None])

    errors = {"posterior mean": (posterior_mean(predictions)[-1] - truth) ** 2}
    if len(known) > 1:
        every = [
            linear_posterior(x, predictions.responses, penalty_of(noise, source.deviation)).mean[-1] for x in known
        ]
        errors["mean of ridges"] = (np.mean(every, axis=0) - truth) ** 2
        errors["ridge on all"] = best(np.concatenate(known, axis=-1))
    other = replace(source, representations=8, layers=1, seed=source.seed + 1000)
    errors["ridge on x"] = best(predictions.inputs)
    random = np.concatenate([represent_float64(one, predictions.inputs) for one in layer_maps(other)], axis=-1)
    return errors | {"random features": best(random)}


def predict_final(evidence: Evidence, arm: str) -> list[Predictions | None]:
    """Predictions of every member of an arm at the end, on fresh prompts as in training."""
    return predict_arm(evidence, arm, "train", last=True)


def model_errors(predictions: Predictions) -> Float[np.ndarray, " prompt"]:
    """Squared errors of a member's last checkpoint at the query, its noise left out."""
    return (predictions.values()[-1, -1] - noiseless_responses(predictions)[-1]) ** 2


def relative_excess(predictions: Predictions, predictor: str) -> float:
    """Mean error of the model less the posterior mean's, in units of the same difference for `predictor`."""
    errors = predictor_errors(predictions)
    best = errors["posterior mean"].mean()
    return float((model_errors(predictions).mean() - best) / (errors[predictor].mean() - best))


def gain_over(predictions: Predictions, predictor: str) -> float:
    """Mean error of `predictor` less the model's."""
    return float(predictor_errors(predictions)[predictor].mean() - model_errors(predictions).mean())


def pool_bars(
    members: list[Predictions], errors: Callable[[Predictions], dict[str, Float[np.ndarray, " prompt"]]]
) -> dict[str, Bar]:
    """Means of predictors' errors over the prompts of all members, each with its bootstrap interval."""
    each = [errors(one) for one in members]
    return {name: paired_bootstrap(np.concatenate([one[name] for one in each]), seed=0) for name in each[0]}


def final_values(evidence: Evidence, arm: str, measure: Callable[[Predictions], float]) -> Float[np.ndarray, " member"]:
    """`measure` of every member's predictions at the end, nan for a member that has not finished."""
    return member_values(predict_final(evidence, arm), measure)


def first_best(r2: Float[np.ndarray, " layer"]) -> int:
    """First layer whose R^2 is 95 % of the best layer's."""
    return int(np.argmax(r2 >= 0.95 * r2.max()))


def layers_after(
    answer: Float[np.ndarray, " layer"], features: Float[np.ndarray, " layer"], *, at_least: float
) -> float:
    """Number of layers between the first whose R^2 of the features is 95 % of its best, and the first whose R^2 of the
    answer is half of the last layer's; nan where the last layer's is below `at_least`: there is no answer to read."""
    if answer[-1] < at_least:
        return float("nan")
    return float(np.argmax(answer >= 0.5 * answer[-1])) - first_best(features)
