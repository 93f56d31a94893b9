"""What can go wrong in a sweep, does; the results are those of the serial run, bit for bit."""

import os
import resource
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.sweeps import driver as driver_module
from ebbtide.sweeps import executors
from ebbtide.sweeps.attempt import Outcome
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.driver import DiskFullError, run_sweep
from ebbtide.sweeps.executors import Local
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.sweep import Resources
from sweep_tools import (
    BASE,
    LR,
    SWEEP,
    TO_BE_STOPPED,
    bits,
    driver,
    files,
    meanwhile,
    planned,
    trained,
    under_way,
    until,
)


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> SweepFolder:
    return trained(tmp_path_factory.mktemp("serial") / "s", SWEEP)


def write(folder: Path) -> Path:
    path = folder / "try.json"
    path.write_bytes(SWEEP.to_json())
    return path


def states(folder: SweepFolder) -> list[str]:
    return [folder.state(task) for task in folder.specs]


def failures(folder: SweepFolder) -> list[str]:
    return [one.kind for task in folder.specs for one in folder.failures(task)]


@pytest.mark.thorough
def test_the_same_sweep_again_does_nothing_and_a_new_value_adds_only_its_members(serial, tmp_path):
    before, plans = files(serial.path), len(list((serial.path / "plans").iterdir()))
    again = run_sweep(SWEEP, serial.path)
    assert files(again.path) == before
    more = replace(SWEEP, axes=(SWEEP.axes[0], Axis(field="optimizer.lr", values=[1e-3, 1e-2, 3e-3]), Axis(seeds=1)))
    folder = trained(serial.path, more)
    assert set(states(folder)) == {"done"} and len(folder.members) == len(again.members) + 2
    after = files(folder.path)
    kept = {name: what for name, what in before.items() if name != "sweep.json"}
    assert {name: after[name] for name in kept} == kept
    assert len(list((folder.path / "plans").iterdir())) == plans + 1
    run_sweep(SWEEP, serial.path)  # the description goes back; nothing is trained
    assert {name: what[0] for name, what in files(serial.path).items()} == {
        name: what[0] for name, what in after.items()
    } | {"sweep.json": before["sweep.json"][0]}


def test_a_worker_killed_in_mid_task_goes_on_elsewhere(serial, tmp_path):
    out = tmp_path / "s"
    local = Local(out, SWEEP.resources, jobs=2)
    killed = []

    def kill() -> None:
        until(lambda: under_way(out))
        task = under_way(out)[0]
        killed.append(task)
        os.kill(local.active[task].pid, signal.SIGKILL)

    thread = meanwhile(kill)
    folder = run_sweep(SWEEP, out, on=local)
    thread.join()
    assert failures(folder) == ["killed"] and "SIGKILL" in folder.failures(killed[0])[0].text
    assert folder.failures(killed[0])[0].sequences > 0
    assert bits(folder) == {a: b for a, b in bits(serial).items() if a in folder.members}


@pytest.mark.thorough
def test_a_driver_killed_and_started_again(serial, tmp_path):
    out, file = tmp_path / "s", write(tmp_path)
    first = driver(file, out, "--jobs", "1")
    try:
        until(lambda: (out / "sweep.json").exists() and "done" in states(SweepFolder(out)) and under_way(out))
    finally:
        first.kill()
        first.communicate()
    until(lambda: "running" not in states(SweepFolder(out)))  # its tasks save and end by themselves
    (done,) = [task for task in SweepFolder(out).specs if SweepFolder(out).state(task) == "done"]
    before = files(out / "runs" / done)
    second = driver(file, out, "--jobs", "2")
    text, _ = second.communicate()
    assert second.returncode == 0, text
    folder = SweepFolder(out)
    assert files(out / "runs" / done) == before and failures(folder) == []
    assert bits(folder) == {a: b for a, b in bits(serial).items() if a in folder.members}


@pytest.mark.parametrize("begun", [("plans",), ("plans", "runs"), ("plans", "runs", "failures", "lock")])
def test_a_folder_that_another_driver_has_begun_and_not_named_yet_is_taken(tmp_path, begun):
    """As between its first folder and its sweep.json, or after it was killed there."""
    out = tmp_path / "s"
    for name in begun:
        (out / name).mkdir(parents=True) if name != "lock" else (out / name).touch()
    assert SweepFolder.make(out, SWEEP).sweep.name == SWEEP.name


