"""A run as the answering process sees it: its spec, its prompts, and the parameters at a block of its checkpoints."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Num, PyTree

from ebbtide.dashboard.asking.about import check_checkpoint
from ebbtide.dashboard.asking.question import MOST_BYTES, MOST_CHECKPOINTS, MOST_NUMBERS, MOST_PROMPTS
from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.evaluators import Draw, build_suite, compile_draw
from ebbtide.models.model import AnyPrompt, Model
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import FileRecord
from ebbtide.runs.records import Manifest
from ebbtide.runs.signed import DamagedError
from ebbtide.sources.bank import FLOAT
from ebbtide.tasks.task import Evaluator
from ebbtide.training.feasible import check_answerable
from ebbtide.training.programs import without_members
from ebbtide.training.run import spec_of
from ebbtide.training.saved import check_parameters
from ebbtide.training.spec import Spec, from_json
from ebbtide.training.start import parameters, to_dotted

MOST_KEPT_BYTES = 2**29
"""Bytes of parameters that are kept between two questions."""
MOST_WORLDS = 64
"""Groups of members with classes of their own that are asked: each group's classes are drawn for it."""
MOST_BANK_BYTES = 2**30
"""Bytes of these classes, all groups together."""
SPARE_BYTES = 2**20
"""Bytes of a checkpoint beside its models: the list of arrays, steps, what early stopping has seen."""


NumpyParams = PyTree[Num[np.ndarray, "..."]]
"""Parameters of several members, as they are stored."""


class Block(NamedTuple):
    """Consecutive checkpoints that are answered together: the manifests from place `first` on, of `of` in all."""

    manifests: list[Manifest]
    first: int
    of: int


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of an evaluator, in the world `spec` of one member: `exemplars` of classes are looked up in
    `bank`. What is computed of them is kept by the object."""

    spec: Spec
    evaluator: Evaluator
    prompt: AnyPrompt
    bank: Any


class Opened:
    """A run folder whose spec was checked: it can be run, and this machine has the memory to answer its prompts.
    Raises `InputError` in one line for any other."""

    def __init__(self, folder: str):
        self.run = RunFolder(Path(folder))
        self.spec = spec_of(self.run)
        self.prompts = min(self.spec.evaluation_sequences, MOST_PROMPTS)
        try:
            _check(self.spec.to_json(), self.prompts)
        except InputError as error:
            raise InputError("run", self.run.path.name, f"its spec cannot be used: {error}") from error

    @cached_property
    def manifests(self) -> list[Manifest]:
        """The manifests of all intact checkpoints of this run, oldest first."""
        found = [manifest for _, manifest in self.run.manifests() if manifest.digest == self.run.header.digest]
        require(len(found) > 0, "run", self.run.path.name, "has no checkpoint yet")
        return sorted(found, key=lambda one: one.sequences)

    def block(self, at: int | None, numbers: int) -> Block:
        """The checkpoints to answer together with the one at `at` sequences (None: the newest), when the answer at one
        of them takes so many numbers. Where the blocks begin does not depend on `at`."""
        there = [one.sequences for one in self.manifests]
        place = len(there) - 1 if at is None else 0
        if at is not None:
            check_checkpoint(at, there)
            place = there.index(at)
        starts = _starts([one.state.size for one in self.manifests], numbers)
        first = max(start for start in starts if start <= place)
        end = min([start for start in starts if start > place], default=len(there))
        return Block(self.manifests[first:end], first, len(there))

    def fellows(self, member: int) -> list[int]:
        """The members that learn the same classes and answer the same prompts as `member`, by their places."""
        members = self.spec.members
        require(member < members, "member", member, f"must be from 0 to {members - 1}")
        if self.spec.worlds() == 1:
            return list(range(members))
        worlds = _worlds(self.spec.to_json())
        return [one for one in range(members) if worlds[one] == worlds[member]]

    def of(self, evaluator: str, member: int) -> Prompts:
        """The first prompts of an evaluator, as `prompts_of` gives them."""
        names = self.spec.evaluators
        allowed = f"the run has the evaluators {', '.join(names)}{nearest(evaluator, names)}"
        require(evaluator in names, "evaluator", evaluator, allowed)
        return _drawn(self.spec.world(member).to_json(), evaluator, self.prompts)

    def others(self, member: int) -> list[list[int]]:
        """The members that `fellows` leaves out, in groups that share their prompts."""
        if self.spec.worlds() == 1:
            return []
        groups: dict[bytes, list[int]] = {}
        for one, world in enumerate(_worlds(self.spec.to_json())):
            groups.setdefault(world, []).append(one)
        return [group for group in groups.values() if member not in group]

    def params(self, manifest: Manifest) -> NumpyParams:
        """The parameters of all members at a checkpoint, with a leading axis over them, as NumPy arrays. Raises
        `DamagedError` when the checkpoint is damaged or lacks what the spec needs."""
        arrays = _stored.get(self.run, manifest, self.spec)
        names, tree = _template(self.spec.model, tuple(self.spec.shape().items()))
        return jax.tree_util.tree_unflatten(tree, [arrays[name] for name in names])


def members_of(params: NumpyParams, members: list[int]) -> NumpyParams:
    """The parameters of some members."""
    return jax.tree.map(lambda leaf: leaf[members], params)


@lru_cache(maxsize=8)
def _template(model: Model, shape: tuple[tuple[str, int], ...]) -> tuple[list[str], Any]:
    """The dotted names of a model's parameters, and the pytree that they make."""
    one = jax.eval_shape(lambda key: model.init(key, **dict(shape)), jax.random.key(0))  # pyright: ignore
    return list(to_dotted(one)), jax.tree_util.tree_structure(one)


