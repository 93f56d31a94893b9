"""This machine: its processor, its cores, and where what can be made again is kept for this user."""

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
from pathlib import Path

VECTORS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "vaes", "gfni", "popcnt", "abm", "xop")
"""How the names of x86 instruction sets begin that a compiler chooses arithmetic from. /proc/cpuinfo lists many more
words, which change with the operating system."""

SETTINGS = (
    "JAX_ENABLE_X64",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
)
"""Variables that change what types and random streams JAX computes with: with them a spec would give other numbers
under the same identity, or an error."""


def forget_settings(environment: MutableMapping[str, str]) -> None:
    """Removes `SETTINGS` from an environment: ebbtide computes in 32 bits, from streams of its own."""
    for name in SETTINGS:
        environment.pop(name, None)


@lru_cache
def processor() -> str:
    """The name of this machine's processor: vector widths differ, and with them the order of sums."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache
def features() -> str:
    """The processor's instruction sets as 8 hexadecimal digits (empty where they are not known): virtual machines
    whose processors have one name may offer different ones."""
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
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(*, of_children: bool = False) -> int:
    """The most bytes of memory that this process has had, or the largest of its children that have ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes, but bytes on macOS


def cache_folder() -> Path:
    """The user's cache folder for ebbtide, an absolute path; it need not exist.

    $XDG_CACHE_HOME, or .cache in the home folder. Relative ones are ignored, as the XDG standard says: what lies in the
    working directory is not this user's cache. A user without a home folder has a folder among the temporary files.
    """
    homes = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    for place in (Path(os.environ.get("XDG_CACHE_HOME", "")), *(Path(home) / ".cache" for home in homes)):
        if place.is_absolute():
            return place / "ebbtide"
    return Path(tempfile.gettempdir()).absolute() / f"ebbtide-{os.getuid()}"
