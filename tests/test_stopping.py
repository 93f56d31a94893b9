"""Best models and early stopping in whole runs: what is kept is what was measured, who stopped stays as they were."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import Interrupted
from ebbtide.evaluation.metrics import per_sequence
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.runs.writer import load_state
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import METRICS, FewShot
from ebbtide.training import driver
from ebbtide.training.driver import resume, train
from ebbtide.training.engine import Engine
from ebbtide.training.groups import from_dotted
from ebbtide.training.members import Members
from ebbtide.training.programs import State
from ebbtide.training.progress import Progress
from ebbtide.training.run import spec_of
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec
from ebbtide.training.watch import EarlyStopping, Watch
from tiny import SPEC, contents, final_state, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

PATIENCE = 512
PLAIN = replace(
    SPEC,
    task=FewShot(context=2, burst=1),
    source=Gaussian(classes=12, exemplars=2, dim=8, noise=0.2, holdout_classes=4, holdout_exemplars=2),
    vary={"optimizer.lr": [1e-12, 3e-3]},
    schedule=Schedule(evaluations=9, checkpoints=2),
    evaluation_sequences=128,  # a mean of so many zeros and ones is exact
    keep_best="iwl",
)
"""Evaluations at 0, 128 ... 1024. At its learning rate member 0 stays what it is; member 1 learns twelve classes."""
ONE = replace(PLAIN, stopping=EarlyStopping(patience=PATIENCE, evaluator="iwl", window=1))
"""Member 0 stops at 512; member 1 rises often enough to go on."""
ALL = replace(ONE, vary={"optimizer.lr": [1e-12, 1e-12]})
"""Both stop at 512, and with them the run."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> RunFolder:
    return train(PLAIN, tmp_path_factory.mktemp("plain") / "run", processes=0)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> RunFolder:
    return train(ONE, tmp_path_factory.mktemp("one") / "run", processes=0)


@pytest.fixture(scope="module")
def all_stopped(tmp_path_factory) -> RunFolder:
    return train(ALL, tmp_path_factory.mktemp("all") / "run", processes=0, label={"study": "transience"})


def member(arrays: dict[str, np.ndarray], i: int, *kinds: str) -> dict[str, np.ndarray]:
    return {name: array[i] for name, array in arrays.items() if name.startswith(kinds or "")}


def measured(spec: Spec, member: int, arrays: dict[str, np.ndarray]) -> float:
    """The accuracy of a member with these parameters on its evaluation prompts of `keep_best`."""
    engine, name = Engine(spec), spec.keep_best
    assert name is not None
    params = from_dotted(engine.init(member).params, {key: array[member] for key, array in arrays.items()})
    prompt = engine.suite(member).of(name)
    logits = jax.jit(spec.model.apply)(params, prompt)
    return float(np.asarray(per_sequence(logits, prompt))[METRICS.index("accuracy")].mean())


# ---- the best model


@pytest.mark.parametrize("width", [1, 2])
def test_the_kept_model_has_exactly_the_value_that_was_recorded(plain, tmp_path, width):
    run = plain if width == 1 else train(PLAIN, tmp_path / "run", processes=0, width=width)
    best, curve = run.best(), run.metrics()["iwl"]
    assert curve[1].max() > 0.5 > curve[1, 0]  # member 1 did learn, so that there is a best
    for i in (0, 1):
        assert measured(PLAIN, i, best) == best["value"][i] == curve[i].max()
        assert best["sequences"][i] == run.metrics()["sequences"][curve[i].argmax()]  # the first of equals
    assert best["stopped_at"].tolist() == [-1, -1]


def test_another_model_would_have_been_noticed(plain):
    """A test of the test above: the model of the beginning, and the other member's."""
    best = plain.best()
    *_, (_, first) = plain.manifests()
    start = {name.removeprefix("params."): array for name, array in load_state(plain, first).items()}
    assert first.sequences == 0 and measured(PLAIN, 1, start) != best["value"][1]
    assert measured(PLAIN, 1, {name: array[::-1] for name, array in best.items()}) != best["value"][1]


def test_what_a_checkpoint_keeps_is_of_its_own_time():
    """A worker in this process may be ahead of what the driver has saved."""
    made = Members(PLAIN, [0, 1], None)
    made.evaluate()
    state = made.state()
    before = {name: array.copy() for name, array in state.items()}
    made.train(PLAIN.steps())
    made.evaluate()
    assert same_bits(state, before)
    assert not same_bits(made.state(), before) and made.watch.best_at[1] == PLAIN.sequences


def test_without_keep_best_no_model_is_kept():
    made = Members(replace(PLAIN, keep_best=None), [0], None)
    made.evaluate()
    state = made.state()
    assert not [name for name in state if name.startswith("best.")] and state["watch.best_at"].tolist() == [-1]


