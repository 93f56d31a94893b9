"""The data that a run reads belong to its identity by their content: what was changed meanwhile is said."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.identity import identity_differences
from ebbtide.runs.signed import sign
from ebbtide.sources.features import Features
from ebbtide.sources.tokens import Tokens, tokens_file
from ebbtide.training import inputs as module
from ebbtide.training.driver import train
from ebbtide.training.inputs import changed_inputs, content, inputs
from ebbtide.training.start import Start
from tiny import SPEC, write_run

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")

LAST = "checkpoints/000000001024"


def write_features(path: Path, seed: int) -> Path:
    """A small file of features; another seed gives another file of the same size."""
    values = np.random.default_rng(seed).normal(size=(80, 4, 8)).astype(np.float32)
    np.savez(path, features=values)
    return path


def features_spec(path: Path):
    source = Features(path=str(path), classes=64, exemplars=2, holdout_classes=8, holdout_exemplars=2)
    return replace(SPEC, source=source, members=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a file of features and a run on it, trained by a worker."""
    folder = tmp_path_factory.mktemp("trained")
    train(features_spec(write_features(folder / "x.npz", 0)), folder / "run", processes=1)
    return folder


@pytest.fixture
def begun(trained) -> Path:
    """The same with the run half done and the file as it was."""
    shutil.rmtree(trained / "run" / LAST, ignore_errors=True)
    write_features(trained / "x.npz", 0)
    return trained


def without_inputs(run: RunFolder) -> None:
    """Makes of run.json what an older ebbtide wrote: it says nothing of the data."""
    old = {name: value for name, value in run.header.identity.items() if not name.startswith("source_")}
    (run.path / "run.json").write_bytes(sign(replace(run.header, identity=old)))


def test_a_file_that_was_replaced_meanwhile_is_refused_under_deterministic(begun, capsys):
    write_features(begun / "x.npz", 1)
    assert main(["resume", str(begun / "run"), "--deterministic", "--processes", "1"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "x.npz has other content than when this run was begun" in told
    assert RunFolder(begun / "run").status() == "interrupted"


def test_a_run_goes_on_with_the_same_content_under_any_time_stamp(begun, capsys):
    os.utime(begun / "x.npz", (1, 1))
    assert main(["resume", str(begun / "run"), "--deterministic", "--processes", "1"]) == 0
    assert "content" not in capsys.readouterr().out
    run = RunFolder(begun / "run")
    assert run.status() == "complete" and [m.repeatable for _, m in run.manifests()] == [True] * 3
    assert main(["show", str(begun / "run")]) == 0
    shown = capsys.readouterr().out
    assert f"source_sha256 {content(begun / 'x.npz')[:12]}" in shown and content(begun / "x.npz") not in shown


def test_a_run_on_a_file_that_was_replaced_says_so_and_is_not_repeatable(begun, tmp_path, capsys):
    shutil.copytree(begun / "run", tmp_path / "run")
    write_features(begun / "x.npz", 1)
    assert main(["resume", str(tmp_path / "run"), "--processes", "1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "x.npz has other content than when this run was begun" in told and "not repeatable any more" in told
    found = {m.sequences: m.repeatable for _, m in RunFolder(tmp_path / "run").manifests()}
    assert found == {0: True, 512: True, 1024: False}


def test_an_older_run_is_compared_with_what_its_last_checkpoint_recorded(begun, tmp_path, capsys):
    shutil.copytree(begun / "run", tmp_path / "run")
    without_inputs(RunFolder(tmp_path / "run"))
    assert main(["resume", str(tmp_path / "run"), "--deterministic", "--processes", "1"]) == 0
    shutil.rmtree(tmp_path / "run" / LAST)
    write_features(begun / "x.npz", 1)
    assert main(["resume", str(tmp_path / "run"), "--deterministic", "--processes", "1"]) == 2
    assert "has other content" in capsys.readouterr().err


def test_what_was_never_recorded_cannot_differ():
    here = {"jax": "1", "source_file": "a", "source_sha256": "b", "start_sha256": "c"}
    assert identity_differences({"jax": "1"}, here) == []
    assert identity_differences(here, here | {"source_file": "elsewhere"}) == []
    assert identity_differences(here, here | {"source_sha256": "x", "start_sha256": "y"}) == [
        "source_sha256",
        "start_sha256",
    ]


def test_a_source_that_reads_no_file_records_none():
    assert inputs(SPEC) == {}


def test_a_file_of_the_data_folder_is_named_without_that_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    made = write_features(tmp_path / "made.npz", 0).rename(tmp_path / tokens_file(1600, 10))
    found = inputs(replace(SPEC, source=Tokens()))
    assert found == {"source_file": made.name, "source_sha256": content(made)}
    far = write_features(tmp_path.parent / "far.npz", 0)
    assert inputs(features_spec(far))["source_file"] == str(far)


def test_the_run_to_start_from_is_told_by_its_state(tmp_path):
    donor = write_run(tmp_path / "donor", {"icl": [[0.5, 1.0]]}, [[np.nan, 2.0]])
    spec = replace(SPEC, start=Start(run=str(donor.path), sequences=1024))
    before = inputs(spec)
    newest = donor.latest()
    assert newest and before == {"start_sha256": newest[1].state.sha256}
    assert changed_inputs(spec, before, before) == []
    (sentence,) = changed_inputs(spec, before, {"start_sha256": "x"})
    assert sentence.startswith(f"start: {donor.path} at 1024 sequences has other content")
    with pytest.raises(InputError, match="has checkpoints at 1024 sequences"):
        inputs(replace(SPEC, start=Start(run=str(donor.path), sequences=512)))


# ---- the hash of a large file is remembered


@pytest.fixture
def large(tmp_path, monkeypatch) -> Path:
    """A file that counts as large, with a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LARGE", 1)
    return write_features(tmp_path / "x.npz", 0)


def records(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "ebbtide" / "contents").glob("*.json"))


def test_a_large_file_is_read_once_and_again_when_it_changed(large, tmp_path, monkeypatch):
    first = content(large)
    assert len(records(tmp_path)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module.hashlib, "file_digest", None)
        assert content(large) == first
    times = large.stat().st_atime_ns, large.stat().st_mtime_ns
    write_features(tmp_path / "other.npz", 1).replace(large)
    os.utime(large, ns=times)  # of the same size and time, but another file
    assert content(large) != first
    assert len(records(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, b"x" * 10**6, "flipped", "another's"])
def test_a_damaged_record_is_ignored_and_written_anew(large, tmp_path, damage):
    first = content(large)
    (record,) = records(tmp_path)
    good = record.read_bytes()
    if damage == "flipped":
        record.write_bytes(good.replace(first[:6].encode(), b"000000"))
    elif damage == "another's":
        record.write_bytes(sign(module.Remembered(2, "0" * 64, "0" * 64)))
    else:
        record.write_bytes(damage)
    assert content(large) == first
    assert record.read_bytes() == good


def test_records_are_bounded_in_number(large, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    for seed in range(6):
        content(write_features(tmp_path / f"{seed}.npz", seed))
    assert len(records(tmp_path)) == 3


def test_a_cache_that_cannot_be_written_is_no_error(large, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    assert content(large) == content(large)
