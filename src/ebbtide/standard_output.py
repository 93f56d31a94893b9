"""Standard output of the command line: a closed pipe or a missing character does not end the work."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class StandardOutput:
    """A text stream around `stream` that keeps the first write error in `failure` and discards all later text: a run is
    worth more than the lines about it."""

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Writes the text and returns its length, also where it could not be written."""
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the buffer."""
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


def install_standard_output() -> StandardOutput | None:
    """Replaces `sys.stdout` by a `StandardOutput` that escapes characters outside its encoding, and returns it; None
    where the process has no standard output."""
    if sys.stdout is None:
        return None
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    output = StandardOutput(sys.stdout)
    sys.stdout = output  # pyright: ignore[reportAttributeAccessIssue]
    return output
