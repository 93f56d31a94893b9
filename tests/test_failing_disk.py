"""The n-th call to the disk fails, for every n: one kind of error leaves, and what was committed stays."""

import contextlib
import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.runs import atomic
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.fsck import examine
from ebbtide.runs.writer import Writer
from folders import HEAD, play
from tiny import contents, final_state, write_run

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")

CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir", "ftruncate")
COMMITS = 3


class Faulty:
    """Lets the n-th call that touches the folder fail; `short`: a write takes half of its bytes, and the
    next call fails."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, n: int, number: int, short: bool = False):
        self.folder, self.left, self.number, self.short = str(folder), n, number, short
        self.failed = ""
        for name in CALLS:
            patch.setattr(os, name, self.watch(name, getattr(os, name)))

    def watch(self, name: str, call: Any) -> Any:
        def watched(first: Any, *arguments: Any, **options: Any) -> Any:
            descriptor = first if isinstance(first, int) else options.get("dir_fd")
            place = str(first) if descriptor is None else str(Path(f"/proc/self/fd/{descriptor}").readlink())
            inside = place.startswith(self.folder)
            self.left -= inside
            if inside and self.left == 0:
                if self.short and name == "write" and len(arguments[0]) > 1:
                    self.left = 1
                    return call(first, arguments[0][: len(arguments[0]) // 2])
                self.failed = name
                raise OSError(self.number, os.strerror(self.number), None if isinstance(first, int) else first)
            return call(first, *arguments, **options)

        return watched


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def survives(path: Path, before: int, whole: dict[str, bytes]) -> None:
    """The folder after a failure: nothing damaged, nothing committed lost, and it can be played to its end."""
    if (path / "run.json").exists():
        report = examine(path)
        assert report.sound(), report
        assert before == 0 or (final_state(RunFolder(path))["w"] >= before - 1).all()
    play(path, COMMITS)
    assert contents(path, "aside") == whole


def fails_everywhere(tmp_path: Path, number: int, short: bool, start: int = 0) -> set[str]:
    """Plays into a folder with `start` commits, with the n-th call failing, until none is left to fail."""
    play(tmp_path / "whole", COMMITS)
    whole, failed = contents(tmp_path / "whole"), set()
    for n in itertools.count(1):
        path = tmp_path / f"run-{n}"
        if start:
            play(path, start)
        else:
            path.mkdir()
        files = open_files()
        with pytest.MonkeyPatch.context() as patch:
            faulty = Faulty(patch, path, n, number, short)
            try:
                play(path, COMMITS)
            except OSError as error:
                assert error.errno == number and str(error.filename).startswith(str(path))
            except InputError as error:  # the file that could not be opened was run.json
                assert error.allowed.startswith("run.json is damaged: ") and number == errno.EIO
        assert open_files() == files
        survives(path, start, whole)
        if not faulty.failed:
            return failed
        failed.add(faulty.failed)
    raise AssertionError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_every_call_of_a_new_run_may_fail(tmp_path, number):
    assert fails_everywhere(tmp_path, number, short=False) == set(CALLS)


def test_every_write_may_be_cut_short(tmp_path):
    assert "write" in fails_everywhere(tmp_path, errno.ENOSPC, short=True)


def test_every_call_of_a_resumed_run_may_fail(tmp_path):
    assert {"open", "write", "fsync", "replace"} <= fails_everywhere(tmp_path, errno.ENOSPC, short=False, start=2)


@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
def test_a_checkpoint_that_found_no_room_gives_back_what_it_took(tmp_path, monkeypatch, file):
    """Else the disk stays full until the run is resumed."""
    path, write = tmp_path / "run", atomic.write_synced

    def full(target: Path, data: bytes, what: str) -> None:
        write(target, data, what)
        if target.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    play(path, 1)
    before = contents(path, "metrics")
    monkeypatch.setattr(atomic, "write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        play(path, 2)
    assert contents(path, "metrics") == before


def test_the_kernel_may_take_less_than_it_is_given(tmp_path, monkeypatch):
    play(tmp_path / "whole", COMMITS)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    play(tmp_path / "run", COMMITS)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_writer_that_does_not_look_what_was_written_is_caught(tmp_path, monkeypatch):
    """The tests above can fail: with a single write in place of the loop they do."""
    monkeypatch.setattr(atomic, "write_all", lambda descriptor, data: os.write(descriptor, data))
    play(tmp_path / "whole", COMMITS)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises((AssertionError, InputError)):
        survives(tmp_path / "run", 0, contents(tmp_path / "whole"))


def test_a_writer_that_swallows_errors_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "write_all", lambda descriptor, data: quietly(descriptor, data))

    def quietly(descriptor: int, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(descriptor, data)

    with pytest.raises((AssertionError, InputError)):
        fails_everywhere(tmp_path, errno.ENOSPC, short=False)


LIMITED = """
import resource, sys, msgspec, numpy as np
from pathlib import Path
from ebbtide.runs.records import Header
from ebbtide.runs.writer import Writer
writer = Writer(Path(sys.argv[1]), msgspec.json.decode(sys.stdin.buffer.read(), type=Header))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for i, size in enumerate((100, 100_000)):
    state = {"w": np.full((2, size), i, np.float32)}
    try:
        writer.commit(sequences=i, state=state, evaluations=None, kept=True, finished=False, seconds=0.0)
    except OSError as error:
        sys.exit(f"{i} {error.filename}: {error.strerror}")
"""


def test_a_real_limit_on_the_size_of_files(tmp_path):
    path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], input=msgspec.json.encode(HEAD), capture_output=True
    )
    name = path / "checkpoints/.tmp-000000000001/state.safetensors"
    assert done.returncode == 1 and done.stderr.decode() == f"1 {name}: File too large\n"
    assert examine(path).sound() and RunFolder(path).sequences() == 0 and (final_state(RunFolder(path))["w"] == 0).all()
    Writer(path, HEAD).close()
    assert not list(path.rglob(".tmp-*"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, capsys, number):
    """Else a resume would put the evaluations of good checkpoints aside and start from the beginning."""
    run = write_run(tmp_path / "run", {"icl": [[0.5, 0.7]]}, [[1.0, 0.5]])
    before, listed = contents(run.path), os.listdir

    def refuse(folder: Any = ".") -> list[str]:
        if str(folder).endswith("checkpoints"):
            raise OSError(number, os.strerror(number), str(folder))
        return listed(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        for word, code in {"ls": 0, "show": 2, "fsck": 2, "resume": 2}.items():
            assert main([word, str(tmp_path if word == "ls" else run.path)]) == code
            said = capsys.readouterr()
            assert os.strerror(number) in said.out + said.err and "interrupted" not in said.out
        with pytest.raises(OSError, match=os.strerror(number)):
            Writer(run.path, run.header)
    assert contents(run.path) == before and run.status() == "complete"


def test_the_command_line_names_the_file_and_the_reason(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", {"icl": [[0.5, 0.6]] * 2}, [[1, 1]] * 2)
    out = tmp_path / "table.csv"
    out.write_text("old")
    command = ["export", str(run.path), "--out", str(out)]
    with monkeypatch.context() as patch:
        Faulty(patch, tmp_path / ".tmp-table", 2, errno.ENOSPC)
        assert main(command) == 2
    assert capsys.readouterr().err == f"ebbtide: {tmp_path}/table.csv: No space left on device\n"
    assert out.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["run", "table.csv"]
    assert main(command) == 0 and out.read_text() != "old"
