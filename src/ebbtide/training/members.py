"""The members of a run that one process trains."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ebbtide.runs.records import Instrument
from ebbtide.training.engine import Engine
from ebbtide.training.groups import Alone, Arrays, Group, SideBySide
from ebbtide.training.spec import Spec
from ebbtide.training.watch import Watch

WATCH = "watch."
"""Prefix of the arrays of `Watch` in a checkpoint, beside the members' `State` and best models."""


class Members:
    """The members of one process (`members`: their indices in the run), trained by three commands.

    With `width` 1 they take turns in one compiled program, so a member's bits do not depend on the other members. With
    `width` > 1 that many are mapped side by side by `vmap` over `devices` devices, width / devices on each.
    """

    def __init__(
        self,
        spec: Spec,
        members: list[int],
        state: Arrays | None,
        width: int = 1,
        devices: int = 1,
        native: bool = False,
    ):
        """Starts from `state` (arrays with a leading axis over these members), or untrained. `native`: see `Engine`."""
        self.spec, self.members, self.width, self.devices = spec, members, width, devices
        self.engine = Engine(spec, native)
        stored = state or {}
        kept = {name.removeprefix(WATCH): array for name, array in stored.items() if name.startswith(WATCH)}
        self.watch = Watch(len(members), spec.stopping, kept)
        self.rows = [slice(i, i + width) for i in range(0, len(members), width)]
        self.groups = [self._group(members[rows], _rows(state, rows)) for rows in self.rows]
        self.step = max(int(np.max(group.state.step)) for group in self.groups)

    def _group(self, members: list[int], stored: Arrays | None) -> Group:
        if self.width == 1:
            return Alone(self.engine, members[0], stored)
        return SideBySide(self.engine, members, stored, self.width, self.devices)

    def instruments(self) -> list[Instrument]:
        """The evaluators with their chance levels on the first member's prompts."""
        suite = self.engine.suite(self.members[0])
        chance = suite.chance(self.spec.outputs())
        return [Instrument(e.name, e.headline, chance[e.name]) for e in suite.evaluators]

    def train(self, step: int) -> None:
        """Trains every member that has not stopped up to optimiser step `step`."""
        n, going = jnp.uint32(step - self.step), ~self.watch.stopped
        for rows, group in zip(self.rows, self.groups, strict=True):
            if going[rows].any():
                group.train(n, going[rows])
        jax.block_until_ready([group.state for group in self.groups])
        self.step = step

    def evaluate(self) -> dict[str, np.ndarray]:
        """All metrics of all members, the mean training loss since the last call (nan if there was no step), and the
        sequences at which each member stopped (-1: it has not). Keeps the best models."""
        measured = [group.evaluate() for group in self.groups]
        values = np.concatenate([one.values for one in measured])
        assert values.shape[2] == len(self.spec.metrics())
        self._look(values)
        losses = np.concatenate([one.train_loss for one in measured])
        return {"values": values, "train_loss": losses, "stopped_at": self.watch.stopped_at.copy()}

    def state(self) -> Arrays:
        """The state of all members, with a leading axis over them, by dotted name; the parameters of their best models
        under `best.`, and the arrays of the watch under `watch.`."""
        parts = [group.arrays() for group in self.groups]
        arrays = parts[0]
        if len(parts) > 1:
            arrays = {name: np.concatenate([part[name] for part in parts]) for name in arrays}
        return arrays | {WATCH + name: array for name, array in self.watch.arrays().items()}

    def _look(self, values: Float[np.ndarray, "members evaluators metrics 2"]) -> None:
        """Stores the parameters of members that are better than ever before, and stops the members that may stop."""
        at, spec = self.step * self.spec.batch, self.spec
        if name := spec.best_evaluator():
            found = self.watch.update_best(self._headline(values, name), at)
            for rows, group in zip(self.rows, self.groups, strict=True):
                if found[rows].any():
                    group.keep_best(found[rows])
        if spec.stopping is not None:
            self.watch.update_stopping(self._headline(values, spec.stopping.evaluator), at)

    def _headline(self, values: Float[np.ndarray, "members evaluators metrics 2"], name: str) -> np.ndarray:
        i = self.spec.evaluators.index(name)
        headline = self.engine.suite(self.members[0]).evaluators[i].headline
        return values[:, i, self.spec.metrics().index(headline), 0]


def _rows(state: Arrays | None, rows: slice) -> Arrays | None:
    return None if state is None else {name: array[rows] for name, array in state.items()}
