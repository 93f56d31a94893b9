"""The built library of the kernel in the cache, and the compiler: what is loaded, what is not, how a build may end."""

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from ebbtide import train
from ebbtide.cli import main
from ebbtide.errors import InputError, Interrupted
from ebbtide.interrupts import STOPPED
from ebbtide.kernel import build, library
from ebbtide.machine import cache_folder, instruction_sets, processor
from ebbtide.runs.identity import identity_differences
from ebbtide.training import kernels, worker
from tiny import SPEC

FOLDER = "ebbtide/kernel"


@pytest.fixture
def cached(built_kernel: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of the library with its record in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = library.private_folder()
    for path in (built_kernel, built_kernel.with_suffix(".json")):
        shutil.copy2(path, folder / path.name)
    found = build.library(build.find_compiler())
    assert found == folder / built_kernel.name
    return found


@pytest.fixture
def no_loading(monkeypatch) -> None:
    """Loading anything that was not checked is a failure: what is damaged could end this process."""

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was loaded")

    monkeypatch.setattr(library, "open_library", refuse)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def zero_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-50_000] + bytes(50_000))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def replace_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def forget_the_record(path: Path) -> None:
    path.with_suffix(".json").unlink()


def spoil_the_record(path: Path) -> None:
    flip_a_bit(path.with_suffix(".json"))


def let_others_write_it(path: Path) -> None:
    path.chmod(0o722)


def let_others_write_the_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def give_it_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 65534, -1)


def give_the_folder_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path.parent, 65534, -1)


SPOILED = {
    cut: "not what was built",
    zero_tail: "not what was built",
    flip_a_bit: "not what was built",
    replace_by_a_link: "is not a file",
    replace_by_a_pipe: "is not a file",
    forget_the_record: "cannot be",
    spoil_the_record: "cannot be checked",
    let_others_write_it: "may be written by other users",
    let_others_write_the_folder: "may be written by other users",
    give_it_away: "belongs to another user",
    give_the_folder_away: "belongs to another user",
}


@pytest.mark.parametrize(("spoil", "says"), SPOILED.items(), ids=lambda one: getattr(one, "__name__", None))
def test_a_library_that_is_not_what_this_user_built_is_never_loaded_but_built_again(
    cached, no_loading, monkeypatch, capsys, spoil, says
):
    spoil(cached)
    monkeypatch.setattr(build, "build", lambda compiler, stop: tmp_built)
    tmp_built = Path("built again")
    assert build.ready() == tmp_built
    with pytest.raises(build.BuildError, match=says):
        library.load(cached)
    assert main(["kernel", "status"]) == 0
    assert "".join(says.split()) in "".join(capsys.readouterr().out.split()), "the table may fold the line"
    with pytest.raises(InputError, match=f"kernel = 'native': .*{says}"):
        worker.obey(None, {"do": "start", "spec": EMPTY, "code": [], "members": [0], "kernel": str(cached)})


EMPTY = {"sequences": 16, "batch": 16}


def test_the_library_that_was_built_is_loaded_and_is_nobody_elses_to_write(cached):
    assert build.ready(say=pytest.fail) == cached
    assert stat.S_IMODE(cached.stat().st_mode) == stat.S_IMODE(cached.parent.stat().st_mode) == 0o700


def test_where_the_library_cannot_be_kept_safely_xla_trains_with_one_note(tmp_path, monkeypatch):
    """A folder of another user's, or none that can be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(kernels.VARIABLE, "auto")
    (tmp_path / "ebbtide").write_text("no folder")
    said = []
    assert kernels.choose(SPEC, say=said.append) == kernels.XLA
    assert [line.partition(":")[0] for line in said] == [
        "building the compiled kernel (once for this machine, some seconds)",
        "note",
    ]


def compiler(folder: Path, does: str) -> str:
    """The path of a compiler that has a version, and else does this."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo compiler 1; exit 0; }}\n{does}\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def building(tmp_path, monkeypatch):
    """building(does): an empty cache, and a compiler that does this."""

    def use(does: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("CXX", compiler(tmp_path, does))
        monkeypatch.setenv(kernels.VARIABLE, "auto")
        build._version.cache_clear()

    return use


def left(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / FOLDER).iterdir())


def test_a_stop_while_the_kernel_is_built_begins_no_run(building, tmp_path):
    building("kill -INT $PPID; exec sleep 600")
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "run", processes=0)
    assert not (tmp_path / "run").exists() and not left(tmp_path)


def test_ctrl_c_of_the_terminal_does_not_reach_the_compiler(building, tmp_path, monkeypatch):
    """A terminal signals a whole process group: the compiler has one of its own."""
    building(f"ps -o pgid= -p $$ > {tmp_path}/group; exit 1")
    said = []
    assert kernels.choose(SPEC, say=said.append) == kernels.XLA
    assert int((tmp_path / "group").read_text()) != os.getpgrp()


