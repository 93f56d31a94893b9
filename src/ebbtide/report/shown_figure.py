"""The matplotlib figure that methods named `plot` return: a notebook shows it without pyplot."""

import io

from matplotlib.figure import Figure

NOTEBOOK_DPI = 100
"""Pixels an inch of a picture in a notebook."""


class ShownFigure(Figure):
    """A `matplotlib.figure.Figure` that Jupyter shows as a picture.

    IPython draws the figures of pyplot alone, and pyplot keeps every figure in memory until it is closed. marimo draws
    any figure by itself.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=NOTEBOOK_DPI)
        return buffer.getvalue()
