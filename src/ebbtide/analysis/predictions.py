"""Predictions of trained models of functions: every member, at every kept checkpoint, on prompts that the classical and
exact predictors are given too."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num, UInt
from msgspec.structs import replace

from ebbtide.compile import Precision, compile_fast, products_in
from ebbtide.evaluation.parts import in_parts
from ebbtide.keys import Purpose, root
from ebbtide.machine import cores
from ebbtide.models.model import Model, Params
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.studies.evidence import Evidence, Series, stack_members
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.task import Task
from ebbtide.training.probe import checkpoints
from ebbtide.training.run import loadable_spec_of, params_of
from ebbtide.training.spec import Spec

T = TypeVar("T")
PROMPTS = 2000
"""Number of prompts on which claims about functions are judged: never fewer, so that the standard error of a difference
between two predictors on the same prompts is about a fiftieth of its standard deviation over prompts."""


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts as models take them (`prompt`), and as float64 arrays for classical predictors. All members and
    checkpoints that are evaluated on the same prompts share one object, which is a key of `cache_per_prompt_set`."""

    prompt: FunctionPrompt

    @cached_property
    def inputs(self) -> Float[np.ndarray, "slots prompt dim"]:
        """Inputs, in float64."""
        return np.asarray(self.prompt.inputs, np.float64)

    @cached_property
    def responses(self) -> Num[np.ndarray, "slots prompt *state"]:
        """Responses: real ones in float64, labels as integers."""
        responses = np.asarray(self.prompt.responses)
        return responses if np.issubdtype(responses.dtype, np.integer) else responses.astype(np.float64)

    @cached_property
    def latent(self) -> dict[str, Num[np.ndarray, "prompt *rest"]]:
        """Latent variables that produced the responses, such as the weights of each prompt's function, by name."""
        return {name: np.asarray(x) for name, x in self.prompt.latent.items()}


class Predictions(NamedTuple):
    """Predictions of one member: `outputs` at every kept checkpoint (`sequences`) for the prompts of `prompt_set`, at
    every slot whose response the model predicts (all slots, or the query alone)."""

    sequences: Int[np.ndarray, " checkpoint"]
    outputs: Float[np.ndarray, "checkpoint predicted prompt outputs"]
    prompt_set: PromptSet
    spec: Spec

    @property
    def inputs(self) -> Float[np.ndarray, "slots prompt dim"]:
        """Inputs of the prompts."""
        return self.prompt_set.inputs

    @property
    def responses(self) -> Num[np.ndarray, "slots prompt *state"]:
        """True responses of the prompts."""
        return self.prompt_set.responses

    @property
    def latent(self) -> dict[str, Num[np.ndarray, "prompt *rest"]]:
        """Latent variables of the prompts, by name."""
        return self.prompt_set.latent

    def values(self) -> Float[np.ndarray, "checkpoint predicted prompt"]:
        """Predicted responses, where a response is one real number."""
        return self.outputs[..., 0]


def cache_per_prompt_set(measure: Callable[[Predictions], T]) -> Callable[[Predictions], T]:
    """A measure of the prompts alone, computed once for each `PromptSet` and kept as long as that lives. The measure
    sees no outputs, and of the spec only the task and the source."""
    cache: WeakKeyDictionary[PromptSet, T] = WeakKeyDictionary()

    @wraps(measure)
    def cached(predictions: Predictions) -> T:
        if predictions.prompt_set not in cache:
            spec = predictions.spec
            world = Spec(task=spec.task, source=spec.source)  # nothing of the arm that happens to be first
            cache[predictions.prompt_set] = measure(predictions._replace(outputs=predictions.outputs[:0], spec=world))
        return cache[predictions.prompt_set]

    return cached


def fresh_prompts(spec: Spec, evaluator: str, prompts: int, **changes: Any) -> PromptSet:
    """Prompts of one of the evaluators of functions that neither training nor its evaluations have seen (evaluation
    seed + 1), with fields of the task replaced by `changes`. Raises `InputError` for an unknown evaluator."""
    return _fresh_prompts(
        spec.task, spec.source, spec.seeds.evaluation, evaluator, prompts, tuple(sorted(changes.items()))
    )


@lru_cache(maxsize=64)
def _fresh_prompts(
    own: Task, source: Any, seed: int, evaluator: str, prompts: int, changes: tuple[tuple[str, Any], ...]
) -> PromptSet:
    one: Any = own.evaluator(evaluator, source)
    task = replace(one.task, **dict(changes))
    key = root(seed + 1, Purpose.EVALUATION, one.stream)
    return PromptSet(_compile_sampler(task, source)(key, jnp.arange(prompts, dtype=jnp.uint32)))


