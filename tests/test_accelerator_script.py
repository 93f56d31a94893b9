"""The script that measures accelerators, tried with tiny sizes on the CPU, which is made to look like four devices. How
long anything takes is not looked at."""

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ebbtide.training.worker import ENVIRONMENT
from effort import THOROUGH

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ALL = ["machine", "loop-2L-shared", "whole", "verify", "bits", "plain-jax", "plain-torch"]
CHOSEN = ALL if THOROUGH else ["machine", "loop-2L-shared", "verify", "plain-torch"]
DEVICES = f"--xla_force_host_platform_device_count=4 {ENVIRONMENT['XLA_FLAGS']}"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The module of the script."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("accelerator")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[str, dict[str, Any]]:
    """What a call of the script printed, and its data."""
    folder = tmp_path_factory.mktemp("accelerator")
    more = {"PYTHON": sys.executable, "XLA_FLAGS": DEVICES, "NPROC": "8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    words = ["sh", str(BENCHMARKS / "accelerator.sh"), "results", "--small", "--seconds", "800", "--only", *CHOSEN]
    environment = {**os.environ, **ENVIRONMENT, **more}
    call = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    data = (folder / "results" / "accelerator.json").read_text()
    assert call.returncode == 0 and call.stderr == "", (call.stderr, data)
    assert {path.name for path in (folder / "results").iterdir()} == {"accelerator.json", "accelerator-table.txt"}
    assert call.stdout.endswith((folder / "results" / "accelerator-table.txt").read_text())
    return call.stdout, json.loads(data)


def rows_of(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return next(section["rows"] for section in data["sections"] if section["section"] == name)


def test_every_section_says_how_it_ended(done, script):
    data = done[1]
    assert data["small"] and [one["section"] for one in data["sections"]] == CHOSEN
    *measured, torch = data["sections"]
    assert {one["status"] for one in measured} == {script.DONE}
    if find_spec("torch") is None:
        assert (torch["status"], torch["reason"], torch["rows"]) == (script.SKIPPED, "torch is not installed", [])
    for one in measured:
        assert one["rows"] and all({"what", "value"} <= set(row) <= set(script.COLUMNS) for row in one["rows"])


def test_the_table_is_printed_last_and_has_every_row(done, script):
    text, data = done
    table = script.table_of([script.Result(**one) for one in data["sections"]])
    assert text.endswith(f"\n\n{table}\n")
    heading, line, *rows = table.splitlines()
    assert heading.split(" | ")[0].strip("| ") == "section" and set(line) == {"|", "-"}
    assert len({len(one) for one in table.splitlines()}) == 1
    assert all(f"| {name} " in "\n".join(rows) for name in CHOSEN)
    assert "skipped: they are no smaller with --small" in table


def test_the_machine_says_what_it_is_and_can(done):
    found = {row["what"]: row for row in rows_of(done[1], "machine")}
    assert found["device"]["value"] == "cpu" and found["device"]["devices"] == 4
    assert "jaxlib" in found["versions"]["value"] and "Python" in found["versions"]["value"]
    assert {"TFLOP/s", "TB/s", "us"} <= {row.get("unit") for row in found.values()}


def test_members_are_trained_on_one_device_and_on_all(done):
    found = [(row["members"], row["devices"]) for row in rows_of(done[1], "loop-2L-shared")]
    assert found == [(1, 1), (4, 4)]
    for row in rows_of(done[1], "loop-2L-shared"):
        assert row["value"] > 0 and row["unit"] == "sequences/s" and row["compile_seconds"] >= 0


@pytest.mark.thorough
def test_a_whole_run_is_compared_with_its_loop(done):
    found = {row["what"]: row for row in rows_of(done[1], "whole")}
    assert {"making all members", "evaluating all members", "fetching all members", "start to first steps"} <= set(
        found
    )
    (ratio,) = (row for row in found.values() if row["unit"] == "of the loop's pace")
    assert ratio["value"] > 0 and rows_of(done[1], "plain-jax")[0]["unit"] == "sequences/s"


@pytest.mark.thorough
def test_runs_repeat_bit_for_bit(done):
    found = {row["what"]: row["value"] for row in rows_of(done[1], "bits")}
    assert found == {"two runs in two processes": True, "a run that was stopped, and one that was not": True}


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def test_a_section_that_fails_or_hangs_takes_no_other_with_it(script, tmp_path, capsys):
    row = 'import sys; open(sys.argv[2], \'w\').write(\'{"what": "it", "value": 1234.5}\\n\')'
    sections = [
        script.Section("broken", 60, 0, command=python(f"{row}; print('before'); sys.exit('it is broken')")),
        script.Section("hangs", 1, 0, command=python("import time; time.sleep(1000)")),
        script.Section("long", 1e6, 1e6, command=python(row)),
        script.Section("absent", 60, 0, package="no_such_package", command=python(row)),
        script.Section("good", 60, 0, command=python(row)),
    ]
    results = script.run_sections(sections, tmp_path / "new", 300.0)
    assert [one.status for one in results] == ["failed", "out of time", "skipped", "skipped", "done"]
    assert [len(one.rows) for one in results] == [1, 0, 0, 0, 1]
    assert results[0].reason == "it is broken" and results[0].output == "before\nit is broken"
    assert results[1].reason == "stopped after 1 s"
    assert results[2].reason.endswith("s are left, it needs 1000000")
    assert json.loads((tmp_path / "new" / "accelerator.json").read_text())["sections"][4]["status"] == "done"
    table = script.table_of(results)
    assert "failed: it is broken" in table and "skipped: no_such_package is not installed" in table
    assert table.count("1,234") == 2 and capsys.readouterr().out.count("\n") == 5


def test_a_python_that_lacks_something_is_told_in_one_line(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "NEEDED", ("jax", "no_such_package"))
    monkeypatch.setattr(sys, "argv", ["accelerator.py"])
    assert script.main() == 2
    assert capsys.readouterr().err == f"accelerator.sh: {sys.executable} lacks no_such_package\n"


@pytest.fixture
def loop(monkeypatch) -> Any:
    """The module of the loop, which trains nothing: more than 64 members do not fit, 16 fail."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module: Any = importlib.import_module("accelerator_loop")

    def pace(spec: Any, devices: int, seconds: float) -> dict[str, Any]:
        if spec.members > 64:
            raise MemoryError
        if spec.members == 16:
            raise ValueError("one line\nand another")
        return {"value": 1.0}

    monkeypatch.setattr(module, "pace", pace)
    return module


def measured(loop: Any, file: Path, seconds: float) -> tuple[list[dict[str, Any]], int]:
    """The rows of a configuration of the loop, and how many measurements failed."""
    report = importlib.import_module("accelerator_sections").Report(file, seconds, small=False)
    loop.measure_loop(report, "2L-shared")
    return [json.loads(line) for line in file.read_text().splitlines()], report.failures


def test_more_members_than_do_not_fit_are_not_tried_and_one_that_fails_is_not_the_last(loop, tmp_path):
    rows, failures = measured(loop, tmp_path / "rows", 1e6)
    found = {row["members"]: row["value"] for row in rows}
    assert list(found) == [64, 256, 1, 16] and found[64] == found[1] == 1.0
    assert found[256] == "does not fit into memory; more members were not tried"
    assert found[16] == "failed: ValueError: one line and another" and failures == 1


def test_what_does_not_fit_into_the_time_is_listed(loop, tmp_path):
    rows, _ = measured(loop, tmp_path / "rows", -1.0)
    assert {row["value"] for row in rows} == {"skipped: no time left"}
    assert {row["members"] for row in rows} == set(loop.COUNTS)
