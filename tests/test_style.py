"""Style and types of the whole repository: what `make check` looks at, as tests that run beside the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from effort import THOROUGH
from source_tools import ROOT

BIN = Path(sys.executable).parent
CHECKS = {
    "style": ["ruff", "check", "--no-cache", "."],
    "format": ["ruff", "format", "--no-cache", "--check", "."],
    "types": ["pyright", "--pythonpath", sys.executable],
}
"""The commands of `make check`, by what they look at."""
PARTS = {"types": [] if THOROUGH else ["src"]}
"""The folders that a checker is given, by check; all that it is set up for where there are none. Types of tests and
benchmarks take as long again as those of the package: `make check` and `make thorough` look at them."""


def complaints(words: list[str], folder: Path) -> str:
    """What a checker says of a folder; nothing where it has nothing to say against it."""
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("check", CHECKS)
def test_the_repository_has_one_style_and_its_types_agree(check):
    assert complaints([*CHECKS[check], *PARTS.get(check, [])], ROOT) == ""


@pytest.mark.parametrize(("check", "text"), [("style", "import os\n"), ("format", "x = {'a':1}\n")])
def test_a_file_that_breaks_the_style_would_have_been_noticed(check, text, tmp_path):
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "one.py").write_text(text)
    assert "one.py" in complaints(CHECKS[check], tmp_path)


def test_a_type_that_is_wrong_would_have_been_noticed(tmp_path):
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    (tmp_path / "one.py").write_text("x: int = 'a'\n")
    assert "one.py" in complaints(CHECKS["types"], tmp_path)


def test_make_check_runs_the_same_checks():
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    for words in CHECKS.values():
        assert f"$(BIN)/{' '.join(word for word in words if word not in ('--no-cache', sys.executable))}" in recipe
