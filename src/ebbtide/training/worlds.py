"""The worlds of a run's members: the bank of exemplars that a member learns, and its evaluation prompts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ebbtide.evaluation.evaluators import Suite, build_suite
from ebbtide.models.model import AnyPrompt
from ebbtide.training.programs import Programs, programs_of, without_members
from ebbtide.training.spec import Spec


class World(NamedTuple):
    """A source's bank, and the evaluation prompts that were drawn from it."""

    bank: Any
    suite: Suite


class SeveralWorlds(NamedTuple):
    """The banks and evaluation prompts of several members: with a leading axis over the members, or without one where
    they are `shared` by all."""

    bank: Any
    prompts: AnyPrompt
    shared: bool


class Worlds:
    """The worlds of the members of a spec, each made once when it is first asked for; members of the same
    `Spec.world` share it. Worlds that differ in their seeds alone are drawn by one compiled program."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self._of: dict[int, World] = {}
        self._made: dict[bytes, World] = {}
        self._programs: dict[bytes, Programs] = {}

    def of(self, member: int) -> World:
        """The world of a member."""
        if member not in self._of:
            self._of[member] = self._make(self.spec.world(member))
        return self._of[member]

    def side_by_side(self, members: list[int]) -> SeveralWorlds:
        """The worlds of several members."""
        each = [self.of(member) for member in members]
        if all(one is each[0] for one in each):
            return SeveralWorlds(each[0].bank, each[0].suite.prompts, shared=True)
        return SeveralWorlds(
            stack([one.bank for one in each]), stack([one.suite.prompts for one in each]), shared=False
        )

    def _make(self, spec: Spec) -> World:
        name = spec.to_json()
        if name not in self._made:
            bank = spec.source.build()
            draw = self._programs_of(spec).draw
            n, seed = spec.evaluation_sequences, spec.seeds.evaluation
            suite = build_suite(spec.evaluators, spec.task, spec.source, bank, sequences=n, seed=seed, draw=draw)
            self._made[name] = World(bank, suite)
        return self._made[name]

    def _programs_of(self, spec: Spec) -> Programs:
        """`programs_of`, kept here as well: for code of the user it makes new ones at every call."""
        name = without_members(spec).to_json()
        if name not in self._programs:
            self._programs[name] = programs_of(spec)
        return self._programs[name]


def stack(trees: list[Any]) -> Any:
    """Pytrees of one shape as one, each leaf with a leading axis over them. Arrays are joined in the host's memory: a
    program with an argument for each of a thousand would take long to compile."""

    def join(*leaves: Any) -> Any:
        if not jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))
        data = np.stack([np.asarray(jax.random.key_data(leaf)) for leaf in leaves])
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaves[0]))

    return jax.tree.map(join, *trees)
