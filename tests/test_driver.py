"""A run from the first step to the last, whatever happens in between."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError, Interrupted
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import sign
from ebbtide.runs.writer import Writer
from ebbtide.training import driver, progress
from ebbtide.training.driver import resume, train
from ebbtide.training.kernels import Choice
from ebbtide.training.layout import Layout
from ebbtide.training.progress import Progress
from ebbtide.training.run import spec_of
from ebbtide.training.schedule import Schedule
from ebbtide.training.team import Team, Worker, WorkerError
from tiny import SPEC, contents, final_state, header, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    """The tiny run trained without interruption, in this process."""
    return train(SPEC, tmp_path_factory.mktemp("whole") / "run", processes=0, label={"study": "transience"})


@pytest.fixture
def copy(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """The same run, to be spoilt."""
    return RunFolder(shutil.copytree(whole.path, tmp_path / "run"))


@pytest.fixture
def short_slices(monkeypatch):
    """One step to a slice, so that much can happen within 64 steps."""
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)


class StopAfter:
    """Sends this process a signal at the n-th report."""

    def __init__(self, n: int, number: int = signal.SIGINT):
        self.left, self.number = n, number

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def assert_same_run(a: RunFolder, b: RunFolder) -> None:
    """All that was computed is equal bit for bit: curves, final state, and which checkpoints there are."""
    assert same_bits(a.arrays(), b.arrays())
    assert same_bits(final_state(a), final_state(b))
    assert [m.sequences for _, m in a.manifests()] == [m.sequences for _, m in b.manifests()]


def learned(run: RunFolder) -> dict[str, np.ndarray]:
    """The final state but for what evaluations chose to keep."""
    return {name: a for name, a in final_state(run).items() if not name.startswith(("best.", "watch."))}


def test_a_complete_run_holds_what_its_schedule_asks_for(whole):
    assert whole.status() == "complete" and not whole.running()
    assert [m.sequences for _, m in whole.manifests()] == [1024, 512, 0]
    assert all(m.kept for _, m in whole.manifests())
    curves = whole.metrics()
    assert curves["sequences"].tolist() == [0, 256, 512, 768, 1024]
    assert curves["icl"].shape == (2, 5) and np.isfinite(curves["icl"]).all()
    assert np.isnan(curves["train_loss"][:, 0]).all() and np.isfinite(curves["train_loss"][:, 1:]).all()
    assert (curves["train_loss"][:, -1] < curves["train_loss"][:, 1]).all()
    state = final_state(whole)
    assert state["step"].tolist() == [64, 64] and state["counted"].tolist() == [0, 0]
    assert whole.header.label == {"study": "transience"}
    assert whole.chance()["icl"] == 0.5 and whole.chance()["iwl"] == pytest.approx(1 / 66)
    assert spec_of(whole) == SPEC and whole.header.identity["members"] == 2 and whole.header.identity["width"] == 1


def test_a_complete_run_is_returned_at_once(whole, monkeypatch):
    def no_team(*arguments):
        raise AssertionError("workers were started")

    monkeypatch.setattr(driver, "Team", no_team)
    before = contents(whole.path)
    assert train(SPEC, whole.path).path == whole.path
    assert resume(RunFolder(whole.path)).status() == "complete"
    assert contents(whole.path) == before


@pytest.mark.parametrize("schedule", [Schedule(evaluations=2, checkpoints=2), Schedule(evaluations=12, checkpoints=4)])
def test_looking_more_or_less_often_changes_no_bit_of_the_state(whole, tmp_path, schedule):
    run = train(replace(SPEC, schedule=schedule), tmp_path / "run", processes=0)
    assert len(run.arrays()["sequences"]) == schedule.evaluations
    assert same_bits(learned(run), learned(whole))


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_the_length_of_a_slice_changes_nothing(whole, tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(driver, "SLICE_SECONDS", seconds)
    reports: list[Progress] = []
    run = train(SPEC, tmp_path / "run", processes=0, report=reports.append)
    assert len(reports) > 20 if seconds < 1 else len(reports) < 10
    assert_same_run(run, whole)


@pytest.mark.parametrize(("expected", "first", "most"), [(0.0001, 8, 3), (0.3, 3, 1), (100.0, 1, 1)])
def test_a_stop_need_not_wait_for_many_long_steps(whole, tmp_path, monkeypatch, expected, first, most):
    """Steps of the first command, and how many commands to train are sent before one is answered, where two members
    are expected to take so many seconds a step."""
    monkeypatch.setattr(driver, "step_seconds", lambda spec: expected / 2)
    waiting: list[dict] = []
    trains: list[list[dict]] = []  # after every command: those to train that are not answered
    send, answers = Team.send, Team.answers

    def spied_send(team: Team, command: dict):
        send(team, command)
        if command["do"] != "instruments":
            waiting.append(command)
            trains.append([one for one in waiting if one["do"] == "train"])

    def spied_answers(team: Team):
        if waiting.pop(0)["do"] == "train":
            monkeypatch.setattr(Team, "send", send)  # the pace is known from here on
            monkeypatch.setattr(Team, "answers", answers)
        return answers(team)

    monkeypatch.setattr(Team, "send", spied_send)
    monkeypatch.setattr(Team, "answers", spied_answers)
    assert_same_run(train(SPEC, tmp_path / "run", processes=0), whole)
    assert trains[-1][0]["step"] == first and max(len(one) for one in trains) == most


def test_rolling_checkpoints_change_nothing(whole, tmp_path, monkeypatch, short_slices):
    monkeypatch.setattr(driver, "SAVE_SECONDS", 0.0)
    commits, commit = [], Writer.commit
    monkeypatch.setattr(Writer, "commit", lambda self, **k: (commits.append(k["sequences"]), commit(self, **k))[1])
    run = train(SPEC, tmp_path / "run", processes=0)
    assert len(commits) > 40 and commits == sorted(set(commits))
    assert_same_run(run, whole)


def test_a_run_can_be_seen_early_where_that_costs_little():
    assert driver.save_pause(trained=0, commit=0.01) == 3
    assert driver.save_pause(trained=100, commit=0.01) == 10  # a tenth of the time so far
    assert driver.save_pause(trained=100, commit=0.2) == 20  # writing takes at most a hundredth of the time
    assert driver.save_pause(trained=1e5, commit=0.01) == driver.save_pause(trained=0, commit=60) == 30
    assert driver.count_saves(60, commit=0.01) == 10 + 7  # 3, 6 ... 30 seconds, then each after a tenth more
    assert driver.count_saves(60, commit=60) == 1


def test_progress_counts_up_to_the_end(tmp_path, short_slices):
    reports: list[Progress] = []
    train(SPEC, tmp_path / "run", processes=0, report=reports.append)
    counts = [p.sequences for p in reports]
    assert counts == sorted(counts) and counts[-1] == SPEC.sequences and reports[-1].eta == 0
    assert all(p.total == SPEC.sequences and p.members == 2 and p.rate > 0 and p.eta >= 0 for p in reports)
    assert {"icl", "iwl", "loss"} <= set(reports[-1].latest)


@pytest.mark.parametrize(("n", "number"), [(1, signal.SIGINT), (12, signal.SIGINT), (30, signal.SIGTERM)])
def test_an_interrupted_run_resumes_to_the_same_bits(whole, tmp_path, short_slices, n, number):
    path, handlers = tmp_path / "run", [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted):
        train(SPEC, path, processes=0, report=StopAfter(n, number))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    run = RunFolder(path)
    assert run.status() == "interrupted" and 0 < run.sequences() < SPEC.sequences
    found = run.latest()
    assert found is not None and found[1].sequences == run.sequences()
    assert_same_run(resume(run, processes=0), whole)


def test_a_run_interrupted_again_and_again_still_ends_the_same(whole, tmp_path, short_slices):
    for _ in range(40):
        try:
            run = train(SPEC, tmp_path / "run", processes=0, report=StopAfter(5))
            break
        except Interrupted:
            continue
    else:
        raise AssertionError("no progress was made")
    assert_same_run(run, whole)


def at_the_end(progress: Progress) -> None:
    if progress.sequences == progress.total:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_in_the_last_moment_is_not_lost(whole, tmp_path, short_slices):
    """All is trained and saved, but what the caller does after training is not begun."""
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "run", processes=0, report=at_the_end)
    assert RunFolder(tmp_path / "run").status() == "complete"
    assert_same_run(train(SPEC, tmp_path / "run", processes=0), whole)


def twice(progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_two_signals_in_one_breath_are_one_request(whole, tmp_path, short_slices):
    """`timeout -s INT` signals the process and its group."""
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "run", processes=0, report=twice)
    assert_same_run(train(SPEC, tmp_path / "run", processes=0), whole)


def to_all_processes(progress: Progress) -> None:
    """What a batch system does: it sends SIGTERM to the driver and to its workers."""
    workers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert workers
    for pid in (*map(int, workers), os.getpid()):
        os.kill(pid, signal.SIGTERM)


def test_sigterm_to_driver_and_workers_saves_as_sigterm_to_the_driver_does(whole, tmp_path, short_slices):
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "run", processes=1, report=to_all_processes)
    assert 0 < RunFolder(tmp_path / "run").sequences() < SPEC.sequences
    assert_same_run(train(SPEC, tmp_path / "run", processes=0), whole)


def test_the_second_ctrl_c_stops_at_once_and_the_run_is_still_good(whole, tmp_path, short_slices, monkeypatch):
    monkeypatch.setattr("ebbtide.interrupts.SAME_REQUEST_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, tmp_path / "run", processes=0, report=twice)
    assert RunFolder(tmp_path / "run").status() == "interrupted"
    assert_same_run(train(SPEC, tmp_path / "run", processes=0), whole)


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_a_damaged_last_checkpoint_is_made_again_with_the_same_bits(whole, copy, name):
    path = copy.path / "checkpoints/000000001024" / name
    path.write_bytes(path.read_bytes()[:-9])
    assert_same_run(resume(copy, processes=0), whole)
    assert len(list((copy.path / "aside").iterdir())) >= 1


def test_a_run_with_every_checkpoint_gone_starts_anew(whole, copy):
    shutil.rmtree(copy.path / "checkpoints")
    assert_same_run(resume(copy, processes=0), whole)


@pytest.mark.parametrize(
    ("change", "options", "field"),
    [
        ({"batch": 30}, {}, "sequences"),
        ({"task": replace(SPEC.task, burst=2)}, {}, "task.burst"),
        ({}, {"processes": -1}, "processes"),
        ({"vary": {"optimizer.lr": [1.0]}}, {}, "vary.optimizer.lr"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, change, options, field):
    with pytest.raises(InputError) as caught:
        train(replace(SPEC, **change), tmp_path / "run", **options)
    assert caught.value.field == field and not list(tmp_path.iterdir())


def test_another_spec_does_not_touch_the_folder(copy):
    before = contents(copy.path)
    with pytest.raises(InputError, match="another spec"):
        train(replace(SPEC, batch=32), copy.path, processes=0)
    assert contents(copy.path) == before


def test_a_changed_run_json_is_refused(copy):
    path = copy.path / "run.json"
    path.write_text(path.read_text().replace('"batch": 16', '"batch": 32'))
    with pytest.raises(InputError, match=r"run\.json is damaged: content differs from its own SHA-256"):
        resume(RunFolder(copy.path), processes=0)
    path.write_bytes(sign(replace(copy.header, spec=copy.header.spec | {"batch": 32})))
    with pytest.raises(InputError, match="spec and digest do not agree"):
        resume(RunFolder(copy.path), processes=0)


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path):
    """Found out when the workers stand ready; not a byte is changed."""
    writer = Writer(tmp_path / "run", header())
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="is being written by process"):
        train(SPEC, tmp_path / "run", processes=0)
    writer.close()
    assert contents(tmp_path / "run") == before


def test_a_start_that_takes_long_is_announced_until_something_is_reported(monkeypatch):
    class Timer:
        """Goes off when it is told to, unless it was cancelled."""

        def __init__(self, seconds: float, say: Callable[[str], None], words: list[str]):
            self.seconds, self.say, self.words, self.waiting = seconds, say, words, False
            timers.append(self)

        def start(self) -> None:
            self.waiting = True

        def cancel(self) -> None:
            self.waiting = False

    timers: list[Timer] = []
    said, reports = [], []
    monkeypatch.setattr(threading, "Timer", Timer)
    with progress.announce_slow_start(SPEC, said.append, reports.append) as report:
        (timer,) = timers
        assert timer.waiting and timer.seconds == progress.QUIET_SECONDS
        timer.say(*timer.words)
        assert len(said) == 1 and "2 members" in said[0]
        first = Progress(1, 2, 2, 1.0, 1.0, {})
        report(first)
        assert reports == [first] and not timer.waiting
    with pytest.raises(InputError), progress.announce_slow_start(SPEC, said.append, reports.append):
        raise InputError("spec", 1, "is refused by a worker")
    assert not timers[1].waiting


class Watched(Team):
    """A team whose workers the test can get at."""

    last: "Watched"

    def __init__(self, members: int, layout: Layout, worker: Worker | None, kernel: Choice, stop: threading.Event):
        super().__init__(members, layout, worker, kernel, stop)
        Watched.last = self

    def process(self, i: int):
        return self.workers[i]._process  # pyright: ignore


@pytest.fixture(scope="module")
def worked(tmp_path_factory) -> RunFolder:
    """The tiny run trained by two worker processes."""
    return train(SPEC, tmp_path_factory.mktemp("worked") / "run", processes=2)


def test_workers_run_on_one_thread_and_say_so(worked):
    identity = worked.header.identity
    assert identity["one_thread"] is True and identity["platform"] == "cpu" and identity["width"] == 1


def test_workers_learn_what_this_process_learns(worked, whole):
    """Other threads, other rounding: equal closely, not bit for bit."""
    np.testing.assert_allclose(worked.metrics()["train_loss"], whole.metrics()["train_loss"], rtol=1e-4)


def test_one_process_interrupted_equals_two_that_were_not(worked, tmp_path, short_slices):
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "run", processes=1, report=StopAfter(9))
    assert_same_run(resume(RunFolder(tmp_path / "run"), processes=1), worked)


def test_a_killed_worker_is_an_error_and_the_run_goes_on_later(worked, tmp_path, monkeypatch, short_slices):
    monkeypatch.setattr(driver, "Team", Watched)

    def kill(progress: Progress) -> None:
        if progress.sequences > 300:
            os.kill(Watched.last.process(1).pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"^a worker process was killed by SIGKILL [^\n]*$"):
        train(SPEC, tmp_path / "run", processes=2, report=kill)
    assert [Watched.last.process(i).poll() for i in (0, 1)] == [-9, -9]  # its colleague was stopped too
    assert RunFolder(tmp_path / "run").status() == "interrupted"
    assert_same_run(train(SPEC, tmp_path / "run", processes=2), worked)


def test_what_a_worker_finds_wrong_is_told_in_one_line_and_nothing_is_written(tmp_path, one_line):
    from ebbtide.sources.features import Features

    features = np.full((80, 4, 8), np.nan, np.float32)
    np.savez(tmp_path / "x.npz", features=features)
    source = Features(path=str(tmp_path / "x.npz"), classes=64, exemplars=2, holdout_classes=8, holdout_exemplars=2)
    with pytest.raises(InputError) as caught:
        train(replace(SPEC, source=source), tmp_path / "run", processes=1)
    one_line(caught, "source.path", str(tmp_path / "x.npz"))
    assert "2560 of 2560 values NaN" in str(caught.value) and not (tmp_path / "run").exists()
