"""Standard output that takes no more, or not every character, and an environment that would change the numbers."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from ebbtide.errors import InputError
from ebbtide.machine import SETTINGS, forget_settings
from ebbtide.standard_output import StandardOutput
from ebbtide.training.team import InProcessWorker, SubprocessWorker
from tiny import write_run

PROGRAM = [sys.executable, "-m", "ebbtide.cli"]


@pytest.fixture
def run(tmp_path) -> Path:
    curve = [[0.5, 0.9, 0.5]] * 2
    curves = {"icl": curve, "iwl": [[0.0, 0.5, 0.9]] * 2, "ciwl": curve}
    return write_run(tmp_path / "run", curves, curve).path


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_printed_is_dropped_and_remembered():
    output = StandardOutput(Full())
    assert output.write("a line") == 6 and output.write("another") == 7
    output.flush()
    assert output.failure is not None and output.failure.errno == errno.ENOSPC


def test_a_reader_that_has_gone_does_not_end_the_work(run):
    """`ebbtide run ... | head -1`: the verdict is written all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "resume", str(run)], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "verdict.json").is_file() and (run / "figure.png").is_file()


def test_a_full_disk_under_standard_output_is_one_line_and_exit_code_2(run, tmp_path):
    no_room = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
    with (tmp_path / "printed").open("wb") as file:
        words = [*no_room, *PROGRAM, "show", str(run)]
        done = subprocess.run(words, stdout=file, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "ebbtide: standard output: File too large\n")


def test_an_encoding_of_few_characters_is_enough(run):
    """Tables have lines, texts have dashes: what the encoding lacks is escaped."""
    moved = run.rename(run.with_name("rün-–"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*PROGRAM, "show", str(moved)], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"") and b"r\\xfcn" in done.stdout


def test_workers_do_not_see_what_would_change_their_numbers(monkeypatch):
    seen: list[dict[str, str]] = []

    class Popen:
        def __init__(self, words: list[str], *, env: dict[str, str], **options: Any):
            seen.append(env)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(SubprocessWorker, "_listen", lambda self: None)
    for name in SETTINGS:
        monkeypatch.setenv(name, "1")
    SubprocessWorker()._errors.close()
    assert "JAX_ENABLE_X64" in SETTINGS and not set(SETTINGS) & set(seen[0]) and seen[0]["NPROC"] == "1"
    environment = {"JAX_ENABLE_X64": "1", "HOME": "/h"}
    forget_settings(environment)
    assert environment == {"HOME": "/h"}


def test_the_command_line_computes_in_32_bits_whatever_the_environment_says():
    text = "import sys; sys.argv = ['ebbtide', 'ls']; from ebbtide.cli import main; main(); import jax; "
    text += "print(jax.config.jax_enable_x64)"
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == "False"


def test_members_are_not_trained_in_a_process_of_64_bits():
    """There it is the caller's own choice: it is refused in one line."""
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(InputError, match=r"^jax_enable_x64 = True: must be False"):
            InProcessWorker().send(
                {"do": "start", "spec": {"sequences": 16, "batch": 16}, "code": [], "members": [0], "kernel": None}
            )
    finally:
        jax.config.update("jax_enable_x64", False)
