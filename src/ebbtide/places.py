"""Resolution of relative paths in specs: from the working folder, else from the folders of the sweep at hand.

A spec may name a data file or a donor run by a relative path, and specs with different paths have different digests. So
the path stays as it is written, and the code that works on a sweep adds the folders from which it may be meant.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PLACES = "EBBTIDE_PLACES"
"""The environment variable through which child processes learn the extra folders, one absolute path per line."""


def resolve_path(path: str) -> str:
    """`path` itself where it is absolute or exists from the working folder; else the first existing path from one of
    the extra folders (`places`); else `path` unchanged."""
    if Path(path).is_absolute() or _exists(Path(path)):
        return path
    there = (Path(place) / path for place in places())
    return next((str(one) for one in there if _exists(one)), path)


def search_note(path: str) -> str:
    """The words " (looked for from ...)" for messages about a missing path; empty where only one folder was
    searched."""
    only = Path(path).is_absolute() or not places()
    return "" if only else f" (looked for from {', '.join(['.', *places()])})"


def places() -> list[str]:
    """Folders in which relative paths are looked up after the working folder, in the order of the search."""
    return [one for one in os.environ.get(PLACES, "").split("\n") if one]


def working_folder() -> str | None:
    """The working folder as text; None where its name cannot be written to a file."""
    try:
        name = str(Path.cwd())
        name.encode()
    except (OSError, UnicodeEncodeError):
        return None
    return name


@contextmanager
def looking_in(folders: Iterable[Path | str | None]) -> Iterator[None]:
    """Adds folders to the search for relative paths while the block runs, in this process and in those that it
    starts."""
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
