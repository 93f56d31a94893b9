"""Properties of this machine (processor, cores, memory), and the user's cache folder."""

import contextlib
import hashlib
import os
import platform
import pwd
import resource
import sys
import tempfile
from collections.abc import MutableMapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

VECTORS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "vaes", "gfni", "popcnt", "abm", "xop")
"""Prefixes of the x86 instruction sets that affect which arithmetic a compiler chooses. /proc/cpuinfo lists many more
flags, which change with the operating system."""

SETTINGS = (
    "JAX_ENABLE_X64",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
)
"""Environment variables that change the types or random streams of JAX. With them a spec would give other numbers under
the same identity, or an error."""


DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""The flag of XLA with which the operations of a GPU are repeatable to the bit."""
GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
"""Modules with which JAX computes on NVIDIA's GPUs."""


def forget_settings(environment: MutableMapping[str, str]) -> None:
    """Removes `SETTINGS` from an environment: ebbtide computes in 32 bits, with its own random streams."""
    for name in SETTINGS:
        environment.pop(name, None)


def set_deterministic(environment: MutableMapping[str, str]) -> None:
    """Sets XLA to repeatable operations on GPUs, where JAX has a plugin for them; before JAX is used first. Otherwise
    sums there depend on the order in which threads come to them."""
    if any(find_spec(name) for name in GPU_PLUGINS) and DETERMINISTIC not in environment.get("XLA_FLAGS", ""):
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()


@lru_cache
def processor() -> str:
    """The name of this machine's processor. Processors differ in vector width, and with it in the order of sums."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache
def instruction_sets() -> str:
    """A hash of the processor's instruction sets, 8 hexadecimal digits (empty where they are not known). Virtual
    machines with the same processor name may offer different instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            x86 = name.strip() == "flags"
            kept = sorted({word for word in words.split() if word.startswith(VECTORS) or not x86})
            return hashlib.sha256(" ".join(kept).encode()).hexdigest()[:8]
    return ""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(*, of_children: bool = False) -> int:
    """The peak memory of this process in bytes, or of the largest of its children that have ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes, but bytes on macOS


def cache_folder() -> Path:
    """The user's cache folder for ebbtide, an absolute path; it need not exist.

    $XDG_CACHE_HOME/ebbtide, or .cache/ebbtide in the home folder. Relative values are ignored, as the XDG standard
    demands: the working folder is not the user's cache. A user without a home folder gets a folder among the temporary
    files.
    """
    homes = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    for place in (Path(os.environ.get("XDG_CACHE_HOME", "")), *(Path(home) / ".cache" for home in homes)):
        if place.is_absolute():
            return place / "ebbtide"
    return Path(tempfile.gettempdir()).absolute() / f"ebbtide-{os.getuid()}"
