"""A file that the user names: what is there decides whether it is replaced, written to or refused."""

import os
import socket
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from drawings_tools import make_drawings
from ebbtide import cli
from ebbtide.bench.records import Benchmark
from ebbtide.errors import InputError
from ebbtide.runs.output import check_output, unwritable_reason, write_output
from sweep_tools import planned
from tiny import write_run

OLD, NEW = b"old", b"new"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a run, a sweep and drawings in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    write_run(tmp_path / "run", {"icl": [[0.5, 0.75, 1.0]]}, [[np.nan, 4.0, 2.0]])
    planned(tmp_path / "sweep")
    (tmp_path / "omniglot.npz").write_bytes(make_drawings().to_npz())
    return tmp_path


COMMANDS = {
    "export": ("export run --out", "x.csv"),
    "collect": ("sweep collect sweep --out", "x.csv"),
    "report": ("report run --out", "x.html"),
    "show": ("show run --figure", "x.png"),
    "data info": ("data info --figure", "x.png"),
}


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".tmp")]


def test_a_regular_file_is_replaced_in_one_step(tmp_path):
    out = tmp_path / "x"
    write_output(out, OLD)
    before = out.stat().st_ino
    write_output(out, NEW)
    assert out.read_bytes() == NEW
    assert out.stat().st_ino != before
    assert not leftovers(tmp_path)


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x").write_bytes(OLD)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "x")
    out = tmp_path / "out"
    out.symlink_to("near")
    write_output(out, NEW)
    assert out.is_symlink()
    assert (tmp_path / "near").is_symlink()
    assert (tmp_path / "far" / "x").read_bytes() == NEW
    assert not (tmp_path / "far" / "x").is_symlink()
    assert not leftovers(tmp_path)
    assert not leftovers(tmp_path / "far")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    out, data = tmp_path / "pipe", bytes(300_000)  # more than a pipe holds
    os.mkfifo(out)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(out.read_bytes()))
    reader.start()
    write_output(out, data)
    reader.join()
    assert found == [data]
    assert stat.S_ISFIFO(out.lstat().st_mode)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("make", ["socket", "folder", "dangling", "link to folder", "no folder"])
def test_what_cannot_be_written_to_is_refused_in_one_line_and_stays(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    says = {"dangling": "is a link to nowhere, which does not exist", "socket": "is neither a file nor a pipe"}
    if make == "socket":
        made = socket.socket(socket.AF_UNIX)
        made.bind("out")
        made.close()
    elif make == "folder":
        out.mkdir()
    elif make == "no folder":
        out = out / "deep"
    else:
        (tmp_path / "folder").mkdir()
        out.symlink_to("nowhere" if make == "dangling" else "folder")
    before = sorted((p.name, p.lstat().st_ino) for p in tmp_path.iterdir())
    with pytest.raises(InputError, match=says.get(make, "folder")) as caught:
        write_output(out, NEW, "figure")
    assert caught.value.field == "figure"
    with pytest.raises(InputError):
        check_output(out)
    assert sorted((p.name, p.lstat().st_ino) for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "written"),
    [("REG", True), ("IFO", True), ("CHR", True), ("BLK", False), ("SOCK", False), ("DIR", False)],
)
def test_by_the_type_of_a_file_it_is_written_to_or_refused(kind, written):
    assert bool(unwritable_reason(getattr(stat, f"S_IF{kind}") | 0o644)) != written


def test_a_link_to_itself_is_told_by_its_name(tmp_path):
    out = tmp_path / "out"
    out.symlink_to("out")
    with pytest.raises(OSError, match="symbolic links") as caught:
        write_output(out, NEW)
    assert caught.value.filename == str(out)
    assert out.is_symlink()


def test_a_file_that_cannot_be_written_is_told_by_the_name_the_user_gave(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    out.write_bytes(OLD)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_output(out, NEW)
    monkeypatch.undo()
    assert caught.value.filename == str(out)
    assert out.read_bytes() == OLD
    assert not leftovers(tmp_path)


def test_a_table_to_standard_output_is_the_table_alone(place, capfd):
    Path("stdout").symlink_to("/proc/self/fd/1")
    assert cli.main(["export", "run", "--out", "stdout"]) == 0
    printed, told = capfd.readouterr()
    assert cli.main(["export", "run", "--out", "table.csv"]) == 0
    assert printed == (place / "table.csv").read_text()
    assert "rows to stdout" in told
    assert Path("stdout").readlink() == Path("/proc/self/fd/1")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_leaves_a_link_and_refuses_a_socket(place, capsys, command):
    words, name = COMMANDS[command]
    (place / "target").write_bytes(OLD)
    (place / name).symlink_to("target")
    assert cli.main([*words.split(), name]) == 0
    assert Path(name).readlink() == Path("target")
    assert (place / "target").read_bytes() not in (OLD, b"")
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"socket-{name}")
    made.close()
    capsys.readouterr()
    assert cli.main([*words.split(), f"socket-{name}"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"'socket-{name}': is neither a file nor a pipe" in told
    assert stat.S_ISSOCK((place / f"socket-{name}").lstat().st_mode)


def test_bench_looks_at_its_file_before_it_measures(place, capsys):
    Path("x.json").symlink_to("nowhere")
    assert cli.main(["bench", "--json", "x.json"]) == 2
    assert "json = 'x.json': is a link to nowhere, which does not exist" in capsys.readouterr().err
    (place / "nowhere").write_bytes(OLD)
    Benchmark({}, [], [], []).write(place / "x.json")
    assert Path("x.json").readlink() == Path("nowhere")
    assert (place / "nowhere").read_bytes().startswith(b"{")


@pytest.mark.parametrize(
    "words",
    ["run transience --out", "run toy-laws --out", "export run --format hdf5 --out", "probe run --measure x --out"],
)
def test_a_dangling_link_in_the_place_of_a_folder_is_refused_in_one_line(place, capsys, words):
    Path("link").symlink_to("nowhere")
    assert cli.main([*words.split(), "link"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "out = 'link'" in told
    assert Path("link").readlink() == Path("nowhere")
    assert not (place / "nowhere").exists()
