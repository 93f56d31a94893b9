"""What models of functions answer: every member, every kept checkpoint, on prompts that baselines are given too."""

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

from ebbtide.compile import compile_fast
from ebbtide.evaluation.parts import in_parts
from ebbtide.keys import Purpose, root
from ebbtide.machine import cores
from ebbtide.models.model import Model, Params
from ebbtide.runs.folder import Run, Snapshot
from ebbtide.studies.evidence import Evidence, Series, stacked
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.task import Task
from ebbtide.training.probe import checkpoints
from ebbtide.training.run import params_of, spec_of
from ebbtide.training.spec import Spec

T = TypeVar("T")
PROMPTS = 2000
"""Prompts on which claims about functions are judged: never fewer, so that a difference of two predictors on the same
prompts is known to about a fiftieth of its spread over prompts."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Prompts, as models take them and as baselines do. One object for all that are asked the same."""

    prompt: FunctionPrompt

    @cached_property
    def inputs(self) -> Float[np.ndarray, "slots prompt dim"]:
        """In float64."""
        return np.asarray(self.prompt.inputs, np.float64)

    @cached_property
    def responses(self) -> Num[np.ndarray, "slots prompt *state"]:
        """In float64 unless they are labels."""
        said = np.asarray(self.prompt.responses)
        return said if np.issubdtype(said.dtype, np.integer) else said.astype(np.float64)

    @cached_property
    def latent(self) -> dict[str, Num[np.ndarray, "prompt *rest"]]:
        """The truth behind the responses."""
        return {name: np.asarray(x) for name, x in self.prompt.latent.items()}


class Answers(NamedTuple):
    """What one member answers: `outputs` at every kept checkpoint for every slot that is asked (all, or the query
    alone) of the prompts `asked`."""

    sequences: Int[np.ndarray, " checkpoint"]
    outputs: Float[np.ndarray, "checkpoint asked prompt outputs"]
    asked: Asked
    spec: Spec

    @property
    def inputs(self) -> Float[np.ndarray, "slots prompt dim"]:
        """Those of the prompts."""
        return self.asked.inputs

    @property
    def responses(self) -> Num[np.ndarray, "slots prompt *state"]:
        """Those of the prompts."""
        return self.asked.responses

    @property
    def latent(self) -> dict[str, Num[np.ndarray, "prompt *rest"]]:
        """That of the prompts."""
        return self.asked.latent

    def values(self) -> Float[np.ndarray, "checkpoint asked prompt"]:
        """The answers where responses are single real numbers."""
        return self.outputs[..., 0]


def of_prompts(measure: Callable[[Answers], T]) -> Callable[[Answers], T]:
    """A measure of the prompts, which knows no outputs, and of the spec only the task and the source: made once for all
    members and checkpoints that are asked the same, and kept as long as the prompts are."""
    kept: WeakKeyDictionary[Asked, T] = WeakKeyDictionary()

    @wraps(measure)
    def once(found: Answers) -> T:
        if found.asked not in kept:
            world = Spec(task=found.spec.task, source=found.spec.source)  # nothing of the arm that happens to be first
            kept[found.asked] = measure(found._replace(outputs=found.outputs[:0], spec=world))
        return kept[found.asked]

    return once


def fresh_prompts(spec: Spec, evaluator: str, prompts: int, **changes: Any) -> Asked:
    """Prompts of one of the evaluators of functions that neither training nor its evaluations have seen (evaluation
    seed + 1), the task with `changes`. Raises `InputError` for an unknown evaluator."""
    return _fresh(spec.task, spec.source, spec.seeds.evaluation, evaluator, prompts, tuple(sorted(changes.items())))


@lru_cache(maxsize=64)
def _fresh(
    own: Task, source: Any, seed: int, evaluator: str, prompts: int, changes: tuple[tuple[str, Any], ...]
) -> Asked:
    one: Any = own.evaluator(evaluator, source)
    task = replace(one.task, **dict(changes))
    key = root(seed + 1, Purpose.EVALUATION, one.stream)
    return Asked(_sampler(task, source)(key, jnp.arange(prompts, dtype=jnp.uint32)))


