"""Text from folders and users is only text, on the terminal and in figures."""

import ast
import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table
from rich.text import Text

import ebbtide
from ebbtide.errors import one_line, visible
from ebbtide.report.figure import curves_figure, render
from ebbtide.report.figure_text import plain
from ebbtide.report.grid_figure import Phase, phase_figure
from ebbtide.report.progress import ProgressLine
from ebbtide.terminal import Terminal
from tiny import write_run

PACKAGE = Path(ebbtide.__file__).parent
EVIL = (
    "[/x] [bold]b[/bold] :warning: \x1b[2J\x1b]0;title\x07 \u202eedoc\u202c a\rb \x9b31m \u200b \ud800 [link=file:///]"
)
"""Markup that raises, markup that colours, an emoji by name, terminal codes, changes of direction, half a character."""


def shown(*what, encoding: str = "utf-8", **how) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Terminal(file=out, width=400, **how)
    console.print(*what)
    out.flush()
    return out.buffer.getvalue().decode(encoding)  # pyright: ignore[reportAttributeAccessIssue]


def table(cell) -> Table:
    made = Table(title=cell)
    made.add_column(cell)
    made.add_row(cell)
    return made


TEXT = Text(EVIL)
"""Rich itself drops the bell and the return from a `Text`; all else stays in it."""


@pytest.mark.parametrize("what", [EVIL, TEXT, table(EVIL), table(TEXT)], ids=["text", "Text", "cell", "Cell"])
@pytest.mark.parametrize("terminal", [False, True])
def test_whatever_is_printed_is_seen_and_does_nothing(what, terminal):
    text = shown(what, force_terminal=terminal, color_system="truecolor" if terminal else None)
    styled = re.sub(r"\x1b\[[0-9;]*m", "", text) if isinstance(what, Table) else text  # a table's title is in italics
    assert all(c.isprintable() or c == "\n" for c in styled), repr(styled)
    seen = styled.replace(r"\x07", "").replace(r"\r", "")
    assert all(word in seen for word in visible(TEXT.plain).split(" "))


def test_a_progress_line_is_only_text(capsys):
    console = Terminal(width=400)
    with ProgressLine(console, lambda text: text) as progress:
        progress(EVIL)
    assert capsys.readouterr().out == visible(EVIL) + "\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_terminal_has_no_character_for_is_spelled(encoding):
    assert shown("± s.e. 字", encoding=encoding).encode(encoding).decode("unicode_escape") == "± s.e. 字\n"


def test_styles_that_are_given_beside_the_text_are_kept():
    assert shown(Text("words", "bold"), force_terminal=True) == "\x1b[1mwords\x1b[0m\n"


def wrong_in(path: Path) -> list[str]:
    """What in a module would print markup, or by another console."""
    tree = ast.parse(path.read_text())
    names = {f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    wrong = [one for one in names if one.startswith(("rich.markup", "rich.print")) or one == "rich"]
    wrong += ["rich.console.Console"] if "rich.console.Console" in names and path.name != "terminal.py" else []
    return wrong + [one for one in texts if re.search(r"\[/?(bold|dim|red|green|yellow|cyan|italic)\]|\[/\]", one)]


def test_the_package_has_one_kind_of_console_and_no_markup():
    assert {str(path): wrong for path in sorted(PACKAGE.rglob("*.py")) if (wrong := wrong_in(path))} == {}


@pytest.mark.parametrize(
    "line", ["from rich.markup import escape", "from rich.console import Console", "x = '[bold]b[/]'"]
)
def test_another_console_or_markup_would_have_been_noticed(tmp_path, line):
    (tmp_path / "module.py").write_text(line)
    assert len(wrong_in(tmp_path / "module.py")) == 1


@pytest.mark.parametrize("text", ["", "plain", EVIL, "\x00" * 500, "字" * 500])
def test_a_line_is_printable_and_bounded(text):
    assert one_line(text).isprintable() and len(one_line(text)) <= 10 * 401
    assert visible(visible(text)) == visible(text)


FORMULAS = ["$", "$x$", r"$\frac{1}$", "a$b_{c$", r"\$ $y^$"]


HOSTILE = {"formulas": " ".join(FORMULAS), "codes": EVIL, "glyphs": "字\U0001f600", "long": "long" * 5000 + "\n" * 500}


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # such labels leave little room
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_figure_shows_every_text_as_it_is(monkeypatch, tmp_path, text):
    """Where matplotlib reads a formula it asks its parser; only powers of ten of a logarithmic axis may get there."""
    from matplotlib.mathtext import MathTextParser

    asked, parse = [], MathTextParser.parse
    monkeypatch.setattr(MathTextParser, "parse", lambda self, s, *a, **k: (asked.append(s), parse(self, s, *a, **k))[1])
    run = write_run(tmp_path / "run", {"icl": [[0.5, 0.7, 0.9]] * 2}, [[np.nan, 3.0, 2.0]] * 2)
    assert curves_figure(run, text)["figure.png"].startswith(b"\x89PNG")
    assert all(one.startswith("$\\mathdefault{") for one in asked)
    del asked[:]
    grid = Phase([text, 1.0], [0.5, f"2{text}"], np.ones((2, 2)), np.ones((2, 2)))
    assert phase_figure(grid, x=text, y=text, value="icl_peak", title=text)["figure.png"].startswith(b"\x89PNG")
    assert not asked


@pytest.mark.parametrize("text", FORMULAS)
def test_a_dollar_in_a_figure_is_a_dollar(text):
    from matplotlib.figure import Figure

    figure = Figure()
    panel = figure.subplots()
    panel.set_title(text)
    panel.set_xticks([0], [text])
    assert b"<text" not in render(figure, "svg")  # letters are drawn as shapes ...
    assert panel.get_title() == text == panel.get_xticklabels()[0].get_text()  # ... of this text
    assert not panel.title.get_parse_math() and not panel.get_xticklabels()[0].get_parse_math()


def test_what_a_figure_cannot_draw_is_spelled():
    assert plain("é ± 字\x1b\u202e") == r"é ± \u5b57\x1b\u202e"
