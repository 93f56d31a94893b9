"""A share of a run's members, trained in one process."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.metrics import METRICS
from ebbtide.runs.folder import Instrument
from ebbtide.training.engine import Data, Engine, State
from ebbtide.training.spec import Spec


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by dotted name, e.g. `params.blocks.0.attn.q`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unnamed(template: Any, arrays: dict[str, Any]) -> Any:
    """The pytree shaped like `template` with the leaves of `arrays`. Raises `KeyError` or
    `ValueError` when a leaf is missing or has another shape."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    found = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        array = arrays[name]
        if array.shape != leaf.shape:
            raise ValueError(f"{name} has shape {array.shape}, the spec needs {leaf.shape}")
        found.append(jnp.asarray(array, leaf.dtype))
    return jax.tree_util.tree_unflatten(treedef, found)


class Members:
    """Trains `members` (indices into the run's members) by three commands.

    On the CPU they take turns in one compiled program, so a member's bits do not depend on who else
    is here. With `width` > 1 (accelerators) that many are mapped side by side by `vmap`.
    """

    def __init__(self, spec: Spec, members: list[int], state: dict[str, np.ndarray] | None, width: int = 1):
        """Starts from `state` (arrays with a leading axis over all members of the run), or anew."""
        self.spec, self.members, self.width = spec, members, width
        self.engine = engine = Engine(spec)
        states, data = [], []
        for member in members:
            fresh = engine.init(member)
            states.append(fresh if state is None else unnamed(fresh, {k: v[member] for k, v in state.items()}))
            data.append(engine.data(member))
        groups = [slice(i, i + width) for i in range(0, len(members), width)]
        self.states: list[State] = [_stack(states[g], width) for g in groups]
        self.data: list[Data] = [_stack(data[g], width) for g in groups]
        self._train = (
            engine.train if width == 1 else jax.jit(jax.vmap(engine.train, in_axes=(0, 0, None)), donate_argnums=0)
        )
        self.step = int(np.min(np.asarray(self.states[0].step)))

    def instruments(self) -> list[Instrument]:
        """The evaluators with their chance levels on the first member's prompts."""
        suite, sizes = self.engine.suite(self.members[0]), self.spec.source.sizes()
        chance = suite.chance(self.spec.task.outputs(sizes.classes))
        return [Instrument(e.name, e.headline, chance[e.name]) for e in suite.evaluators]

    def train(self, step: int) -> None:
        """Trains every member up to optimiser step `step`."""
        n = jnp.uint32(step - self.step)
        self.states = [self._train(s, d, n) for s, d in zip(self.states, self.data, strict=True)]
        jax.block_until_ready(self.states)
        self.step = step

    def evaluate(self) -> dict[str, np.ndarray]:
        """All metrics of all members, and the mean training loss since the last call (nan if none)."""
        values, losses = [], []
        for member, state in zip(self.members, self._each(), strict=True):
            values.append(np.asarray(self.engine.measure(state.params, self.engine.suite(member))))
            counted = float(state.counted)
            losses.append(float(state.summed) / counted if counted else float("nan"))
        zero = jnp.zeros_like
        self.states = [s._replace(summed=zero(s.summed), counted=zero(s.counted)) for s in self.states]
        stacked: Float[np.ndarray, "members evaluators metrics 2"] = np.stack(values)
        assert stacked.shape[2] == len(METRICS)
        return {"values": stacked, "train_loss": np.asarray(losses, np.float32)}

    def state(self) -> dict[str, np.ndarray]:
        """The state of all members here, leading axis over them, by dotted names."""
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *self._each())
        return {name: np.asarray(leaf) for name, leaf in named(stacked).items()}

    def _each(self) -> list[State]:
        if self.width == 1:
            return self.states
        rows = [[jax.tree.map(lambda x, i=i: x[i], s) for i in range(s.step.shape[0])] for s in self.states]
        return [state for row in rows for state in row]


def _stack(trees: list[Any], width: int) -> Any:
    return trees[0] if width == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
