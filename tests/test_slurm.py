"""Tasks as SLURM jobs: by submitit's local jobs, and what would be handed to a real SLURM."""

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.interrupts import stop_requests
from ebbtide.sweeps.driver import run_sweep
from ebbtide.sweeps.sweep import Resources
from sweep_tools import SWEEP, TO_BE_STOPPED, bits, in_the_background, meanwhile, planned, trained, under_way, until

submitit = pytest.importorskip("submitit", reason="submitit is not installed (pip install 'ebbtide[slurm]')")

from ebbtide.sweeps.slurm import Job, Slurm  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> dict[str, bytes]:
    return bits(trained(tmp_path_factory.mktemp("serial") / "s", SWEEP))


@pytest.mark.parametrize("what", ["preempted", pytest.param("killed", marks=pytest.mark.thorough)])
def test_a_job_that_is_interrupted_goes_on_where_it_was(what, serial, tmp_path):
    """Preempted or out of time, submitit sends a signal: the task saves and the job is queued again. Killed: the driver
    submits it again. The bits are those of the sweep trained in one process."""
    out = tmp_path / "s"
    planned(out)
    slurm = Slurm(out, SWEEP.resources, 2, local=True)
    hit = []

    def interrupt() -> None:
        until(lambda: under_way(out))
        task = under_way(out)[0]
        job = slurm.active[task]
        hit.append(task)
        children = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGUSR2 if what == "preempted" else signal.SIGKILL)

    thread = meanwhile(interrupt)
    folder = run_sweep(SWEEP, out, on=slurm)
    thread.join()
    assert bits(folder) == serial
    assert {task: len(folder.failures(task)) for task in folder.specs} == {
        task: int(task == hit[0] and what == "killed") for task in folder.specs
    }
    assert not Slurm(out, Resources(), None, local=True).active
    log = "".join(p.read_text() for p in (out / "submitit").rglob("*_log.*"))
    assert ("Calling checkpoint method" in log and "Requeued job" in log) == (what == "preempted")


def test_stopping_lets_local_jobs_save(tmp_path):
    out = tmp_path / "s"
    folder = planned(out, TO_BE_STOPPED)
    slurm = Slurm(out, SWEEP.resources, 1, local=True)
    task = next(iter(folder.specs))
    with in_the_background(), stop_requests():  # which is how `run_sweep` submits: jobs must hear interrupts
        slurm.submit([task])
    until(lambda: under_way(out))
    slurm.stop()
    run = folder.run(task)
    assert run is not None and run.status() == "interrupted" and run.latest() is not None
    assert folder.failures(task) == []


# --- a real SLURM, as far as it can be had without one


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """`sbatch` and the others as scripts that only write down what they were given."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "srun": "exit 0",
        "sbatch": f'cp "$1" {tmp_path}/submitted.sh; echo "Submitted batch job 42"',
        "sacct": 'echo "JobID|State|NodeList"; echo "42_0|RUNNING|a"; echo "42_1|CANCELLED by 0|a"',
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tmp_path


OPTIONS = {"account": "lab", "qos": "low"}
RESOURCES = Resources(cpus=4, gpus=2, memory_gb=16, minutes=90, partition="short", slurm=OPTIONS)


@pytest.mark.thorough
def test_resources_reach_sbatch(cluster):
    out = cluster / "s"
    folder = planned(out)
    slurm = Slurm(out, RESOURCES, 1, local=False)
    slurm.submit(list(folder.specs))
    text = (cluster / "submitted.sh").read_text()
    wanted = ["cpus-per-task=4", "gpus-per-node=2", "mem=16384MB", "time=90", "partition=short", "account=lab"]
    for one in [*wanted, "qos=low", "array=0-1%1"]:
        assert f"#SBATCH --{one}" in text, one


def test_jobs_of_an_earlier_driver_are_found_again_and_not_submitted_twice(cluster):
    out = cluster / "s"
    folder = planned(out)
    first, second = list(folder.specs)
    Slurm(out, RESOURCES, None, local=False).submit([first, second])
    (cluster / "submitted.sh").unlink()
    submitit.SlurmJob.watcher.clear()
    again = Slurm(out, RESOURCES, None, local=False)
    assert list(again.active) == [first], "the other one was cancelled"
    again.submit([first])
    assert not (cluster / "submitted.sh").exists()


def test_a_cancelled_job_is_a_failed_try(cluster):
    out = cluster / "s"
    folder = planned(out)
    slurm = Slurm(out, RESOURCES, None, local=False)
    submitit.SlurmJob.watcher.clear()
    tasks = list(folder.specs)
    slurm.submit(tasks)
    until(lambda: (time.sleep(0.5), slurm.active)[1] is not None and slurm.active[tasks[1]].done(), 30)
    ((task, outcome),) = slurm.finished()
    assert task == tasks[1] and outcome.kind == "killed" and "CANCELLED" in outcome.text
    assert [one.kind for one in folder.failures(task)] == ["killed"]


def test_an_option_that_slurm_does_not_know_is_refused_in_one_line(cluster):
    with pytest.raises(InputError, match=r"resources\.slurm.*acount") as error:
        Slurm(cluster / "s", replace(RESOURCES, slurm={"acount": "lab"}), None, local=False)
    assert "\n" not in str(error.value) and not (cluster / "submitted.sh").exists()


def test_without_slurm_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="srun"):
        Slurm(tmp_path / "s", Resources(), None, local=False)


def test_what_is_queued_holds_names_only():
    job = Job("folder", "task", Resources())
    assert set(vars(job.checkpoint().function)) == {"folder", "task", "resources", "code", "_attempt"}
    assert job.checkpoint().function._attempt is None