@lru_cache(maxsize=32)
def _compile_sampler(task: Task, source: Any) -> Callable[[Key[Array, ""], UInt[Array, " prompt"]], Any]:
    """Function from (key, indices) to prompts of a task, drawn from the source's bank."""
    bank, sample = source.build(), _compile_bank_sampler(task, replace(source, seed=0))
    return lambda key, index: sample(bank, key, index)


@lru_cache(maxsize=32)
def _compile_bank_sampler(task: Task, source: Any) -> Callable[[Any, Key[Array, ""], UInt[Array, " prompt"]], Any]:
    """Function from (bank, key, indices) to prompts of a task: one program for all seeds of a source."""
    split = source.sizes().split()
    return compile_fast(lambda bank, key, index: task.sample(key, index, source, bank, split))


TRAINING_PROMPTS = "seen"
"""Given in place of an evaluator's name: the first prompts that a member was trained on."""


def training_prompts(spec: Spec, member: int, prompts: int) -> PromptSet:
    """The first prompts of a member's training stream, at most the `distinct` ones that the stream has."""
    index = jnp.arange(min(prompts, spec.distinct or prompts), dtype=jnp.uint32)
    return PromptSet(_compile_sampler(spec.task, spec.source)(spec.root(Purpose.DATA, member), index))


def predict_arm(
    evidence: Evidence, arm: str, evaluator: str, *, prompts: int = PROMPTS, last: bool = False, **changes: Any
) -> list[Predictions | None]:
    """Predictions of every member of an arm on fresh prompts of an evaluator, or on `TRAINING_PROMPTS`; None for a
    member that has not finished. With `last` only those of the last checkpoint; `changes` replace fields of the task
    (context = 30: longer prompts)."""
    fields = tuple(sorted(changes.items()))
    return map_members(evidence, arm, lambda run, place: predict_member(run, place, evaluator, prompts, last, fields))


def map_members(evidence: Evidence, arm: str, measure: Callable[[Snapshot, int], T]) -> list[T | None]:
    """Values of `measure`, a function of a run and of a member's place in that run, for every member of an arm; None
    for a member that has not finished. The first member is measured alone, since it compiles what all members need;
    the others in as many threads as there are cores."""

    def measure_one(member: tuple[int, RunFolder | None]) -> T | None:
        place, run = member
        return None if run is None else measure(run.snapshot(), place)

    first, *others = evidence.runs(arm)
    with ThreadPoolExecutor(cores()) as pool:
        return [measure_one(first), *pool.map(measure_one, others)]


@lru_cache(maxsize=128)
def predict_member(
    snapshot: Snapshot, place: int, evaluator: str, prompts: int, last: bool, changes: tuple[tuple[str, Any], ...] = ()
) -> Predictions:
    """Predictions of one member of a run; the arguments are those of `predict_arm`."""
    run = RunFolder(snapshot.path)
    spec = loadable_spec_of(run).world(place)
    if evaluator == TRAINING_PROMPTS:
        prompt_set = training_prompts(spec, place, prompts)
    else:
        prompt_set = fresh_prompts(spec, evaluator, prompts, **dict(changes))
    kept = checkpoints(run)
    outputs = []
    for at, arrays in kept[-1:] if last else kept:
        params = params_of(spec, arrays, place, f"{run.path}: checkpoint {at}")
        outputs.append(
            np.asarray(compile_forward(spec.model, spec.product_precision())(params, prompt_set.prompt), np.float64)
        )
    times = np.asarray([at for at, _ in (kept[-1:] if last else kept)])
    return Predictions(times, np.stack(outputs), prompt_set, spec)


@lru_cache(maxsize=32)
def compile_forward(
    model: Model, precision: Precision
) -> Callable[[Params, FunctionPrompt], Float[Array, "predicted prompt outputs"]]:
    """Forward pass of a model, from (parameters, prompt) to outputs: one program for all checkpoints and members."""

    def forward(params: Params, prompt: FunctionPrompt) -> Float[Array, "predicted prompt outputs"]:
        with products_in(precision):
            return in_parts(lambda some: model.apply(params, some), prompt)

    return jax.jit(forward)


def member_series(
    members: list[Predictions | None],
    measure: Callable[[Predictions], Float[np.ndarray, "checkpoint *axes"]],
    *axes: int,
) -> Series:
    """`measure` of every member at every kept checkpoint, nan for a member that has not finished (None); `axes` are the
    sizes of the measure's further axes."""
    times = next((one.sequences for one in members if one is not None), np.zeros(1, int))
    rows = [None if one is None else measure(one) for one in members]
    return Series(stack_members(rows, (len(times), *axes)), times)


def member_values(
    members: list[Predictions | None], measure: Callable[[Predictions], float]
) -> Float[np.ndarray, " member"]:
    """`measure`, one number for each member, nan for a member that has not finished (None)."""
    return np.asarray([np.nan if one is None else measure(one) for one in members])
