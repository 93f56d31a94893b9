"""The page of `ebbtide report` for one folder. Importing this imports JAX."""

import threading
from pathlib import Path

from ebbtide.dashboard.places import SWEEP, Root
from ebbtide.pages.gather import entry_of
from ebbtide.pages.page import entries_page

_DRAWING = threading.Lock()
"""Held while a page is made: matplotlib draws in one thread at a time."""


def report_of(root: Root, name: str, path: Path) -> bytes:
    """The page about a folder, whatever is in it; a folder that cannot be used is told as such."""
    if (path / SWEEP).exists():
        root.check_runs_of(path)
    with _DRAWING:
        return entries_page(name, [entry_of(path)])
