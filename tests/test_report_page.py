"""The blocks of a page: texts, members in a strip, numbers, links."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbtide.pages import html as page
from report_tools import EVIL, Page


@given(st.text())
def test_every_text_comes_back_as_it_was_or_spelled(text):
    data = page.tag("p", text, title=text).text
    found = Page(data.encode())
    whole = "".join(c if c.isprintable() or c in "\n\u00a0" else ascii(c)[1:-1] for c in text)
    assert [tag for tag, _ in found.elements] == ["p"] and found.text[""] == whole
    assert found.elements[0][1]["title"] == whole


@pytest.mark.parametrize(
    ("members", "low", "high", "threshold"),
    [([], None, None, 0.0), ([0.5], None, None, 0.5), ([0.1, 0.3], -0.4, 0.9, 0.2), ([1e-9, 2e-9], 0.0, 3e-9, 1.0)],
)
def test_members_are_drawn_inside_the_picture(members, low, high, threshold):
    drawn = page.strip(members, low, high, threshold)
    assert drawn is not None
    places = [float(one["cx"]) for tag, one in Page(drawn.text.encode()).elements if tag == "circle"]
    assert len(places) == len(members) and all(0 <= at <= 240 for at in places) and places == sorted(places)


def test_the_shaded_side_begins_at_the_threshold():
    drawn = page.strip([0.0, 1.0], 0.2, 0.8, 0.25)
    assert drawn is not None
    elements = Page(drawn.text.encode()).elements
    (shaded,) = [one for _, one in elements if one.get("class") == "above"]
    (line,) = [one for _, one in elements if one.get("class") == "threshold"]
    assert shaded["x"] == line["x1"] == "66.0"  # 12 + 216 / 4
    assert float(shaded["x"]) + float(shaded["width"]) == 240


@pytest.mark.parametrize("members", [[-1e308, 1e308], [0.0]])
def test_what_cannot_be_drawn_is_not(members):
    assert page.strip(members, None, None, 0.0) is None or members == [0.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.40234, "0.402"),
        (0.0, "0.000"),
        (-0.25, "-0.250"),
        (0.000312, "0.000312"),
        (1280000.0, "1,280,000"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_keep_their_digits_in_the_attribute(value, text):
    found = Page(page.number(value).text.encode())
    assert found.text[""] == text and found.numbers("") == [value]
    assert page.number(None).text == page.number(float("nan")).text == page.number(float("inf")).text


def test_only_the_number_of_a_preprint_becomes_a_link():
    found = Page(page.paper(f"{EVIL} arXiv 2311.08360 {EVIL}").text.encode())
    assert found.elements == [("a", {"href": "https://arxiv.org/abs/2311.08360", "rel": "noreferrer"})]
    assert page.paper("a book").text == "a book"
