"""Initial parameters taken from another run's checkpoint, and parameters that training keeps frozen."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from ebbtide.errors import InputError, nearest, require
from ebbtide.models.model import Model, Params, Shape
from ebbtide.places import resolve_path, search_note
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import FileRecord, load_record
from ebbtide.runs.records import Manifest
from ebbtide.runs.signed import DamagedError
from ebbtide.training.context import Context

PREFIX = "params."
MEMBER = "seeds.member"
BIASES = (".attn.b_kv", ".attn.b_d")
"""Ends of the names of biases that hold a context."""


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Initial parameters from a checkpoint of another run, the donor. Parameters that are not taken from the donor are
    drawn as usual, and the optimiser starts anew.

    Args:
        run: the donor's folder.
        sequences: the donor's checkpoint, in sequences per member.
        parts: globs of the parameters to take, e.g. `blocks.1.*`.
        member: the donor's member, by its place in the donor, from which all members start. None: every member starts
            from the donor's member with the same number (`Spec.number`, the i of its seeds).
        skip: the number of the donor's first layers that are left out: its blocks.{skip} is blocks.0 here.
        context: a context that is then converted to biases of the attention (`fold_context`); where the donor has no
            such biases, they are 0 before. Prompts of the task follow that context: to the model it stands before them.

    With the same parts in `Spec.freeze` this grafts layers of one model into another (Singh et al. 2025, arXiv
    2503.05631, Fig. 3 and 4).

    >>> eb.Start(run="runs/tiny", sequences=64, parts=("blocks.1.*",)).skip
    0
    """

    run: str
    sequences: Annotated[int, msgspec.Meta(ge=0)]
    parts: tuple[str, ...] = ("*",)
    member: Annotated[int, msgspec.Meta(ge=0)] | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    context: Context | msgspec.UnsetType = msgspec.UNSET  # not None: absent from the JSON of specs without it

    def check(self, model: Model, shape: Shape, numbers: list[int]) -> None:
        """Raises `InputError` unless the checkpoint exists, fits the model where it is used, and has members with these
        numbers."""
        arrays = self._arrays()
        wanted = {name: leaf.shape for name, leaf in shapes(model, shape).items()}
        for name in self._taken(list(wanted), arrays):
            have = arrays.get(name)
            allowed = f"has no parameter {name}" if have is None else f"{name} has shape {list(have.shape[1:])}"
            allowed += f", the model needs {list(wanted[name])}"
            require(have is not None and have.shape[1:] == wanted[name], "start.run", self.run, allowed)
        for number in numbers:
            self._row(number)

    def merge(self, params: Params, number: int) -> Params:
        """The parameters of the member with this number: `params`, with the parts that come from the donor replaced."""
        arrays, row = self._arrays(), self._row(number)
        chosen = set(self._taken(list(to_dotted(params)), arrays))

        def one(path: Any, leaf: jax.Array) -> jax.Array:
            name = dotted_name(path)
            return jnp.asarray(arrays[name][row], leaf.dtype) if name in chosen else leaf

        return jax.tree_util.tree_map_with_path(one, params)

    def _taken(self, names: list[str], arrays: dict[str, np.ndarray]) -> list[str]:
        """The parameters among `names` that come from the donor: not the biases of a context, where it has none."""
        taken = select(self.parts, names, "start.parts")
        if self.context is msgspec.UNSET:
            return taken
        return [name for name in taken if name in arrays or not name.endswith(BIASES)]

    def content(self) -> str:
        """The SHA-256 of the state in the donor's checkpoint. Raises `InputError` when there is no such checkpoint."""
        return _kept_checkpoint(self.run, self.sequences)[1].state.sha256

    def _row(self, number: int) -> int:
        """The donor's place of the member from which the member with this number starts."""
        there = member_numbers(RunFolder(resolve_path(self.run)))
        if self.member is not None:
            allowed = f"{self.run} has {len(there)} members"
            require(self.member < len(there), "start.member", self.member, allowed)
            return self.member
        listed = ", ".join(map(str, there[:20])) + (", ..." if len(there) > 20 else "")
        allowed = f"{self.run} has no member of this number, but {listed} (start.member takes one for all)"
        require(number in there, "seeds.member", number, allowed)
        return there.index(number)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = checkpoint(self.run, self.sequences)
        return {
            without_first_layers(name, self.skip): array
            for name, array in arrays.items()
            if not in_first_layers(name, self.skip)
        }


