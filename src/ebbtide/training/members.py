"""The members of a run that one process trains."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, UInt

from ebbtide.runs.records import Instrument
from ebbtide.training.engine import Engine
from ebbtide.training.programs import MEMBERS_AXIS, Data, State, members_mesh
from ebbtide.training.spec import Spec
from ebbtide.training.start import dotted_name, to_dotted
from ebbtide.training.watch import Watch

BEST, WATCH = "best.", "watch."
"""Prefixes in a checkpoint, beside the members' `State`: parameters of the best models, and the arrays of `Watch`."""


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


class Members:
    """The members of one process (`members`: their indices in the run), trained by three commands.

    With `width` 1 they take turns in one compiled program, so a member's bits do not depend on the other members. With
    `width` > 1 that many are mapped side by side by `vmap` over `devices` devices, width / devices on each. The last
    group is padded with copies, whose results are dropped.
    """

    def __init__(
        self,
        spec: Spec,
        members: list[int],
        state: dict[str, np.ndarray] | None,
        width: int = 1,
        devices: int = 1,
        native: bool = False,
    ):
        """Starts from `state` (arrays with a leading axis over these members), or untrained. `native`: see `Engine`."""
        self.spec, self.members, self.width = spec, members, width
        self.engine = engine = Engine(spec, native)
        mine = state or {}
        kept = {name.removeprefix(WATCH): array for name, array in mine.items() if name.startswith(WATCH)}
        self.watch = Watch(len(members), spec.stopping, kept)
        self.best = {name: np.array(array) for name, array in mine.items() if name.startswith(BEST)}
        states, data = [], []
        for i, member in enumerate(members):
            fresh = engine.init(member)
            states.append(fresh if state is None else from_dotted(fresh, {k: v[i] for k, v in mine.items()}))
            data.append(engine.data(member))
        self.step = max(int(np.asarray(one.step)) for one in states)
        if spec.best_evaluator() and not self.best:
            rows = [to_dotted(one.params) for one in states]
            self.best = {BEST + name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
        fill = -len(members) % width
        groups = [slice(i, i + width) for i in range(0, len(members), width)]
        states, data = states + states[-1:] * fill, data + data[-1:] * fill
        self.devices = devices
        self.states: list[State] = [_placed(_stack(states[g], width), devices) for g in groups]
        self.data: list[Data] = [_placed(_stack(data[g], width), devices) for g in groups]

    def instruments(self) -> list[Instrument]:
        """The evaluators with their chance levels on the first member's prompts."""
        suite = self.engine.suite(self.members[0])
        chance = suite.chance(self.spec.outputs())
        return [Instrument(e.name, e.headline, chance[e.name]) for e in suite.evaluators]

    def train(self, step: int) -> None:
        """Trains every member that has not stopped up to optimiser step `step`."""
        n = jnp.uint32(step - self.step)
        going = ~self.watch.stopped
        going = np.concatenate([going, np.full(-len(going) % self.width, going[-1])]).reshape(-1, self.width)
        for i, row in enumerate(going):
            if row.any():
                self.states[i] = self._train_group(self.states[i], self.data[i], n, jnp.asarray(row))
        jax.block_until_ready(self.states)
        self.step = step

    def _train_group(self, state: State, data: Data, n: UInt[Array, ""], going: Bool[Array, " width"]) -> State:
        if self.width == 1:
            return self.engine.train(state, data, n)
        return self.engine.programs.train_side_by_side(self.devices)(state, data, n, going)

    def evaluate(self) -> dict[str, np.ndarray]:
        """All metrics of all members, the mean training loss since the last call (nan if there was no step), and the
        sequences at which each member stopped (-1: it has not). Keeps the best models."""
        values, losses = [], []
        each = self._unstack()
        for member, state in zip(self.members, each, strict=True):
            values.append(np.asarray(self.engine.measure(state.params, self.engine.suite(member))))
            counted = float(state.counted)
            losses.append(float(state.summed) / counted if counted else float("nan"))
        stacked: Float[np.ndarray, "members evaluators metrics 2"] = np.stack(values)
        assert stacked.shape[2] == len(self.spec.metrics())
        self._look(stacked, each)
        zero = jnp.zeros_like
        self.states = [s._replace(summed=zero(s.summed), counted=zero(s.counted)) for s in self.states]
        losses = np.asarray(losses, np.float32)
        return {"values": stacked, "train_loss": losses, "stopped_at": self.watch.stopped_at.copy()}

    def state(self) -> dict[str, np.ndarray]:
        """The state of all members, with a leading axis over them, by dotted name; the parameters of their best models
        under `best.`, and the arrays of the watch under `watch.`."""
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *self._unstack())
        state = {name: np.asarray(leaf) for name, leaf in to_dotted(stacked).items()}
        best = {name: array.copy() for name, array in self.best.items()}  # the next evaluation may write into it
        return state | best | {WATCH + name: array for name, array in self.watch.arrays().items()}

    def _look(self, values: Float[np.ndarray, "members evaluators metrics 2"], each: list[State]) -> None:
        """Stores the parameters of members that are better than ever before, and stops the members that may stop."""
        at, spec = self.step * self.spec.batch, self.spec
        if name := spec.best_evaluator():
            for i in np.flatnonzero(self.watch.update_best(self._headline(values, name), at)):
                for name, leaf in to_dotted(each[i].params).items():
                    self.best[BEST + name][i] = np.asarray(leaf)
        if spec.stopping is not None:
            self.watch.update_stopping(self._headline(values, spec.stopping.evaluator), at)

    def _headline(self, values: Float[np.ndarray, "members evaluators metrics 2"], name: str) -> np.ndarray:
        i = self.spec.evaluators.index(name)
        headline = self.engine.suite(self.members[0]).evaluators[i].headline
        return values[:, i, self.spec.metrics().index(headline), 0]

    def _unstack(self) -> list[State]:
        if self.width == 1:
            return self.states
        rows = [[jax.tree.map(lambda x, i=i: x[i], s) for i in range(self.width)] for s in self.states]
        return [state for row in rows for state in row][: len(self.members)]


def _placed(tree: Any, devices: int) -> Any:
    """Arrays with a leading axis over a group's members, each member's on its device."""
    if devices == 1:
        return tree
    return jax.device_put(tree, NamedSharding(members_mesh(devices), PartitionSpec(MEMBERS_AXIS)))


def _stack(trees: list[Any], width: int) -> Any:
    return trees[0] if width == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
