"""Builds the compiled kernel with the system's compiler, once for every source, compiler and processor."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ebbtide.machine import cache_folder, processor

HERE = Path(__file__).parent
SOURCES = ("vectors.h", "layers.h", "model.h", "ffi.cpp")
LIBRARY = "ffi.cpp"
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-w", "-fPIC", "-shared")
COMPILERS = ("c++", "g++", "clang++")
SYMBOLS = ("EbbtideGradients", "EbbtideStep")
PATIENCE = 300
"""Seconds after which a compiler is given up."""


class BuildError(RuntimeError):
    """The kernel cannot be built or loaded here; one line says why."""


class Compiler(NamedTuple):
    """A C++ compiler: the words that call it, and the first line of its version."""

    words: tuple[str, ...]
    version: str

    def flags(self) -> tuple[str, ...]:
        """Of this processor: what it has beyond the least of its kind."""
        return (*FLAGS, "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native")


def find_compiler() -> Compiler:
    """$CXX, or the first of c++, g++ and clang++ that is there. Raises `BuildError` when none is."""
    asked = os.environ.get("CXX", "").strip()
    for name in [asked] if asked else COMPILERS:
        words = shlex.split(name)
        if shutil.which(words[0]) is None:
            continue
        return Compiler(tuple(words), _version(tuple(words)))
    raise BuildError(f"no C++ compiler ({asked or ', '.join(COMPILERS)}) is on the path")


@lru_cache
def _version(words: tuple[str, ...]) -> str:
    try:
        said = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{words[0]} cannot be called: {error}") from error
    return (said.stdout or said.stderr).strip().partition("\n")[0]


def key(compiler: Compiler) -> str:
    """What the library's bits depend on, as 16 hexadecimal digits: sources, compiler, flags, processor, version of
    jaxlib (whose headers it is built with)."""
    found = hashlib.sha256()
    for name in SOURCES:
        found.update((HERE / name).read_bytes())
    machine = (platform.system(), platform.machine(), processor(), version("jaxlib"))
    found.update("\n".join((*compiler.words, compiler.version, *compiler.flags(), *machine)).encode())
    return found.hexdigest()[:16]


def library(compiler: Compiler) -> Path:
    """Where the library is, or will be."""
    return cache_folder() / f"kernel-{key(compiler)}.so"


def build(compiler: Compiler) -> Path:
    """Compiles the library into the user's cache, complete or not at all, and tries to load it. Raises `BuildError`."""
    import jax

    target = library(compiler)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="kernel-") as folder:
            made = Path(folder) / target.name
            command = [*compiler.words, *compiler.flags(), "-I", jax.ffi.include_dir()]
            command += ["-o", str(made), str(HERE / LIBRARY)]
            said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            if said.returncode != 0 or not made.exists():
                lines = said.stderr.splitlines() or [f"code {said.returncode}"]
                first = next((line for line in lines if "error" in line), lines[0])
                raise BuildError(f"{compiler.words[0]} failed: {first[:200]}")
            load(made)
            made.replace(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the kernel could not be built: {error}") from error
    return target


def load(path: Path) -> ctypes.CDLL:
    """The library. Raises `BuildError` when it cannot be loaded, or is another one."""
    try:
        loaded = ctypes.CDLL(str(path))
        for symbol in SYMBOLS:
            getattr(loaded, symbol)
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from error
    return loaded


def ready(say: Callable[[str], None] = lambda text: None) -> Path:
    """The library, built now unless it is there and loads; says so before it builds. Raises `BuildError`."""
    compiler = find_compiler()
    path = library(compiler)
    if path.exists():
        try:
            load(path)
            return path
        except BuildError:
            pass  # damaged: make it again
    say("building the compiled kernel (once for this machine, some seconds)")
    return build(compiler)


def short_name(path: Path) -> str:
    """The first half of the library's key: enough to tell two apart."""
    return path.stem.removeprefix("kernel-")[:8]