@lru_cache(maxsize=32)
def _sampler(task: Task, source: Any) -> Callable[[Key[Array, ""], UInt[Array, " prompt"]], Any]:
    """Prompts of a task by key and index: one program for all members and streams."""
    split, bank = source.sizes().split(), source.build()
    sample = compile_fast(lambda bank, key, index: task.sample(key, index, source, bank, split))
    return lambda key, index: sample(bank, key, index)


SEEN = "seen"
"""In place of an evaluator: the first prompts that a member was trained on."""


def seen_prompts(spec: Spec, member: int, prompts: int) -> Asked:
    """The first prompts of a member's training stream, at most the `distinct` ones that there are."""
    index = jnp.arange(min(prompts, spec.distinct or prompts), dtype=jnp.uint32)
    return Asked(_sampler(spec.task, spec.source)(spec.root(Purpose.DATA, member), index))


def answers(
    evidence: Evidence, arm: str, evaluator: str, *, prompts: int = PROMPTS, last: bool = False, **changes: Any
) -> list[Answers | None]:
    """What every member of an arm answers on fresh prompts of an evaluator, or on those that it has `SEEN` (None: it
    has not finished). `last` asks the last checkpoint alone; `changes` are fields of the task (context = 30: longer
    prompts)."""
    words = tuple(sorted(changes.items()))
    return of_every_member(evidence, arm, lambda run, place: of_member(run, place, evaluator, prompts, last, words))


def of_every_member(evidence: Evidence, arm: str, measure: Callable[[Snapshot, int], T]) -> list[T | None]:
    """`measure` of every member of an arm, given its run and its place there (None: it has not finished). The first
    alone, which compiles what all need, the others in as many threads as there are cores."""

    def one(member: tuple[int, Run | None]) -> T | None:
        place, run = member
        return None if run is None else measure(run.snapshot(), place)

    first, *others = evidence.runs(arm)
    with ThreadPoolExecutor(cores()) as pool:
        return [one(first), *pool.map(one, others)]


@lru_cache(maxsize=128)
def of_member(
    snapshot: Snapshot, place: int, evaluator: str, prompts: int, last: bool, changes: tuple[tuple[str, Any], ...] = ()
) -> Answers:
    """What one member of a run answers: see `answers`."""
    run = Run(snapshot.path)
    spec = spec_of(run)
    seen = evaluator == SEEN
    asked = seen_prompts(spec, place, prompts) if seen else fresh_prompts(spec, evaluator, prompts, **dict(changes))
    kept = checkpoints(run)
    outputs = []
    for at, arrays in kept[-1:] if last else kept:
        params = params_of(spec, arrays, place, f"{run.path}: checkpoint {at}")
        outputs.append(np.asarray(answering(spec.model)(params, asked.prompt), np.float64))
    times = np.asarray([at for at, _ in (kept[-1:] if last else kept)])
    return Answers(times, np.stack(outputs), asked, spec)


@lru_cache(maxsize=32)
def answering(model: Model) -> Callable[[Params, FunctionPrompt], Float[Array, "asked prompt outputs"]]:
    """The outputs of a model: one program for all checkpoints and members."""
    return jax.jit(lambda params, prompt: in_parts(lambda some: model.apply(params, some), prompt))


def series(
    found: list[Answers | None], measure: Callable[[Answers], Float[np.ndarray, "checkpoint *axes"]], *axes: int
) -> Series:
    """A measure of every member at every kept checkpoint, nan where it has not finished; `axes` are the sizes of the
    measure's further axes."""
    times = next((one.sequences for one in found if one is not None), np.zeros(1, int))
    rows = [None if one is None else measure(one) for one in found]
    return Series(stacked(rows, (len(times), *axes)), times)


def by_member(found: list[Answers | None], measure: Callable[[Answers], float]) -> Float[np.ndarray, " member"]:
    """A number of every member, nan where it has not finished."""
    return np.asarray([np.nan if one is None else measure(one) for one in found])
