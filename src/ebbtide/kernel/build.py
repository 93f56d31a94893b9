"""Building the compiled kernel with the system's C++ compiler, once per source, compiler and processor."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import Interrupted
from ebbtide.kernel.library import BuildError, folder, keep, load, open_library, private_folder, tidy
from ebbtide.machine import instruction_sets, processor
from ebbtide.runs.atomic import TEMPORARY

HERE = Path(__file__).parent
SOURCES = ("vectors.h", "layers.h", "model.h", "ffi.cpp")
LIBRARY = "ffi.cpp"
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-w", "-fPIC", "-shared")
COMPILERS = ("c++", "g++", "clang++")
PATIENCE = 300
"""Seconds after which a compiler is stopped."""
POLL = 0.1
"""Seconds between two checks for a stop request."""
ENDING = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL}
"""Signals by which a user, or a system short of memory, ends a process: no fault of the compiler."""


class EndedError(BuildError):
    """The compiler was killed from outside, which does not show whether the kernel can be built here."""


class Compiler(NamedTuple):
    """A C++ compiler: its command line, and the first line of its version."""

    words: tuple[str, ...]
    version: str

    def flags(self) -> tuple[str, ...]:
        """Flags for this processor's instruction sets."""
        return (*FLAGS, "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native")


def find_compiler() -> Compiler:
    """$CXX, or the first installed one of c++, g++ and clang++. Raises `BuildError` when there is none."""
    chosen = os.environ.get("CXX", "").strip()
    for name in [chosen] if chosen else COMPILERS:
        try:
            words = shlex.split(name)
        except ValueError as error:
            raise BuildError(f"CXX = {name!r} is not a command: {error}") from error
        if not words or shutil.which(words[0]) is None:
            continue
        return Compiler(tuple(words), _version(tuple(words)))
    raise BuildError(f"no C++ compiler ({chosen or ', '.join(COMPILERS)}) is on the path")


@lru_cache
def _version(words: tuple[str, ...]) -> str:
    return _call([*words, "--version"]).text.strip().partition("\n")[0]


class _CompilerResult(NamedTuple):
    """Exit status and output of a compiler."""

    code: int
    text: str


def _call(command: Sequence[str], stop: Callable[[], bool] = lambda: False) -> _CompilerResult:
    """The result of running a compiler in a session of its own: Ctrl-C in a terminal reaches this process, which ends
    the compiler and its children once `stop` returns true. Raises `Interrupted` then, and `BuildError` when the
    compiler cannot be started or takes too long."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise BuildError(f"{command[0]} cannot be called: {error}") from error
    began = time.monotonic()
    with process:
        try:
            while True:
                try:
                    text, _ = process.communicate(timeout=POLL)
                    return _CompilerResult(process.returncode, text)
                except subprocess.TimeoutExpired:
                    if stop():
                        raise Interrupted from None
                    if time.monotonic() - began > PATIENCE:
                        raise BuildError(f"{command[0]} took more than {PATIENCE} seconds") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def key(compiler: Compiler) -> str:
    """A hash, 16 hexadecimal digits, of everything on which the library's bits depend: sources, compiler, flags,
    processor, and the version of jaxlib (whose headers it is built with)."""
    found = hashlib.sha256()
    for name in SOURCES:
        found.update((HERE / name).read_bytes())
    machine = (platform.system(), platform.machine(), processor(), version("jaxlib"))
    found.update("\n".join((*compiler.words, compiler.version, *compiler.flags(), *machine)).encode())
    return found.hexdigest()[:16]


def library(compiler: Compiler) -> Path:
    """The path of the library, built or not: named by its key and the processor's instruction sets."""
    return folder() / f"kernel-{key(compiler)}{instruction_sets() and '-'}{instruction_sets()}.so"


def build(compiler: Compiler, stop: Callable[[], bool] = lambda: False) -> Path:
    """Compiles the library into the user's cache, completely or not at all, and loads it as a test; returns its path.
    Raises `BuildError` when that fails, and `Interrupted` once `stop` returns true."""
    import jax

    target = library(compiler)
    try:
        with tempfile.TemporaryDirectory(dir=private_folder(), prefix=TEMPORARY, ignore_cleanup_errors=True) as place:
            output = Path(place) / target.name
            command = [*compiler.words, *compiler.flags(), "-I", jax.ffi.include_dir()]
            result = _call([*command, "-o", str(output), str(HERE / LIBRARY)], stop)
            if result.code != 0 or not output.exists():
                _tell(compiler.words[0], result)
            open_library(output)
            keep(output, target)
    except OSError as error:
        raise BuildError(f"the kernel could not be built: {error}") from error
    return target


def _tell(name: str, result: _CompilerResult) -> None:
    """Raises the `BuildError` that says why this compiler produced no library."""
    ended = {one.name for one in ENDING if one == -result.code}
    ended |= {
        one.name for one in ENDING if re.search(rf"{signal.strsignal(one)} signal terminated program", result.text)
    }
    if ended:
        raise EndedError(f"the compiler {name} was ended by {ended.pop()} (the system may be out of memory)")
    lines = result.text.splitlines() or [f"code {result.code}"]
    first = next((line for line in lines if "error" in line), lines[0])
    raise BuildError(f"{name} failed: {first[:200]}")


def ready(say: Callable[[str], None] = lambda text: None, stop: Callable[[], bool] = lambda: False) -> Path:
    """The path of the library, built now unless an intact one exists; reports that it builds. Raises `BuildError`, and
    `Interrupted` once `stop` returns true."""
    path = library(compiler := find_compiler())
    tidy()
    try:
        load(path)
        return path
    except BuildError:
        pass  # not there, damaged, or not this user's: make it again
    say("building the compiled kernel (once for this machine, some seconds)")
    return build(compiler, stop)


def short_name(path: Path) -> str:
    """The first half of the library's key: enough to distinguish two libraries."""
    return path.stem.removeprefix("kernel-")[:8]
