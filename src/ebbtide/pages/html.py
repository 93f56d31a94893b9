"""HTML that is safe by construction: text is escaped wherever it comes from, and a page asks nothing of the network.

Only `tag` makes `Html`; every text put into it is escaped, in content and in attributes. A page holds its style,
pictures are embedded as images (an image cannot run scripts or load anything), and its own policy forbids the rest.
"""

import base64
import html
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import visible

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
VOID = ("meta", "img", "br", "line", "rect", "circle")
WORDS = ("holds", "fails", "undecided")
MARKS = {"holds": "✓", "fails": "✗", "undecided": "?"}
LONGEST = 2000
"""Characters of a text in a cell; a name or a reason is shorter."""
LONGEST_BLOCK = 200_000
"""Characters of a file's text on a page."""
ARXIV = re.compile(r"(arXiv[: ]\s*)(\d{4}\.\d{4,5})")
PNG = b"\x89PNG\r\n\x1a\n"


class Html(NamedTuple):
    """A piece of a page, as it is written."""

    text: str


Content = Html | str | float | None
"""Content of an element; text and numbers are escaped, None is nothing."""


def escape(text: str, longest: int = LONGEST) -> str:
    """Text as HTML. What cannot be printed (control characters, changes of direction, half characters) is spelled."""
    cut = text if len(text) <= longest else f"{text[:longest]} ..."
    return html.escape(visible(cut, keep="\n\u00a0"))


def tag(name: str, /, *content: Content, **attributes: Html | str | float | None) -> Html:
    """An element. `class_` is written `class`, `_` in names of attributes as `-`; attributes that are None are left
    out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    head = name + "".join(f' {key}="{join([value]).text}"' for key, value in given.items())
    if name in VOID:
        return Html(f"<{head}>" if name in ("meta", "img", "br") else f"<{head}/>")
    return Html(f"<{head}>{join(content).text}</{name}>")


def join(parts: Iterable[Content]) -> Html:
    """Pieces one after the other."""
    return Html("".join(p.text if isinstance(p, Html) else escape(str(p)) for p in parts if p is not None))


def table(columns: Sequence[str], rows: Iterable[Sequence[Content]], *, kind: str = "") -> Html:
    """A table in a frame that scrolls by itself where the window is narrow; the first column names the rows. Every
    cell also knows its column's name (`kind="cards"`: the style makes cards of the rows in a narrow window)."""
    head = tag("tr", *[tag("th", name, scope="col") for name in columns])
    body = []
    for first, *rest in rows:
        cells = [tag("td", cell, data_label=name) for name, cell in zip(columns[1:], rest, strict=True)]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    inner = tag("table", tag("thead", head), tag("tbody", *body), class_=kind or None)
    return tag("div", inner, class_="scroll", tabindex=0, role="group", aria_label="table")


def details(title: str, *content: Content, unfolded: bool = False) -> Html:
    """Something to unfold; print shows it unfolded."""
    return tag("details", tag("summary", title), *content, **({"open": ""} if unfolded else {}))


def block(text: str) -> Html:
    """Text to copy: a command, a file."""
    return tag("pre", tag("code", Html(escape(text, LONGEST_BLOCK))))


def command(text: str) -> Html:
    """A command to copy, broken between its words only."""
    cut = text if len(text) <= LONGEST_BLOCK else f"{text[:LONGEST_BLOCK]} ..."
    lines = [join([part for word in line.split(" ") for part in (tag("span", word), " ")]) for line in cut.split("\n")]
    return tag("pre", *[part for line in lines for part in ("\n", line)][1:], class_="command")


def terms(pairs: Iterable[tuple[str, Content]]) -> Html:
    """A list of terms, each with its description."""
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", what)) for name, what in pairs])


def badge(word: str, text: str | None = None) -> Html:
    """A verdict (holds, fails, undecided) as colour, sign and word; another word without colour."""
    sign = tag("span", MARKS[word], aria_hidden="true") if word in WORDS else None
    kind = word if word in WORDS else "plain"
    return tag("span", sign, " " if sign else None, text or word, class_=f"badge {kind}")


def number(value: float | None) -> Html:
    """A number for people, with all its digits in the attribute `value`; a dash for none."""
    if value is None or not math.isfinite(value):
        return tag("span", "–", class_="none", title="no number")
    return tag("data", digits(value), value=repr(value))


def digits(value: float) -> str:
    """0.402, 0.00031, 1,280,000."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e15 else f"{value:.3g}"
    return f"{value:.3f}" if size >= 0.001 or size == 0 else f"{value:.3g}"


def paper(text: str) -> Html:
    """A paper's name; the number of a preprint on arXiv leads there when it is followed."""
    found = ARXIV.search(text)
    if found is None:
        return join([text])
    link = tag("a", found[2], href=f"https://arxiv.org/abs/{found[2]}", rel="noreferrer")
    return join([text[: found.start()], found[1], link, text[found.end() :]])


def picture(data: bytes, words: str) -> Html | None:
    """A PNG or SVG file embedded as an image, `words` for those who do not see it; None when it is neither."""
    if data.startswith(PNG):
        kind = "png"
    elif b"<svg" in data[:2000]:
        kind = "svg+xml"
    else:
        return None
    source = Html(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
    return tag("figure", tag("img", alt=words, src=source))


def strip(members: Sequence[float], low: float | None, high: float | None, threshold: float) -> Html | None:
    """Members as dots, their interval as a bar, the threshold as a line with the side shaded where a claim holds.
    None when the numbers cannot be drawn."""
    known = [*members, threshold, *[x for x in (low, high) if x is not None]]
    least, most = min(known), max(known)
    span = most - least or abs(threshold) or 1.0
    if not math.isfinite(span) or span < 1e-300:
        return None

    def x(value: float) -> str:
        return f"{12 + 216 * ((value - least) / span if most > least else 0.5):.1f}"

    at, width = x(threshold), 240
    parts = [
        tag("rect", class_="above", x=at, y=2, width=f"{width - float(at):.1f}", height=28),
        tag("line", class_="threshold", x1=at, x2=at, y1=2, y2=30),
    ]
    if low is not None and high is not None:
        wide = f"{max(float(x(high)) - float(x(low)), 1):.1f}"
        parts.append(tag("rect", class_="interval", x=x(low), y=13, width=wide, height=6, rx=3))
    parts += [tag("circle", class_="member", cx=x(value), cy=16, r=3.5) for value in members]
    words = f"{len(members)} members against the threshold {digits(threshold)}"
    title = tag("title", words)
    return tag("svg", title, *parts, viewBox=f"0 0 {width} 32", class_="strip", role="img", aria_label=words)


def page(title: str, *content: Content) -> bytes:
    """The whole page as a file."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>\n{style}</style>"),
    )
    text = f"<!DOCTYPE html>\n{tag('html', head, tag('body', tag('main', *content)), lang='en').text}\n"
    return text.encode()
