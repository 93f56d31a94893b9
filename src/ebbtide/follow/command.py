"""A command of the user's that is told events, one JSON line each on its standard input."""

import shlex
import shutil
import subprocess
from typing import Any

import msgspec

from ebbtide.errors import InputError, one_line, require

SECONDS = 60.0
"""How long a command may take before it is ended."""


def parse_command(text: str) -> list[str]:
    """The program and its arguments, divided as a shell divides them and never given to one."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError("alert", text, f"is no command: {error}") from error
    require(bool(words), "alert", text, "is no command")
    require(shutil.which(words[0]) is not None, "alert", text, f"no program {words[0]!r} is found")
    return words


def call_command(words: list[str], record: dict[str, Any]) -> str:
    """Runs the command with the record as a line on its standard input; the reason why it failed, or an empty
    string."""
    try:
        line = msgspec.json.encode(record) + b"\n"
        done = subprocess.run(
            words, input=line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {SECONDS:g} seconds and was ended"
    except OSError as error:
        return one_line(str(error.strerror))
    return f"ended with exit code {done.returncode}" if done.returncode else ""
