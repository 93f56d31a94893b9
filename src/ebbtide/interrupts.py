"""Ctrl-C on the command line, outside of training: one line and exit code 130, whatever the program is doing."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

CODE = 130
STOPPED = "ebbtide: stopped; what was saved is kept, and the same command goes on"


def leave_at_ctrl_c() -> None:
    """From here on Ctrl-C ends this process at once, with one line.

    Python's own handler raises KeyboardInterrupt wherever the program is: inside an import, or a callback of a library,
    it is swallowed and the program goes on. Nothing has to be undone: files are whole or not there, workers end when
    this process does. While something trains, `stop_requests` handles Ctrl-C. Does nothing where Ctrl-C is ignored (a
    job in the background), or outside the main thread.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


def finish() -> None:
    """The work is done and its exit code known: while the interpreter takes itself apart, Ctrl-C changes nothing."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt inside, also on the command line: for work that has something to undo or to say
    then."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: Any) -> None:
    with contextlib.suppress(Exception):  # this may have interrupted a print
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # a progress line hides the cursor
        os.write(2, f"{STOPPED}\n".encode())
    os._exit(CODE)
