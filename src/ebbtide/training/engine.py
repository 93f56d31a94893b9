"""The compiled functions of a run, applied to its members."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt
from msgspec import UnsetType

from ebbtide.evaluation.evaluators import Suite
from ebbtide.keys import Purpose
from ebbtide.mechanisms.conversion import fold_context
from ebbtide.models.model import AnyPrompt, Params
from ebbtide.tasks.prompt import part
from ebbtide.training.context import Context, StoredContext
from ebbtide.training.programs import Data, State, programs_of
from ebbtide.training.spec import Spec
from ebbtide.training.worlds import SeveralWorlds, Worlds, stack


class Engine:
    """Trains and evaluates the members of one spec by its compiled functions (`programs_of`)."""

    def __init__(self, spec: Spec, native: bool = False):
        """`native`: see `programs_of`."""
        self.spec = spec
        self.programs = programs_of(spec, native)
        self.worlds = Worlds(spec)

    def init(self, member: int) -> State:
        """The untrained state of a member, its parameters drawn from the root (seeds.init, INIT, seeds.member +
        member)."""
        fresh = self.programs.init(self.spec.root(Purpose.INIT, member))
        start = self.spec.start
        if start is None:
            return fresh
        params = start.merge(fresh.params, self.spec.number(member))
        if not isinstance(start.context, UnsetType):
            params = fold_context(
                self.spec.model, params, self._context(start.context, member), undo=start.context.undo
            )
        return fresh._replace(params=params)

    def _context(self, context: Context, member: int) -> AnyPrompt:
        """One prompt with the context that a member begins with."""
        if isinstance(context, StoredContext):
            return context.read(self.spec.task.prompt_type, self.spec.shape())
        return part(self.suite(member).of(context.evaluator), context.index, 1)

    def data(self, member: int) -> Data:
        """The data stream of a member, with the root (seeds.data, DATA, seeds.member + member)."""
        values = self.spec.values(member)
        bank = self.worlds.of(member).bank
        key = self.spec.root(Purpose.DATA, member)
        values = {name: jnp.float32(value) for name, value in values.items()}
        return Data(key, bank, values, self._forgetting_key(member))

    def _forgetting_key(self, member: int) -> Key[Array, ""] | None:
        """The root (seeds.init, FORGETTING, seeds.member + member), by which a member's forgotten parameters are drawn
        again."""
        forgets = not isinstance(self.spec.forgetting, UnsetType)
        return self.spec.root(Purpose.FORGETTING, member) if forgets else None

    def init_side_by_side(self, members: list[int]) -> State:
        """The untrained states of several members, with a leading axis over them."""
        if self.spec.start is None:
            return self.programs.init_side_by_side(jnp.stack([self.spec.root(Purpose.INIT, m) for m in members]))
        return stack([self.init(member) for member in members])

    def data_side_by_side(self, members: list[int], worlds: SeveralWorlds) -> Data:
        """The data streams of several members, whose worlds are given: keys and values with a leading axis over the
        members, and the bank unless they share it."""
        keys = jnp.stack([self.spec.root(Purpose.DATA, member) for member in members])
        each = [self.spec.values(member) for member in members]
        values = {name: jnp.asarray([one[name] for one in each], jnp.float32) for name in each[0]}
        again = [key for member in members if (key := self._forgetting_key(member)) is not None]
        return Data(keys, worlds.bank, values, jnp.stack(again) if again else None)

    def suite(self, member: int) -> Suite:
        """The evaluation prompts of a member; shared by members of the same `Spec.world`."""
        return self.worlds.of(member).suite

    @property
    def train(self) -> Callable[[State, Data, UInt[Array, ""]], State]:
        """The compiled function (state, data, n) -> the state after n more optimiser steps; it reuses the memory of the
        old state."""
        return self.programs.train

    def measure(self, params: Params, suite: Suite) -> Float[Array, "evaluators metrics 2"]:
        """Mean and standard error of every metric of every evaluator."""
        return self.programs.measure(params, suite.prompts)
