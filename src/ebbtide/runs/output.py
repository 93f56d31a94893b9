"""Files and folders that the user names for output: what they may be, and how they are written."""

import os
import stat
import sys
from pathlib import Path

from ebbtide.errors import InputError, require
from ebbtide.runs.atomic import naming, write_all, write_file


def check_output(out: Path, field: str = "out") -> None:
    """Raises `InputError`, naming the option `field`, unless `write_output` can write to `out`: a regular file, new or
    old, a pipe or a character device, also through a link."""
    require(out.parent.is_dir(), field, str(out), f"the folder {out.parent} does not exist")
    if not os.path.lexists(out):
        return
    try:
        mode = out.stat().st_mode
    except FileNotFoundError:
        raise InputError(field, str(out), f"is a link to {out.readlink()}, which does not exist") from None
    if not is_stdout(out):
        reason = unwritable_reason(mode)
        require(not reason, field, str(out), reason)


def unwritable_reason(mode: int) -> str:
    """Why nothing can be written to a file of this `st_mode`; empty where writing is possible."""
    if stat.S_ISDIR(mode):
        return "is a folder; give a file"
    writable = stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return "" if writable else "is neither a file nor a pipe; give a file"


def write_output(out: Path, data: bytes, field: str = "out") -> None:
    """Writes `data` to `out`. Raises what `check_output` raises, or `OSError` naming `out`.

    A regular file is replaced in one step: readers see the old content or the new. For a link, the file it leads to is
    replaced and the link stays. Pipes and character devices (/dev/stdout) are written to and never replaced.
    """
    check_output(out, field)
    try:
        if is_stdout(out):
            sys.stdout.flush()
            write_all(1, data)
        elif os.path.lexists(out) and not out.is_file():
            _write_through(out, data)
        else:
            write_file(Path(os.path.realpath(out)) if out.is_symlink() else out, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from error


def is_stdout(out: Path) -> bool:
    """Whether `out` is the standard output of this process, e.g. /dev/stdout."""
    try:
        return os.path.samestat(out.stat(), os.fstat(1))
    except OSError:
        return False


def check_output_folder(path: Path) -> None:
    """Raises `InputError` unless `path` is a folder, or a folder can be made there."""
    there = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not there.exists():
        raise InputError("out", str(path), f"{there} is a link to {there.readlink()}, which does not exist")
    require(there.is_dir(), "out", str(path), f"{there} is a file; give a folder")


def _write_through(out: Path, data: bytes) -> None:
    with naming(out):
        descriptor = os.open(out, os.O_WRONLY | os.O_NOCTTY)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
