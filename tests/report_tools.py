"""A page of the report taken apart, and a text that would like to be more than text."""

from html.parser import HTMLParser

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>\u202e\x1b[2J&amp;'
VOID = {"meta", "img", "br", "line", "rect", "circle"}


class Page(HTMLParser):
    """A page taken apart: every element with its attributes, the text below every element with an id (and of the
    whole page as ``), the text of style sheets, and whether all elements were closed in order."""

    def __init__(self, data: bytes):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, str] = {"": ""}
        self.style = ""
        self.below: dict[str, list[tuple[str, dict[str, str]]]] = {"": []}
        self._open: list[tuple[str, str | None]] = []
        self.feed(data.decode())
        self.close()
        assert not self._open, "an element was not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if "id" in found:
            self.text[found["id"]], self.below[found["id"]] = "", []
        for own in self._ids():
            self.below[own].append((tag, found))
        if tag not in VOID:
            self._open.append((tag, found.get("id")))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "style":
            self.style += data
        else:
            for own in self._ids():
                self.text[own] += data

    def _ids(self) -> list[str]:
        return ["", *[own for _, own in self._open if own]]

    def numbers(self, section: str) -> list[float]:
        """All numbers of a section in their full digits, in order."""
        return [float(found["value"]) for tag, found in self.below[section] if tag == "data"]

    def sections(self) -> list[str]:
        return [found["id"] for tag, found in self.elements if tag == "section"]
