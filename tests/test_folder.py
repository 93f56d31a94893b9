"""Reading a run folder: what is committed, what is damaged, what is none of a reader's business."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.runs.folder import RunFolder, UnreadableRun, list_runs
from ebbtide.runs.records import Header, read_manifest
from ebbtide.runs.signed import SCHEMA, DamagedError, sign, unsign
from ebbtide.runs.writer import Writer
from tiny import SPEC, evaluations, final_state, header, write_run

NEWEST, OLDER = "checkpoints/000000000512", "checkpoints/000000000256"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Three kept checkpoints, at 0, 256 and 512, with one evaluation each."""
    head = header()
    writer = Writer(tmp_path / "run", head)
    for i in range(3):
        curves = {"icl": np.full((2, 1), 0.5 + i / 10), "iwl": np.full((2, 1), i / 10)}
        rows = evaluations(head, curves, np.full((2, 1), 4.0 - i), np.array([256 * i]))
        state = {"w": np.full((2, 3), i, np.float32), "step": np.full(2, 16 * i, np.uint32)}
        writer.commit(sequences=256 * i, state=state, evaluations=rows, kept=True, finished=False, seconds=float(i))
    writer.close()
    return RunFolder(tmp_path / "run")


def change(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    elif how == "truncate":
        del data[len(data) // 2 :]
    elif how == "grow":
        data += b"\0"
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["flip", "truncate", "grow", "delete"])
@pytest.mark.parametrize(
    "name", [f"{NEWEST}/state.safetensors", f"{NEWEST}/manifest.json", "metrics/000002-000002.safetensors"]
)
def test_a_damaged_newest_checkpoint_is_passed_over(run, name, how):
    manifest = read_manifest(run.path / NEWEST)
    change(run.path / name, how)
    found = run.latest()
    assert found is not None and found[0] == run.path / OLDER and found[1].sequences == 256
    assert (final_state(run)["w"] == 1).all()
    with pytest.raises(DamagedError) as caught:
        read_manifest(run.path / NEWEST)
        run.verify(manifest)
    assert Path(name).name in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_whole_manifest_of_another_spec_is_passed_over(run):
    """Its own hash is right: only the digest tells that it belongs elsewhere."""
    body = msgspec.structs.replace(read_manifest(run.path / NEWEST), digest="0" * 64)
    (run.path / NEWEST / "manifest.json").write_bytes(sign(body))
    assert read_manifest(run.path / NEWEST) == body
    found = run.latest()
    assert found is not None and found[1].sequences == 256
    with pytest.raises(DamagedError, match="another spec"):
        run.verify(body)


def test_a_manifest_edited_without_its_hash_is_damaged(run):
    path = run.path / NEWEST / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"sequences":512', b'"sequences":513'))
    with pytest.raises(DamagedError, match=r"000000000512/manifest.json: content differs from its own SHA-256"):
        read_manifest(path.parent)


def test_latest_is_none_when_nothing_verifies(run):
    change(run.path / "metrics/000000-000000.safetensors", "flip")  # every checkpoint rests on this one
    assert run.latest() is None
    with pytest.raises(DamagedError, match=r"metrics/000000-000000\.safetensors: content differs"):
        run.metrics()


def test_readers_ignore_temporaries_and_segments_nobody_committed(run):
    before = run.metrics()
    (run.path / "checkpoints/.tmp-000000000768").mkdir()
    (run.path / "checkpoints/.tmp-000000000768/manifest.json").write_text("{")
    (run.path / "metrics/.tmp-000003-000003.safetensors").write_bytes(b"half")
    (run.path / "metrics/000003-000003.safetensors").write_bytes(b"whole but in no manifest")
    again = RunFolder(run.path)
    assert again.sequences() == 512
    after = again.metrics()
    assert before.keys() == after.keys() and all(np.array_equal(before[k], after[k]) for k in before)


def test_curves_are_named_by_evaluator_and_metric(run):
    curves = run.metrics()
    assert curves["sequences"].tolist() == [0, 256, 512] and curves["steps"].tolist() == [0, 16, 32]
    assert curves["train_loss"].tolist() == [[4, 3, 2]] * 2
    np.testing.assert_allclose(curves["icl"], [[0.5, 0.6, 0.7]] * 2, rtol=1e-6)
    assert (curves["icl"] == curves["icl/in_context_accuracy"]).all() and (
        curves["iwl"] == curves["iwl/accuracy"]
    ).all()
    np.testing.assert_allclose(curves["icl/error"], curves["icl"] / 10, rtol=1e-6)
    np.testing.assert_allclose(curves["iwl/context_mass"], curves["iwl"] / 100 + 4, rtol=1e-6)
    assert run.chance() == {"icl": 0.5, "iwl": 1 / 66}


def test_status_is_derived(run, tmp_path):
    assert run.status() == "interrupted"
    complete = write_run(tmp_path / "done", {"icl": [[0.5, 0.6]]}, [[1, 1]])
    assert complete.status() == "complete"
    writer = Writer(run.path, run.header)
    assert run.status() == "running"
    writer.close()
    assert run.status() == "interrupted"


def test_a_run_without_a_commit_has_no_curves(tmp_path):
    Writer(tmp_path / "run", header()).close()
    run = RunFolder(tmp_path / "run")
    assert run.latest() is None and run.sequences() == 0 and run.status() == "interrupted"
    with pytest.raises(InputError, match="no committed evaluation yet"):
        run.metrics()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("{}", "damaged"),
        ('{"schema": "1"}', "damaged"),
        ('{"schema": 2, "digest": 3}', "damaged"),
        ('{"body": {"schema": 3}, "sha256": "0"}', "damaged: content differs from its own SHA-256"),
        (sign({"schema": 2, "digest": 3}).decode(), "damaged"),
        (sign({"schema": 3, "from": "the future"}).decode(), "has schema 3; this version reads schema 2"),
        ('{"body": {"schema": 3}, "blake4": "of the future"}', "has schema 3; this version reads schema 2"),
        ('{"schema": 3, "from": "the future"}', "has schema 3; this version reads schema 2"),
        ('{"schema": 1, "digest": "0", "spec": {}}', "has schema 1: made by an earlier ebbtide"),
        (None, "not a run folder"),
    ],
)
def test_a_header_that_cannot_be_read_is_told_in_one_line(tmp_path, one_line, text, says):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path)
    one_line(caught, "run", str(tmp_path))
    assert says in str(caught.value)


