"""The command line's standard output: that it takes no more, or not every character, does not end the work."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class StandardOutput:
    """A text stream in place of `stream` that keeps the first error of writing in `failure`, and is silent from then
    on: a run is worth more than the lines about it."""

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """The number of characters, as if all were written."""
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hands on what is in the buffer."""
        with self._kept():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            with contextlib.suppress(OSError, ValueError):  # what is still in the buffer goes nowhere
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def steady() -> StandardOutput | None:
    """Puts a `StandardOutput` in the place of this process's, which escapes what its encoding does not have; None where
    there is none."""
    if sys.stdout is None:
        return None
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    made = StandardOutput(sys.stdout)
    sys.stdout = made  # pyright: ignore[reportAttributeAccessIssue]
    return made
