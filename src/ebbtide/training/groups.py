"""Members that are trained, evaluated and stored together: one by itself, or several with an axis over them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt

from ebbtide.models.model import Params
from ebbtide.training.engine import Engine
from ebbtide.training.programs import Data, State, split_over
from ebbtide.training.start import dotted_name, to_dotted

BEST = "best."
"""Prefix of the parameters of the best models in a checkpoint."""
Arrays = dict[str, np.ndarray]
"""Arrays with a leading axis over members, by dotted name."""


class Measured(NamedTuple):
    """All metrics of the members of a group, and their mean training loss since the last evaluation (nan if there was
    no step)."""

    values: Float[np.ndarray, "members evaluators metrics 2"]
    train_loss: Float32[np.ndarray, " members"]


class Alone:
    """One member. Its programs know of no other, so that none of its bits depends on the others."""

    def __init__(self, engine: Engine, member: int, stored: Arrays | None):
        """`stored`: the arrays of a checkpoint; None: untrained."""
        self.engine, self.member = engine, member
        self.data = engine.data(member)
        if stored is None:
            self.state = engine.init(member)
        else:
            self.state = from_dotted(engine.programs.template, {name: array[0] for name, array in stored.items()})
        self.best = _best_in(stored or {})
        if engine.spec.best_evaluator() and not self.best:
            self.keep_best(np.ones(1, bool))

    def train(self, n: UInt[Array, ""], going: Bool[np.ndarray, " members"]) -> None:
        """Trains the members that go on for n more steps. Does not wait for the result."""
        if going.all():
            self.state = self.engine.train(self.state, self.data, n)

    def evaluate(self) -> Measured:
        """Metrics and losses of the members; the mean training loss begins anew."""
        state = self.state
        values = np.asarray(self.engine.measure(state.params, self.engine.suite(self.member)))[None]
        self.state = _without_losses(state)
        return Measured(values, _mean_loss(np.asarray(state.summed)[None], np.asarray(state.counted)[None]))

    def keep_best(self, found: Bool[np.ndarray, " members"]) -> None:
        """Keeps the present parameters of the members that were found as those of their best models."""
        if found.all():  # a copy: the next step reuses the memory
            self.best = {name: np.array(leaf)[None] for name, leaf in to_dotted(self.state.params).items()}

    def arrays(self) -> Arrays:
        """The state of the members, and the parameters of their best models under `best.`."""
        return {name: np.array(leaf)[None] for name, leaf in to_dotted(self.state).items()} | _named_best(self.best)


class SideBySide:
    """Several members as arrays with a leading axis over them, from the first draw to the checkpoint, and one program
    for all in each of these. The places that are left over are filled with copies of the last member."""

    def __init__(self, engine: Engine, members: list[int], stored: Arrays | None, width: int, devices: int):
        """`stored`: the arrays of a checkpoint, with an axis over these members; None: untrained."""
        self.engine, self.size, self.devices = engine, len(members), devices
        self.fill = width - len(members)
        filled = members + members[-1:] * self.fill
        self.worlds = engine.worlds.side_by_side(filled)
        shared = self.worlds.shared
        key, bank, values, again = engine.data_side_by_side(filled, self.worlds)
        split = (split_over(devices, one) for one in (values, again))
        self.data = Data(split_over(devices, key), split_over(devices, bank, whole=shared), *split)
        self.prompts = split_over(devices, self.worlds.prompts, whole=shared)
        if stored is None:
            state = engine.init_side_by_side(filled)
        else:
            template = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((width, *x.shape), x.dtype), engine.programs.template
            )
            state = from_dotted(template, {name: self._filled(array) for name, array in stored.items()})
        self.state = split_over(devices, state)
        best = {name: self._filled(array) for name, array in _best_in(stored or {}).items()}
        self.best: Params | None = None
        if best:
            self.best = split_over(devices, from_dotted(self.state.params, best))
        elif engine.spec.best_evaluator():
            self.best = jax.tree.map(jnp.copy, self.state.params)

    def _filled(self, array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[-1:], self.fill, axis=0)])

    def train(self, n: UInt[Array, ""], going: Bool[np.ndarray, " members"]) -> None:
        """Trains the members that go on for n more steps. Does not wait for the result."""
        program = self.engine.programs.train_side_by_side(self.devices, self.worlds.shared)
        self.state = program(self.state, self.data, n, jnp.asarray(self._filled(going)))

    def evaluate(self) -> Measured:
        """Metrics and losses of the members; the mean training loss begins anew."""
        state, width = self.state, self.size + self.fill
        program = self.engine.programs.measure_side_by_side(width, self.devices, self.worlds.shared)
        values, summed, counted = jax.device_get((program(state.params, self.prompts), state.summed, state.counted))
        self.state = _without_losses(state)
        return Measured(values[: self.size], _mean_loss(summed, counted)[: self.size])

    def keep_best(self, found: Bool[np.ndarray, " members"]) -> None:
        """Keeps the present parameters of the members that were found as those of their best models."""
        assert self.best is not None
        self.best = self.engine.programs.replace_members(jnp.asarray(self._filled(found)), self.state.params, self.best)

    def arrays(self) -> Arrays:
        """The state of the members, and the parameters of their best models under `best.`: one transfer."""
        trees = (self.state, {} if self.best is None else self.best)
        state, best = (
            {name: leaf[: self.size] for name, leaf in to_dotted(tree).items()} for tree in jax.device_get(trees)
        )
        return state | _named_best(best)


Group = Alone | SideBySide
"""Members whose state is held together."""


def from_dotted(template: Any, arrays: dict[str, Any]) -> Any:
    """The pytree shaped like `template` whose leaves are `arrays`, by dotted name: the inverse of `to_dotted`. Raises
    `KeyError` for a missing leaf, `ValueError` for one of another shape or type."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    ordered = []
    for path, leaf in leaves:
        name = dotted_name(path)
        array = arrays[name]
        if array.shape != leaf.shape:
            raise ValueError(f"{name} has shape {array.shape}, the spec needs {leaf.shape}")
        if array.dtype != leaf.dtype:
            raise ValueError(f"{name} is {array.dtype}, the spec needs {leaf.dtype}")
        ordered.append(jnp.asarray(array))
    return jax.tree_util.tree_unflatten(treedef, ordered)


def _best_in(stored: Arrays) -> Arrays:
    return {name.removeprefix(BEST): np.array(array) for name, array in stored.items() if name.startswith(BEST)}


def _named_best(best: Arrays) -> Arrays:
    return {BEST + name: array for name, array in best.items()}


def _without_losses(state: State) -> State:
    return state._replace(summed=jnp.zeros_like(state.summed), counted=jnp.zeros_like(state.counted))


def _mean_loss(summed: np.ndarray, counted: np.ndarray) -> Float32[np.ndarray, " members"]:
    """summed / counted, nan where nothing was counted."""
    steps = np.where(counted == 0, np.nan, counted)
    return (summed.astype(np.float64) / steps).astype(np.float32)