def test_a_folder_that_holds_something_is_not_taken_for_one_that_was_begun(tmp_path, one_line):
    (tmp_path / "s/runs/thesis").mkdir(parents=True)
    with pytest.raises(InputError, match="holds other files") as caught:
        SweepFolder.make(tmp_path / "s", SWEEP)
    one_line(caught, "out", str(tmp_path / "s"))


@pytest.mark.thorough
def test_two_drivers_on_one_sweep_share_the_work(serial, tmp_path):
    out, file = tmp_path / "s", write(tmp_path)
    both = [driver(file, out, "--jobs", "1") for _ in range(2)]
    texts = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], texts
    folder = SweepFolder(out)
    assert sum(len(task.addresses) for _, task in folder.specs.values()) == SWEEP.size(), "planned once"
    assert failures(folder) == []
    assert bits(folder) == {a: b for a, b in bits(serial).items() if a in folder.members}


def test_a_full_disk_stops_the_sweep_and_loses_nothing(serial, tmp_path):
    out = tmp_path / "s"
    local = Local(out, SWEEP.resources, jobs=1)

    def fill() -> None:
        until(lambda: under_way(out))
        pid = local.active[under_way(out)[0]].pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (2000, 2000))  # no larger file can be written

    thread = meanwhile(fill)
    with pytest.raises(DiskFullError, match="the disk is full"):
        run_sweep(SWEEP, out, on=local)
    thread.join()
    assert failures(SweepFolder(out)) == [], "a full disk is not the task's fault"
    folder = run_sweep(SWEEP, out, jobs=2)
    assert bits(folder) == {a: b for a, b in bits(serial).items() if a in folder.members}


@pytest.mark.thorough
def test_a_member_that_diverges_leaves_the_others_as_they_are(serial, tmp_path):
    """One of the learning rates is absurd; its neighbours' bits are those of a sweep without it."""
    made = replace(SWEEP, axes=(SWEEP.axes[0], Axis(field="optimizer.lr", values=[1e-3, 1e30]), Axis(seeds=2)))
    folder = run_sweep(made, tmp_path / "s", jobs=2)
    assert states(folder) == ["done", "done"]
    common = set(serial.members) & set(folder.members)
    assert len(common) == 4
    assert {a: b for a, b in bits(folder).items() if a in common} == {
        a: b for a, b in bits(serial).items() if a in common
    }
    from ebbtide.sweeps.results import load

    rows = load(folder.path).rows
    assert [row.state for row in rows] == ["finished", "finished", "diverged", "diverged"] * 2


@pytest.mark.thorough
def test_a_poison_task_is_set_aside_with_its_traceback(tmp_path):
    """Its features have gone since the plan was made: every try fails, the other task trains."""
    import numpy as np

    file = tmp_path / "features.npz"
    np.savez(file, features=np.random.default_rng(0).normal(size=(1050, 20, 8)).astype(np.float32))
    source = Axis(field="source", values=["gaussian", str(file)])
    small = {"sequences": 16_000, "batch": 16, "model.layers": 1, "model.width": 16, "model.heads": 2}
    made = replace(
        SWEEP,
        tries=2,
        base={**small, "evaluators": ["icl"], "evaluation_sequences": 50},
        axes=(Axis(zip=(source, Axis(field="optimizer.lr", values=[1e-3, 2e-3]))),),
    )
    out = tmp_path / "s"

    class Vanish(Local):
        def submit(self, tasks: list[str]) -> None:
            file.unlink(missing_ok=True)
            super().submit(tasks)

    said = []
    folder = run_sweep(made, out, on=Vanish(out, Resources(), jobs=1), say=said.append)
    assert sorted(states(folder)) == ["done", "quarantined"]
    (poison,) = [task for task in folder.specs if folder.state(task) == "quarantined"]
    assert [one.kind for one in folder.failures(poison)] == ["failed", "failed"]
    assert "Traceback" in folder.failures(poison)[0].text and "features.npz" in folder.failures(poison)[0].text
    assert any("set aside after 2 tries" in text for text in said)
    before = files(folder.path)
    with pytest.raises(Exception, match="features"):  # the plan itself says so now, before anything starts
        run_sweep(made, out)
    assert files(folder.path) == before


