"""What an exact check reports."""

from typing import NamedTuple


class Check(NamedTuple):
    """One exact check: what was checked, whether it passed, and the numbers."""

    name: str
    passed: bool
    detail: str
