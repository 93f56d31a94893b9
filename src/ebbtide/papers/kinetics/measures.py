"""Measures of trained models of one head: ICL on new items, IWL away from the context, and the theory's w, c3 and s."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from msgspec.structs import replace
from scipy.special import lambertw, ndtr

from ebbtide.analysis.predictions import map_members
from ebbtide.compile import compile_fast
from ebbtide.evaluation.summary import first_crossing, smooth
from ebbtide.keys import Purpose, root
from ebbtide.models.model import Model
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.sources.gaussian import Gaussian
from ebbtide.studies.evidence import Evidence, Series, stack_members
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.prompt import Prompt
from ebbtide.training.probe import checkpoints
from ebbtide.training.run import loadable_spec_of, params_of
from ebbtide.training.spec import Spec

PROMPTS = 2000
"""Number of prompts of each kind: a standard error of at most .011 of an accuracy."""
NEW, AWAY, NEW_AWAY = "new", "away", "new, away"
"""Kinds of prompts: new items in the composition of training, so that only the context tells the label (the paper's
ICL); trained items of which the context holds none of the query's class, with other labels as they come (the paper's
IWL); new items with such a context, whose scores mean nothing."""
STREAM = 1000
"""Number of the first stream of these prompts: no evaluator's."""


class Course(NamedTuple):
    """What one member does at its kept checkpoints. A *margin* is the score of the right label over the other's, nats.

    Args:
        sequences: of every checkpoint.
        icl, iwl: accuracy on new items, and on trained items away from the context.
        weight: w, the mean margin on new items: what the context adds to the score.
        residual: c3 = mean of exp(-margin) on trained items away from the context.
        spread: s, standard deviation of the margin on new items away from the context.
    """

    sequences: Int[np.ndarray, " checkpoint"]
    icl: Float[np.ndarray, " checkpoint"]
    iwl: Float[np.ndarray, " checkpoint"]
    weight: Float[np.ndarray, " checkpoint"]
    residual: Float[np.ndarray, " checkpoint"]
    spread: Float[np.ndarray, " checkpoint"]


FIELDS = Course._fields[1:]


def course_of(
    sequences: Int[np.ndarray, " checkpoint"], margins: dict[str, Float[np.ndarray, "checkpoint prompt"]]
) -> Course:
    """The `Course` of a member by its margins on each kind of prompts."""
    new, away, blank = (margins[kind].astype(np.float64) for kind in (NEW, AWAY, NEW_AWAY))
    icl, iwl = (np.mean(one > 0, axis=1) for one in (new, away))
    return Course(sequences, icl, iwl, new.mean(1), np.exp(-away).mean(1), blank.std(1))


def prompts_of_world(spec: Spec) -> dict[str, Prompt]:
    """Prompts of each kind of a member's world."""
    assert isinstance(spec.task, FewShot) and isinstance(spec.source, Gaussian)
    return draw_prompts(spec.task, spec.source, spec.seeds.evaluation)


@lru_cache(maxsize=64)
def draw_prompts(task: FewShot, source: Gaussian, seed: int) -> dict[str, Prompt]:
    """`PROMPTS` prompts of each kind that neither training nor evaluation has seen (evaluation seed + 1)."""
    bank, other = source.build(), replace(task, burst=0, rest="no_support", distinct="class")
    found = {}
    for i, (kind, one, new) in enumerate(((NEW, task, True), (AWAY, other, False), (NEW_AWAY, other, True))):
        key = root(seed + 1, Purpose.EVALUATION, STREAM + i)
        found[kind] = _compile_sampler(one, replace(source, seed=0), new)(bank, key)
    return found


@lru_cache(maxsize=32)
def _compile_sampler(task: FewShot, source: Any, new: bool) -> Any:
    """Function from (bank, key) to prompts of a task on held-out (`new`) or trained classes."""
    split, index = source.sizes().split(holdout_classes=new), jnp.arange(PROMPTS, dtype=jnp.uint32)
    return compile_fast(lambda bank, key: task.sample(key, index, source, bank, split))


