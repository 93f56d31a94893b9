"""A run, the results of a sweep, or a verdict as a notebook shows it: the section that a report has on it.

The output of a cell becomes a part of the notebook's page and of its file. So the style holds for this section alone
and takes its colours from the text around it, light or dark; and long tables are cut.
"""

from pathlib import Path

from ebbtide.errors import InputError, one_line
from ebbtide.pages import facts, html
from ebbtide.pages.page import Entry, Grid, section
from ebbtide.pages.tables import UNREADABLE
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.verdict import Verdict
from ebbtide.sweeps.results import Results

MOST_ROWS, MOST_COLUMNS = 50, 26
"""Rows and columns of a table in a notebook; the page of `ebbtide report` has them all."""
MOST_TEXT = 20_000
"""Characters of a file's text."""


def html_of(shown: RunFolder | Results | Verdict) -> str:
    """The HTML of the section on a run, the results of a sweep or a verdict."""
    entry = facts.entry_of_verdict(shown) if isinstance(shown, Verdict) else _entry_of(shown)
    small = entry._replace(grids=[_cut(grid) for grid in entry.grids], texts=[_cut_text(*one) for one in entry.texts])
    style = html.Html(f"<style>{Path(__file__).with_name('notebook.css').read_text('utf-8')}</style>")
    return html.tag("div", style, section(small), class_="ebbtide").text


def _entry_of(shown: RunFolder | Results) -> Entry:
    """The entry of a folder, also where it cannot be read (any more)."""
    path = shown.path if isinstance(shown, RunFolder) else shown.folder.path
    try:
        return facts.entry_of(path, "png")
    except UNREADABLE as error:
        reason = error.allowed if isinstance(error, InputError) else one_line(str(error))
        return Entry(name=path.name, kind="folder", problem=f"Cannot be shown: {reason}", damaged=True)


def _cut(grid: Grid) -> Grid:
    """The first rows and columns of a table, with a note where there are more."""
    rows, columns = len(grid.rows), len(grid.columns)
    if rows <= MOST_ROWS and columns <= MOST_COLUMNS:
        return grid
    kept = [row[:MOST_COLUMNS] for row in grid.rows[:MOST_ROWS]]
    note = f"{len(kept)} of {rows:,} rows, {min(columns, MOST_COLUMNS)} of {columns:,} columns. More: ebbtide report."
    return Grid(grid.title, grid.columns[:MOST_COLUMNS], kept, " ".join([grid.note, note]).strip())


def _cut_text(title: str, text: str) -> tuple[str, str]:
    return title, text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}\n..."
