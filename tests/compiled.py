"""A compile cache that every process of the suite shares, and the next run of the suite after it.

JAX writes an entry of its cache in place, so an entry may be seen half written, and a process that a test kills
leaves one. Each pytest process (with the processes that it starts) therefore compiles into a folder of its own;
whole entries are exchanged with a folder of this user between test files. An entry's name must then not depend on the
folder, as it does while XLA's own caches are on: their place is an option of the compiler. The user's folder belongs
to one version of JAX and one processor: a program that was compiled for another processor may use instructions that
this one lacks.
"""

import atexit
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jax
from jax._src.compilation_cache import decompress_executable

from ebbtide.machine import cache_folder, cores, processor

LIMIT = 1024 * 2**20
"""Bytes that the user's folder may hold; beyond it the entries go that were not used for longest."""
LARGEST = 4 * 2**20
"""Bytes of the largest entry that is shared: a few programs hold a whole bank of exemplars, and would push out
thousands of small ones."""


def machine() -> str:
    """What an entry depends on beside the program and its options: versions, instructions, cores, how it is packed."""
    packed = "zlib" if find_spec("zstandard") is None else "zstd"  # as JAX decides
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    flags = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    parts = (
        jax.__version__,
        version("jaxlib"),
        sys.version,
        processor(),
        " ".join(sorted(flags.split())),
        cores(),
        packed,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def private(folder: Path) -> Path | None:
    """The folder, made for this user alone; None where another user could have written into it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    return folder if folder.is_dir() and found.st_uid == os.geteuid() and not found.st_mode & 0o022 else None


def whole(entry: Path) -> bytes | None:
    """The bytes of an entry of JAX's cache; None while it is being written, or where its writer was killed."""
    try:
        held = entry.read_bytes()
        decompress_executable(held)
    except Exception:
        return None
    return held


def copy(one: Path, other: Path) -> None:
    """Puts every whole entry of a folder that another lacks there, but the largest; who reads there sees all of an
    entry or none."""
    there = {path.name for path in other.iterdir()}
    for entry in one.glob("*-cache"):
        if entry.name not in there and (held := whole(entry)) is not None and len(held) <= LARGEST:
            handle, name = tempfile.mkstemp(dir=other)
            with os.fdopen(handle, "wb") as file:
                file.write(held)
            Path(name).replace(other / entry.name)


def trim(folder: Path, limit: int = LIMIT) -> None:
    """Removes the entries that were not used for longest, until the rest hold no more than `limit` bytes."""
    entries = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may have given it its name, or removed it
            found = path.stat()
            entries.append((max(found.st_atime, found.st_mtime), found.st_size, path))
    entries.sort()
    held = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if held <= limit:
            return
        path.unlink(missing_ok=True)
        held -= size


def claim(folder: Path) -> int:
    """The descriptor of a folder's lock, which holds until this process ends, however it ends."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def remove_abandoned(folder: Path) -> None:
    """Removes the folders of processes that were killed: nobody holds their lock."""
    for own in folder.glob("process-*"):
        if (own / "lock").is_file():
            with suppress(OSError):  # its owner lives, or another process removes it
                handle = claim(own)
                shutil.rmtree(own, ignore_errors=True)
                os.close(handle)


AT_IMPORT: list[str] = []
"""Where, in a test file, each program was compiled before the first test ran."""


def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_stack()]
        AT_IMPORT.append(next((place for place in reversed(where) if place.startswith("test_")), where[0]))


def imported() -> None:
    """The test files are all imported: what is compiled from here on a test needs."""
    jax.monitoring.unregister_event_duration_listener(heard)


SHARED = private(cache_folder() / "compiled-for-tests" / machine())
OWN = Path(tempfile.mkdtemp(prefix="process-", dir=SHARED.parent if SHARED else None))
LOCK = claim(OWN)


def exchange() -> None:
    """Gives what was compiled here to the user's folder and takes what other processes have put there."""
    if SHARED is not None:
        copy(OWN, SHARED)
        copy(SHARED, OWN)


def begin(least_seconds: float = 0.1) -> None:
    """Lets this process and all that it starts compile into its own folder, which is removed at its end."""
    atexit.register(shutil.rmtree, OWN, ignore_errors=True)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(OWN),
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(least_seconds),
    }
    jax.config.update("jax_compilation_cache_dir", str(OWN))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
    jax.monitoring.register_event_duration_secs_listener(heard)
    if SHARED is not None:
        remove_abandoned(SHARED.parent)
        trim(SHARED)
        with suppress(OSError):  # another file system, or an entry that another process removed: `exchange` copies
            for entry in SHARED.glob("*-cache"):  # no process that this one started can be writing yet
                os.link(entry, OWN / entry.name)
    exchange()
