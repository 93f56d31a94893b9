"""Where a call from Python shows its progress: a line of the terminal, or one line below a notebook's cell."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ebbtide.report.progress import ProgressLine, line
from ebbtide.terminal import Terminal

Say = Callable[[str], None]
BEGUN = "starting: compiling"


@contextmanager
def shown(always: bool) -> Iterator[tuple[Callable[[Any], None], Say] | None]:
    """Two functions, one to call with a `Progress`, the other with a remark of one line; None where nobody would see
    them (the output is neither a terminal nor a notebook), unless `always`."""
    if display := _notebook():
        remarks = Terminal()
        with display as update:
            yield update, lambda text: remarks.print(text, soft_wrap=True)
        return
    console = Terminal(stderr=True)  # standard output is the caller's
    if not (always or console.is_terminal):
        yield None
        return
    with ProgressLine(console) as update:
        yield update, lambda text: console.print(text, soft_wrap=True)


def _notebook() -> Any:
    """A context manager that gives the function that shows a `Progress` below the running cell; None outside of a
    notebook. A notebook's package is loaded by the notebook: here nothing is imported."""
    marimo: Any = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return _in_marimo(marimo)
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return _in_jupyter(sys.modules["IPython"]) if hasattr(shell, "kernel") else None


@contextmanager
def _in_marimo(marimo: Any) -> Iterator[Callable[[Any], None]]:
    with marimo.status.spinner(title=BEGUN) as spinner:
        yield lambda progress: spinner.update(title=line(progress))


@contextmanager
def _in_jupyter(ipython: Any) -> Iterator[Callable[[Any], None]]:
    """The last line stays below the cell."""
    handle = ipython.display.display({"text/plain": BEGUN}, raw=True, display_id=True)
    yield lambda progress: handle.update({"text/plain": line(progress)}, raw=True)
