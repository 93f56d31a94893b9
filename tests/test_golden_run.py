"""A run folder made by the version that introduced its schema (see make_golden.py) is read for ever."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.report.figure import curves_figure
from ebbtide.report.tables import curves_table
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.fsck import examine
from ebbtide.runs.signed import SCHEMA, DamagedError, sign
from ebbtide.runs.writer import Writer, load_state
from ebbtide.studies.single_run import conclude_run
from ebbtide.terminal import Terminal
from ebbtide.training.driver import resume
from ebbtide.training.run import spec_of
from make_golden import GOLDEN, fingerprint
from tiny import contents, final_state

DIGEST = "ea491dd0774e6f5b7f7700c509dbcc1d89b6cc21d275b3eb9deca99d16198f73"
METRICS = "f8a389179a5fe3503a6f116c0f2672974217bc70d06eda0f3a169d5be6821fc6"
STATES = {
    640: "91326a75234892f859053712d6f1ee3f7a305c8940f3dcfd0198a2662bfa91d4",
    512: "e14aecfc21fd8145f36428919d9cd37f345091d2047144357485f2827c441d07",
    0: "67972327d03cc7995b3f1f038df52e8e0a9f3b8ffa71634bd8116c0779d1f5d5",
}
"""SHA-256 of what is recorded (see `fingerprint`), by sequences."""
KEPT = {0: True, 512: True, 640: False}
"""Sequences of the checkpoints, and whether they are kept."""
LAST = max(KEPT)


@pytest.fixture
def copy(tmp_path) -> RunFolder:
    """The run, to be written to."""
    return RunFolder(shutil.copytree(GOLDEN, tmp_path / "run"))


def test_it_is_small_and_holds_data_only():
    files = contents(GOLDEN)
    assert sum(map(len, files.values())) <= 100_000
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
    assert len(files) == 1 + 2 * len(KEPT) + 3 and not (GOLDEN / "lock").exists()


def test_its_header_and_spec_are_understood():
    run = RunFolder(GOLDEN)
    assert run.header.schema == SCHEMA and run.header.label == {"study": "transience"}
    spec = spec_of(run)  # its digest is computed anew
    assert run.header.digest == spec.digest() == DIGEST
    spec.check()
    assert (spec.members, spec.batch, spec.keep_best) == (2, 16, "iwl")
    assert spec.stopping is not None and spec.stopping.patience == 512
    assert run.chance() == {"icl": 0.5, "iwl": 1 / spec.outputs(), "ciwl": 0.5}
    assert run.header.identity["one_thread"] is True and run.header.identity["platform"] == "cpu"


def test_its_checkpoints_are_whole():
    run = RunFolder(GOLDEN)
    assert run.status() == "interrupted" and run.sequences() == LAST
    assert {m.sequences: m.kept for _, m in run.manifests()} == KEPT
    for _, manifest in run.manifests():
        run.verify(manifest)
        assert manifest.repeatable and not manifest.finished and manifest.seconds >= 0


def test_what_was_measured_is_read_to_the_byte():
    curves = RunFolder(GOLDEN).metrics()
    assert curves["sequences"].tolist() == list(range(0, LAST + 1, 128))
    assert curves["icl"].shape == (2, len(curves["sequences"])) and np.isfinite(curves["ciwl"]).all()
    assert fingerprint(RunFolder(GOLDEN).arrays()) == METRICS


def test_what_was_learned_is_read_to_the_byte():
    run = RunFolder(GOLDEN)
    assert {m.sequences: fingerprint(load_state(run, m)) for _, m in run.manifests()} == STATES
    best = run.best()
    assert best["stopped_at"].tolist() == [512, -1] and best["value"].tolist() == run.metrics()["iwl"].max(1).tolist()
    assert final_state(run)["step"].tolist() == [32, LAST // 16] and best["readout.w"].shape[0] == 2


def test_a_bit_of_difference_would_have_been_noticed(copy):
    """A test of the tests above."""
    arrays = copy.arrays()
    changed = arrays | {"train_loss": np.nextafter(arrays["train_loss"], np.float32(9))}
    assert fingerprint(arrays) == METRICS != fingerprint(changed)
    path = next(iter((copy.path / "metrics").iterdir()))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=path.name):
        copy.arrays()
    assert not examine(copy.path).sound()


def test_fsck_finds_it_sound(copy):
    report = examine(copy.path)
    assert report.sound() and {one.kind for one in report.findings} == {"ok"}
    assert report.resume == f"resume continues from checkpoints/{LAST:012d}: {LAST} of 1024 sequences"


def test_table_figure_and_verdict_can_be_drawn(copy):
    table = curves_table(copy)
    assert table.row_count == len(copy.arrays()["sequences"]) + 2
    Terminal(quiet=True).print(table)
    assert curves_figure(copy, "golden")["figure.png"].startswith(b"\x89PNG")
    verdict = conclude_run(TRANSIENCE, copy)
    assert verdict.digest == DIGEST and len(verdict.claims) == len(TRANSIENCE.experiments[0].claims)


def newer(body: Any) -> bytes:
    return sign(msgspec.to_builtins(body) | {"schema": SCHEMA + 1, "what_is_new": True})


@pytest.mark.parametrize("file", ["run.json", "manifest"])
def test_a_newer_schema_is_refused_in_one_line_and_nothing_is_touched(copy, one_line, file):
    found = copy.latest()
    assert found is not None
    path, body = (copy.path / file, copy.header) if file == "run.json" else (found[0] / "manifest.json", found[1])
    path.write_bytes(newer(body))
    before = contents(copy.path)
    with pytest.raises(InputError, match=f"has schema {SCHEMA + 1}; this version reads schema {SCHEMA}") as caught:
        resume(RunFolder(copy.path), processes=0)
    one_line(caught, "run", str(copy.path))
    assert contents(copy.path) == before


def test_a_writer_opens_it_and_goes_on(copy):
    before = contents(copy.path)
    writer = Writer(copy.path, copy.header)
    try:
        assert contents(copy.path) == before  # there is nothing to tidy
        assert writer.manifest is not None and writer.manifest.sequences == LAST and writer.rows == LAST // 128 + 1
        writer.commit(sequences=1024, state=final_state(copy), evaluations=None, kept=True, finished=True, seconds=1.0)
    finally:
        writer.close()
    assert copy.status() == "complete" and [m.sequences for _, m in copy.manifests()] == [1024, 512, 0]
    assert fingerprint(copy.arrays()) == METRICS


def test_it_is_trained_to_its_end(copy):
    """By whatever machine this is: its later bits may differ, its earlier ones are still there."""
    before = copy.arrays()
    done = resume(copy, processes=0)
    after = done.arrays()
    assert done.status() == "complete" and after["sequences"].tolist() == list(range(0, 1025, 128))
    rows = len(before["sequences"])
    assert after["values"][:, :rows].tobytes() == before["values"].tobytes()
    newest = next(m for _, m in done.manifests())
    assert done.best()["stopped_at"][0] == 512 and not newest.repeatable
