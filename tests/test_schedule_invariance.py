"""Nothing depends on when a run was looked at, cut into slices, saved, or interrupted: any schedule, same bits."""

import itertools as it
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide.errors import Interrupted
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import load_state
from ebbtide.training import driver
from ebbtide.training import members as members_module
from ebbtide.training.driver import train
from ebbtide.training.engine import Engine
from ebbtide.training.members import Members
from ebbtide.training.schedule import Schedule, Window
from effort import examples
from tiny import SPEC, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 16
SHORT = replace(SPEC, sequences=STEPS * SPEC.batch, members=1)


@pytest.fixture(autouse=True, scope="module")
def one_engine():
    """Every start anew uses one compiled program: the engine keeps nothing of a run."""
    engines: dict[str, Engine] = {}
    with pytest.MonkeyPatch.context() as patch:
        # The schedule does not reach the engine, so specs that differ in it alone share one too.
        key = replace(SHORT, schedule=Schedule()).digest()

        def engine(spec: Any, native: bool) -> Engine:
            assert not native
            assert replace(spec, schedule=Schedule()).digest() == key
            return engines.setdefault(key, Engine(SHORT))

        patch.setattr(members_module, "Engine", engine)
        yield


def lasting(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state but for what depends on the evaluations made: the training loss since the last one, and
    the best model seen."""
    seen = ("summed", "counted", "watch.", "best.")
    return {name: array for name, array in state.items() if not name.startswith(seen)}


class Reference:
    """The run trained step by step, looked at after every step. (Not a tuple: a search that fails prints it.)"""

    def __init__(self, states: list[dict[str, np.ndarray]], values: list[np.ndarray]):
        self.states, self.values = states, values


@pytest.fixture(scope="module")
def reference(one_engine) -> Reference:
    run = Members(SHORT, [0], None)
    states, values = [], []
    for step in range(STEPS + 1):
        run.train(step)
        states.append(lasting(run.state()))
        values.append(run.evaluate()["values"])
    assert len({s["params.readout.w"].tobytes() for s in states}) == STEPS + 1
    return Reference(states, values)


def demand(condition: bool, where: str) -> None:
    """An assertion that does not print the arrays it compared: a search meets it very often."""
    if not condition:
        raise AssertionError(where)


class Plan(NamedTuple):
    """What happens to a run, in steps: slices end at `cuts`, it is evaluated at `looks`, its state is
    taken at `saves`, and at `breaks` it is ended and continued from its state by a new process."""

    cuts: frozenset[int] = frozenset()
    looks: frozenset[int] = frozenset()
    saves: frozenset[int] = frozenset()
    breaks: frozenset[int] = frozenset()


def assert_as_planned_or_not(plan: Plan, reference: Reference, kind: type[Members] = Members) -> None:
    """Follows the plan: every state and evaluation on the way is the reference's, and all that depends on
    the evaluations (training loss, best model) is that of the same run cut at nothing but them."""
    run, plain = kind(SHORT, [0], None), Members(SHORT, [0], None)
    for step in sorted({*plan.cuts, *plan.looks, *plan.saves, *plan.breaks, STEPS}):
        run.train(step)
        if step in plan.looks:
            plain.train(step)
            seen, wanted = run.evaluate(), plain.evaluate()
            demand(seen["values"].tobytes() == reference.values[step].tobytes(), f"evaluation at {step}")
            demand(seen["train_loss"].tobytes() == wanted["train_loss"].tobytes(), f"loss at {step}")
        if step in plan.saves:
            demand(same_bits(lasting(run.state()), reference.states[step]), f"state at {step}")
        if step in plan.breaks:
            run = kind(SHORT, [0], run.state())
    plain.train(STEPS)
    demand(same_bits(lasting(run.state()), reference.states[STEPS]), "final state")
    demand(same_bits(run.state(), plain.state()), "what the evaluations left")


points = st.frozensets(st.integers(0, STEPS), max_size=6)
plans = st.builds(Plan, cuts=points, looks=points, saves=points, breaks=points)


@settings(max_examples=examples(quick=12, thorough=80))
@given(plan=plans)
def test_any_slices_looks_saves_and_restarts_give_the_same_bits(reference, plan):
    assert_as_planned_or_not(plan, reference)


def change_keys(run: Members, change: Callable[[Any], Any]) -> None:
    """Changes the key of every member's data stream."""
    for group in run.groups:
        group.data = group.data._replace(key=change(group.data.key))


class FoldsTheSlice(Members):
    """An engine whose randomness knows how many calls there were."""

    calls = 0

    def train(self, step: int) -> None:
        self.calls += 1
        change_keys(self, lambda key: jax.random.fold_in(key, self.calls))
        super().train(step)


class StartsTheKeyAnew(Members):
    """An engine that draws from its own position, which a restart sets back."""

    def __init__(self, spec: Any, members: list[int], state: Any):
        super().__init__(spec, members, state)
        if self.step:
            change_keys(self, lambda key: jax.random.fold_in(key, self.step))


class ForgetsMoments(Members):
    """A checkpoint without the optimiser's state."""

    def state(self) -> dict[str, np.ndarray]:
        state = super().state()
        return {k: np.zeros_like(v) if k.startswith("optimizer.") else v for k, v in state.items()}


class ForgetsLoss(Members):
    """A checkpoint without the training loss gathered so far."""

    def state(self) -> dict[str, np.ndarray]:
        state = super().state()
        return state | {k: np.zeros_like(state[k]) for k in ("summed", "counted")}


class ForgetsTheBest(Members):
    """A checkpoint without the best value seen so far."""

    def state(self) -> dict[str, np.ndarray]:
        state = super().state()
        return state | {k: np.full_like(v, -1) for k, v in state.items() if k == "watch.best_value"}


class EvaluationDisturbs(Members):
    """An evaluation that takes a number from the training stream."""

    def evaluate(self) -> dict[str, np.ndarray]:
        change_keys(self, lambda key: jax.random.split(key)[0])
        return super().evaluate()


class EvaluationDrawsAnew(Members):
    """Evaluation prompts that differ from one look to the next."""

    looks = 0

    def evaluate(self) -> dict[str, np.ndarray]:
        self.looks += 1
        found = super().evaluate()
        return found | {"values": np.roll(found["values"], self.looks, axis=-2)}


@pytest.mark.parametrize(
    ("kind", "plan", "where"),
    [
        (FoldsTheSlice, Plan(cuts=frozenset({5})), "final state"),
        (FoldsTheSlice, Plan(), "final state"),
        (StartsTheKeyAnew, Plan(breaks=frozenset({5})), "final state"),
        (ForgetsMoments, Plan(breaks=frozenset({5})), "final state"),
        (ForgetsMoments, Plan(saves=frozenset({5})), "state at 5"),
        (ForgetsLoss, Plan(breaks=frozenset({5}), looks=frozenset({3, 9})), "loss at 9"),
        (ForgetsTheBest, Plan(breaks=frozenset({STEPS}), looks=frozenset({9})), "what the evaluations left"),
        (EvaluationDisturbs, Plan(looks=frozenset({5})), "final state"),
        (EvaluationDrawsAnew, Plan(looks=frozenset({5})), "evaluation at 5"),
    ],
)
def test_an_engine_that_depends_on_its_schedule_would_have_been_noticed(reference, kind, plan, where):
    """A test of the test above."""
    with pytest.raises(AssertionError, match=where):
        assert_as_planned_or_not(plan, reference, kind)


def test_the_search_itself_finds_such_an_engine(reference):
    """Hypothesis, too, comes upon a plan that shows it."""

    @settings(max_examples=30, database=None, derandomize=True, phases=[Phase.generate])
    @given(plan=plans)
    def search(plan: Plan) -> None:
        assert_as_planned_or_not(plan, reference, ForgetsMoments)

    with pytest.raises(AssertionError, match=r"state at|final state|loss at|evaluation at"):
        search()


# ---- the same through the driver and the run folder

windows = st.builds(
    lambda start, length, every, keep: Window(
        start=start, end=min(start + length, SHORT.sequences), every=every, keep=keep
    ),
    start=st.integers(0, SHORT.sequences - 1),
    length=st.integers(1, SHORT.sequences),
    every=st.integers(1, SHORT.sequences),
    keep=st.booleans(),
)
schedules = st.builds(
    Schedule,
    evaluations=st.integers(2, STEPS + 4),
    checkpoints=st.integers(2, STEPS + 4),
    spacing=st.sampled_from(["linear", "log"]),
    first=st.integers(1, SHORT.sequences - 1),
    windows=st.lists(windows, max_size=2).map(tuple),
)
lives = st.lists(st.integers(1, 4), max_size=3)
"""After how many reports the run is interrupted, each time it is started."""


class Stop:
    """Asks the run to stop at the n-th report."""

    def __init__(self, reports: int):
        self.left = reports

    def __call__(self, progress: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def lived(spec: Any, path: Path, lengths: list[int], lives: list[int]) -> RunFolder:
    """The run trained with slices of these lengths (in steps, one after the other), interrupted and
    continued as `lives` says."""
    slices, chosen = it.cycle(lengths), driver._Loop._slice

    def choose(*arguments: Any) -> int:
        chosen(*arguments)  # it reports progress, too
        return next(slices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver._Loop, "_slice", choose)
        for reports in lives:
            try:
                return train(spec, path, processes=0, report=Stop(reports))
            except Interrupted:
                continue
        return train(spec, path, processes=0)


@settings(max_examples=examples(quick=4, thorough=16))
@given(schedule=schedules, lengths=st.lists(st.integers(1, STEPS), min_size=1, max_size=4), lives=lives)
def test_any_schedule_slices_and_interruptions_leave_the_same_run(
    reference, tmp_path_factory, schedule, lengths, lives
):
    """Every evaluation row and every checkpoint of the folder is the reference's at that step."""
    spec = replace(SHORT, schedule=schedule)
    run = lived(spec, tmp_path_factory.mktemp("lived") / "run", lengths, lives)
    assert_equals(run, reference, spec)


def assert_equals(run: RunFolder, reference: Reference, spec: Any) -> None:
    arrays = run.arrays()
    assert arrays["sequences"].tolist() == spec.schedule.points(spec.sequences, spec.batch)
    for row, sequences in enumerate(arrays["sequences"]):
        values = np.ascontiguousarray(arrays["values"][:, row])
        demand(values.tobytes() == reference.values[sequences // spec.batch].tobytes(), f"row at {sequences}")
    kept = [manifest for _, manifest in run.manifests() if manifest.kept]
    assert sorted(m.sequences for m in kept) == spec.schedule.kept(spec.sequences, spec.batch)
    for manifest in kept:
        state, step = lasting(load_state(run, manifest)), manifest.sequences // spec.batch
        demand(same_bits(state, reference.states[step]), f"checkpoint {manifest.sequences}")


@pytest.mark.parametrize(("kind", "where"), [(FoldsTheSlice, "row at"), (EvaluationDrawsAnew, "row at 0")])
def test_a_run_that_depends_on_its_schedule_would_have_been_noticed(reference, tmp_path, monkeypatch, kind, where):
    """A test of the test above."""

    class Planted(kind):
        def __init__(self, spec: Any, members: list[int], state: Any, *rest: Any):
            super().__init__(spec, members, state)

    monkeypatch.setattr(members_module, "Members", Planted)
    run = lived(SHORT, tmp_path / "run", [3], [])
    with pytest.raises(AssertionError, match=where):
        assert_equals(run, reference, SHORT)
