"""The terminal: text that is shown as text, whatever it holds and wherever it comes from."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ebbtide.errors import visible


class Terminal(Console):
    """A console on which text is only text: nothing in it is read as markup or as the name of an emoji, and what would
    command the terminal (escape sequences, other control characters, changes of direction) or what the terminal's
    encoding does not have is spelled. Styles are given beside a text: `Text("words", "bold")`, `style="dim"`.

    The package has no other console, and a test holds it to that.
    """

    def __init__(self, **options: Any):
        super().__init__(**{**options, "markup": False, "emoji": False, "highlight": False})

    def render_str(self, text: str, **how: Any) -> Text:
        """The text as it is shown: so columns are measured by what stands in them."""
        return super().render_str(self._shown(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All that is printed passes here; what moves the cursor of a progress line stays as it is."""
        for one in super().render(renderable, options):
            yield one if one.control else Segment(self._shown(one.text), one.style)

    def _shown(self, text: str) -> str:
        shown = visible(text, keep="\n\t")
        return shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