@lru_cache(maxsize=32)
def _compile_margins(model: Model) -> Any:
    """Function from (parameters, prompts by kind) to the margins of every kind."""

    def margin(params: Any, prompt: Prompt) -> Float[Array, " prompt"]:
        logits = model.apply(params, prompt)
        return (logits[:, 1] - logits[:, 0]) * (2 * prompt.target - 1)

    return jax.jit(lambda params, prompts: {kind: margin(params, one) for kind, one in prompts.items()})


@lru_cache(maxsize=2)
def _checkpoints(snapshot: Snapshot) -> list[tuple[int, dict[str, np.ndarray]]]:
    """The kept checkpoints of a run, read once for all of its members."""
    return checkpoints(RunFolder(snapshot.path))


@lru_cache(maxsize=256)
def measure_member(snapshot: Snapshot, place: int) -> Course:
    """The `Course` of one member of a run."""
    run = RunFolder(snapshot.path)
    spec = loadable_spec_of(run).world(place)
    prompts, margins = prompts_of_world(spec), _compile_margins(spec.model)
    kept = _checkpoints(snapshot)
    found = [
        jax.device_get(margins(params_of(spec, arrays, place, f"{run.path}: checkpoint {at}"), prompts))
        for at, arrays in kept
    ]
    every = {kind: np.stack([one[kind] for one in found]) for kind in (NEW, AWAY, NEW_AWAY)}
    return course_of(np.asarray([at for at, _ in kept]), every)


def courses(evidence: Evidence, arm: str) -> dict[str, Series]:
    """Every field of `Course` of every member of an arm over training; nan for a member that has not finished."""
    members = map_members(evidence, arm, lambda run, place: measure_member(run, place))
    times = next((one.sequences for one in members if one is not None), np.zeros(1, int))
    fields = {name: [None if one is None else getattr(one, name) for one in members] for name in FIELDS}
    return {name: Series(stack_members(rows, times.shape), times) for name, rows in fields.items()}


def predicted_weight(residual: Float[np.ndarray, "*many"], coefficient: float) -> Float[np.ndarray, "*many"]:
    """The theory's w at the balance c3 exp(-w) = lambda w of gradient and L2: LambertW(c3 / lambda), nats (2412.00104,
    on transience).

    >>> predicted_weight(np.asarray([0.01 * np.e]), 0.01).round(3).tolist()
    [1.0]
    """
    return lambertw(residual / coefficient).real


class Falls(NamedTuple):
    """The time at which the ICL of every member of an arm has fallen half-way from its peak to chance, as `observed`
    and as `predicted` from its IWL alone; and the time at which its IWL has risen half-way from where it was at the
    peak of ICL to 1 (`iwl`). In sequences; nan: not by the end, or ICL never came to .75."""

    observed: Float[np.ndarray, " member"]
    predicted: Float[np.ndarray, " member"]
    iwl: Float[np.ndarray, " member"]


def half_falls(course: dict[str, Series], coefficient: float) -> Falls:
    """The `Falls` of the members with these courses (`courses`) and this coefficient of L2. Curves are smoothed over
    three checkpoints; the predicted ICL is Phi(w / s), with w = LambertW(c3 / lambda)."""
    times = course["icl"].sequences.astype(float)
    icl, iwl = smooth(course["icl"].values), smooth(course["iwl"].values)
    weight = predicted_weight(course["residual"].values, coefficient)
    expected = smooth(ndtr(weight / np.maximum(course["spread"].values, 1e-9)))
    rows = []
    for own, memory, theory in zip(icl, iwl, expected, strict=True):
        if not np.isfinite(own).all() or own.max() < LEARNED:
            rows.append([np.nan] * 3)
            continue
        top = int(own.argmax())
        level, reached = (own[top] + CHANCE) / 2, (memory[top] + 1) / 2
        falling = [first_crossing(times[top:], one[None, top:], level, falling=True)[0] for one in (own, theory)]
        rows.append([*falling, first_crossing(times[top:], memory[None, top:], reached)[0]])
    return Falls(*np.asarray(rows, float).reshape(-1, 3).T)


CHANCE, LEARNED = 0.5, 0.75
"""ICL of a guess, and half the way from there to 1: from which on a member has learned in context."""
