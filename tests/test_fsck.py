"""`ebbtide fsck`: every finding, what a resume would do, and that it does it; nothing is changed."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.runs import atomic
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.fsck import Report, examine
from ebbtide.runs.writer import Writer
from folders import HEAD, play
from tiny import contents

NEWEST = "checkpoints/000000000768"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Checkpoints 0, 512 (kept) and 768 (rolling, the last)."""
    play(tmp_path / "run")
    return tmp_path / "run"


def texts(report: Report, kind: str) -> list[str]:
    return [f.text for f in report.findings if f.kind == kind]


def spoil(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")


def test_a_sound_run(path, capsys):
    assert main(["fsck", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok") for line in lines[:-1]) and len(lines) == 6
    assert "run.json: schema 2" in lines[0] and "lock: free" in lines[1]
    assert f"{NEWEST}: rolling, finished" in lines[2] and "000000000512: kept" in lines[3] and "3 eval" in lines[3]
    assert lines[-1] == "resume has nothing to do: finished at 768 of 1024 sequences"


def test_a_run_not_yet_finished_goes_on_from_its_newest_checkpoint(tmp_path):
    play(tmp_path / "run", 2)
    assert examine(tmp_path / "run").resume == "resume continues from checkpoints/000000000256: 256 of 1024 sequences"
    Writer(tmp_path / "young", HEAD).close()
    report = examine(tmp_path / "young")
    assert report.sound() and report.resume.startswith("resume starts from the beginning")


@pytest.mark.parametrize(
    ("name", "resume"),
    [
        ("run.json", "resume refuses: run.json is damaged"),
        (f"{NEWEST}/state.safetensors", "resume continues from checkpoints/000000000512"),
        (f"{NEWEST}/manifest.json", "resume continues from checkpoints/000000000512"),
        ("metrics/000003-000003.safetensors", "resume continues from checkpoints/000000000512"),
        ("metrics/000001-000001.safetensors", "resume continues from checkpoints/000000000000"),
        ("metrics/000000-000000.safetensors", "resume starts from the beginning"),
        ("checkpoints/000000000000/state.safetensors", "resume has nothing to do: finished at 768"),
    ],
)
def test_damage_is_named_and_resume_does_what_was_said(path, capsys, name, resume):
    spoil(path / name)
    before = contents(path)
    assert main(["fsck", str(path)]) == 1
    assert contents(path) == before
    *lines, last = capsys.readouterr().out.splitlines()
    damaged = [line for line in lines if line.startswith("damaged")]
    assert damaged and all(name in line for line in damaged) and last.startswith(resume)
    if name == "run.json":
        assert sum(line.startswith("ok") for line in lines) == 4  # all the rest is looked at nevertheless
        with pytest.raises(InputError, match="damaged"):
            Writer(path, HEAD)
        return
    writer = Writer(path, HEAD)
    went = "has nothing to do" if writer.manifest and writer.manifest.finished else "continues from"
    assert last.startswith(f"resume {went}" if writer.manifest else "resume starts")
    assert writer.checkpoint is None or writer.manifest is None or str(writer.manifest.sequences) in last
    writer.close()
    again = examine(path)
    assert again.resume == last and again.sound() == (not name.startswith("checkpoints/000000000000"))


def test_leftovers_are_told_from_damage(path, capsys):
    (path / "checkpoints/.tmp-000000001024").mkdir()
    (path / "metrics/.tmp-000004-000004.safetensors").write_bytes(b"half")
    (path / "metrics/000004-000004.safetensors").write_bytes(b"whole but in no manifest")
    (path / "aside").mkdir()
    (path / "aside/0000-x").write_bytes(b"old")
    report = examine(path)
    left = texts(report, "leftover")
    assert report.sound() and len(left) == 4
    assert "metrics/000004-000004.safetensors: in no good checkpoint; resume moves it to aside/" in left
    assert "metrics/.tmp-000004-000004.safetensors: temporary; resume removes it" in left
    assert "checkpoints/.tmp-000000001024: temporary; resume removes it" in left
    assert main(["fsck", str(path)]) == 0 and capsys.readouterr().out.count("leftover") == 4
    Writer(path, HEAD).close()
    assert len(texts(examine(path), "leftover")) == 2 and len(list((path / "aside").iterdir())) == 2


def test_while_a_writer_is_at_work(path):
    writer = Writer(path, HEAD)
    (path / "metrics/000004-000004.safetensors").write_bytes(b"about to be committed")
    report = examine(path)
    writer.close()
    assert report.sound() and any(f"held by process {os.getpid()} on" in text for text in texts(report, "ok"))
    assert "the writer at work has not committed it" in texts(report, "leftover")[0]


def test_nothing_is_written_and_a_folder_that_cannot_be_written_is_read(path, monkeypatch):
    spoil(path / f"{NEWEST}/state.safetensors")
    everything = [path, *path.rglob("*")]
    before, opened = {p: p.stat() for p in everything}, os.open

    def read_only(file, flags, *arguments, **options):
        assert not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return opened(file, flags, *arguments, **options)

    def crash_point(point: str) -> None:
        raise AssertionError(point)

    for one in everything:
        one.chmod(one.stat().st_mode & 0o555)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        patch.setattr(atomic, "crash_point", crash_point)
        report = examine(path)
        with pytest.raises(AssertionError):  # the watch sees a writer
            Writer(path, HEAD)
    for one in everything:
        one.chmod(before[one].st_mode)
    assert not report.sound() and "000000000512" in report.resume
    assert [p.stat().st_mtime_ns for p in everything] == [before[p].st_mtime_ns for p in everything]


def test_what_is_no_run_folder_has_exit_code_2(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    for name in ("notes", "nowhere"):
        assert main(["fsck", str(tmp_path / name)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_without_its_run_json_is_damaged(path):
    (path / "run.json").unlink()
    report = examine(path)
    assert not report.sound() and "no run.json" in report.resume and len(texts(report, "ok")) == 4
    (path.parent / "torn").mkdir()
    (path.parent / "torn/run.json").write_text('{"body":')
    assert not examine(path.parent / "torn").sound()


def test_a_newer_checkpoint_is_left_to_a_newer_version(path):
    body = msgspec.json.decode((path / NEWEST / "manifest.json").read_bytes())["body"] | {"schema": 9}
    from ebbtide.runs.signed import sign

    (path / NEWEST / "manifest.json").write_bytes(sign(body))
    report = examine(path)
    assert not report.sound() and "has schema 9" in report.resume and report.resume.startswith("resume refuses")


def test_a_state_of_another_number_of_members_is_damaged(tmp_path):
    writer = Writer(tmp_path / "run", HEAD)
    state = {"w": np.zeros((3, 4), np.float32)}
    writer.commit(sequences=0, state=state, evaluations=None, kept=True, finished=False, seconds=0.0)
    writer.close()
    assert "'w' is not an array over 2 members" in texts(examine(tmp_path / "run"), "damaged")[0]
    assert RunFolder(tmp_path / "run").latest() is None
