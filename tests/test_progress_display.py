"""Where a call from Python shows its progress: nowhere, on a terminal, or below the cell of a notebook."""

import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ebbtide.report import progress, progress_display
from ebbtide.terminal import Terminal
from ebbtide.training.progress import Progress, listeners

PROGRESS = Progress(1_200_000, 3_000_000, 4, 88_000, 83, {"icl": 0.83})
LINE = "1.2M/3M sequences x 4 members, 88k/s, 1:23 left | icl 0.830"


@pytest.fixture
def terminal(monkeypatch) -> None:
    """Makes standard error a terminal."""

    def as_terminal(**how: Any) -> Terminal:
        return Terminal(**how, force_terminal=True, force_jupyter=False)

    monkeypatch.setattr(progress_display, "Terminal", as_terminal)


def test_nothing_is_shown_where_nobody_looks(capsys):
    with listeners(None, None, None) as (report, say):
        report(PROGRESS)
        say("a remark")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_line_and_remarks_on_standard_error(terminal, capsys):
    with listeners(None, None, None) as (report, say):
        report(PROGRESS)
        say("a remark")
    out, err = capsys.readouterr()
    assert LINE in err and "a remark" in err and out == ""


@pytest.mark.parametrize("how", [(False, None), (None, lambda progress: None)], ids=["told", "reported"])
def test_a_terminal_is_left_alone_when_told_so_or_when_somebody_else_shows_it(how, terminal, capsys):
    with listeners(how[0], how[1], None) as (report, say):
        report(PROGRESS)
        say("a remark")
    assert capsys.readouterr().err == ""


def test_where_it_is_asked_for_lines_go_to_any_output(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", -1.0)
    seen: list[Progress] = []
    with listeners(True, seen.append, None) as (report, _):
        report(PROGRESS)
    assert LINE in capsys.readouterr().err and seen == [PROGRESS]


def test_remarks_go_to_the_caller_alone_where_he_takes_them(terminal, capsys):
    remarks: list[str] = []
    with listeners(None, None, remarks.append) as (_, say):
        say("a remark")
    assert remarks == ["a remark"] and "a remark" not in capsys.readouterr().err


def test_marimo_shows_a_spinner_with_the_line(monkeypatch, capsys):
    shown: list[str] = []

    class Spinner:
        def update(self, title: str) -> None:
            shown.append(title)

    @contextmanager
    def spinner(title: str):
        shown.append(title)
        yield Spinner()
        shown.append("gone")

    marimo: Any = SimpleNamespace(running_in_notebook=lambda: True, status=SimpleNamespace(spinner=spinner))
    monkeypatch.setitem(sys.modules, "marimo", marimo)
    with listeners(None, None, None) as (report, _):
        report(PROGRESS)
    assert shown == ["starting: compiling", LINE, "gone"] and capsys.readouterr().err == ""


def test_jupyter_shows_one_line_that_changes(monkeypatch, capsys):
    shown: list[tuple[str, bool]] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append((data["text/plain"], raw))

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        shown.append((data["text/plain"], raw))
        return Handle()

    shell = SimpleNamespace(kernel=object())
    ipython: Any = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    with listeners(None, None, None) as (report, _):
        report(PROGRESS)
    assert shown == [("starting: compiling", True), (LINE, True)]


def test_ipython_in_a_terminal_is_a_terminal(terminal, monkeypatch, capsys):
    """Its shell has no kernel that could show something below a cell."""
    ipython: Any = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    with listeners(None, None, None) as (report, _):
        report(PROGRESS)
    assert LINE in capsys.readouterr().err
