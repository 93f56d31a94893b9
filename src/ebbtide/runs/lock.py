"""The lock of a run folder: one writer at a time, released by the kernel however the writer ends."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from ebbtide.errors import InputError
from ebbtide.runs.atomic import naming

LOCK = "lock"
TRIES, PAUSE = 10, 0.05
"""A reader that checks for a writer holds the lock for an instant, so acquiring it is tried several times (`PAUSE` in
seconds)."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error numbers of file systems that have no locks."""


class _NoLocks(Exception):
    """The file system cannot lock."""


class BusyError(InputError):
    """Another process is writing the folder; nothing was changed."""


def acquire(folder: Path) -> int:
    """The descriptor that holds the lock; closing it releases the lock.

    Raises `InputError` when another process holds it or the file system has no locks (no file is left behind then), and
    `OSError` when the lock file cannot be written.
    """
    path = folder / LOCK
    fresh = not os.path.lexists(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        for _ in range(TRIES):
            if _try(descriptor, fcntl.LOCK_EX):
                with naming(path):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
            time.sleep(PAUSE)
        raise BusyError("out", str(folder), f"is being written by {_text(descriptor) or 'another process'}")
    except _NoLocks as error:
        os.close(descriptor)
        if fresh:
            path.unlink(missing_ok=True)
        allowed = f"its file system has no locks ({error}), by which two writers are kept apart; choose another folder"
        raise InputError("out", str(folder), allowed) from error
    except BaseException:
        os.close(descriptor)
        raise


def holder(folder: Path) -> str | None:
    """A description of the process that writes the run now; None when there is none, as far as a file system without
    locks can tell. The text in the lock file counts only while the lock is held."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _text(descriptor) or "another process"
    except _NoLocks:
        return None
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise _NoLocks(error.strerror) from error
        raise


def _text(descriptor: int) -> str:
    """The beginning of the lock file as one printable line; the file may contain anything."""
    text = os.pread(descriptor, 200, 0).decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()
