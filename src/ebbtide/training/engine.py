"""The training loop: many optimiser steps per compiled call, with the data drawn inside it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt
from msgspec import UnsetType

from ebbtide.compile import compile_fast
from ebbtide.evaluation.evaluators import Suite
from ebbtide.evaluation.parts import in_parts
from ebbtide.kernel.native import Kernel
from ebbtide.keys import Purpose
from ebbtide.mechanisms.conversion import fold_context
from ebbtide.mechanisms.intervene import answer
from ebbtide.models.model import AnyPrompt, Params, mean_loss
from ebbtide.tasks.prompt import Prompt, part
from ebbtide.training.context import Context, StoredContext
from ebbtide.training.optimizer import OptState
from ebbtide.training.spec import Spec
from ebbtide.training.start import restore_frozen
from ebbtide.training.worlds import Worlds

Values = dict[str, Float[Array, ""]]


class State(NamedTuple):
    """The state of one member that training changes. The position in the data stream is the step count.

    `summed` and `counted` accumulate the training loss since the last evaluation. They are part of every checkpoint, so
    the result does not depend on where a run was interrupted.
    """

    params: Params
    optimizer: OptState
    step: UInt[Array, ""]
    summed: Float[Array, ""]
    counted: UInt[Array, ""]


class Data(NamedTuple):
    """The data stream of one member: its key, the source's bank, and the values of the member's varied fields."""

    key: Key[Array, ""]
    bank: Any
    values: Values


class Engine:
    """The compiled functions of one spec. Members are arguments, so that all members share one program.

    The number of steps of a call is a traced value: a schedule changes neither the program nor a bit of the result.
    """

    def __init__(self, spec: Spec, native: bool = False):
        """`native` lets the compiled kernel do the parts of a step that it can; register it first (`kernel.native`)."""
        self.spec = spec
        self.kernel = Kernel(spec.model, **spec.shape()) if native else None
        self.worlds = Worlds(spec)

    def init(self, member: int) -> State:
        """The untrained state of a member, its parameters drawn from the root (seeds.init, INIT, seeds.member +
        member)."""
        fresh = self._init(self.spec.root(Purpose.INIT, member))
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

    def fresh(self, key: Key[Array, ""]) -> State:
        """An untrained state whose parameters are drawn with `key`."""
        params = self.spec.model.init(key, **self.spec.shape())
        return State(params, self.spec.optimizer.init(params), jnp.uint32(0), jnp.float32(0), jnp.uint32(0))

    @cached_property
    def _init(self) -> Callable[[Key[Array, ""]], State]:
        return compile_fast(self.fresh)

    def data(self, member: int) -> Data:
        """The data stream of a member, with the root (seeds.data, DATA, seeds.member + member)."""
        values = self.spec.values(member)
        bank = self.worlds.of(member).bank
        key = self.spec.root(Purpose.DATA, member)
        return Data(key, bank, {name: jnp.float32(value) for name, value in values.items()})

    def suite(self, member: int) -> Suite:
        """The evaluation prompts of a member; shared by members of the same `Spec.world`."""
        return self.worlds.of(member).suite

    @cached_property
    def train(self) -> Callable[[State, Data, UInt[Array, ""]], State]:
        """The compiled function (state, data, n) -> the state after n more optimiser steps; it reuses the memory of the
        old state."""
        return jax.jit(self._train, donate_argnums=0)

    def answer(self, params: Params, prompt: AnyPrompt) -> Float[Array, "*predicted batch labels"]:
        """The outputs of the model, under the spec's interventions."""
        return answer(self.spec.model, params, prompt, self.spec.interventions)

    def loss_and_grad(self, params: Params, prompt: AnyPrompt) -> tuple[Float[Array, ""], Params]:
        """`mean_loss` of the outputs, and its gradient with respect to the parameters."""
        if self.kernel is not None:
            return self.kernel.loss_and_grad(params, prompt)
        if not self.spec.interventions:
            return self.spec.model.loss_and_grad(params, prompt)
        return jax.value_and_grad(lambda p: mean_loss(self.answer(p, prompt), prompt))(params)

    def measure(self, params: Params, suite: Suite) -> Float[Array, "evaluators metrics 2"]:
        """Mean and standard error of every metric of every evaluator."""
        return self._measure(params, suite.prompts)

    @cached_property
    def _measure(self) -> Callable[[Params, AnyPrompt], Array]:
        spec = self.spec

        def measured(params: Params, prompts: AnyPrompt) -> Array:
            chosen = tuple(spec.task.evaluator(name, spec.source) for name in spec.evaluators)
            return Suite(chosen, prompts).measure(lambda prompt: self._in_parts(params, prompt))

        return jax.jit(measured)

    def _in_parts(self, params: Params, prompt: AnyPrompt) -> Float[Array, "*predicted batch labels"]:
        """`answer`, computed for at most as many sequences at a time as the spec allows."""
        if not isinstance(prompt, Prompt):
            return in_parts(lambda some: self.answer(params, some), prompt)
        size, of = self.spec.evaluation_part(), self.spec.evaluation_sequences
        if size == of:
            return self.answer(params, prompt)
        starts = jnp.arange(0, of, size)
        return jax.lax.map(lambda start: self.answer(params, part(prompt, start, size)), starts).reshape(of, -1)

    def _train(self, state: State, data: Data, n: UInt[Array, ""]) -> State:
        spec = self.spec.with_values(data.values)
        split, batch, total = spec.source.sizes().split(), spec.batch, spec.steps()
        lanes = jnp.arange(batch, dtype=jnp.uint32)

        def step(_: Array, state: State) -> State:
            index = state.step * jnp.uint32(batch) + lanes
            index = index % jnp.uint32(spec.distinct) if spec.distinct else index
            prompt = spec.task.sample(data.key, index, spec.source, data.bank, split)
            if self.kernel is not None and spec.optimizer.fused and not spec.freeze:
                before = state.optimizer, state.params
                loss, params, optimizer = spec.optimizer.update_by(self.kernel, *before, prompt, state.step, total)
            else:
                loss, grads = self.loss_and_grad(state.params, prompt)
                params, optimizer = spec.optimizer.update(grads, state.optimizer, state.params, state.step, total)
                params = restore_frozen(params, state.params, spec.freeze)
            return State(params, optimizer, state.step + 1, state.summed + loss, state.counted + 1)

        return jax.lax.fori_loop(jnp.uint32(0), n, step, state)
