"""Committed files that change afterwards: the reader says which and why, falls back, and never gives a wrong array."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.runs import reading, records
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.fsck import examine
from ebbtide.runs.records import read_manifest
from ebbtide.runs.signed import DamagedError
from ebbtide.runs.writer import load_state, restore
from folders import play

FILES = [
    "run.json",
    *(f"metrics/{i:06d}-{i:06d}.safetensors" for i in range(4)),
    *(f"checkpoints/{256 * i:012d}/{name}" for i in range(4) for name in ("state.safetensors", "manifest.json")),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Four kept checkpoints with an evaluation each."""
    path = tmp_path_factory.mktemp("good") / "run"
    play(path, kept=True)
    assert sorted(FILES) == sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file() and p.suffix)
    return path


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "run")


def rests_on(i: int, file: str) -> bool:
    """Whether the i-th checkpoint needs a file."""
    part, _, name = file.partition("/")
    return int(name[:6]) <= i if part == "metrics" else name.startswith(f"{256 * i:012d}")


def check(path: Path, *damaged: str) -> None:
    """What must hold of the run of `good` in which these files are no longer what they were."""
    report = examine(path)
    said = [f.text for f in report.findings if f.kind == "damaged"]
    assert not report.sound() and all(any(file in text for text in said) for file in damaged), said
    assert all(any(file in text for file in damaged) for text in said), said
    if "run.json" in damaged:
        with pytest.raises(InputError, match=r"run\.json"):
            RunFolder(path)
        assert report.resume.startswith("resume refuses: run.json")
        return
    run = RunFolder(path)
    best = max((i for i in range(4) if not any(rests_on(i, file) for file in damaged)), default=None)
    found, back = run.latest(), restore(run)
    assert (found and found[0].name) == (None if best is None else f"{256 * best:012d}")
    assert back is None if best is None else back is not None and back[0] == found and (back[1]["w"] == best).all()
    assert ("beginning" if best is None else "finished at 768" if best == 3 else f"{256 * best:012d}") in report.resume
    for i, file in enumerate(FILES[6::2]):
        state = FILES[5 + 2 * i]
        try:
            manifest = read_manifest(path / Path(file).parent)
            assert manifest.sequences == 256 * i and file not in damaged
            arrays = load_state(run, manifest)
        except DamagedError as error:
            assert any(name in str(error) for name in damaged if name in (file, state)), error
        else:
            assert state not in damaged and np.array_equal(arrays["w"], np.full((2, 40), i, np.float32))
    newest = next((m for _, m in run.manifests()), None)
    lost = [name for name in damaged if newest and any(name == s.file.path for s in newest.segments)]
    if newest and not lost:
        assert_true(run, newest.sequences // 256 + 1)
    elif newest:
        with pytest.raises(DamagedError) as caught:
            run.arrays()
        assert any(str(caught.value).startswith(f"{name}: ") for name in lost)


def assert_true(run: RunFolder, rows: int) -> None:
    arrays, at = run.arrays(), 256 * np.arange(rows)
    assert arrays["sequences"].tolist() == at.tolist() and np.array_equal(arrays["train_loss"], [at] * 2)
    np.testing.assert_array_equal(run.metrics()["icl"], np.tile((at / 1000).astype(np.float32), (2, 1)))


def flip(path: Path, seed: int) -> str:
    """Flips one bit somewhere in the run; returns the file. Every file is as likely, be it small."""
    draw = random.Random(seed)
    file = draw.choice(FILES)
    data = bytearray((path / file).read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    (path / file).write_bytes(data)
    return file


def test_any_of_200_flipped_bits_is_noticed(good, copy):
    hit = set()
    for seed in range(200):
        file = flip(copy, seed)
        check(copy, file)
        shutil.copyfile(good / file, copy / file)
        hit.add(file)
    assert hit == set(FILES) and examine(copy).sound()
    assert_true(RunFolder(copy), 4)


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_short_anywhere_is_noticed(good, copy, file):
    data = (good / file).read_bytes()
    for length in (0, 1, 7, 8, len(data) // 2, len(data) - 1):
        (copy / file).write_bytes(data[:length])
        check(copy, file)


@pytest.mark.parametrize("file", FILES[1:])
def test_a_missing_file_is_noticed(copy, file):
    (copy / file).unlink()
    check(copy, file)


@pytest.mark.parametrize("pair", [(FILES[1], FILES[3]), (FILES[5], FILES[9]), (FILES[6], FILES[10])])
def test_two_files_that_changed_places_are_noticed(copy, pair):
    """Segments, states or manifests: all whole, of equal size, and of the same run."""
    one, other = ((copy / file).read_bytes() for file in pair)
    (copy / pair[0]).write_bytes(other)
    (copy / pair[1]).write_bytes(one)
    check(copy, *pair)


@pytest.mark.parametrize("name", ["000000001024", "000000000300", "999999999999"])
def test_a_checkpoint_under_another_number_is_none(good, copy, name):
    shutil.copytree(copy / "checkpoints/000000000512", copy / "checkpoints" / name)
    with pytest.raises(DamagedError, match=f"{name}/manifest.json: is that of checkpoint 512"):
        read_manifest(copy / "checkpoints" / name)
    report = examine(copy)
    said = next(f.text for f in report.findings if f.kind == "damaged")
    assert said.startswith(f"checkpoints/{name}/manifest.json")
    assert RunFolder(copy).latest() == RunFolder(good).latest() or RunFolder(copy).sequences() == 768
    assert_true(RunFolder(copy), 4)


def test_a_reader_that_believes_the_bytes_is_caught(good, copy, monkeypatch):
    """These tests can fail: without the comparison of hashes they do."""
    monkeypatch.setattr(reading, "_compare", lambda record, digest: None)
    for seed in range(200):
        file = flip(copy, seed)
        if file.endswith(".safetensors"):
            with pytest.raises((AssertionError, pytest.fail.Exception)):
                check(copy, file)
            break
        shutil.copyfile(good / file, copy / file)


def test_a_reader_that_takes_any_manifest_is_caught(copy, monkeypatch):
    read = records.read_manifest
    monkeypatch.setattr(records, "checkpoint_name", lambda sequences: "000000000000")
    monkeypatch.setattr(records, "_check_file", lambda *arguments: None)
    (copy / FILES[8]).write_bytes((copy / FILES[6]).read_bytes())
    (copy / FILES[7]).write_bytes((copy / FILES[5]).read_bytes())
    assert read is records.read_manifest
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(copy, FILES[7], FILES[8])
