"""Errors a user can cause, each told in one line."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A value the user gave cannot be used.

    The message is one line that names the field, the value and what is allowed.
    The command line prints it and exits with code 2; nothing has been written.
    """

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} = {value!r}: {allowed}")


def nearest(name: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the option closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raises `InputError` unless `condition` holds."""
    if not condition:
        raise InputError(field, value, allowed)
