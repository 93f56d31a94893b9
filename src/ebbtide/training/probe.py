"""Measures over training: every member at every kept checkpoint of a run."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from msgspec.structs import replace

from ebbtide.errors import nearest, require
from ebbtide.mechanisms.measures import Measure, find_measure, measure
from ebbtide.models.model import AnyPrompt, Params
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.training.feasible import check_answerable
from ebbtide.training.run import loadable_spec_of, params_of
from ebbtide.training.spec import Spec
from ebbtide.training.start import parameters
from ebbtide.training.worlds import Worlds

Say = Callable[[tuple[int, int]], None]
"""Called with (checkpoints done, checkpoints in all)."""


class ProbeResult(NamedTuple):
    """A measure over training: `values` [checkpoint, member, ...], where `measure.axes` names the further axes."""

    name: str
    measure: Measure
    evaluator: str
    sequences: Int[np.ndarray, " checkpoint"]
    values: Float[np.ndarray, "checkpoint member *axes"]


def checkpoints(run: RunFolder) -> list[tuple[int, dict[str, np.ndarray]]]:
    """The parameters [member, ...] by dotted name at every kept checkpoint of a run with its sequences, oldest first.
    Raises `InputError` when no checkpoint is intact."""
    intact = []
    for _, manifest in run.manifests():
        try:
            intact.append((manifest.sequences, parameters(run, manifest)))
        except DamagedError:
            continue
    require(len(intact) > 0, "run", str(run.path), "has no good checkpoint")
    return sorted(intact, key=lambda one: one[0])


def prompts_of(spec: Spec, evaluator: str, sequences: int, member: int = 0) -> Any:
    """Prompts of one of a run's evaluators: `Prompt`, or `FunctionPrompt` for function tasks.

    With `sequences` equal to the spec's `evaluation_sequences` these are the prompts that the run was evaluated on.

    Args:
        spec: the spec of the run.
        evaluator: the name of an evaluator of its task.
        sequences: the number of prompts.
        member: whose prompts, where source or task differ between members.

    Raises:
        InputError: there is no such evaluator, the spec describes no run, or this machine lacks the data or the memory
            for so many prompts.

    >>> spec, params = eb.model_at("runs/tiny")
    >>> eb.prompts_of(spec, "icl", 5).exemplars.shape  # [slot, sequence, feature]
    (3, 5, 8)
    """
    check_answerable(spec, sequences)
    return _worlds_of(spec, evaluator, sequences).of(member).suite.of(evaluator)


def _worlds_of(spec: Spec, evaluator: str, sequences: int) -> Worlds:
    names = spec.evaluators
    require(
        evaluator in names, "on", evaluator, f"the run has the evaluators {', '.join(names)}{nearest(evaluator, names)}"
    )
    return Worlds(replace(spec, evaluators=(evaluator,), evaluation_sequences=sequences))


def probe_run(
    run: RunFolder | str | os.PathLike[str],
    names: list[str],
    evaluator: str,
    *,
    sequences: int = 500,
    say: Say | None = None,
) -> list[ProbeResult]:
    """The measures `names` of every member at every kept checkpoint of a run.

    Args:
        run: a run, or the path of its folder.
        names: measures (`ebbtide probe --list` shows them).
        evaluator: the evaluator whose prompts are used.
        sequences: the number of prompts.
        say: called with (checkpoints done, checkpoints in all).

    The trained model is measured without the interventions of its training. Raises `InputError` for unknown names, a
    run without an intact checkpoint, a spec that cannot be run, or more prompts than this machine has memory for.

    >>> (result,) = eb.probe_run("runs/tiny", ["induction_strength"], "icl", sequences=8)
    >>> result.measure.axes, result.values.shape  # [checkpoint, member, layer, head]
    (('layer', 'head'), (2, 1, 2, 2))
    """
    run = run if isinstance(run, RunFolder) else RunFolder(run)
    spec = loadable_spec_of(run)
    found = [find_measure(name) for name in names]
    require(len(names) > 0, "measure", names, "name at least one")
    worlds = spec.members if spec.worlds() > 1 else 1
    check_answerable(spec, worlds * sequences)
    kept = checkpoints(run)
    for at, arrays in kept:
        params_of(spec, arrays, 0, f"{run.path}: checkpoint {at}")
    drawn = _worlds_of(spec, evaluator, sequences)
    per_world = [drawn.of(m).suite.of(evaluator) for m in range(worlds)]

    def all_of(params: Params, prompt: AnyPrompt) -> list[Array]:
        return [measure(name, spec.model, params, prompt) for name in names]

    compiled, times, rows = jax.jit(all_of), [], []
    for i, (at, arrays) in enumerate(kept):
        members = []
        for m in range(spec.members):
            params = params_of(spec, arrays, m, f"{run.path}: checkpoint {at}")
            members.append([np.asarray(x) for x in compiled(params, per_world[m % len(per_world)])])
        times.append(at)
        rows.append(members)
        if say is not None:
            say((i + 1, len(kept)))
    return [
        ProbeResult(name, one, evaluator, np.asarray(times), np.stack([np.stack([m[i] for m in row]) for row in rows]))
        for i, (name, one) in enumerate(zip(names, found, strict=True))
    ]
