"""Ctrl-C and SIGTERM on the command line, outside of training: one line and exit code 130, wherever they arrive."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebbtide.cli import main
from ebbtide.errors import Interrupted
from ebbtide.interrupts import SIGNALS, STOPPED, ignore_stop_signals, leave_at_stop_signals, raise_on_stop_signals
from ebbtide.runs.atomic import TEMPORARY
from tiny import contents, write_run

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")

AT_IMPORT = """
import os, signal, sys

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {where!r}:
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Sender())
"""
AT_COLLECTION = """
import gc, os, signal, sys

def collected(phase, info):
    if "jax" in sys.modules:
        os.kill(os.getpid(), signal.SIGINT)

gc.callbacks.append(collected)
"""
"""What a callback of the garbage collector raises is printed and forgotten."""
HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A suite that a shell started in the background ignores SIGINT, and so would what it starts."""


def at_import(where: str, signal: str = "SIGINT") -> str:
    """A script that sends the process a signal when it imports a module."""
    return AT_IMPORT.format(where=where, signal=signal)


COMMAND = "import sys; sys.argv = ['ebbtide', *{words!r}]; from ebbtide.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    curve = [[0.5, 0.9, 0.5]] * 2
    curves = {"icl": curve, "iwl": [[0.0, 0.5, 0.9]] * 2}
    return write_run(tmp_path_factory.mktemp("runs") / "run", curves, curve).path


def interrupted(script: str, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    text = HEARS + script + COMMAND.format(words=words)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=cwd, timeout=300)


TRAIN = ["run", "transience", "--out", "new", "--processes", "0"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (at_import("ebbtide.runs.folder"), TRAIN),
        (at_import("jax._src.lax.lax"), TRAIN),
        (AT_COLLECTION, TRAIN),
        (AT_COLLECTION, ["run", "toy-laws", "--out", "new"]),
        (at_import("matplotlib.figure"), ["show", "RUN", "--figure", "f.png"]),
        (at_import("matplotlib.figure"), ["resume", "RUN"]),
        (at_import("ebbtide.pages.gather"), ["report", "RUN", "--out", "new.html"]),
        (at_import("ebbtide.pages.gather", "SIGTERM"), ["report", "RUN", "--out", "new.html"]),
    ],
    ids=["first import", "import of jax", "start", "computed", "figure", "verdict", "report", "SIGTERM"],
)
def test_a_stop_signal_at_any_moment_is_one_line_and_exit_code_130(run, tmp_path, script, words):
    before = contents(run)
    done = interrupted(script, [str(run) if word == "RUN" else word for word in words], tmp_path)
    assert (done.returncode, done.stderr) == (130, f"{STOPPED}\n")
    after = contents(run)
    assert before.items() <= after.items() and not [name for name in after if TEMPORARY in name]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stop_signal_after_the_work_is_done_changes_nothing(tmp_path, name):
    script = f"import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.{name}))\n"
    done = interrupted(script, ["ls"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it(tmp_path):
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + at_import("rich.console")
    assert interrupted(script, ["ls"], tmp_path).returncode == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
def test_called_from_python_a_command_is_interrupted_as_ever(monkeypatch, capsys, error):
    """It neither ends the process nor touches how signals are handled."""

    def command(options: object) -> int:
        raise error

    before = handlers()
    monkeypatch.setattr("ebbtide.cli.folders.ls", command)
    assert main(["ls"]) == 130 and capsys.readouterr().err == f"{STOPPED}\n"
    assert handlers() == before
    with raise_on_stop_signals():
        assert handlers() == before


def handlers() -> list[object]:
    """How this process handles the stop signals."""
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture
def restored() -> Iterator[None]:
    """Puts back how this process handles the stop signals."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_work_that_has_something_to_undo_is_told_by_an_exception(number, restored):
    leave_at_stop_signals()
    leaving = handlers()
    with pytest.raises(KeyboardInterrupt), raise_on_stop_signals():
        signal.raise_signal(number)
    assert handlers() == leaving and len(set(leaving)) == 1


def test_a_signal_that_is_ignored_stays_ignored(restored):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_at_stop_signals()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    with raise_on_stop_signals():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    ignore_stop_signals()
    assert handlers() == [signal.SIG_IGN, signal.SIG_IGN]
