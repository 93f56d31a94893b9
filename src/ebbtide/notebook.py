"""How a notebook shows a run, the results of a sweep, or a verdict."""

from importlib import import_module
from typing import Any

PAGES = "ebbtide.pages.notebook"
"""The module that makes the HTML, of the blocks of a report. A run is shown with its study's question and verdict,
which are on higher floors than the run itself, so the module is loaded by its name, and only when something is
shown."""


def html_of(shown: Any) -> str:
    """HTML that shows a `Run`, `Results` or a `Verdict`: what their `_repr_html_` returns."""
    return import_module(PAGES).html_of(shown)
