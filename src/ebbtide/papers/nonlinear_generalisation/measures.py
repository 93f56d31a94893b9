"""Measures of study `nonlinear-generalisation`: errors by the number of pairs, attention, units that are removed."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from msgspec.structs import replace

from ebbtide.analysis.predictions import PROMPTS, map_members
from ebbtide.compile import compile_fast
from ebbtide.evaluation.baselines import nearest
from ebbtide.evaluation.baselines_convex import logistic
from ebbtide.evaluation.rules import rule_log_odds
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.taps import record
from ebbtide.models.model import Model, Params
from ebbtide.models.one_layer import OneLayer
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.sources.patterns import Patterns
from ebbtide.studies.evidence import Evidence, Series, stack_members
from ebbtide.tasks.pattern_pairs import PatternPairs
from ebbtide.tasks.prompt import SignPrompt
from ebbtide.training.probe import checkpoints
from ebbtide.training.run import loadable_spec_of, params_of
from ebbtide.training.spec import Spec

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Numbers of pairs at which errors are measured."""
LIMIT = 0.05
"""Error at the query at which a prompt has as many pairs as are needed."""
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the units that are removed."""
LOGISTIC, THREE, ONE_NEAREST, OPTIMUM = "logistic regression", "3 nearest", "1 nearest", "exact posterior"
BASELINES = (LOGISTIC, THREE, ONE_NEAREST, OPTIMUM)
"""Predictors that see nothing but the prompt; the last one also knows the patterns and how prompts are drawn."""
ALMOST = 1 - 1e-9
"""Share of informative pairs that the exact posterior takes for 1: it needs one below 1."""
LOGISTIC_PENALTY = 0.1
"""Penalty of logistic regression: small, and large enough that separable labels have a solution."""

Errors = Float[np.ndarray, " length"]


class Trained(NamedTuple):
    """A member: the spec of its world, and its parameters at every kept checkpoint, after so many sequences."""

    spec: Spec
    sequences: Int[np.ndarray, " checkpoint"]
    params: list[Params]


@lru_cache(maxsize=128)
def trained_member(run: Snapshot, place: int) -> Trained:
    """One member of a run at every kept checkpoint."""
    folder = RunFolder(run.path)
    spec = loadable_spec_of(folder).world(place)
    kept = checkpoints(folder)
    params = [params_of(spec, arrays, place, f"{run.path}: checkpoint {at}") for at, arrays in kept]
    return Trained(spec, np.asarray([at for at, _ in kept]), params)


def draw_prompts(
    spec: Spec, evaluator: str, *, informative: float | None = None, coefficients: float | None = None
) -> SignPrompt:
    """Prompts of an evaluator that neither training nor its evaluations have seen (evaluation seed + 1), as long as the
    longest of `LENGTHS`; `informative` and `coefficients` replace those of the task."""
    task, source = spec.task, spec.source
    assert isinstance(task, PatternPairs) and isinstance(source, Patterns)
    informative = task.informative if informative is None else informative
    coefficients = task.coefficients if coefficients is None else coefficients
    one = task.evaluator(evaluator, source)
    sample = _compile_sampler(one.task, replace(source, seed=0), PROMPTS)
    key = root(spec.seeds.evaluation + 1, Purpose.EVALUATION, one.stream)
    return sample(source.build(), key, informative, coefficients)


@lru_cache(maxsize=32)
def _compile_sampler(task: PatternPairs, source: Patterns, prompts: int) -> Callable[..., SignPrompt]:
    """Function from (bank, key, informative, coefficients) to prompts: one program for all values."""
    index, split = jnp.arange(prompts, dtype=jnp.uint32), source.sizes().split()

    def sample(bank: Any, key: Any, informative: Array, coefficients: Array) -> SignPrompt:
        own = replace(task, context=LENGTHS[-1], informative=informative, coefficients=coefficients)
        return own.sample(key, index, source, bank, split)

    return compile_fast(sample)


@lru_cache(maxsize=32)
def _compile_errors(model: Model) -> Callable[[Params, SignPrompt, Int[Array, " length"]], Float[Array, " length"]]:
    """Function from (parameters, prompts, lengths) to the share of prompts whose sign is wrong after so many pairs."""

    def errors(params: Params, prompt: SignPrompt, lengths: Int[Array, " length"]) -> Float[Array, " length"]:
        def at(length: Int[Array, ""]) -> Float[Array, ""]:
            score = model.apply(params, _cut(prompt, length))[-1, :, 0]
            return (score * prompt.responses[-1] <= 0).mean()

        return jax.lax.map(at, lengths)

    return jax.jit(errors)


def _cut(prompt: SignPrompt, length: int | Int[Array, ""]) -> SignPrompt:
    """The prompts with their first `length` pairs alone."""
    there = jnp.arange(len(prompt.present))[:, None] < length
    return prompt._replace(present=jnp.broadcast_to(there, prompt.present.shape), latent={})


def errors_by_length(
    spec: Spec, params: Params, prompt: SignPrompt, lengths: tuple[int, ...] = LENGTHS
) -> Float[np.ndarray, " length"]:
    """Share of the prompts whose sign is wrong, with their first so many pairs alone."""
    lacking = prompt._replace(latent={})
    return np.asarray(_compile_errors(spec.model)(params, lacking, jnp.asarray(lengths)), np.float64)


def attention_on_pattern(spec: Spec, params: Params, prompt: SignPrompt) -> float:
    """Attention from the query to the pairs of its own pattern, with as many pairs as in training: the sum over these
    pairs, mean over the prompts that have one."""
    pairs = spec.task.context
    pattern = np.asarray(_compile_attention(spec.model)(params, _cut(prompt, pairs)), np.float64)[:, :pairs]
    own = np.asarray(prompt.latent["pattern"])
    same = own[:, :pairs] == own[:, -1:]
    return float((pattern * same).sum(1)[same.any(1)].mean())


@lru_cache(maxsize=32)
def _compile_attention(model: Model) -> Callable[[Params, SignPrompt], Float[Array, "batch pairs"]]:
    return jax.jit(lambda params, prompt: record(model, params, prompt, "hook_pattern")[1]["hook_pattern"])


def losses_by_removal(spec: Spec, params: Any, prompt: SignPrompt) -> Float[np.ndarray, "order share"]:
    """Hinge losses with these shares of the units removed, the smallest first and the largest first, at training's
    number of pairs. A unit's size is the norm of its row of W_O, as in magnitude pruning. The loss and not the share of
    wrong signs: few units can keep all signs right, with small scores."""
    rows, cut = np.asarray(params["o"]), _cut(prompt, spec.task.context)
    smallest_first = np.linalg.norm(rows, axis=1).argsort()
    found = []
    for order in (smallest_first, smallest_first[::-1]):
        for share in SHARES:
            kept = rows.copy()
            kept[order[: round(share * len(rows))]] = 0.0
            found.append(float(_compile_loss(spec.model)({**params, "o": jnp.asarray(kept)}, cut)))
    return np.asarray(found).reshape(2, len(SHARES))


@lru_cache(maxsize=32)
def _compile_loss(model: Model) -> Callable[[Params, SignPrompt], Float[Array, ""]]:
    return jax.jit(model.loss)


def baseline_errors(spec: Spec, prompt: SignPrompt, informative: float) -> dict[str, Errors]:
    """Errors of the predictors of `BASELINES`, by name, with the first so many pairs of the prompts; `informative` is
    that of the prompts."""
    x, y = np.asarray(prompt.inputs, np.float64), np.sign(np.asarray(prompt.responses, np.float64))
    pattern, source = np.asarray(prompt.latent["pattern"]).T, spec.source
    assert isinstance(source, Patterns)
    errors: dict[str, list[float]] = {name: [] for name in BASELINES}
    for n in LENGTHS:
        xs, ys = np.concatenate([x[:n], x[-1:]]), np.concatenate([y[:n], y[-1:]])
        scores = {
            LOGISTIC: logistic(xs, ys, LOGISTIC_PENALTY, [n])[0] - 0.5,
            THREE: nearest(xs, ys)[-1],
            ONE_NEAREST: nearest(xs, ys, k=1)[-1],
            OPTIMUM: rule_log_odds(pattern[[*range(n), -1]], ys, source.relevant, min(informative, ALMOST)),
        }
        for name, score in scores.items():
            errors[name].append(float((score * ys[-1] <= 0).mean()))
    return {name: np.asarray(one) for name, one in errors.items()}


def pairs_needed(errors: Errors, limit: float = LIMIT) -> float:
    """Number of pairs from which the error is at most `limit`, between two of `LENGTHS` by a straight line over the
    logarithm of the number; nan where the longest prompts do not reach it."""
    above = np.flatnonzero(errors > limit)
    if not above.size:
        return float(LENGTHS[0])
    if (last := above[-1]) == len(LENGTHS) - 1:
        return float("nan")
    share = (errors[last] - limit) / (errors[last] - errors[last + 1])
    low, high = np.log(LENGTHS[last : last + 2])
    return float(np.exp(low + share * (high - low)))


def of_members(evidence: Evidence, arm: str, measure: Callable[[Snapshot, int], float]) -> Float[np.ndarray, " member"]:
    """`measure`, a function of a run and of a member's place in it, of every member; nan for one that has not
    finished."""
    return np.asarray([np.nan if one is None else one for one in map_members(evidence, arm, measure)], np.float64)


def attention_over_training(evidence: Evidence, arm: str) -> Series:
    """`attention_on_pattern` of every member at every kept checkpoint, on unseen pairs."""

    def one(run: Snapshot, place: int) -> np.ndarray:
        spec, _, params = trained_member(run, place)
        assert isinstance(spec.model, OneLayer)
        prompt = draw_prompts(spec, "unseen")
        return np.asarray([attention_on_pattern(spec, each, prompt) for each in params])

    members = map_members(evidence, arm, one)
    times = next(
        (trained_member(run.snapshot(), m).sequences for m, run in evidence.runs(arm) if run), np.zeros(1, int)
    )
    return Series(stack_members(members, (len(times),)), times)
