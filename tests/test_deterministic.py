"""`--deterministic`: a promise of equal bytes, kept by workers of one thread, and refused where it cannot be."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.identity import numeric_identity
from ebbtide.runs.signed import sign
from ebbtide.training import worker
from ebbtide.training.driver import train
from ebbtide.training.run import spec_of
from tiny import contents

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")

FIELDS = {
    "task.context": 2,
    "task.burst": 1,
    "source.classes": 64,
    "source.dim": 8,
    "source.holdout_classes": 8,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "batch": 16,
    "sequences": 512,
    "members": 2,
    "schedule.evaluations": 3,
    "schedule.checkpoints": 3,
    "evaluators": '["icl","iwl"]',
    "evaluation_sequences": 20,
}
RUN = ["run", "transience", *[word for name, value in FIELDS.items() for word in (f"--{name}", str(value))]]
LAST = "checkpoints/000000000512"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    """The tiny run, made on the command line by two workers."""
    out = tmp_path_factory.mktemp("two") / "run"
    assert main([*RUN, "--deterministic", "--processes", "2", "--out", str(out)]) == 0
    return RunFolder(out)


@pytest.fixture(scope="module")
def made_here(finished, tmp_path_factory) -> RunFolder:
    """The same in this process, on as many threads as there are."""
    return train(spec_of(finished), tmp_path_factory.mktemp("here") / "run", processes=0)


@pytest.fixture
def begun(finished, tmp_path) -> RunFolder:
    """The run without its last checkpoint: half done."""
    return half_done(finished, tmp_path / "begun")


def half_done(run: RunFolder, path: Path) -> RunFolder:
    shutil.copytree(run.path, path)
    shutil.rmtree(path / LAST)
    for name in ("verdict.json", "figure.png", "figure.svg"):
        (path / name).unlink(missing_ok=True)
    return RunFolder(path)


def computed(run: RunFolder) -> dict[str, bytes]:
    """The bytes of all metrics and states."""
    found = {name: data for name, data in contents(run.path, "aside").items() if name.endswith(".safetensors")}
    assert sum(name.startswith("metrics/") for name in found) == 3 and f"{LAST}/state.safetensors" in found
    return found


def repeatable(run: RunFolder) -> list[bool]:
    """What the checkpoints say of themselves, newest first."""
    return [manifest.repeatable for _, manifest in run.manifests()]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], *says: str) -> None:
    """The command has exit code 2 and one line that says all this."""
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and error.startswith("ebbtide: deterministic = True: "), error
    for words in says:
        assert words in error


def foreign(run: RunFolder, **changes: Any) -> RunFolder:
    """The run as if it had been begun under another identity."""
    (run.path / "run.json").write_bytes(sign(replace(run.header, identity=run.header.identity | changes)))
    return RunFolder(run.path)


def test_a_run_of_workers_is_labelled_repeatable(finished, capsys):
    assert finished.status() == "complete" and repeatable(finished) == [True] * 3
    assert finished.header.identity["deterministic"] is True
    assert main(["show", str(finished.path)]) == 0
    shown = capsys.readouterr().out
    assert "2 processes, 1 members side by side" in shown and "repeatable bit for bit" in shown
    assert "not repeatable" not in shown


def test_one_process_and_two_write_the_same_bytes(finished, tmp_path):
    one = train(spec_of(finished), tmp_path / "one", processes=1, deterministic=True)
    assert computed(one) == computed(finished) and repeatable(one) == [True] * 3


def test_a_bit_of_difference_would_have_been_noticed(finished, begun):
    """A test of the test above."""
    shutil.copytree(finished.path / LAST, begun.path / LAST)
    assert computed(begun) == computed(finished)
    path = begun.path / LAST / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert computed(begun) != computed(finished)


def test_continued_by_another_number_of_processes_it_stays_repeatable(finished, begun, capsys):
    assert begun.status() == "interrupted"
    assert main(["resume", str(begun.path), "--processes", "1", "--deterministic"]) == 0
    assert computed(begun) == computed(finished) and repeatable(begun) == [True] * 3


def test_this_process_is_refused_before_anything_is_written(tmp_path, capsys):
    refused([*RUN, "--deterministic", "--processes", "0", "--out", str(tmp_path / "run")], capsys, "--processes 1")
    assert not list(tmp_path.iterdir())


def test_a_graphics_processor_is_told_its_flag(finished, tmp_path, monkeypatch):
    said = {**worker.identity(), "platform": "gpu"}
    monkeypatch.setattr(worker, "identity", lambda: said)
    with pytest.raises(InputError, match="set XLA_FLAGS=--xla_gpu_deterministic_ops=true first"):
        train(spec_of(finished), tmp_path / "run", processes=0, deterministic=True)
    assert not list(tmp_path.iterdir())


def test_a_run_begun_elsewhere_is_refused_and_says_what_differs(begun, capsys):
    run = foreign(begun, jax="0.0.1", width=2)
    before = contents(run.path)
    command = ["resume", str(run.path), "--deterministic", "--processes", "1", "--width", "1"]
    refused(command, capsys, "this run was begun with jax 0.0.1 (here ", "width 2 (here 1)")
    assert contents(run.path) == before


@pytest.fixture
def alike(finished, monkeypatch) -> dict[str, Any]:
    """This process says that it is what the run's workers were; for tests of what is said alone."""
    said = {name: finished.header.identity[name] for name in worker.identity()}
    monkeypatch.setattr(worker, "identity", lambda: said)
    return said


