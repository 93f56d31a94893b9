"""Measures over training: every kept checkpoint of a run, every member."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.evaluators import build_suite
from ebbtide.mechanisms.measures import Measure, find_measure, measure
from ebbtide.models.model import Params
from ebbtide.runs.folder import DamagedError, Run
from ebbtide.runs.reading import load_record
from ebbtide.tasks.prompt import Prompt

PREFIX = "params."
Say = Callable[[tuple[int, int]], None]
"""Told how many checkpoints are done, and of how many."""


class Probed(NamedTuple):
    """A measure of a run: `values` [checkpoint, member, ...], the axes of ... are `measure.axes`."""

    name: str
    measure: Measure
    evaluator: str
    sequences: Int[np.ndarray, " checkpoint"]
    values: Float[np.ndarray, "checkpoint member *axes"]


def checkpoints(run: Run) -> list[tuple[int, dict[str, np.ndarray]]]:
    """The parameters [member, ...] at every kept checkpoint of a run, oldest first, by dotted name. Raises `InputError`
    when there is none that is whole."""
    found = []
    for _, manifest in run.manifests():
        try:
            state = load_record(run.path, manifest.state)
        except DamagedError:
            continue
        arrays = {name.removeprefix(PREFIX): x for name, x in state.items() if name.startswith(PREFIX)}
        found.append((manifest.sequences, arrays))
    require(len(found) > 0, "run", str(run.path), "has no good checkpoint")
    return sorted(found, key=lambda one: one[0])


def prompts_of(spec: Any, evaluator: str, sequences: int, member: int = 0) -> Prompt:
    """Prompts of one of a run's evaluators, those it was evaluated on where as many are asked for."""
    names = spec.evaluators
    require(
        evaluator in names, "on", evaluator, f"the run has the evaluators {', '.join(names)}{nearest(evaluator, names)}"
    )
    world = spec.with_values({k: v for k, v in spec.values(member).items() if not k.startswith("optimizer.")})
    bank, seed = world.source.build(), world.seeds.evaluation
    suite = build_suite((evaluator,), world.task, world.source, bank, sequences=sequences, seed=seed)
    return suite.of(evaluator)


def probe_run(
    run: Run, names: list[str], evaluator: str, *, sequences: int = 500, say: Say | None = None
) -> list[Probed]:
    """The measures `names` of every member at every kept checkpoint, on `sequences` prompts of `evaluator`.

    The model is the trained one alone: interventions of its training are left out. Raises `InputError` for unknown
    names, or a run without a whole checkpoint.
    """
    from ebbtide.training.driver import spec_of
    from ebbtide.training.members import unnamed

    spec = spec_of(run)
    found = [find_measure(name) for name in names]
    require(len(names) > 0, "measure", names, "name at least one")
    template = jax.eval_shape(lambda key: spec.model.init(key, **spec.shape()), jax.random.key(0))
    per_world = [prompts_of(spec, evaluator, sequences, m) for m in range(spec.members if spec.vary else 1)]

    def all_of(params: Params, prompt: Prompt) -> list[Array]:
        return [measure(name, spec.model, params, prompt) for name in names]

    compiled, times, rows = jax.jit(all_of), [], []
    kept = checkpoints(run)
    for i, (at, arrays) in enumerate(kept):
        members = []
        for m in range(spec.members):
            try:
                params = unnamed(template, {name: x[m] for name, x in arrays.items()})
            except (KeyError, ValueError) as error:
                raise InputError("run", str(run.path), f"checkpoint {at}: {error}") from error
            members.append([np.asarray(x) for x in compiled(params, per_world[m % len(per_world)])])
        times.append(at)
        rows.append(members)
        if say is not None:
            say((i + 1, len(kept)))
    return [
        Probed(name, one, evaluator, np.asarray(times), np.stack([np.stack([m[i] for m in row]) for row in rows]))
        for i, (name, one) in enumerate(zip(names, found, strict=True))
    ]
