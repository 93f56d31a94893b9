"""Evidence: what an experiment measured, as arrays with named axes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from msgspec.structs import replace

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.divergence import diverged
from ebbtide.evaluation.summary import Curves, fall_since, first_crossing, summarise
from ebbtide.runs.folder import RunFolder

Scalars = dict[str, Float[np.ndarray, " member"]]
AXES = ("sequences", "steps")
"""Curves that have no axis over members."""
ENDED = ("finished", "diverged")
"""States of a member (`Results`) that has trained to its end."""
ONLY = ""
"""The arm of an experiment that has one arm."""


class Series(NamedTuple):
    """Numbers over training with their coordinates: `values[m, i]` was measured of member m after `sequences[i]`
    sequences. A member that has not finished is nan. `values` may have more axes, such as layers and heads."""

    values: Float[np.ndarray, "member time *axes"]
    sequences: Num[np.ndarray, " time"]

    def at(self, sequences: Num[np.ndarray, " member"]) -> Float[np.ndarray, "member *axes"]:
        """Values of every member at the time nearest to the member's own number of sequences."""
        nearest = np.abs(self.sequences - np.asarray(sequences, float)[:, None]).argmin(1)
        return self.values[np.arange(len(self.values)), nearest]

    def first_crossing(self, level: float | Float[np.ndarray, " member"], **how: bool) -> Float[np.ndarray, " member"]:
        """The sequences at which each member is first above a level (see `evaluation.summary.first_crossing`)."""
        return first_crossing(self.sequences, self.values, level, **how)

    def fall_since(self, sequences: Num[np.ndarray, " member"]) -> Float[np.ndarray, " member"]:
        """Share by which each member's value falls from the member's own number of sequences to the end."""
        return fall_since(self.sequences, self.values, sequences)


class Lacking(NamedTuple):
    """Members on which a claim cannot be judged: those that have not finished in every arm of the claim, and those that
    diverged in one. `note` says so in words."""

    unfinished: Bool[np.ndarray, " members"]
    diverged: Bool[np.ndarray, " members"]
    note: str

    def any(self) -> Bool[np.ndarray, " members"]:
        """Mask of the members that have not finished or have diverged."""
        return self.unfinished | self.diverged


@dataclass(frozen=True)
class Arm:
    """Measurements of one arm's members, in the order of their seeds.

    Args:
        curves: by the name of an evaluator, and for `train_loss` (nats or squared error), arrays [member, evaluation];
            and `sequences` [evaluation]. None when no member has finished.
        chance: chance level of every evaluator.
        states: the state of every member (see `Results`).
        runs: for every member its place in the run that it was trained in, and that run (None: it has not finished).
        scalars: numbers [member] by name, in addition to those that are read off the curves.
        headline: the metric by which the evaluators are read.

    >>> curves = {"sequences": np.arange(3), "icl": np.array([[0.5, 0.9, 0.6]]), "train_loss": np.ones((1, 3))}
    >>> arm = eb.Arm(curves, scalars={"strength": np.array([0.8])})
    >>> arm.members(), arm.summary["strength"].tolist(), arm.summary["icl_final"].tolist()
    (1, [0.8], [0.75])
    """

    curves: Curves | None = None
    chance: Mapping[str, float] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    runs: tuple[tuple[int, RunFolder | None], ...] = ()
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    headline: str = ""

    @cached_property
    def summary(self) -> Scalars:
        """The scalars: those that are given, and those that are read off the curves (`summarise`)."""
        return ({} if self.curves is None else summarise(self.curves, dict(self.chance))) | dict(self.scalars)

    def members(self) -> int:
        """The number of members."""
        arrays = [*(self.curves or {}).items(), *self.scalars.items()]
        return len(self.states) or next((len(x) for name, x in arrays if name not in AXES), 0)


