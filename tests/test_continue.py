"""The command that a stopped run, sweep or experiment prints continues it, whatever its names hold."""

import shlex
from pathlib import Path

import pytest

from ebbtide.cli import main
from ebbtide.cli.parser import parser
from ebbtide.errors import Interrupted
from ebbtide.sweeps import driver as sweeps
from ebbtide.training import driver
from ebbtide.training.team import WorkerError
from sweep_tools import SWEEP

NAME = "my runs/a'b [x] $HOME"


def continuing(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words of the command after `Continue with:`, as a shell takes them."""
    return shlex.split(capsys.readouterr().out.partition("Continue with:\n")[2])


@pytest.fixture
def stops(monkeypatch, tmp_path):
    """Every training ends at once by this error."""

    def make(error: Exception) -> None:
        def stopped(*arguments, **options):
            raise error

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(driver, "train", stopped)
        monkeypatch.setattr(sweeps, "run_sweep", stopped)

    return make


def test_a_run(stops, capsys):
    stops(WorkerError("a worker was killed"))
    assert main(["run", "transience", "--out", NAME]) == 1
    assert continuing(capsys) == ["ebbtide", "resume", NAME]


def test_a_sweep(stops, capsys):
    stops(Interrupted())
    Path("my sweep.json").write_bytes(SWEEP.to_json())
    words = ["sweep", "my sweep.json", "--out", NAME, "--jobs", "2"]
    assert main(words) == 130
    assert continuing(capsys) == ["ebbtide", *words]


def test_an_experiment_of_a_file(stops, capsys):
    stops(Interrupted())
    words = ["run", str(Path(__file__).parents[1] / "examples/own_study.py"), "--experiment", "rates"]
    assert main(words) == 130
    assert continuing(capsys) == ["ebbtide", *words, "--preset", "quick"]


def test_an_experiment_and_its_fields(stops, capsys):
    stops(Interrupted())
    words = ["run", "transience", "--experiment", "burstiness", "--preset", "quick", "--out", NAME]
    fields = ["--schedule", '{"evaluations": 5}', "--seeds.data", "3"]
    assert main([*words, *fields]) == 130
    found = continuing(capsys)
    assert found == ["ebbtide", *words, *fields]
    assert parser().parse_known_args(found[1:])[0].out == NAME
