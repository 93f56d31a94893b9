"""One writer at a time, readers at any time."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.runs.folder import RunFolder, list_runs
from ebbtide.runs.fsck import examine
from ebbtide.runs.lock import holder
from ebbtide.runs.writer import Writer, check_folder
from folders import HEAD, play
from tiny import contents, write_run

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")

CHILD = Path(__file__).with_name("writer_child.py")
LOOKS, COMMITS = 25, 4
"""Times the reader looks at a run that is being written, and commits that are made during each look: neither
runs away from the other, however slow one of them is. The reader looks again when they are made."""


@contextmanager
def writing(path: Path, *defects: str) -> Iterator[subprocess.Popen[str]]:
    """A process that writes the run; it has made its first commits and waits for `allow`. Killed in the end."""
    command = [sys.executable, str(CHILD), str(path), msgspec.json.encode(HEAD).decode(), *defects]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            allow(process, 3)
            wait(process, 3)
            yield process
        finally:
            process.kill()


def allow(process: subprocess.Popen[str], commits: int) -> None:
    assert process.stdin is not None
    process.stdin.write("." * commits)
    process.stdin.flush()


def wait(process: subprocess.Popen[str], commits: int) -> None:
    assert process.stdout is not None
    for _ in range(commits):
        assert process.stdout.readline(), "the writer ended"


def look(path: Path, seen: int) -> int:
    """All that a reader can ask. Raises or asserts when anything but a whole run shows; returns its rows."""
    run = RunFolder(path)
    curves = run.metrics()
    rows = len(curves["sequences"])
    assert rows >= seen and curves["sequences"].tolist() == list(range(rows))
    assert np.array_equal(curves["train_loss"], np.tile(np.arange(rows), (2, 1)))
    assert all(np.array_equal(curves["icl"][member], np.arange(rows)) for member in (0, 1))
    assert run.status() in ("running", "interrupted") and run.sequences() >= 2
    found = run.latest()
    assert found is not None and found[1].sequences >= 2, f"no new checkpoint of which every file verifies: {found}"
    report = examine(path)
    assert report.sound() and report.resume.startswith("resume continues from checkpoints/"), report
    (listed,) = list_runs(path.parent)
    assert isinstance(listed, RunFolder)
    return rows


def watch(path: Path, process: subprocess.Popen[str], seen: int = 0) -> int:
    for _ in range(LOOKS):
        allow(process, COMMITS)
        seen = look(path, seen)
        wait(process, COMMITS)
        seen = look(path, seen)
    return seen


def test_a_reader_never_sees_an_error_nor_half_a_segment(tmp_path):
    """Also across two deaths of the writer."""
    path, seen = tmp_path / "run", 0
    for _ in range(2):
        with writing(path) as process:
            assert (
                RunFolder(path).status() == "running"
                and holder(path) == f"process {process.pid} on {socket.gethostname()}"
            )
            before, seen = seen, watch(path, process, seen)
        assert seen > before + 20
        assert RunFolder(path).status() == "interrupted" and look(path, seen) >= seen


@pytest.mark.parametrize("defect", ["segment_late", "segment_in_pieces"])
def test_a_writer_that_lets_readers_see_halves_is_caught(tmp_path, defect):
    caught = pytest.raises(Exception, match=r"metrics/|Report|no new checkpoint")
    with caught, writing(tmp_path / "run", defect) as process:
        watch(tmp_path / "run", process)


def test_the_second_process_is_told_and_leaves_the_folder_alone(tmp_path):
    """Exit code 2, one line that says who writes; once that one is killed the command works."""
    path = write_run(tmp_path / "run", {"icl": [[0.5, 0.6]] * 2}, [[1, 1]] * 2, label={}).path
    head = RunFolder(path).header
    hold = (
        "import sys, time, msgspec; from pathlib import Path; from ebbtide.runs.records import Header; "
        "from ebbtide.runs.writer import Writer; "
        "w = Writer(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Header)); "
        "print(1, flush=True); time.sleep(600)"
    )
    second = [sys.executable, "-m", "ebbtide.cli", "resume", str(path)]
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path), msgspec.json.encode(head).decode()], stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline()
        before = contents(path)
        told = subprocess.run(second, capture_output=True, text=True)
        first.send_signal(signal.SIGKILL)
    line = f"ebbtide: out = {str(path)!r}: is being written by process {first.pid} on {socket.gethostname()}\n"
    assert (told.returncode, told.stderr) == (2, line) and contents(path) == before
    assert subprocess.run(second, capture_output=True).returncode == 0


def test_the_folder_is_checked_again_under_the_lock(tmp_path, monkeypatch):
    """Another run may move in between the first look and the lock; the lock is free again afterwards."""
    from ebbtide.runs import lock

    path, acquire = tmp_path / "run", lock.acquire

    def late(folder: Path) -> int:
        monkeypatch.setattr(lock, "acquire", acquire)
        play(folder, 1)
        return acquire(folder)

    monkeypatch.setattr(lock, "acquire", late)
    with pytest.raises(InputError, match="another spec"):
        Writer(path, msgspec.structs.replace(HEAD, digest="0" * 64))
    assert holder(path) is None and RunFolder(path).header.digest == HEAD.digest


@pytest.mark.parametrize(
    "text",
    [b"process 1 on another-host", f"process {os.getpid()} on here".encode(), b"\xff\0\n" * 5000, b""],
    ids=["another host", "this process", "no text", "nothing"],
)
def test_what_a_dead_writer_left_in_the_lock_counts_for_nothing(tmp_path, text):
    """A living process of that number, another host, rubbish: only the kernel's lock counts."""
    path = tmp_path / "run"
    play(path, 2)
    (path / "lock").write_bytes(text)
    check_folder(path, HEAD.digest)
    assert holder(path) is None and RunFolder(path).status() == "interrupted"
    writer = Writer(path, HEAD)
    assert holder(path) == f"process {os.getpid()} on {socket.gethostname()}"
    (path / "lock").write_bytes(text)  # the file is only what people read
    told = holder(path)
    assert told is not None and told.isprintable() and len(told) <= 200
    with pytest.raises(InputError, match="is being written by") as caught:
        Writer(path, HEAD)
    assert len(str(caught.value).splitlines()) == 1
    writer.close()


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/dev/null"), lambda p: p.mkdir()])
def test_a_lock_that_is_no_file_is_one_line(tmp_path, capsys, make):
    play(tmp_path / "run", 2)
    (tmp_path / "run/lock").unlink()
    make(tmp_path / "run/lock")
    with pytest.raises(OSError, match="lock"):
        Writer(tmp_path / "run", HEAD)
    assert main(["fsck", str(tmp_path / "run")]) == 0
