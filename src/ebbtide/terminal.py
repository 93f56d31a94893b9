"""The terminal: text is shown as text, whatever it contains."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ebbtide.errors import visible


class Terminal(Console):
    """A console that shows text as it is: no markup, no emoji names, and terminal commands (escape sequences, control
    characters, changes of direction) or characters outside the terminal's encoding are written as escapes. Styles are
    given beside a text: `Text("words", "bold")`, `style="dim"`.

    The package has no other console, and a test holds it to that.
    """

    def __init__(self, **options: Any):
        super().__init__(**{**options, "markup": False, "emoji": False, "highlight": False})

    def render_str(self, text: str, **how: Any) -> Text:
        """The text as it will be shown, so that column widths are measured on what is printed."""
        return super().render_str(self._shown(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print, with escapes in their text; cursor movements of a progress line pass unchanged."""
        for one in super().render(renderable, options):
            yield one if one.control else Segment(self._shown(one.text), one.style)

    def _shown(self, text: str) -> str:
        shown = visible(text, keep="\n\t")
        return shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
