"""The stop signals, Ctrl-C (SIGINT) and SIGTERM: outside of training one line and exit code 130, whatever the program
is doing; while something trains a request to stop."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CODE = 130
"""Exit code of a command that either signal has stopped."""
STOPPED = "ebbtide: stopped; what was saved is kept, and the same command goes on"
SAME_REQUEST_SECONDS = 1.0
"""Stop signals closer together than this many seconds count as one request."""


def leave_at_stop_signals() -> None:
    """Makes Ctrl-C and SIGTERM end this process at once, with one line, from here on.

    Python's own handler of Ctrl-C raises KeyboardInterrupt wherever the program is; inside an import or a library's
    callback it is swallowed and the program goes on. SIGTERM would end the program without a word. Nothing has to be
    undone: files are complete or absent, and workers end when this process ends. While something trains,
    `stop_requests` handles both. A signal that is ignored (Ctrl-C in a job in the background) stays ignored. Does
    nothing outside the main thread.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _leave)


def ignore_stop_signals() -> None:
    """Ignores Ctrl-C and SIGTERM while the interpreter shuts down, once the exit code is known."""
    for number in SIGNALS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def raise_on_stop_signals() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM raise KeyboardInterrupt while the block runs, for work that has something to undo or to
    report."""
    changed = [number for number in SIGNALS if signal.getsignal(number) is _leave]
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, _leave)


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. A second Ctrl-C, at least a second later, raises at once; a sooner one
    counts as the same request, because some tools signal both the process and its group."""
    stop, first = threading.Event(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        nonlocal first
        if not stop.is_set():
            first = time.monotonic()
            stop.set()
        elif number == signal.SIGINT and time.monotonic() - first >= SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: Any) -> None:
    with contextlib.suppress(Exception):  # this may have interrupted a print
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # a progress line hides the cursor
        os.write(2, f"{STOPPED}\n".encode())
    os._exit(CODE)
