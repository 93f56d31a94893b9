"""The texts of a figure, shown as they are whatever they contain; and a figure's size."""

from functools import lru_cache
from typing import Any

from ebbtide.errors import require, visible

LONGEST_LINE = 200
"""Largest number of characters of a line that are drawn; no title of ours has as many."""
MOST_LINES = 12
LONGEST_TICK = 40
"""Largest number of characters of a tick label: longer ones would leave no room for the plot."""


LARGEST = 100.0
"""Inches: a larger figure would take more memory than a picture is worth."""


def check_inches(size: Any) -> None:
    """Raises `InputError` unless `size` is None, or a width and a height in inches that a picture can have."""
    two = isinstance(size, tuple | list) and len(size) == 2
    good = two and all(isinstance(one, int | float) and 0.5 <= one <= LARGEST for one in size)
    allowed = f"must be (width, height) in inches, each from 0.5 to {LARGEST:g}"
    require(size is None or good, "size", size, allowed)


def plainly(figure: Any) -> Any:
    """The figure, with all its texts plain."""
    write_plainly(figure)
    return figure


def write_plainly(figure: Any) -> None:
    """Makes every text of the figure plain: a `$` is a dollar and starts no formula, characters that the font lacks are
    written as escapes, overlong text is cut. Formulas are left to the axes, which write powers of ten themselves."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    texts = figure.findobj(Text)  # before the ticks are listed: looking for texts makes the ticks that are missing
    formulas = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        words = axis.get_major_formatter()
        if isinstance(words, FuncFormatter):  # words given by us: they are written anew whenever the axis is drawn
            axis.set_major_formatter(FuncFormatter(lambda x, place, words=words: plain(words(x, place), LONGEST_TICK)))
            ticks = axis.minorTicks
        else:
            ticks = [*axis.majorTicks, *axis.minorTicks]
        formulas |= {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    for text in texts:
        if id(text) not in formulas:
            text.set_parse_math(False)
            text.set_text(plain(text.get_text()))


def plain(text: str, longest: int = LONGEST_LINE) -> str:
    """`text` as a figure can show it, with lines no longer than `longest`."""
    lines = visible(text[: longest * MOST_LINES], keep="\n").split("\n")[:MOST_LINES]
    return "\n".join(_draw_line(line if len(line) <= longest else f"{line[:longest]} ...") for line in lines)


def _draw_line(line: str) -> str:
    return line if line.isascii() else "".join(c if ord(c) in _glyphs() else ascii(c)[1:-1] for c in line)


@lru_cache
def _glyphs() -> frozenset[int]:
    """The characters that the figures' font has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())