class Evidence:
    """Measurements of an experiment's arms: their curves over training, scalars, and measures of their models.

    The axes have names: `arm`, `member` (the same seeds in every arm, so that arms may be compared member by member),
    and `sequences`, which every `Series` brings with it. To test a claim, make evidence up:

        >>> import numpy as np
        >>> loss = {"sequences": np.asarray([0, 10]), "train_loss": np.asarray([[np.nan, 0.5], [np.nan, 0.7]])}
        >>> eb.Evidence({"small": eb.Arm(loss)}).scalar("small", "train_loss_final").round(1).tolist()
        [0.5, 0.7]
    """

    def __init__(self, arms: Mapping[str, Arm], probes: Mapping[tuple[str, str, str], Series] | None = None):
        """`probes` holds measures of heads that are known already, by arm, measure and evaluator."""
        self._arms, self._probes = dict(arms), dict(probes or {})
        self.arms = list(arms)

    def __getitem__(self, name: str) -> Float[np.ndarray, " member"]:
        """A scalar of the members of an experiment that has one arm. Raises `InputError` for an unknown scalar."""
        scalars = self._arm(ONLY).summary
        require(name in scalars, "scalar", name, f"must be one of {', '.join(scalars)}{nearest(name, scalars)}")
        return scalars[name]

    def scalar(self, arm: str, name: str) -> Float[np.ndarray, " member"]:
        """A scalar of an arm's members (nan: it has not finished). Raises `InputError` for an unknown arm or scalar."""
        own = self._arm(arm)
        if own.curves is None and not own.scalars:
            return np.full(own.members(), np.nan)
        scalars = own.summary
        require(name in scalars, "scalar", name, f"must be one of {', '.join(scalars)}{nearest(name, scalars)}")
        return scalars[name].astype(np.float64)

    def scalars(self, arm: str) -> Scalars:
        """All scalars of an arm's members."""
        return self._arm(arm).summary

    def curve(self, arm: str, name: str) -> Series:
        """An evaluator, or `train_loss`, over an arm's training. Raises `InputError` when no member has finished, or
        for an unknown name."""
        curves = self.curves(arm)
        known = [one for one in curves if one not in AXES]
        require(name in known, "curve", name, f"must be one of {', '.join(known)}{nearest(name, known)}")
        return Series(curves[name], curves["sequences"])

    def curves(self, arm: str) -> Curves:
        """All curves of an arm, [member, evaluation], with their `sequences`. Raises `InputError` when no member has
        finished."""
        curves = self._arm(arm).curves
        if curves is None:
            raise InputError("arm", arm, "no member has finished")
        return curves

    def probe(self, arm: str, measure: str, evaluator: str) -> Series:
        """A measure (`mechanisms.measures`) of every member at every kept checkpoint, on prompts of an evaluator."""
        from ebbtide.training.probe import probe_run

        key = (arm, measure, evaluator)
        if key not in self._probes:
            runs = {run.path: run for _, run in self.runs(arm) if run is not None}
            require(len(runs) > 0, "arm", arm, "no member has finished")
            probed = {path: probe_run(run, [measure], evaluator)[0] for path, run in runs.items()}
            members = [None if run is None else probed[run.path].values[:, m] for m, run in self.runs(arm)]
            shape = next(member.shape for member in members if member is not None)
            self._probes[key] = Series(stack_members(members, shape), next(iter(probed.values())).sequences)
        return self._probes[key]

    def score_best(self, arm: str, evaluator: str = "icl") -> Float[np.ndarray, " member"]:
        """Headline metric of an evaluator for every member's best kept model, on fresh prompts, which neither training
        nor the choice of the model has seen (evaluation seed + 1); nan for a member that has not finished. Raises
        `InputError` when the parameters are not those that the run's spec needs."""
        from ebbtide.tasks.fewshot import METRICS
        from ebbtide.training.engine import Engine
        from ebbtide.training.run import WATCHED, loadable_spec_of, params_of

        scores: list[float] = []
        for place, run in self.runs(arm):
            if run is None:
                scores.append(np.nan)
                continue
            spec = loadable_spec_of(run)
            seeds = replace(spec.seeds, evaluation=spec.seeds.evaluation + 1)
            engine = Engine(replace(spec, seeds=seeds, evaluators=(evaluator,)))
            best = {name: array for name, array in run.best().items() if name not in WATCHED}
            params = params_of(spec, best, place, f"{run.path}: best models")
            suite = engine.suite(place)
            measured = np.asarray(engine.measure(params, suite))[0, :, 0]
            scores.append(float(measured[METRICS.index(suite.evaluators[0].headline)]))
        return np.asarray(scores)

    def runs(self, arm: str) -> list[tuple[int, RunFolder | None]]:
        """Place in a run, and that run (None: not finished), of every member."""
        return list(self._arm(arm).runs)

    def recorded_arms(self) -> list[str]:
        """Names of the arms that have curves: a member has finished, or diverged."""
        return [name for name, arm in self._arms.items() if arm.curves is not None]

    def finished_arms(self) -> list[str]:
        """Names of the arms of which a member has finished and not diverged."""
        return [name for name, arm in self._arms.items() if "finished" in arm.states]

    def lacking(self, arms: Iterable[str] = ()) -> Lacking | None:
        """The members of these arms (none given: of all) that have not finished, or diverged; None where there are
        none."""
        unfinished, lost, words = [], [], []
        for name in tuple(arms) or self.arms:
            states = self._arm(name).states
            unfinished.append(np.asarray([state not in ENDED for state in states], bool))
            lost.append(np.asarray([state == "diverged" for state in states], bool))
            of = f" of {name}" if name != ONLY else ""
            for what, members in (("not finished", unfinished[-1]), ("diverged", lost[-1])):
                words += [f"{members.sum()} of {len(members)} members{of} {what}"] if members.any() else []
        if not words:
            return None
        return Lacking(np.any(unfinished, axis=0), np.any(lost, axis=0), ", ".join(words))

    def headline(self) -> str:
        """The metric by which the evaluators of the arms are read; empty where no arm names one."""
        return next((arm.headline for arm in self._arms.values() if arm.headline), "")

    def chance(self, arm: str) -> Mapping[str, float]:
        """Chance level of every evaluator."""
        return self._arm(arm).chance

    def sequences(self) -> int:
        """Number of sequences that each member was trained on, in the arm with the most."""
        return max((int(self.curves(arm)["sequences"][-1]) for arm in self.recorded_arms()), default=0)

    def _arm(self, name: str) -> Arm:
        require(name in self._arms, "arm", name, f"must be one of {', '.join(self.arms)}")
        return self._arms[name]


def stack_members(members: Iterable[np.ndarray | None], shape: tuple[int, ...]) -> Float[np.ndarray, "member *axes"]:
    """One array of all members, each given as an array of `shape` or None (nan)."""
    return np.stack([np.full(shape, np.nan) if row is None else row for row in members])


def evidence_of_run(run: RunFolder, scalars: Mapping[str, np.ndarray]) -> Evidence:
    """Evidence with one arm, whose members are those of the run; `scalars` are numbers in addition to those of the
    curves."""
    curves = run.metrics()
    states = tuple("diverged" if lost else "finished" for lost in diverged(curves))
    runs = tuple((m, run) for m in range(len(states)))
    return Evidence({ONLY: Arm(curves, run.chance(), states, runs, scalars, run.header.instruments[0].headline)})
