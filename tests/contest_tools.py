"""Cells and theories for tests of the contest, made up: members whose curves rise and fall, and differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Num
from msgspec.structs import replace

from ebbtide.contest.cells import Cell
from ebbtide.contest.mixtures import READ, oracle_table
from ebbtide.contest.scores import divergence
from ebbtide.contest.theory import Facts, Fractions, Seen
from ebbtide.runs.writer import Writer
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.driver import make_plan
from ebbtide.sweeps.folder import SweepFolder, planning
from ebbtide.sweeps.plan import TaskGroup, group
from ebbtide.sweeps.sweep import Sweep
from sweep_tools import BASE
from tiny import evaluations, header, watched

TIMES = np.geomspace(1e3, 1e6, 25)


def curve(rise: Any, fall: Any, top: float = 0.95, sequences: np.ndarray = TIMES) -> np.ndarray:
    """Fractions of which the generalising one is half up at `rise` and half down at `fall`, in sequences, as the
    memorising one comes."""
    x = np.log(sequences)
    come = 1 / (1 + np.exp(-4 * (x - np.log(rise))))
    gone = 1 / (1 + np.exp(-4 * (x - np.log(fall))))
    return np.stack([top * come * (1 - gone), come * gone, 1 - top * come * (1 - gone) - come * gone], axis=-1)


def made_cell(
    value: float = 8.0,
    members: int = 5,
    rise: float = 1e4,
    fall: float = 2e5,
    jitter: float = 0.1,
    seed: int = 0,
    sequences: np.ndarray = TIMES,
    axis: str = "source.pool",
) -> Cell:
    """A cell whose members' times differ by a factor exp(jitter) or so."""
    random = np.random.default_rng(seed)
    factors = np.exp(jitter * random.standard_normal((members, 2)))
    fractions = np.stack([curve(rise * a, fall * b, sequences=sequences) for a, b in factors])
    return Cell(Facts(f"{axis} = {value:g}", {axis: value}), sequences, fractions)


class Known(msgspec.Struct, frozen=True):
    """A theory with one parameter, by how much its times are late; a cell falls at `fall` times its value."""

    name: str = "known"
    rise: float = 1e4
    fall: float = 4e3
    late: float = 0.0
    needs_pure: bool = False

    @property
    def free(self) -> int:
        return 1

    def inputs(self, facts: Facts) -> float:
        return facts.config["source.pool"]

    def fit(self, seen: Sequence[Seen]) -> "Known":
        tried, losses = np.linspace(-1, 1, 21)[:, None], np.zeros(21)
        for one in seen:
            told = curve(self.rise * np.exp(tried), self.fall * one.inputs * np.exp(tried), sequences=one.sequences)
            losses += divergence(np.broadcast_to(one.fractions, told.shape), told, one.sequences)
        return replace(self, late=float(tried[np.argmin(losses), 0]))

    def predict(self, inputs: float, sequences: Num[np.ndarray, " time"]) -> Fractions:
        factor = np.exp(self.late)
        return curve(self.rise * factor, self.fall * inputs * factor, sequences=sequences)

    def parameters(self) -> Mapping[str, float]:
        return {"late": self.late}


class Unfitted(Known, frozen=True):
    """The same without a fit: what it predicts is the same in every resample."""

    @property
    def free(self) -> int:
        return 0

    def fit(self, seen: Sequence[Seen]) -> "Unfitted":
        return self


CLASSES = (64, 128, 256, 512)
AXES = (Axis(field="source.classes", values=list(CLASSES)), Axis(seeds=5))
SWEEP = Sweep(name="try", base=BASE | {"evaluators": list(READ), "sequences": 1_600_000}, axes=AXES)


def made_sweep(path: Path, members: int = 5) -> SweepFolder:
    """A sweep of few-shot models that were never trained: their evaluators score what `curve` gives, with a later fall
    where there are more classes."""
    folder = SweepFolder.make(path, replace(SWEEP, axes=(SWEEP.axes[0], Axis(seeds=members))))
    with planning(path):
        planned = make_plan(folder.sweep, group(folder.sweep, folder.sweep.points()), {}, 1)
        folder.add([TaskGroup(msgspec.to_builtins(one.group.spec), one.tasks) for one in planned if one.tasks])
    at = np.concatenate([[0], TIMES])
    for task in folder.specs:
        spec = folder.spec(task)
        classes = float(spec.source.sizes().classes)
        head = replace(header(spec), digest=spec.digest(), spec=msgspec.to_builtins(spec))
        chance = {one.name: one.chance for one in head.instruments if one.chance is not None}
        seeds = [int(seed) for seed in spec.vary["seeds.member"]]
        lags = [np.exp(0.1 * np.random.default_rng(seed).standard_normal()) for seed in seeds]
        told = np.stack([curve(1e4 * lag, 1e3 * classes * lag) for lag in lags])
        before = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(seeds), 1, 3))
        weights = np.concatenate([before, told], axis=1)[..., [0, 1, 1, 2]] * [1, 0.5, 0.5, 1]
        scores = weights @ oracle_table(READ, chance).T
        curves = {name: scores[..., i].astype(np.float32) for i, name in enumerate(READ)}
        writer = Writer(folder.run_path(task), head)
        rows = evaluations(head, curves, np.ones(scores.shape[:2]), at)
        state = {"step": np.full(len(seeds), spec.steps(), np.uint32), **watched(spec.members)}
        writer.commit(sequences=spec.sequences, state=state, evaluations=rows, kept=True, finished=True, seconds=1.0)
        writer.close()
    return folder
