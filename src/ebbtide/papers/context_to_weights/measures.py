"""Measures of trained models whose contexts are converted to biases, prompt by prompt."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import PROMPTS
from ebbtide.mechanisms.conversion import add_biases, fold_context, query_alone
from ebbtide.models.model import Model, Params
from ebbtide.runs.folder import Snapshot
from ebbtide.tasks.prompt import FunctionPrompt, Prompt, part
from ebbtide.training.probe import prompts_of
from ebbtide.training.run import Run
from ebbtide.training.spec import Spec

TOGETHER = 50
"""Prompts whose contexts are converted at a time: each has biases of its own."""
FEW = 100
"""Prompts on which the approximation by random features is measured."""
FEATURES = (64, 256, 1024)
"""Numbers of random features of a head."""
Members = Float[np.ndarray, " member"]


class Recall(NamedTuple):
    """Accuracy of a model with the context, without it, and with it converted to biases; the number of prompts on which
    the converted model's answer is another than with the context; and the mean relative errors |logits - logits with
    the context| / |logits with the context|, converted and without the context."""

    told: float
    dropped: float
    converted: float
    differing: int
    error: float
    dropped_error: float


class Weights(NamedTuple):
    """The linear function in the biases, compared with the step of gradient descent (1/N) X'y: the factor `rate` by
    which the two are nearest over all prompts, and the relative error that is left."""

    rate: float
    error: float


def _fresh(snapshot: Snapshot, place: int, prompts: int) -> tuple[Model, Params, Any]:
    """A member's trained model and prompts that neither training nor its evaluations have seen."""
    run = Run(snapshot.path)
    return *run.model(place), unseen_prompts(run.spec, run.spec.evaluators[0], prompts, place)


def unseen_prompts(spec: Spec, evaluator: str, prompts: int, place: int) -> Any:
    """Prompts of an evaluator for one member that neither training nor its evaluations have seen (evaluation seed +
    1)."""
    unseen = replace(spec, seeds=replace(spec.seeds, evaluation=spec.seeds.evaluation + 1))
    return prompts_of(unseen, evaluator, prompts, place)


def per_prompt(
    one: Callable[[Any, Params, Any], Array], model: Model, params: Params, prompts: Prompt | FunctionPrompt, count: int
) -> np.ndarray:
    """`one(model, params, prompt)` of the first `count` prompts, each given alone."""

    def all_of(params: Params, prompts: Any) -> Array:
        index = jnp.arange(count, dtype=jnp.int32)
        return jax.lax.map(lambda i: one(model, params, part(prompts, i, 1)), index, batch_size=min(TOGETHER, count))

    return np.asarray(jax.jit(all_of)(params, prompts))


def _converted(model: Model, params: Params, prompt: Any) -> Array:
    """Outputs for the query alone, with the context converted."""
    return model.apply(fold_context(model, params, prompt), query_alone(prompt))[0]


def relative_error(mine: np.ndarray, exact: np.ndarray) -> float:
    """Mean over prompts of |mine - exact| / |exact|, of logits [prompt, label]."""
    return float((np.linalg.norm(mine - exact, axis=-1) / np.linalg.norm(exact, axis=-1)).mean())


def compare_answers(told: np.ndarray, dropped: np.ndarray, converted: np.ndarray, target: np.ndarray) -> Recall:
    """`Recall` of logits [prompt, label] with the context, without it, and converted."""
    answers = [logits.argmax(-1) for logits in (told, dropped, converted)]
    first, second, third = (float((one == target).mean()) for one in answers)
    differing = int((answers[0] != answers[2]).sum())
    return Recall(first, second, third, differing, relative_error(converted, told), relative_error(dropped, told))


@lru_cache(maxsize=128)
def measure_recall(snapshot: Snapshot, place: int) -> Recall:
    """What one member recalls of 2,000 prompts' contexts."""
    model, params, prompts = _fresh(snapshot, place, PROMPTS)
    apply = jax.jit(model.apply)
    told, dropped = (np.asarray(apply(params, one)) for one in (prompts, query_alone(prompts)))
    converted = per_prompt(_converted, *add_biases(model, params), prompts, PROMPTS)
    return compare_answers(told, dropped, converted, np.asarray(prompts.target))


@lru_cache(maxsize=128)
def measure_features(snapshot: Snapshot, place: int) -> tuple[Recall, tuple[float, ...]]:
    """Of one member with softmax attention: `Recall` with the most of `FEATURES`, and the relative error by each number
    of them."""
    model, params, prompts = _fresh(snapshot, place, FEW)
    told, dropped = (np.asarray(model.apply(params, one)) for one in (prompts, query_alone(prompts)))
    outputs = [
        per_prompt(_converted, *add_biases(model, params, random_features=count, seed=place), prompts, FEW)
        for count in FEATURES
    ]
    errors = tuple(relative_error(one, told) for one in outputs)
    return compare_answers(told, dropped, outputs[-1], np.asarray(prompts.target)), errors


@lru_cache(maxsize=128)
def measure_weights(snapshot: Snapshot, place: int) -> Weights:
    """What function of the query the biases of one member add to its output, over 2,000 prompts: linear attention
    without norms and MLP adds one that is affine in the query, so it is known from the query 0 and the unit vectors."""
    model, params, prompts = _fresh(snapshot, place, PROMPTS)
    dim = prompts.inputs.shape[-1]
    queries = jnp.concatenate([jnp.zeros((1, dim)), jnp.eye(dim)])

    def added(model: Model, params: Params, prompt: FunctionPrompt) -> Array:
        alone, folded = query_alone(prompt), fold_context(model, params, prompt)

        def output(own: Params, query: Array) -> Array:
            return model.apply(own, alone._replace(inputs=query[None, None]))[-1, 0, 0]

        values = jax.vmap(lambda query: output(folded, query) - output(params, query))(queries)
        return values[1:] - values[0]

    weights = per_prompt(added, *add_biases(model, params), prompts, PROMPTS).astype(np.float64)
    x, y = np.asarray(prompts.inputs[:-1], np.float64), np.asarray(prompts.responses[:-1], np.float64)
    return compare_weights(weights, np.einsum("nbd,nb->bd", x, y) / len(x))


def compare_weights(weights: Float[np.ndarray, "prompt dim"], step: Float[np.ndarray, "prompt dim"]) -> Weights:
    """The factor c for which c times the steps is nearest to the weights, and |weights - c steps| / |weights|."""
    rate = float((weights * step).sum() / (step**2).sum())
    return Weights(rate, float(np.linalg.norm(weights - rate * step) / np.linalg.norm(weights)))
