"""Checks that a checkpoint's state fits its spec: before any worker is started, and before a model is read from it."""

from typing import Any

import jax
import numpy as np

from ebbtide.runs.records import Manifest
from ebbtide.runs.signed import DamagedError
from ebbtide.training.groups import BEST
from ebbtide.training.members import WATCH
from ebbtide.training.programs import programs_of
from ebbtide.training.spec import Spec
from ebbtide.training.start import PREFIX, shapes, to_dotted
from ebbtide.training.watch import TRAINING, Watch

Kind = tuple[tuple[int, ...], str]
"""Shape and type of an array."""


def check_state(spec: Spec, manifest: Manifest, state: dict[str, np.ndarray]) -> None:
    """Raises `DamagedError`, naming the array, unless training this spec to the manifest's `sequences` can have
    produced the state. The best models and the arrays of the watch may be missing: earlier versions did not save
    them."""
    needed, optional = _expected_arrays(spec)
    have = {name: (array.shape, str(array.dtype)) for name, array in state.items()}
    for name in needed:
        _require(name in have, manifest, f"lacks the array {name}")
    for name, kind in have.items():
        wanted = (needed | optional).get(name)
        _require(wanted is not None, manifest, f"holds an array {name[:60]!r}, which this spec has no use for")
        _require(kind == wanted, manifest, f"{name} is {_words(kind)}, this spec needs {_words(wanted)}")
    for prefix in (BEST, WATCH):
        names = [name for name in optional if name.startswith(prefix)]
        lacking = [name for name in names if name not in have]
        _require(lacking in ([], names), manifest, f"lacks the array {''.join(lacking[:1])}")
    stopped = state.get(f"{WATCH}stopped_at", np.full(spec.members, TRAINING))
    may = (stopped >= 0) & (stopped <= manifest.sequences) & (spec.stopping is not None)
    words = f"{WATCH}stopped_at is {stopped.tolist()}, which this spec cannot have at {manifest.sequences} sequences"
    _require(bool((may | (stopped == TRAINING)).all()), manifest, words)
    at = np.where(stopped == TRAINING, manifest.sequences, stopped)
    wrong = np.flatnonzero(state["step"].astype(np.int64) * spec.batch != at)
    if len(wrong):
        m = int(wrong[0])
        words = (
            f"step of member {m} is {int(state['step'][m])}, at {int(at[m])} sequences it is {int(at[m]) // spec.batch}"
        )
        raise DamagedError(f"{manifest.state.path}: {words}")


def check_parameters(spec: Spec, arrays: dict[str, np.ndarray]) -> None:
    """Raises `DamagedError`, naming the array, unless these are the parameters [member, ...] by dotted name of all
    members of a run of this spec."""
    needed = {
        name: ((spec.members, *leaf.shape), str(leaf.dtype)) for name, leaf in shapes(spec.model, spec.shape()).items()
    }
    for name in needed:
        if name not in arrays:
            raise DamagedError(f"lacks the parameter {name}")
    for name, array in arrays.items():
        if name not in needed:
            raise DamagedError(f"holds a parameter {name[:60]!r}, which this spec has no use for")
        kind = array.shape, str(array.dtype)
        if kind != needed[name]:
            raise DamagedError(f"{name} is {_words(kind)}, this spec needs {_words(needed[name])}")


def _expected_arrays(spec: Spec) -> tuple[dict[str, Kind], dict[str, Kind]]:
    """The arrays that a state must have, and those that it may have."""
    leaves = to_dotted(jax.eval_shape(programs_of(spec).fresh, jax.random.key(0)))
    needed = {name: ((spec.members, *leaf.shape), str(leaf.dtype)) for name, leaf in leaves.items()}
    optional = (
        {BEST + name.removeprefix(PREFIX): kind for name, kind in needed.items() if name.startswith(PREFIX)}
        if spec.best_evaluator()
        else {}
    )
    watched = Watch(spec.members, spec.stopping).arrays()
    return needed, optional | {WATCH + name: (array.shape, str(array.dtype)) for name, array in watched.items()}


def _require(condition: bool, manifest: Manifest, what: str) -> None:
    if not condition:
        raise DamagedError(f"{manifest.state.path}: {what}")


def _words(kind: Any) -> str:
    shape, dtype = kind
    return f"{dtype} {list(shape)}"
