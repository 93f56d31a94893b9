"""The only training loop: many steps per compiled call, data drawn inside."""

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt

from ebbtide.evaluation.evaluators import Suite, build_suite
from ebbtide.keys import Purpose, root
from ebbtide.models.transformer import Params
from ebbtide.sources.bank import Bank
from ebbtide.training.optimizer import OptState
from ebbtide.training.spec import Spec

Values = dict[str, Float[Array, ""]]


class State(NamedTuple):
    """Everything about one member that training changes. Data position is the step count."""

    params: Params
    optimizer: OptState
    step: UInt[Array, ""]


class Data(NamedTuple):
    """What one member trains and is evaluated on."""

    key: Key[Array, ""]
    bank: Bank
    values: Values


class Engine:
    """The compiled functions of one spec. Members are arguments, so all share one program.

    The number of steps of a call is a traced value: schedules change neither the program nor a bit
    of the result.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self._banks: dict[tuple[float, ...], tuple[Bank, Suite]] = {}

    def init(self, member: int) -> State:
        """The untrained member: parameters from the root (seeds.init, INIT, member)."""
        spec, sizes = self.spec, self.spec.source.sizes()
        key = root(spec.seeds.init, Purpose.INIT, member)
        outputs = spec.task.outputs(sizes.classes)
        params = spec.model.init(key, context=spec.task.context, dim=sizes.dim, labels=outputs)
        return State(params, spec.optimizer.init(params), jnp.uint32(0))

    def data(self, member: int) -> Data:
        """The member's data stream (seeds.data, DATA, member), its bank and its traced values."""
        values = self.spec.values(member)
        bank, _ = self._world(member)
        key = root(self.spec.seeds.data, Purpose.DATA, member)
        return Data(key, bank, {name: jnp.float32(value) for name, value in values.items()})

    def suite(self, member: int) -> Suite:
        """The member's evaluation prompts; shared unless source or task values vary."""
        return self._world(member)[1]

    def _world(self, member: int) -> tuple[Bank, Suite]:
        values = {k: v for k, v in self.spec.values(member).items() if not k.startswith("optimizer.")}
        name = tuple(values.values())
        if name not in self._banks:
            spec = self.spec.with_values(values)
            bank = spec.source.build()
            n, seed = spec.evaluation_sequences, spec.seeds.evaluation
            suite = build_suite(spec.evaluators, spec.task, spec.source, bank, sequences=n, seed=seed)
            self._banks[name] = bank, suite
        return self._banks[name]

    @cached_property
    def train(self):
        """(state, data, n) -> (state, summed loss): n optimiser steps."""
        return jax.jit(self._train, donate_argnums=0)

    @cached_property
    def evaluate(self):
        """(params, prompts) -> logits for all evaluation prompts."""
        return jax.jit(self.spec.model.apply)

    def _train(self, state: State, data: Data, n: UInt[Array, ""]) -> tuple[State, Float[Array, ""]]:
        spec = self.spec.with_values(data.values)
        split, batch, total = spec.source.sizes().split(), spec.batch, spec.steps()
        lanes = jnp.arange(batch, dtype=jnp.uint32)

        def step(_: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            (params, optimizer, step), summed = carry
            index = step * jnp.uint32(batch) + lanes
            prompt = spec.task.sample(data.key, index, spec.source, data.bank, split)
            loss, grads = spec.model.loss_and_grad(params, prompt)
            params, optimizer = spec.optimizer.update(grads, optimizer, params, step, total)
            return State(params, optimizer, step + 1), summed + loss

        return jax.lax.fori_loop(jnp.uint32(0), n, step, (state, jnp.float32(0)))
