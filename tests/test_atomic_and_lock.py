"""One file in one step, and one writer at a time."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ebbtide.errors import InputError
from ebbtide.runs import atomic, lock
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.lock import holder
from ebbtide.runs.writer import Writer
from tiny import contents, header, write_run


class Killed(BaseException):
    """Stands for the death of the process."""


def die_in(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def die(*arguments):
        raise Killed

    monkeypatch.setattr(os, {"fsync": "fsync", "rename": "replace"}[place], die)


@pytest.mark.parametrize("place", ["fsync", "rename"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_old_or_new_never_half(tmp_path, monkeypatch, place, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with monkeypatch.context() as patch:
        die_in(patch, place)
        with pytest.raises(Killed):
            atomic.write_file(path, b"new")
    assert (path.read_bytes() if path.exists() else None) == old
    atomic.write_file(path, b"new")
    assert contents(tmp_path) == {"file": b"new"}


def test_data_and_folder_are_synced_and_the_rename_lies_between(tmp_path, monkeypatch):
    order, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(Path(f"/proc/self/fd/{fd}").resolve().name), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), rename(a, b)))
    atomic.write_file(tmp_path / "file", b"new")
    assert order == [f"{atomic.TEMPORARY}file", "rename", tmp_path.name]


def test_the_second_writer_is_told_who_holds_the_lock_and_changes_nothing(tmp_path, one_line):
    first = Writer(tmp_path / "run", header())
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        Writer(tmp_path / "run", header())
    one_line(caught, "out", str(tmp_path / "run"))
    assert f"process {os.getpid()} on" in str(caught.value)
    assert contents(tmp_path) == before and RunFolder(tmp_path / "run").running()
    first.close()
    assert not RunFolder(tmp_path / "run").running()
    Writer(tmp_path / "run", header()).close()


def test_looking_whether_a_run_is_written_does_not_keep_the_writer_out(tmp_path):
    Writer(tmp_path / "run", header()).close()
    assert holder(tmp_path / "run") is None and holder(tmp_path / "nowhere") is None
    Writer(tmp_path / "run", header()).close()


HOLD = """
import sys, time, msgspec
from pathlib import Path
from ebbtide.runs.records import Header
from ebbtide.runs.writer import Writer
writer = Writer(Path(sys.argv[1]), msgspec.json.decode(sys.stdin.buffer.readline(), type=Header))
print("held", flush=True)
time.sleep(600)
"""


def test_the_lock_is_freed_when_its_holder_is_killed(tmp_path):
    import msgspec

    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdin.write(msgspec.json.encode(header()) + b"\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"held\n"
        assert RunFolder(path).status() == "running"
        with pytest.raises(InputError, match=f"process {holder.pid} on"):
            Writer(path, header())
        holder.send_signal(signal.SIGKILL)
    assert RunFolder(path).status() == "interrupted"
    Writer(path, header()).close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line_and_leaves_no_folder(tmp_path, monkeypatch, number):
    """Runs that lie there can be read, and written once locks are there."""

    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    old = write_run(tmp_path / "old", {"icl": [[0.5]]}, [[1.0]])
    (tmp_path / "mine").mkdir()
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lock.fcntl, "flock", refuse)
        for name in ("new", "mine", "old"):
            with pytest.raises(InputError, match=f"has no locks .{os.strerror(number)}"):
                Writer(tmp_path / name, old.header)
        assert old.status() == "complete" and not old.running()
    assert contents(tmp_path) == before and sorted(p.name for p in tmp_path.iterdir()) == ["mine", "old"]
    Writer(tmp_path / "mine", old.header).close()