def test_an_unknown_field_of_the_header_is_refused(run):
    data = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_bytes(sign(data["body"] | {"extra": 1}))
    with pytest.raises(InputError, match="extra"):
        RunFolder(run.path)


@pytest.mark.parametrize("schema", [1, 3])
def test_a_checkpoint_of_another_version_is_refused_and_not_passed_over(run, schema):
    """Passed over, a resume would move a newer version's work aside."""
    body = json.loads((run.path / NEWEST / "manifest.json").read_text())["body"] | {"schema": schema}
    (run.path / NEWEST / "manifest.json").write_bytes(sign(body))
    with pytest.raises(InputError, match=f"{NEWEST}/manifest.json has schema {schema}"):
        run.latest()
    with pytest.raises(InputError, match=f"has schema {schema}"):
        Writer(run.path, run.header)
    Writer(run.path.with_name("other"), run.header).close()


def test_run_json_may_be_laid_out_anew_but_nothing_in_it_changed(run):
    path = run.path / "run.json"
    data = path.read_bytes()
    path.write_bytes(msgspec.json.format(data, indent=4))
    assert RunFolder(run.path).header == run.header and run.header.schema == SCHEMA
    for i in range(len(data)):
        for bit in range(8):
            with pytest.raises((DamagedError, InputError), match=r"run\.json"):
                unsign(data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :], Header, "run", "run.json")


def test_a_rolling_checkpoint_dropped_while_we_look_is_no_damage(run, monkeypatch):
    """Between the list of names and the reading, the writer commits 1024 and drops the three before."""
    from ebbtide.runs import folder

    writer, names = Writer(run.path, run.header), folder.checkpoint_names
    seen = []

    def stale(path: Path) -> list[str]:
        found = names(path)
        seen.append(found)
        if len(seen) == 1:
            for name in found:
                (run.path / "checkpoints" / name).rename(run.path / name)
            state = {"w": np.zeros((2, 3), np.float32)}
            with monkeypatch.context() as patch:
                patch.setattr(folder, "checkpoint_names", names)
                writer.commit(sequences=1024, state=state, evaluations=None, kept=True, finished=True, seconds=9.0)
        return found

    monkeypatch.setattr(folder, "checkpoint_names", stale)
    assert run.status() == "complete" and len(seen) == 2
    writer.close()


def test_the_catalogue_lists_run_folders_only(tmp_path):
    for name in ("b", "a"):
        write_run(tmp_path / name, {"icl": [[0.5, 0.6]]}, [[1, 1]])
    write_run(tmp_path / ".tmp-c", {"icl": [[0.5, 0.6]]}, [[1, 1]])
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("x")
    assert [run.path.name for run in list_runs(tmp_path)] == ["a", "b"]
    assert list_runs(tmp_path / "nowhere") == []
    change(tmp_path / "a/run.json", "flip")
    damaged, run = list_runs(tmp_path)
    assert isinstance(damaged, UnreadableRun) and damaged.path.name == "a" and "run.json is damaged" in damaged.reason
    assert isinstance(run, RunFolder) and run.path.name == "b"


def test_the_folder_holds_data_only(run):
    assert {p.suffix for p in run.path.rglob("*") if p.is_file()} == {"", ".json", ".safetensors"}
    assert json.loads((run.path / "run.json").read_text())["body"]["digest"] == SPEC.digest()