def in_first_layers(name: str, layers: int) -> bool:
    """Whether a parameter belongs to one of the first `layers` layers."""
    first, _, rest = name.partition(".")
    return first == "blocks" and int(rest.partition(".")[0]) < layers


def without_first_layers(name: str, layers: int) -> str:
    """The name of a parameter in the model without its first `layers` layers."""
    first, _, rest = name.partition(".")
    layer, _, last = rest.partition(".")
    return f"blocks.{int(layer) - layers}.{last}" if first == "blocks" else name


def member_numbers(run: RunFolder) -> Sequence[int]:
    """The number of every member of a run, in the order of their places: the i by which their seeds differ. A folder
    may claim any number of members: no list of them is made."""
    spec = run.header.spec
    if MEMBER in spec.get("vary", {}):
        return [int(number) for number in spec["vary"][MEMBER]]
    first = spec.get("seeds", {}).get("member", 0)
    return range(first, first + spec["members"])


def checkpoint(run: str, sequences: int) -> dict[str, np.ndarray]:
    """The parameters [member, ...] at a run's checkpoint, by dotted name. Raises `InputError` when it is missing or
    damaged."""
    found, manifest = _kept_checkpoint(run, sequences)
    try:
        return _load_parameters(str(found.path.resolve()), manifest.state)
    except DamagedError as error:
        raise InputError("start.run", run, str(error)) from error


def _kept_checkpoint(run: str, sequences: int) -> tuple[RunFolder, Manifest]:
    """A run and its checkpoint at `sequences`. Raises `InputError` when one is missing."""
    try:
        found = RunFolder(resolve_path(run))
        found.check_has_models()
    except InputError as error:
        allowed = f"{error.allowed}; the run to start from must be trained first{search_note(run)}"
        raise InputError("start.run", run, allowed) from error
    kept = {manifest.sequences: manifest for _, manifest in found.manifests()}
    at = ", ".join(str(one) for one in sorted(kept))
    require(sequences in kept, "start.sequences", sequences, f"{run} has checkpoints at {at or 'none'} sequences")
    return found, kept[sequences]


@lru_cache(maxsize=4)
def _load_parameters(path: str, state: FileRecord) -> dict[str, np.ndarray]:
    """The parameters in a file of a run, cached by content (the record has its hash): another run made in the same
    folder is read anew."""
    return _parameters(Path(path), state)


def parameters(run: RunFolder, manifest: Manifest) -> dict[str, np.ndarray]:
    """The parameters [member, ...] in a checkpoint. Raises `DamagedError` when it is damaged."""
    return _parameters(run.path, manifest.state)


def _parameters(folder: Path, record: FileRecord) -> dict[str, np.ndarray]:
    state = load_record(folder, record)
    return {name.removeprefix(PREFIX): array for name, array in state.items() if name.startswith(PREFIX)}


def shapes(model: Model, shape: Shape) -> dict[str, Any]:
    """The shapes of a model's parameters, by dotted name."""
    return to_dotted(jax.eval_shape(lambda key: model.init(key, **shape), jax.random.key(0)))


def to_dotted(params: Any) -> dict[str, Any]:
    """The leaves of a pytree by dotted name, e.g. `params.blocks.0.attn.q`. Its inverse is `groups.from_dotted`."""
    return {dotted_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def dotted_name(path: Any) -> str:
    """The dotted name of a path in a pytree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def select(globs: tuple[str, ...], names: list[str], field: str) -> list[str]:
    """The names that some glob matches. Raises `InputError` for a glob that matches none."""
    for glob in globs:
        allowed = f"names no parameter of this model{nearest(glob, names)}; one is {names[0]}"
        require(any(fnmatchcase(name, glob) for name in names), field, glob, allowed)
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def restore_frozen(new: Params, old: Params, globs: tuple[str, ...]) -> Params:
    """The parameters `new`, with those that a glob names taken from `old`."""
    if not globs:
        return new

    def one(path: Any, after: jax.Array, before: jax.Array) -> jax.Array:
        return before if any(fnmatchcase(dotted_name(path), glob) for glob in globs) else after

    return jax.tree_util.tree_map_with_path(one, new, old)
