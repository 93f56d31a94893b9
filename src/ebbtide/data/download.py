"""Downloads that resume where they were interrupted."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ebbtide.errors import InputError
from ebbtide.runs.atomic import naming, rename

BLOCK = 1 << 16
"""Bytes read at a time."""
TRIES = 4
"""Attempts in a row without any data before a download is given up."""
PATIENCE = 30
"""Seconds without data after which a connection counts as lost."""
PART = ".part"


class WorkProgress(NamedTuple):
    """Progress of a piece of work: `done` of `total` (0: unknown) in `unit`."""

    what: str
    done: int
    total: int
    unit: str


Report = Callable[[WorkProgress], None]


def download(url: str, target: Path, *, md5: str, most: int, report: Report) -> None:
    """Puts the file at `url` at `target` in one step, if its MD5 is `md5` and it has at most `most` bytes.

    Received data is kept in `target` + `.part`; the next call requests only the rest (HTTP Range). A lost connection is
    opened again. Raises `InputError` in one line: unreachable, lost too often, too large, wrong checksum (the partial
    file is then removed).
    """
    part = target.with_name(target.name + PART)
    with _locked_part(part) as descriptor:
        empty, reason = 0, ""
        while empty < TRIES:
            before = os.fstat(descriptor).st_size
            try:
                whole = _get(url, part, descriptor, most, report)
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                if isinstance(error, OSError) and error.filename == str(part):
                    raise  # the disk, not the network
                whole = False
                reason = _reason(error)
                if isinstance(error, urllib.error.HTTPError) and error.code not in (408, 429, 500, 502, 503, 504):
                    raise _unreachable(url, reason) from error
            else:
                reason = "the connection was cut"
            if whole:
                break
            empty = 0 if os.fstat(descriptor).st_size > before else empty + 1
        else:
            have = os.fstat(descriptor).st_size
            raise _unreachable(url, reason, f"{have:,} bytes are kept, run again to go on; or " if have else "")
        found = _md5(descriptor)
        if found != md5:
            os.ftruncate(descriptor, 0)
            part.unlink()
            allowed = f"what arrived has the MD5 {found}, not {md5}; it was removed: run again"
            raise InputError("url", url, allowed)
        with naming(part):
            os.fsync(descriptor)
        rename(part, target, "download")


def _get(url: str, part: Path, descriptor: int, most: int, report: Report) -> bool:
    """Requests the missing bytes and appends them; returns whether the file is then complete."""
    have = os.fstat(descriptor).st_size
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers={"User-Agent": "ebbtide", "Accept-Encoding": "identity", **headers})
    try:
        answer: Any = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is missing; or the part is of another file: the checksum tells
            return True
        raise
    with answer:
        start = _start(answer.headers.get("Content-Range")) if answer.status == 206 else 0
        if start != have:  # a server without ranges sends the file from its beginning
            os.ftruncate(descriptor, 0)
            have = 0
            if start:
                return False
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else 0
        os.lseek(descriptor, have, os.SEEK_SET)
        name = part.name.removesuffix(PART)
        report(WorkProgress(name, have, total, "bytes"))
        while block := answer.read(BLOCK):
            have += len(block)
            if max(have, total) > most:
                raise InputError("url", url, f"has more than {most:,} bytes: not the file that was meant")
            with naming(part):
                rest = memoryview(block)
                while rest:  # the kernel may take less than it is given
                    rest = rest[os.write(descriptor, rest) :]
            report(WorkProgress(name, have, total, "bytes"))
        return have == total if total else True


def _start(content_range: str | None) -> int:
    found = re.match(r"bytes (\d+)-", content_range or "")
    return int(found[1]) if found else 0


def _md5(descriptor: int) -> str:
    found = hashlib.md5(usedforsecurity=False)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while block := os.read(descriptor, 1 << 20):
        found.update(block)
    return found.hexdigest()


def file_md5(path: Path) -> str:
    """MD5 of a file in hexadecimal."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _md5(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked_part(part: Path) -> Iterator[int]:
    """The partial file, open and locked; released by the kernel however this process ends."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("file", str(part), "is being downloaded by another process") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(reason).__name__


def _unreachable(url: str, reason: str, kept: str = "") -> InputError:
    return InputError("url", url, f"{reason}; {kept}fetch it on another machine and use --from FOLDER")