def _starts(sizes: list[int], numbers: int) -> list[int]:
    """The first places of the blocks into which checkpoints of these sizes in bytes are divided."""
    most = max(1, min(MOST_CHECKPOINTS, MOST_NUMBERS // max(numbers, 1)))
    starts, bytes_so_far = [0], 0
    for place, size in enumerate(sizes):
        if place > starts[-1] and (place - starts[-1] >= most or bytes_so_far + size > MOST_BYTES):
            starts.append(place)
            bytes_so_far = 0
        bytes_so_far += size
    return starts


@lru_cache(maxsize=8)
def _check(spec: bytes, prompts: int) -> None:
    check_answerable(from_json(spec), prompts)


@lru_cache(maxsize=2)
def _worlds(spec: bytes) -> list[bytes]:
    """The world of every member, as JSON."""
    several = from_json(spec)
    return [several.world(member).to_json() for member in range(several.members)]


@lru_cache(maxsize=2)
def _bank(source: bytes) -> Any:
    return from_json(source).source.build()


@lru_cache(maxsize=MOST_WORLDS)
def _drawn(world: bytes, evaluator: str, prompts: int) -> Prompts:
    spec = from_json(world)
    bank = _bank(Spec(source=spec.source).to_json())
    draw = _compile_draw(without_members(spec).to_json(), evaluator, prompts)
    seed = spec.seeds.evaluation
    suite = build_suite((evaluator,), spec.task, spec.source, bank, sequences=prompts, seed=seed, draw=draw)
    return Prompts(spec, suite.evaluators[0], suite.of(evaluator), bank)


@lru_cache(maxsize=16)
def _compile_draw(spec: bytes, evaluator: str, prompts: int) -> Draw:
    """The function that draws the prompts of an evaluator, for all worlds that differ in their seeds alone."""
    common = from_json(spec)
    return compile_draw((evaluator,), common.task, common.source, prompts)


@lru_cache(maxsize=8)
def _parameters(model: Model, shape: tuple[tuple[str, int], ...]) -> int:
    return model.parameters(**dict(shape))  # pyright: ignore


class _Stored:
    """The parameters [member, ...] of checkpoints that were read, those that were used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, FileRecord], dict[str, np.ndarray]] = OrderedDict()

    def get(self, run: RunFolder, manifest: Manifest, spec: Spec) -> dict[str, np.ndarray]:
        """The parameters at a checkpoint, read from its file unless they are kept. Raises `DamagedError`."""
        key = run.header.digest, manifest.state
        if key not in self._kept:
            _check_size(spec, manifest)
            arrays = parameters(run, manifest)
            try:
                check_parameters(spec, arrays)
            except DamagedError as error:
                raise DamagedError(f"{manifest.state.path}: {error}") from error
            self._kept[key] = arrays
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > MOST_KEPT_BYTES:
            self._kept.popitem(last=False)
        return self._kept[key]


def _check_size(spec: Spec, manifest: Manifest) -> None:
    """Raises `DamagedError` for a state with more bytes than a run of this spec can have: it would be read whole."""
    models = 2 + spec.optimizer.moments  # the parameters, the best ones, and the optimiser's moments
    most = SPARE_BYTES + FLOAT * spec.members * _parameters(spec.model, tuple(spec.shape().items())) * models
    if manifest.state.size > most:
        raise DamagedError(
            f"{manifest.state.path}: has {manifest.state.size:,} bytes, this spec needs at most {most:,}"
        )


def _bytes(arrays: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())


_stored = _Stored()
