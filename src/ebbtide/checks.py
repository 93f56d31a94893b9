"""The result of an exact check."""

from typing import NamedTuple


class Check(NamedTuple):
    """The result of one exact check: its subject, whether it passed, and the numbers."""

    name: str
    passed: bool
    detail: str
