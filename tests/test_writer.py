"""Writing a run folder: every commit whole, whatever moment the writer dies at."""

import itertools
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.runs import atomic, lock
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import Writer, check_folder
from folders import HEAD, checkpoints, commit, play
from tiny import SPEC, contents, final_state, header, same_bits


def test_rolling_checkpoints_go_and_kept_ones_stay(tmp_path):
    for upto, there in ((1, [0]), (2, [0, 256]), (3, [0, 512]), (4, [0, 512, 768])):
        play(tmp_path / "run", upto)
        assert checkpoints(tmp_path / "run") == there
    assert RunFolder(tmp_path / "run").arrays()["sequences"].tolist() == [0, 256, 512, 768]


def test_the_rename_of_a_whole_checkpoint_is_the_commit(tmp_path, monkeypatch):
    """Until then a reader sees the old run; the state, the manifest and the segment are there before it."""
    seen, path = [], tmp_path / "run"

    def watch(point: str) -> None:
        if point == "checkpoint.before_rename":
            (made,) = (path / "checkpoints").iterdir()
            there = {p.name for p in made.iterdir()}, len(list((path / "metrics").iterdir()))
            seen.append((*there, made.name[:5], RunFolder(path).latest()))
        elif point == "checkpoint.after_rename":
            found = RunFolder(path).latest()
            seen.append(found and found[0].name)

    monkeypatch.setattr(atomic, "crash_point", watch)
    play(path, 1)
    assert seen == [({"state.safetensors", "manifest.json"}, 1, ".tmp-", None), "000000000000"]


def test_arrays_are_stored_whatever_way_they_lie_in_memory(tmp_path):
    """Transposed, with steps, backwards: safetensors writes the memory of an array as it finds it."""
    head, i = HEAD, np.arange(2 * 6, dtype=np.float32)
    lying = {"f": np.asfortranarray(i.reshape(2, 6)), "t": i.reshape(6, 2).T, "s": i.reshape(2, 6)[:, ::-2]}
    shape = (2, 3, len(head.instruments), len(head.metrics), 2)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape[::-1]).T
    rows = {"sequences": np.arange(6)[::2], "train_loss": i[:6].reshape(3, 2).T, "values": values}
    writer = Writer(tmp_path / "run", head)
    writer.commit(sequences=0, state=lying, evaluations=rows, kept=True, finished=False, seconds=0.0)
    writer.close()
    run = RunFolder(tmp_path / "run")
    assert all(np.array_equal(array, lying[name]) for name, array in final_state(run).items())
    assert all(np.array_equal(array, rows[name]) for name, array in run.arrays().items())


def test_a_commit_without_evaluations_keeps_the_earlier_ones(tmp_path):
    writer = Writer(tmp_path / "run", HEAD)
    commit(writer, 0, rows=2)
    commit(writer, 1, rows=0)
    writer.close()
    run = RunFolder(tmp_path / "run")
    assert run.arrays()["sequences"].tolist() == [0, 256]
    assert (final_state(run)["w"] == 1).all()
    assert sorted(p.name for p in (run.path / "metrics").iterdir()) == ["000000-000001.safetensors"]


def test_opening_removes_temporaries(tmp_path):
    path = tmp_path / "run"
    play(path)
    before = contents(path)
    (path / "checkpoints/.tmp-000000001024").mkdir()
    (path / "checkpoints/.tmp-000000001024/state.safetensors").write_bytes(b"half")
    for name in ("metrics/.tmp-000004-000004.safetensors", ".tmp-run.json", ".tmp-verdict.json"):
        (path / name).write_bytes(b"half")
    Writer(path, HEAD).close()
    assert contents(path) == before


def test_what_lies_beyond_the_newest_good_checkpoint_is_moved_aside(tmp_path):
    path = tmp_path / "run"
    play(path)
    whole = contents(path)
    state = path / "checkpoints/000000000768/state.safetensors"
    damaged = state.read_bytes()[:-1] + b"\1"
    state.write_bytes(damaged)
    writer = Writer(path, HEAD)
    assert writer.rows == 3 and writer.manifest is not None and writer.manifest.sequences == 512
    assert RunFolder(path).arrays()["sequences"].tolist() == [0, 256, 512]
    writer.close()
    aside = contents(path / "aside")
    assert sorted(name.split("-", 1)[1] for name in aside) == [
        "000000000768/manifest.json",
        "000000000768/state.safetensors",
        "000003-000003.safetensors",
    ]
    assert damaged in aside.values()
    play(path)
    assert contents(path, "aside") == whole  # made again, nothing twice
    assert contents(path / "aside") == aside