class Scripted:
    """An executor whose tries end as the script says."""

    slots = 1

    def __init__(self, outcomes: list[str], out: Path):
        self.outcomes, self.out, self.tried = outcomes, out, []

    def room(self) -> int:
        return 1

    def submit(self, tasks: list[str]) -> None:
        self.tried += tasks

    def finished(self) -> list[tuple[str, Outcome]]:
        task, kind = self.tried[-1], self.outcomes.pop(0)
        if kind in ("failed", "killed"):
            SweepFolder(self.out).note(task, kind, "a reason")
        return [(task, Outcome(kind, "a reason"))]  # pyright: ignore[reportArgumentType]

    def stop(self) -> int:
        return 0


ONE = replace(SWEEP, base={**BASE, "sequences": 1600}, axes=(LR,))


def test_a_task_is_tried_as_often_as_asked_then_left_alone_until_retry(tmp_path):
    script = Scripted(["failed", "killed", "failed"], tmp_path / "s")
    folder = run_sweep(ONE, tmp_path / "s", on=script)
    (task,) = folder.specs
    assert script.tried == [task] * 3 and folder.state(task) == "quarantined"
    idle = Scripted([], tmp_path / "s")
    run_sweep(ONE, tmp_path / "s", on=idle)
    assert idle.tried == []
    folder = run_sweep(ONE, tmp_path / "s", retry=True)
    assert folder.state(task) == "done"


def test_being_stopped_or_busy_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(driver_module, "BUSY_SECONDS", 0.01)
    script = Scripted(["stopped", "busy"] * 5 + ["failed"] * 3, tmp_path / "s")
    folder = run_sweep(ONE, tmp_path / "s", on=script)
    assert len(script.tried) == 13 and states(folder) == ["quarantined"]


def test_a_task_in_a_long_step_is_left_to_save_by_itself(tmp_path, monkeypatch):
    """Nobody waits for it longer than a minute, and nobody kills it."""
    monkeypatch.setattr(executors, "GRACE_SECONDS", 0.0)
    out, sweep = tmp_path / "s", replace(TO_BE_STOPPED, axes=(LR,))
    folder = planned(out, sweep)
    task = next(iter(folder.specs))
    local = Local(out, sweep.resources, 1)
    local.submit([task])
    until(lambda: under_way(out))
    (one,) = local.active.values()
    assert local.stop() == 1 and one.running()
    until(lambda: not one.running())
    run = folder.run(task)
    assert run is not None and run.status() == "interrupted" and run.latest() is not None
    assert folder.failures(task) == []


def test_tries_are_counted_from_the_last_progress(serial):
    """A task on a machine that is taken away again and again is not at fault as long as it gets on."""
    folder = SweepFolder(serial.path)
    task = next(iter(folder.specs))
    path, run = folder.path / "failures" / task, folder.run(task)
    assert run is not None
    for _ in range(5):
        folder.note(task, "killed", "x")
    assert folder.tries(task) == 5
    from ebbtide.runs.signed import SCHEMA, sign
    from ebbtide.sweeps.folder import Failure

    for file in path.iterdir():
        file.write_bytes(sign(Failure(SCHEMA, task, "killed", "x", run.sequences() - 1)))
    assert folder.tries(task) == 0
    folder.forgive(task)
    assert folder.failures(task) == [] and not path.exists()


def test_ctrl_c_saves_and_one_command_continues(serial, tmp_path):
    out, file = tmp_path / "s", write(tmp_path)
    first = driver(file, out)
    until(lambda: under_way(out))
    first.send_signal(signal.SIGINT)
    text, _ = first.communicate()
    assert first.returncode == 130 and f"ebbtide sweep {file} --out {out}" in " ".join(text.split())
    assert set(states(SweepFolder(out))) <= {"waiting", "done"} and failures(SweepFolder(out)) == []
    second = driver(out, out)
    text, _ = second.communicate()
    assert second.returncode == 0, text
    assert bits(SweepFolder(out)) == {a: b for a, b in bits(serial).items() if a in SweepFolder(out).members}
