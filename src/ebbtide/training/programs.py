"""The compiled functions of a run: many optimiser steps per call, with the data drawn inside it."""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Key, UInt
from msgspec import UnsetType
from msgspec.structs import replace

from ebbtide.compile import compile_fast, products_in
from ebbtide.evaluation.evaluators import Draw, Suite, compile_draw
from ebbtide.evaluation.parts import in_parts
from ebbtide.kernel.native import Kernel
from ebbtide.keys import seed_key
from ebbtide.mechanisms.intervene import answer
from ebbtide.models.model import AnyPrompt, Params, mean_loss
from ebbtide.sources.bank import SeededSource
from ebbtide.tasks.prompt import Prompt, part
from ebbtide.training.limits import FLOAT
from ebbtide.training.optimizer import OptState
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec, from_json
from ebbtide.training.start import restore_frozen
from ebbtide.user_code import is_own

Values = dict[str, Float[Array, ""]]
MEMBERS_AXIS = "members"
"""The axis of a mesh of devices over which members are split."""
SPLIT, SHARED = PartitionSpec(MEMBERS_AXIS), PartitionSpec()
"""How arrays lie on several devices: with a leading axis over members, which is split, or the same on each."""
EVALUATION_BYTES = 2**32
"""Bytes of activations of the members that an accelerator evaluates at a time."""
CPU_EVALUATION_BYTES = 2**23
"""The same on a CPU: about what its cache holds."""
MOST_KEPT = 16
"""Specs whose compiled functions a process keeps."""


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
    """The data stream of one member: its key, the source's bank, and the values of the member's varied fields; and the
    key by which forgotten parameters are drawn again, where the spec has `Forgetting`."""

    key: Key[Array, ""]
    bank: Any
    values: Values
    forgetting: Key[Array, ""] | None = None


SideBySide = Callable[[State, Data, UInt[Array, ""], Bool[Array, " width"]], State]
"""Trains a group of members: (states, data, steps, whether each goes on) -> states."""


def members_mesh(devices: int) -> Mesh:
    """The first devices of this process, over which members are split."""
    return Mesh(np.asarray(jax.local_devices()[:devices]), (MEMBERS_AXIS,))


def split_over(devices: int, tree: Any, *, whole: bool = False) -> Any:
    """Arrays with a leading axis over members, each member's on its device; with `whole`, a copy on every device of
    arrays that all members share."""
    if devices == 1:
        return tree
    return jax.device_put(tree, NamedSharding(members_mesh(devices), SHARED if whole else SPLIT))