def go_on(run: RunFolder) -> RunFolder:
    return train(spec_of(run), run.path, processes=0, deterministic=True)


@pytest.mark.parametrize("name", ["ebbtide", "jax", "jaxlib", "numpy", "optax", "processor", "device", "abacus"])
def test_whatever_bits_depend_on_may_not_differ(begun, alike, name):
    alike[name] = "another"
    with pytest.raises(InputError, match=rf"begun with {name} .* \(here another\)$"):
        go_on(begun)


def test_what_an_earlier_version_noted_and_this_one_does_not_may_not_differ_either(begun, alike):
    with pytest.raises(InputError, match=r"begun with abacus wood \(here None\)$"):
        go_on(foreign(begun, abacus="wood"))


def test_where_nothing_differs_nothing_is_refused(begun, alike):
    """A test of the two tests above."""
    assert repeatable(go_on(begun)) == [True] * 3


def test_a_run_begun_elsewhere_is_continued_without_the_promise(finished, begun, capsys):
    run = foreign(begun, jax="0.0.1")
    assert main(["resume", str(run.path), "--processes", "1"]) == 0
    assert run.status() == "complete" and repeatable(run) == [False, True, True]
    found = run.latest()
    assert found is not None and found[1].identity["jax"] == finished.header.identity["jax"]  # who wrote it
    assert main(["show", str(run.path)]) == 0
    assert "not repeatable bit for bit" in capsys.readouterr().out
    refused(["resume", str(run.path), "--deterministic"], capsys, "not repeatable")  # complete, but not so


def test_a_run_begun_on_more_devices_than_are_here_goes_on_with_those_that_are(begun, alike):
    run = foreign(begun, devices=64, width=64)
    assert train(spec_of(run), run.path, processes=None).status() == "complete"
    assert repeatable(run) == [False, True, True]
    found = run.latest()
    assert found is not None and found[1].identity["devices"] == 1


def test_a_run_begun_elsewhere_that_has_no_checkpoint_yet_is_refused_too(begun, alike):
    """Its run.json stays, so nothing made here could be repeatable under it."""
    shutil.rmtree(begun.path / "checkpoints")
    with pytest.raises(InputError, match=r"begun with jax 0.0.1 \(here "):
        go_on(foreign(begun, jax="0.0.1"))


def test_a_run_made_in_this_process_is_not_repeatable_nor_made_so(made_here, tmp_path, monkeypatch, capsys):
    assert repeatable(made_here) == [False] * 3
    refused(["resume", str(made_here.path), "--deterministic"], capsys, "this run was not repeatable")
    run, said = half_done(made_here, tmp_path / "run"), worker.identity() | {"deterministic": True}
    monkeypatch.setattr(worker, "identity", lambda: said)
    with pytest.raises(InputError, match="a part of this run was not repeatable"):
        go_on(run)


def test_what_bits_depend_on_is_not_how_many_processes_share_the_work():
    identity = {"jax": "1", "processes": 2, "width": 1, "devices": 1, "chosen": "measured", "members": 4}
    assert numeric_identity(identity) == {"jax": "1", "width": 1, "devices": 1, "members": 4, "kernel": "xla"}
