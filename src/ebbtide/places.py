"""Where a relative path in a spec leads: from the working folder, else from the places of the sweep that is worked on.

A spec may name a data file or a run to start from by a relative path, and a spec's digest tells specs with other
paths apart. So the path stays as it is written, and whoever works on a sweep says from where it may be meant.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PLACES = "EBBTIDE_PLACES"
"""The variable that tells child processes: one absolute path a line."""


def locate(path: str) -> str:
    """`path`, where it is absolute or leads to something from the working folder; else from the first place where it
    does; where it does from none, `path` as it is."""
    if Path(path).is_absolute() or _exists(Path(path)):
        return path
    there = (Path(place) / path for place in places())
    return next((str(one) for one in there if _exists(one)), path)


def looked_in(path: str) -> str:
    """Words that say where a path that leads nowhere was looked for; none where there was one place."""
    only = Path(path).is_absolute() or not places()
    return "" if only else f" (looked for from {', '.join(['.', *places()])})"


def places() -> list[str]:
    """Folders that relative paths may be meant from, beside the working folder, in the order they are tried."""
    return [one for one in os.environ.get(PLACES, "").split("\n") if one]


def working_folder() -> str | None:
    """The working folder as text, None where it has no name that a file could hold."""
    try:
        name = str(Path.cwd())
        name.encode()
    except (OSError, UnicodeEncodeError):
        return None
    return name


@contextmanager
def looking_in(folders: Iterable[Path | str | None]) -> Iterator[None]:
    """Relative paths may also be meant from these folders meanwhile, in this process and in those that it starts."""
    before = os.environ.get(PLACES)
    os.environ[PLACES] = "\n".join(str(one) for one in folders if one is not None)
    try:
        yield
    finally:
        if before is None:
            del os.environ[PLACES]
        else:
            os.environ[PLACES] = before


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name no file can have: too long, or with a NUL in it
        return False