def test_setting_aside_twice_loses_nothing(tmp_path):
    path = tmp_path / "run"
    for flip in (b"\1", b"\2"):
        play(path)
        state = path / "checkpoints/000000000768/state.safetensors"
        state.write_bytes(state.read_bytes()[:-1] + flip)
        Writer(path, HEAD).close()
    assert sorted(d[-1:] for n, d in contents(path / "aside").items() if n.endswith("state.safetensors")) == [
        b"\1",
        b"\2",
    ]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: play(p, 1), "another spec"),
        (lambda p: (p.mkdir(), (p / "thesis.tex").write_text("x")), "holds other files (thesis.tex"),
        (lambda p: p.write_text("x"), "is a file"),
        (lambda p: p.parent.joinpath("run").write_text("x"), "is a file"),
    ],
)
def test_a_folder_that_is_not_for_this_run_is_refused_untouched(tmp_path, one_line, make, says):
    path = tmp_path / "run"
    make(path)
    before = contents(tmp_path)
    other = header(replace(SPEC, batch=32))
    for attempt in (lambda: check_folder(path, other.digest), lambda: Writer(path, other)):
        with pytest.raises(InputError) as caught:
            attempt()
        one_line(caught, "out", str(path))
        assert says in str(caught.value)
    assert contents(tmp_path) == before


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "file/deep/run", HEAD.digest)


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda p: (p.mkdir(), (p / "lock").touch(), (p / ".tmp-run.json").touch())]
)
def test_an_empty_folder_or_one_that_died_young_can_be_used(tmp_path, make):
    make(tmp_path / "run")
    play(tmp_path / "run", 2)
    assert checkpoints(tmp_path / "run") == [0, 256]


class Killed(BaseException):
    """Stands for the death of the process."""


class Reaper:
    """Kills at the n-th touch of the disk: before it happens, or (`torn`) so that the file being
    synced has reached the disk by half only."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int, torn: bool):
        self.left, self.torn, self.locks = n, torn, []
        for name in ("write", "fsync", "replace", "mkdir", "rmdir", "unlink"):
            patch.setattr(os, name, self.watch(name, getattr(os, name)))
        acquire = lock.acquire
        patch.setattr(lock, "acquire", lambda path: self.locks.append(acquire(path)) or self.locks[-1])

    def watch(self, name: str, call: Any) -> Any:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if self.torn and name == "fsync" and stat.S_ISREG(os.fstat(arguments[0]).st_mode):
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                raise Killed
            return call(*arguments, **options)

        return watched

    def free(self) -> None:
        """The kernel frees the lock of a dead process."""
        for descriptor in self.locks:
            try:
                os.close(descriptor)
            except OSError:
                continue


@pytest.mark.parametrize("torn", [False, True])
def test_a_writer_killed_at_any_point_leaves_the_old_or_the_new_run(tmp_path, monkeypatch, torn):
    """After every possible death the newest checkpoint verifies, holds one of the states there were,
    with exactly the evaluations that led to it, and the run can be finished to the same bytes."""
    play(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    arrays = RunFolder(tmp_path / "whole").arrays()
    seen = set()
    n = 0
    for n in itertools.count(1):
        path = tmp_path / f"{n}"
        with monkeypatch.context() as patch:
            reaper = Reaper(patch, n, torn)
            try:
                play(path)
                break
            except Killed:
                pass
        reaper.free()
        if (path / "run.json").exists():
            run = RunFolder(path)
            found = run.latest()
            seen.add(found[1].sequences if found else None)
            if found:
                rows = found[1].sequences // 256 + 1
                assert (final_state(run)["w"] == rows - 1).all()
                now, axes = run.arrays(), {"sequences": 0, "train_loss": 1, "values": 1}
                assert same_bits(now, {k: v.take(range(rows), axes[k]) for k, v in arrays.items()})
                assert run.sequences() == found[1].sequences
        play(path)
        assert contents(path, "aside") == whole
    assert seen == {None, 0, 256, 512, 768} and n > 25


def test_a_reopening_writer_killed_at_any_point_loses_nothing_good(tmp_path, monkeypatch):
    """Cleaning up and moving aside is itself safe to interrupt."""
    play(tmp_path / "start")
    state = tmp_path / "start/checkpoints/000000000768/state.safetensors"
    state.write_bytes(b"damaged")
    (tmp_path / "start/checkpoints/.tmp-000000001024").mkdir()
    n = 0
    for n in itertools.count(1):
        path = tmp_path / f"{n}"
        shutil.copytree(tmp_path / "start", path)
        with monkeypatch.context() as patch:
            reaper = Reaper(patch, n, torn=False)
            try:
                Writer(path, HEAD).close()
                break
            except Killed:
                pass
        reaper.free()
        found = RunFolder(path).latest()
        assert found is not None and found[1].sequences == 512
        play(path)
        assert checkpoints(path) == [0, 512, 768] and (final_state(RunFolder(path))["w"] == 3).all()
    assert n > 4