# ---- early stopping


def test_one_member_stops_and_the_other_does_not(one):
    assert one.status() == "complete" and one.sequences() == ONE.sequences
    assert one.best()["stopped_at"].tolist() == [PATIENCE, -1]
    assert final_state(one)["step"].tolist() == [PATIENCE // ONE.batch, ONE.steps()]
    curves = one.metrics()
    assert curves["sequences"].tolist() == list(range(0, 1025, 128))
    after = curves["sequences"] > PATIENCE
    assert np.isnan(curves["train_loss"][0]).tolist() == [True, *[False] * 4, *[True] * 4]
    assert np.isfinite(curves["train_loss"][1, 1:]).all()
    for name in ("icl/loss", "iwl/loss", "iwl"):
        assert len(set(curves[name][0, after])) == 1, name  # the same model on the same prompts


def test_the_other_member_learns_to_the_bit_what_it_learns_without_stopping(one, plain):
    kinds = ("params.", "optimizer.", "best.", "step", "watch.best")
    assert same_bits(member(final_state(one), 1, *kinds), member(final_state(plain), 1, *kinds))
    assert same_bits(member(one.arrays(), 1, "values", "train_loss"), member(plain.arrays(), 1, "values", "train_loss"))


def check_frozen(width: int) -> None:
    """All that a checkpoint holds of a member is the same bits from its stop to the end."""
    made, seen = Members(ONE, [0, 1], None, width), []
    for at in ONE.schedule.points(ONE.sequences, ONE.batch):
        made.train(at // ONE.batch)
        made.evaluate()
        if at >= PATIENCE:
            seen.append(made.state())
    assert seen[0]["watch.stopped_at"].tolist() == [PATIENCE, -1]
    for state in seen[1:]:
        assert same_bits(member(state, 0), member(seen[0], 0))
        assert not same_bits(member(state, 1, "params."), member(seen[0], 1, "params."))


@pytest.mark.parametrize("width", [1, 2])
def test_a_stopped_member_keeps_every_bit(width):
    check_frozen(width)


@pytest.mark.parametrize("width", [1, 2])
def test_a_stopped_member_that_trains_on_would_have_been_noticed(monkeypatch, width):
    """A test of the test above."""
    train = Members.train

    def careless(self: Members, step: int) -> None:
        stopped = self.watch.stopped_at.copy()
        self.watch.stopped_at[:] = -1
        train(self, step)
        self.watch.stopped_at[:] = stopped

    monkeypatch.setattr(Members, "train", careless)
    with pytest.raises(AssertionError):
        check_frozen(width)


def test_a_worker_whose_members_have_all_stopped_stays_where_it_is(one):
    """It is behind the others when the run is continued, and must not catch up."""
    state = {name: array[:1] for name, array in final_state(one).items()}
    made = Members(ONE, [0], state)
    for step in (50, 60):
        made.train(step)
        made.evaluate()
    assert same_bits(made.state(), state)


def test_the_run_ends_when_all_have_stopped(all_stopped, monkeypatch):
    assert all_stopped.status() == "complete" and all_stopped.sequences() == PATIENCE
    found = all_stopped.latest()
    assert found is not None and found[1].finished and found[1].kept and found[1].sequences == PATIENCE
    assert all_stopped.arrays()["sequences"].tolist() == [0, 128, 256, 384, 512]
    assert all_stopped.best()["stopped_at"].tolist() == [PATIENCE] * 2
    assert final_state(all_stopped)["step"].tolist() == [PATIENCE // ALL.batch] * 2
    before = contents(all_stopped.path)

    def no_team(*arguments: Any) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr(driver, "Team", no_team)
    assert resume(all_stopped).status() == "complete" and contents(all_stopped.path) == before


def test_a_run_that_ends_early_has_looked_no_further(tmp_path, monkeypatch, all_stopped):
    """However far ahead the workers are asked to go, and however often is saved."""
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    monkeypatch.setattr(driver, "SAVE_SECONDS", 0.0)
    assert_same_run(train(ALL, tmp_path / "run", processes=0), all_stopped)


# ---- interruptions


def assert_same_run(a: RunFolder, b: RunFolder) -> None:
    assert same_bits(a.arrays(), b.arrays()) and same_bits(final_state(a), final_state(b))
    assert [(m.sequences, m.kept, m.finished) for _, m in a.manifests()] == [
        (m.sequences, m.kept, m.finished) for _, m in b.manifests()
    ]


def interrupted(whole: RunFolder, path: Path, at: int, width: int = 1) -> RunFolder:
    """The run made again, stopped when it had seen so many sequences, and continued."""
    asked = []

    def stop(progress: Progress) -> None:
        if progress.sequences >= at and not asked:
            asked.append(progress.sequences)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(spec_of(whole), path, processes=0, width=width, report=stop)
    assert RunFolder(path).status() == "interrupted" and at <= RunFolder(path).sequences() < PLAIN.sequences
    return resume(RunFolder(path), processes=0, width=width)


@pytest.mark.parametrize("at", [200, 464, 530, 800])
def test_an_interruption_before_or_after_a_stop_changes_nothing(one, tmp_path, monkeypatch, at):
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    assert_same_run(interrupted(one, tmp_path / "run", at), one)


def test_an_interruption_before_the_last_stop_changes_nothing(all_stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    assert_same_run(interrupted(all_stopped, tmp_path / "run", 200), all_stopped)


def test_side_by_side_an_interruption_after_a_stop_changes_nothing(tmp_path, monkeypatch):
    whole = train(ONE, tmp_path / "whole", processes=0, width=2)
    assert whole.best()["stopped_at"].tolist() == [PATIENCE, -1]
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    assert_same_run(interrupted(whole, tmp_path / "run", 530, width=2), whole)


def test_a_run_that_forgot_who_stopped_would_have_been_noticed(one, tmp_path, monkeypatch):
    """A test of the tests above. A checkpoint that says so is refused; one that is taken gives another run."""
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    arrays = Watch.arrays
    monkeypatch.setattr(Watch, "arrays", lambda self: arrays(self) | {"stopped_at": np.full(2, -1)})
    with pytest.raises(DamagedError, match="step of member 0 is 32, at 592 sequences it is 37"):
        interrupted(one, tmp_path / "refused", 530)
    monkeypatch.setattr(driver, "check_state", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_same_run(interrupted(one, tmp_path / "run", 530), one)


# ---- members that are no numbers, and what people see


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> RunFolder:
    """Member 0 is nan from the very start."""
    init = Engine.init

    def spoil(self: Engine, member: int) -> State:
        state = init(self, member)
        return state if member else state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "init", spoil)
        return train(ONE, tmp_path_factory.mktemp("spoilt") / "run", processes=0, label={"study": "transience"})


def test_a_member_that_is_nan_from_the_start_stops_and_breaks_nothing(spoilt, one):
    best = spoilt.best()
    assert best["sequences"][0] == -1 and best["value"][0] == -np.inf
    assert best["stopped_at"].tolist() == [PATIENCE, -1]
    assert np.isnan(spoilt.metrics()["iwl"][0]).all()
    assert same_bits(member(final_state(spoilt), 1), member(final_state(one), 1))


def test_a_member_that_diverges_keeps_its_last_good_model(tmp_path):
    spec = replace(ONE, vary={"optimizer.lr": [1e30, 3e-3]})
    run = train(spec, tmp_path / "run", processes=0)
    best, curve = run.best(), run.metrics()["iwl"]
    assert np.isnan(curve[0, 1:]).all() and best["sequences"][0] == 0 and best["value"][0] == curve[0, 0]
    assert all(np.isfinite(best[name][0]).all() for name in best)
    assert best["stopped_at"].tolist() == [PATIENCE, -1]


@pytest.mark.parametrize("name", ["one", "all_stopped", "spoilt"])
def test_every_view_of_a_run_with_stopped_members_works(name, request, tmp_path, monkeypatch, capsys):
    """Table, figure, verdict, export, list, fsck: a training loss of nan is no news to them."""
    run: RunFolder = request.getfixturevalue(name)
    monkeypatch.chdir(run.path.parent)
    out, figure = tmp_path / "x.csv", tmp_path / "x.png"
    views = (
        ["show", "run", "--figure", str(figure)],
        ["ls", "."],
        ["fsck", "run"],
        ["export", "run", "--out", str(out)],
    )
    for command in views:
        assert main(command) == 0, command
    shown = capsys.readouterr().out
    ended = "1 of 2 diverged" if name == "spoilt" else "complete"
    assert ended in shown and "early stopping" in shown and "-inf" not in shown
    stopped = run.best()["stopped_at"]
    assert f"stopped    {', '.join('512' if at >= 0 else '-' for at in stopped)} (" in shown
    assert figure.read_bytes().startswith(b"\x89PNG")
    rows = [row for row in csv.DictReader(out.read_text().splitlines()) if row["metric"] == "training_loss"]
    lost = np.isnan(run.metrics()["train_loss"]).ravel()
    assert [row["value"] == "" for row in rows] == lost.tolist()
    if run.header.label:
        assert main(["resume", "run"]) == 0 and (run.path / "verdict.json").exists()


def test_progress_shows_the_loss_of_those_who_train(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    reports: list[Progress] = []
    train(ONE, tmp_path / "run", processes=0, report=reports.append)
    late = [report.latest["loss"] for report in reports if report.sequences > PATIENCE + 128]
    assert len(late) > 10 and np.isfinite(late).all()