@pytest.mark.parametrize(
    ("does", "name"),
    [
        ("kill -KILL $$", "SIGKILL"),
        ("kill -TERM $$", "SIGTERM"),
        ("echo 'c++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1", "SIGKILL"),
    ],
)
def test_a_compiler_ended_from_outside_does_not_make_the_run_an_xla_run(building, tmp_path, does, name):
    building(does)
    with pytest.raises(InputError, match=f"ended by {name}.*run the command again, or give --kernel xla"):
        train(SPEC, tmp_path / "run", processes=0)
    assert not (tmp_path / "run").exists() and not left(tmp_path)


@pytest.mark.parametrize(
    ("does", "says"),
    [("kill -SEGV $$", "failed"), (r"printf 'error: \377\376' >&2; exit 1", "failed: error: "), ("exit 0", "failed")],
)
def test_a_compiler_that_fails_by_itself_is_one_note(building, does, says):
    building(does)
    said = []
    assert kernels.choose(SPEC, say=said.append) == kernels.XLA
    assert said[-1].startswith("note: ") and says in said[-1] and len(said) == 2


@pytest.mark.parametrize("words", ["'", 'c++ "', "''", "\\"])
def test_a_variable_that_is_no_command_is_one_note(monkeypatch, words):
    monkeypatch.setenv("CXX", words)
    monkeypatch.setenv(kernels.VARIABLE, "auto")
    said = []
    assert kernels.choose(SPEC, say=said.append) == kernels.XLA
    assert len(said) == 1 and said[0].startswith("note: ")


def test_a_version_may_be_any_bytes(tmp_path, monkeypatch):
    path = tmp_path / "compiler"
    path.write_text("#!/bin/sh\nprintf 'version \\377\\376'\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    assert build.find_compiler().version.startswith("version ")


def test_what_killed_builds_left_is_removed_and_one_that_goes_on_is_not(cached):
    old, new = cached.parent / ".tmp-old", cached.parent / ".tmp-new"
    for one in (old, new):
        one.mkdir()
        (one / "half.so").write_text("half")
    before = time.time() - 2 * library.ABANDONED
    os.utime(old, (before, before))
    build.ready()
    assert not old.exists() and new.exists()


def test_processors_of_one_name_with_other_instructions_have_libraries_of_their_own(monkeypatch):
    here = build.library(build.find_compiler())
    monkeypatch.setattr(build, "instruction_sets", lambda: "another0")
    other = build.library(build.find_compiler())
    assert other != here
    assert build.short_name(other) == build.short_name(here), "older runs name the library so"
    assert worker.identity()["features"] == instruction_sets() and worker.identity()["processor"] == processor()


def test_what_an_older_run_has_not_recorded_cannot_differ():
    old, here = {"jax": "1", "kernel": "native 1"}, {"jax": "1", "kernel": "native 1", "features": "a"}
    assert identity_differences(old, here) == [] and identity_differences(here, here) == []
    assert identity_differences(here, here | {"features": "b"}) == ["features"]
    assert identity_differences(here, old) == ["features"]
    assert identity_differences(old, here | {"jax": "2"}) == ["jax"]


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/ebbtide"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache/ebbtide"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/ebbtide"),
        ({"XDG_CACHE_HOME": "x", "HOME": "h"}, "USER/.cache/ebbtide"),
        ({}, "USER/.cache/ebbtide"),
    ],
)
def test_the_cache_is_never_in_the_working_directory(monkeypatch, variables, folder):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: type("Entry", (), {"pw_dir": "/user"}))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder.replace("USER", "/user"))


def test_a_user_whom_the_system_does_not_know_has_a_cache_too(monkeypatch):
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert cache_folder().is_absolute() and str(os.getuid()) in cache_folder().name


def test_an_interrupt_before_a_run_is_begun_is_told_in_one_line(building, tmp_path, monkeypatch, capsys):
    building("kill -INT $PPID; exec sleep 600")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "transience", "--out", "run", "--processes", "0"]) == 130
    assert "nothing was written" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_a_stop_ends_the_command_that_builds(building, tmp_path, capsys):
    building("kill -INT $PPID; exec sleep 600")
    assert main(["kernel", "build"]) == 130
    assert capsys.readouterr().err == f"{STOPPED}\n" and not left(tmp_path)


def test_a_run_of_the_kernel_is_told_by_the_name_it_had_before(cached, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, "native")
    choice = kernels.choose(SPEC)
    assert choice.library == cached and choice.name == f"native {build.key(build.find_compiler())[:8]}"
