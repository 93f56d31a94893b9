"""Errors that a user can cause, each reported in one line."""

import difflib
from collections.abc import Iterable

LONGEST = 400
"""Largest number of characters of a field, a value or an explanation that a message shows."""


class InputError(ValueError):
    """A value that the user gave and that cannot be used.

    The message is one line: the field, the value and what is allowed, each cut to a readable length. The command line
    prints it and exits with code 2; nothing has been written.

    >>> InputError("batch", 0, "must be at least 1")
    InputError('batch = 0: must be at least 1')
    """

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{one_line(field)} = {one_line(_repr(value))}: {one_line(allowed)}")


class Interrupted(Exception):
    """The work was stopped by Ctrl-C or a termination signal. What was committed stays; a run commits before it raises
    this error.

    >>> try:
    ...     raise eb.Interrupted  # as `train` and `run_sweep` do after Ctrl-C
    ... except eb.Interrupted:
    ...     print("stopped; the same call continues")
    stopped; the same call continues
    """


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # thousands of digits; lists in lists without end
        return f"<{type(value).__name__}>"


def visible(text: str, keep: str = "") -> str:
    """`text` with every invisible character written as an escape: control characters (and so terminal commands),
    changes of writing direction, characters without width, unpaired surrogates. Characters in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """`text` without line breaks and terminal commands, cut to `LONGEST` characters."""
    text = visible(text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def closest(name: str, options: Iterable[str]) -> str | None:
    """The option whose spelling is closest to `name`; None where no option is close."""
    matches = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return matches[0] if matches else None


def nearest(name: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the option closest to `name`, or an empty string."""
    match = closest(name, options)
    return f" (did you mean {match!r}?)" if match is not None else ""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raises `InputError(field, value, allowed)` unless `condition` holds."""
    if not condition:
        raise InputError(field, value, allowed)
