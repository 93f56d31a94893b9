"""Errors a user can cause, each told in one line."""

import difflib
from collections.abc import Iterable

LONGEST = 400
"""Characters of a field, value or explanation that a message shows."""


class InputError(ValueError):
    """A value the user gave cannot be used.

    The message is one line that names the field, the value and what is allowed, whatever they hold.
    The command line prints it and exits with code 2; nothing has been written.
    """

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{one_line(field)} = {one_line(_repr(value))}: {one_line(allowed)}")


class Interrupted(Exception):
    """The work was stopped by Ctrl-C or a termination signal. What was saved stays; a run saves before this is
    raised."""


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # thousands of digits; lists in lists without end
        return f"<{type(value).__name__}>"


def visible(text: str, keep: str = "") -> str:
    """`text` with every character spelled that is not seen as itself: control characters and with them escape
    sequences, changes of direction, characters without width, half characters; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """`text` without line breaks or terminal codes, and not longer than a reader wants."""
    text = visible(text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def nearest(name: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the option closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raises `InputError` unless `condition` holds."""
    if not condition:
        raise InputError(field, value, allowed)
