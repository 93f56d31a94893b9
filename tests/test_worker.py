"""Worker processes: they end with their driver, and say in one line why they could not go on."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from ebbtide.errors import InputError
from ebbtide.sweeps.attempt import _outcome
from ebbtide.training import team, worker
from ebbtide.training.team import InProcessWorker, SubprocessWorker, WorkerError
from ebbtide.training.wire import receive, send

BUSY = "from ebbtide.training.worker import end_with; import sys, time; end_with(int(sys.argv[1])); time.sleep(3600)"
DRIVER = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {BUSY!r}, str(os.getpid())], start_new_session=True)
print(child.pid, flush=True)
time.sleep(3600)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at /proc")
def test_a_worker_that_is_busy_ends_when_its_driver_is_killed():
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    assert not gone(pid)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    for _ in range(2000):
        if gone(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the worker went on")


def test_a_worker_is_told_whose_it_is(monkeypatch):
    """Its own look at its parent could come too late."""
    seen = []

    class Popen:
        def __init__(self, words: list[str], **options: Any):
            seen.append(words)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(SubprocessWorker, "_listen", lambda self: None)
    SubprocessWorker()._errors.close()
    assert seen[0][1:] == ["-m", "ebbtide.training.worker", str(os.getpid())]


FULL = [
    MemoryError("Unable to allocate 9.00 GiB for an array"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 38654705664 bytes."),
]


def fail(error: Exception) -> Any:
    def obey(members: Any, command: dict[str, Any]) -> None:
        raise error

    return obey


def answer_to(command: dict[str, Any]) -> dict[str, Any] | None:
    """What a worker answers."""
    with tempfile.TemporaryFile() as commands, tempfile.TemporaryFile() as answers:
        send(commands, command)
        commands.seek(0)
        worker.serve(commands, answers)
        answers.seek(0)
        return receive(answers)


@pytest.mark.parametrize("error", FULL, ids=["NumPy", "XLA"])
def test_a_worker_without_memory_says_so_in_one_line(monkeypatch, error):
    monkeypatch.setattr(worker, "obey", fail(error))
    monkeypatch.setattr(team, "obey", fail(error))
    process = SubprocessWorker.__new__(SubprocessWorker)
    process._answers = queue.Queue()
    process._answers.put(answer_to({"do": "train", "step": 1}))
    with pytest.raises(WorkerError, match=r"^a worker process ran out of memory$"):
        process.answer()
    with pytest.raises(WorkerError, match=r"^this process ran out of memory$"):
        InProcessWorker().send({"do": "train", "step": 1})


def test_another_error_is_a_bug_and_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(worker, "obey", fail(RuntimeError("INTERNAL: a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        answer_to({"do": "train", "step": 1})


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (signal.SIGKILL, r"SIGKILL \(the system may be out of memory\)"),
        (signal.SIGILL, r"SIGILL \(an instruction that this processor does not have: .*--kernel xla.*\)"),
        (signal.SIGSEGV, r"SIGSEGV \(a fault of a compiled library\)"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGRTMIN + 1, rf"signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_what_ended_a_process_is_told_by_its_signal(number, says):
    """Only a process that was killed may have lacked memory."""

    class Ended:
        def wait(self) -> int:
            return -number

    process = SubprocessWorker.__new__(SubprocessWorker)
    process._process = Ended()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(WorkerError, match=f"^a worker process was killed by {says}$"):
        raise process._dead()
    assert _outcome(-number, "")[0] == "killed"


def test_an_input_error_of_a_worker_arrives_as_one(monkeypatch):
    monkeypatch.setattr(worker, "obey", fail(InputError("width", 3, "must be 2")))  # pyright: ignore[reportArgumentType]
    assert answer_to({"do": "instruments"}) == {"error": ["width", "3", "must be 2"]}
