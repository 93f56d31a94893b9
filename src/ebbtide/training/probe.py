"""Measures over training: every kept checkpoint of a run, every member."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.evaluators import build_suite
from ebbtide.mechanisms.measures import Measure, find_measure, measure
from ebbtide.models.model import AnyPrompt, Params
from ebbtide.runs.folder import DamagedError, Run
from ebbtide.training.driver import spec_of
from ebbtide.training.members import unnamed
from ebbtide.training.spec import Spec
from ebbtide.training.start import parameters

Say = Callable[[tuple[int, int]], None]
"""Told how many checkpoints are done, and of how many."""


class ProbeResult(NamedTuple):
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
            found.append((manifest.sequences, parameters(run, manifest)))
        except DamagedError:
            continue
    require(len(found) > 0, "run", str(run.path), "has no good checkpoint")
    return sorted(found, key=lambda one: one[0])


def model_at(run: Run | str | os.PathLike[str], member: int = 0, sequences: int | None = None) -> tuple[Spec, Params]:
    """The spec of a run (or of the run in a folder), and the parameters of one member at a kept checkpoint (None: the
    newest). Raises `InputError` when there is no such run, checkpoint or member."""
    run = run if isinstance(run, Run) else Run(run)
    spec, kept = spec_of(run), {manifest.sequences: manifest for _, manifest in run.manifests()}
    require(len(kept) > 0, "run", str(run.path), "has no checkpoint")
    require(0 <= member < spec.members, "member", member, f"must be from 0 to {spec.members - 1}")
    at = max(kept) if sequences is None else sequences
    require(at in kept, "sequences", at, f"the run has checkpoints at {', '.join(str(one) for one in sorted(kept))}")
    where = f"{run.path}: checkpoint {at}"
    try:
        return spec, _params(spec, parameters(run, kept[at]), member, where)
    except DamagedError as error:
        raise InputError("run", where, str(error)) from error


def _params(spec: Spec, arrays: dict[str, np.ndarray], member: int, where: str) -> Params:
    template = jax.eval_shape(lambda key: spec.model.init(key, **spec.shape()), jax.random.key(0))
    try:
        return unnamed(template, {name: x[member] for name, x in arrays.items()})
    except (KeyError, ValueError) as error:
        raise InputError("run", where, str(error)) from error


def prompts_of(spec: Spec, evaluator: str, sequences: int, member: int = 0) -> Any:
    """Prompts of one of a run's evaluators (`Prompt`; `FunctionPrompt` of functions), those it was evaluated on where
    as many are asked for."""
    names = spec.evaluators
    require(
        evaluator in names, "on", evaluator, f"the run has the evaluators {', '.join(names)}{nearest(evaluator, names)}"
    )
    world = spec.with_values({k: v for k, v in spec.values(member).items() if not k.startswith("optimizer.")})
    bank, seed = world.source.build(), world.seeds.evaluation
    suite = build_suite((evaluator,), world.task, world.source, bank, sequences=sequences, seed=seed)
    return suite.of(evaluator)


def probe_run(
    run: Run | str | os.PathLike[str], names: list[str], evaluator: str, *, sequences: int = 500, say: Say | None = None
) -> list[ProbeResult]:
    """The measures `names` of every member at every kept checkpoint, on `sequences` prompts of `evaluator`.

    The model is the trained one alone: interventions of its training are left out. Raises `InputError` for unknown
    names, or a run without a whole checkpoint.
    """
    run = run if isinstance(run, Run) else Run(run)
    spec = spec_of(run)
    found = [find_measure(name) for name in names]
    require(len(names) > 0, "measure", names, "name at least one")
    per_world = [prompts_of(spec, evaluator, sequences, m) for m in range(spec.members if spec.vary else 1)]

    def all_of(params: Params, prompt: AnyPrompt) -> list[Array]:
        return [measure(name, spec.model, params, prompt) for name in names]

    compiled, times, rows = jax.jit(all_of), [], []
    kept = checkpoints(run)
    for i, (at, arrays) in enumerate(kept):
        members = []
        for m in range(spec.members):
            params = _params(spec, arrays, m, f"{run.path}: checkpoint {at}")
            members.append([np.asarray(x) for x in compiled(params, per_world[m % len(per_world)])])
        times.append(at)
        rows.append(members)
        if say is not None:
            say((i + 1, len(kept)))
    return [
        ProbeResult(name, one, evaluator, np.asarray(times), np.stack([np.stack([m[i] for m in row]) for row in rows]))
        for i, (name, one) in enumerate(zip(names, found, strict=True))
    ]