class Programs:
    """The compiled functions of one spec. Members are arguments, so that all members share one program.

    The number of steps of a call is a traced value: a schedule changes neither the program nor a bit of the result.
    """

    def __init__(self, spec: Spec, native: bool):
        self.spec = spec
        self.kernel = Kernel(spec.model, **spec.shape()) if native else None
        self._made: dict[tuple[Any, ...], Any] = {}

    def fresh(self, key: Key[Array, ""]) -> State:
        """An untrained state whose parameters are drawn with `key`."""
        params = self.parameters(key)
        return State(params, self.spec.optimizer.init(params), jnp.uint32(0), jnp.float32(0), jnp.uint32(0))

    def parameters(self, key: Key[Array, ""]) -> Params:
        """Untrained parameters, drawn with `key`."""
        with products_in("float32"):
            return self.spec.model.init(key, **self.spec.shape())

    @cached_property
    def init(self) -> Callable[[Key[Array, ""]], State]:
        """The compiled `fresh`."""
        return compile_fast(self.fresh)

    @cached_property
    def draw(self) -> Draw:
        """The compiled function that draws the evaluation prompts of any world."""
        return compile_draw(self.spec.evaluators, self.spec.task, self.spec.source, self.spec.evaluation_sequences)

    @cached_property
    def train(self) -> Callable[[State, Data, UInt[Array, ""]], State]:
        """The compiled function (state, data, n) -> the state after n more optimiser steps; it reuses the memory of the
        old state."""
        return jax.jit(self.take_steps, donate_argnums=0)

    @cached_property
    def template(self) -> State:
        """Shapes and types of the state of a member."""
        return jax.eval_shape(self.fresh, seed_key(0))

    @cached_property
    def init_side_by_side(self) -> Callable[[Key[Array, " members"]], State]:
        """The compiled `fresh` of several keys, with a leading axis over them."""
        return compile_fast(jax.vmap(self.fresh))

    @cached_property
    def replace_members(self) -> Callable[[Bool[Array, " members"], Any, Any], Any]:
        """The compiled function (which members, new, old) -> the arrays of some members replaced by new ones."""

        def chosen(which: Bool[Array, " members"], new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(which, a, b), new, old)

        return jax.jit(chosen, donate_argnums=2)

    def train_side_by_side(self, devices: int, shared: bool) -> SideBySide:
        """The compiled function that trains a group of members at once, with a leading axis over them, on so many
        devices; members that do not go on (`going`) stay as they are. `shared`: they have one bank."""
        bank = None if shared else 0

        def train(states: State, data: Data, n: UInt[Array, ""], going: Bool[Array, " width"]) -> State:
            trained = jax.vmap(self.train, in_axes=(0, Data(0, bank, 0, 0), None))(states, data, n)  # pyright: ignore
            return self.replace_members(going, trained, states)

        def compiled() -> SideBySide:
            each = Data(SPLIT, SHARED if shared else SPLIT, SPLIT, SPLIT)  # pyright: ignore
            return jax.jit(self._over(devices, train, (SPLIT, each, SHARED, SPLIT)), donate_argnums=0)

        return self._once(("train", devices, shared), compiled)

    def measure_side_by_side(self, width: int, devices: int, shared: bool) -> Callable[[Params, AnyPrompt], Array]:
        """The compiled function that evaluates `width` members, with a leading axis over them, as many at a time as
        fit: (params, prompts of all evaluators) -> metrics. `shared`: they answer the same prompts."""
        each = width // devices

        def measure(params: Params, prompts: AnyPrompt) -> Float[Array, "members evaluators metrics 2"]:
            if shared:
                return jax.lax.map(lambda one: self.metrics(one, prompts), params, batch_size=self._at_a_time(each))
            return jax.lax.map(lambda both: self.metrics(*both), (params, prompts), batch_size=self._at_a_time(each))

        def compiled() -> Callable[[Params, AnyPrompt], Array]:
            return jax.jit(self._over(devices, measure, (SPLIT, SHARED if shared else SPLIT)))

        return self._once(("measure", each, devices, shared), compiled)

    def _at_a_time(self, members: int) -> int:
        """The number of members that are evaluated at a time, in parts as equal as can be."""
        spec, slots = self.spec, self.spec.task.context + 1
        encoded = slots * spec.model.encoder.stored_values(spec.source.sizes().dim)
        layer = spec.model.stored_values(spec.model.tokens(spec.task.context))
        each = FLOAT * spec.evaluation_part() * (layer + encoded + spec.outputs())
        most = (CPU_EVALUATION_BYTES if jax.default_backend() == "cpu" else EVALUATION_BYTES) // each
        parts = -(-members // max(most, 1))
        return -(-members // parts)

    def _over(self, devices: int, function: Callable[..., Any], specs: tuple[Any, ...]) -> Callable[..., Any]:
        """A function of arrays over members, on so many devices, each with its own members."""
        if devices == 1:
            return function
        mesh = members_mesh(devices)  # no member talks to another: nothing to check
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=SPLIT, check_vma=False)

    def _once(self, name: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def answer(self, params: Params, prompt: AnyPrompt) -> Float[Array, "*predicted batch labels"]:
        """The outputs of the model, under the spec's interventions, with products of the spec's precision."""
        with products_in(self.spec.product_precision()):
            return answer(self.spec.model, params, prompt, self.spec.interventions)

    def loss_and_grad(self, params: Params, prompt: AnyPrompt) -> tuple[Float[Array, ""], Params]:
        """`mean_loss` of the outputs, and its gradient with respect to the parameters."""
        if self.kernel is not None:
            return self.kernel.loss_and_grad(params, prompt)
        with products_in(self.spec.product_precision()):
            if not self.spec.interventions:
                return self.spec.model.loss_and_grad(params, prompt)
            return jax.value_and_grad(lambda p: mean_loss(self.answer(p, prompt), prompt))(params)

    @cached_property
    def measure(self) -> Callable[[Params, AnyPrompt], Array]:
        """The compiled `metrics`."""
        return jax.jit(self.metrics)

    def metrics(self, params: Params, prompts: AnyPrompt) -> Float[Array, "evaluators metrics 2"]:
        """Mean and standard error of every metric of every evaluator, whose prompts are given."""
        spec = self.spec
        chosen = tuple(spec.task.evaluator(name, spec.source) for name in spec.evaluators)
        return Suite(chosen, prompts).measure(lambda prompt: self._in_parts(params, prompt))

    def _in_parts(self, params: Params, prompt: AnyPrompt) -> Float[Array, "*predicted batch labels"]:
        """`answer`, computed for at most as many sequences at a time as the spec allows."""
        if not isinstance(prompt, Prompt):
            return in_parts(lambda some: self.answer(params, some), prompt)
        size, of = self.spec.evaluation_part(), self.spec.evaluation_sequences
        if size == of:
            return self.answer(params, prompt)
        starts = jnp.arange(0, of, size)
        return jax.lax.map(lambda start: self.answer(params, part(prompt, start, size)), starts).reshape(of, -1)

    def take_steps(self, state: State, data: Data, n: UInt[Array, ""]) -> State:
        """The state after n more optimiser steps."""
        spec = self.spec.with_values(data.values)
        split, batch, total = spec.source.sizes().split(), spec.batch, spec.steps()
        lanes = jnp.arange(batch, dtype=jnp.uint32)

        def step(_: Array, state: State) -> State:
            state = self._forget(state, data.forgetting)
            index = state.step * jnp.uint32(batch) + lanes
            index = index % jnp.uint32(spec.distinct) if spec.distinct else index
            with products_in("float32"):  # the data are exact, whatever the precision of the model
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

    def _forget(self, state: State, key: Key[Array, ""] | None) -> State:
        """The state with what the spec's forgetting draws again before this step."""
        own = self.spec.forgetting
        if isinstance(own, UnsetType):
            return state
        assert key is not None
        at = state.step, self.spec.batch
        params, optimizer = own.forget(state.params, state.optimizer, *at, key, self.parameters)
        return state._replace(params=params, optimizer=optimizer)


def without_members(spec: Spec) -> Spec:
    """The spec with defaults for all that the compiled functions do not depend on: members, seeds, schedule, what is
    kept of a run, where it starts."""
    source = replace(spec.source, seed=0) if isinstance(spec.source, SeededSource) else spec.source
    same: dict[str, Any] = {"members": 1, "vary": {}, "seeds": Seeds(), "schedule": Schedule(), "start": None}
    return replace(spec, source=source, keep_best=None, stopping=None, **same)


def programs_of(spec: Spec, native: bool = False) -> Programs:
    """The compiled functions of a spec. Specs that differ in members, seeds or schedule alone share them while the
    process lasts: a run that is resumed, or one with other seeds, compiles nothing. A part in a file of the user is
    compiled anew each time, since names that it uses may have other values by then. `native` lets the compiled kernel
    do the parts of a step that it can; register it first (`kernel.native`)."""
    common = without_members(spec)
    if any(is_own(type(one)) for one in (spec.task, spec.source, spec.model)):
        return Programs(common, native)
    return _kept(common.to_json(), native, jax.config.values["jax_disable_most_optimizations"])


@lru_cache(maxsize=MOST_KEPT)
def _kept(spec: bytes, native: bool, unoptimised: bool) -> Programs:
    """The functions of a spec, once for each of XLA's two ways to compile them, whose results differ in their last
    bits."""
    return Programs(from_json(spec), native)
