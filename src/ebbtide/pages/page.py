"""A page about runs and experiments: a summary over all, then a section for each with question, verdict, evidence."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ebbtide.pages import html as page
from ebbtide.pages.html import Content, Html, tag
from ebbtide.studies.claim import family_words

NOT_RUN = "not run"


class Grid(NamedTuple):
    """A table: a title, names of columns, rows of text and numbers (None: no number)."""

    title: str
    columns: list[str]
    rows: Sequence[Sequence[str | float | None]]
    note: str = ""


class Entry(NamedTuple):
    """The part of a page on one folder. `problem` is one line on why something is missing, `damaged` says that nothing
    in the folder can be trusted; `claims` (`studies.claim.Judgement`) is None where nothing was judged; an entry of the
    kind `not run` has a `command` only. Entries are sorted by `created`, which is not shown; `earlier` marks a folder
    that a newer one of the same experiment and preset replaces."""

    name: str
    kind: str
    experiment: str = ""
    preset: str = ""
    question: str = ""
    paper: str = ""
    problem: str = ""
    damaged: bool = False
    claims: Sequence[Any] | None = None
    facts: Sequence[tuple[str, str]] = ()
    command: str = ""
    before: str = ""
    figure: bytes = b""
    grids: Sequence[Grid] = ()
    texts: Sequence[tuple[str, str]] = ()
    created: str = ""
    earlier: bool = False


def entries_page(title: str, entries: Sequence[Entry]) -> bytes:
    """The page as a file: the same entries give the same bytes."""
    papers = list(dict.fromkeys(one.paper for one in entries if one.paper))
    lead = [tag("p", page.paper(text), class_="note") for text in papers[:3]]
    claims = [claim for one in entries if not one.earlier for claim in one.claims or ()]
    among = " in the newest of each" if any(one.earlier for one in entries) else ""
    answer = tag("p", _answer(claims) + (among and f"{among} experiment and preset"), class_="answer")
    return page.page(
        f"{title} · ebbtide report",
        tag("p", "ebbtide report", class_="eyebrow"),
        tag("h1", title),
        answer if claims else None,
        *lead,
        _summary(entries),
        *[section(one, f"e{i}") for i, one in enumerate(entries, 1) if one.kind != NOT_RUN],
        tag("footer", _legend()),
    )


def _answer(claims: Sequence[Any]) -> str:
    """`All 4 claims hold`; `2 of 4 claims hold, 1 fails, 1 is undecided`."""
    count, n = Counter(claim.verdict for claim in claims), len(claims)
    if count["holds"] == n:
        return f"All {n} claims hold" if n > 1 else "The claim holds"
    parts = [f"{count['holds'] or 'none'} of {n} claims {'holds' if count['holds'] == 1 else 'hold'}"]
    parts += [f"{count['fails']} {'fails' if count['fails'] == 1 else 'fail'}"] if count["fails"] else []
    open_ones = count["undecided"]
    parts += [f"{open_ones} {'is' if open_ones == 1 else 'are'} undecided"] if open_ones else []
    return ", ".join(parts).capitalize() if n > 1 else f"The claim {'fails' if count['fails'] else 'is undecided'}"


def _tally(one: Entry) -> Html:
    """Numbers of claims that hold, fail and are undecided; or the reason why there is no verdict."""
    if one.kind == NOT_RUN:
        return page.badge(NOT_RUN)
    if one.damaged:
        return page.join([tag("span", "damaged", class_="badge fails"), " ", one.problem])
    if one.claims is None:
        return page.join([page.badge("no verdict" if one.problem else "no claims"), " ", one.problem])
    count = Counter(claim.verdict for claim in one.claims)
    words = {"holds": "hold", "fails": "fail", "undecided": "undecided"}
    badges = [
        page.badge(word, f"{count[word]} {word if count[word] == 1 else many}")
        for word, many in words.items()
        if count[word]
    ]
    return page.join([*badges, one.problem])


def _summary(entries: Sequence[Entry]) -> Html:
    rows = []
    for i, one in enumerate(entries, 1):
        link = tag("a", one.experiment or one.name, href=f"#e{i}") if one.kind != NOT_RUN else one.experiment
        name = page.join([link, page.join([" ", page.badge("earlier")]) if one.earlier else None])
        how = page.command(one.command) if one.kind == NOT_RUN else None
        rows.append([name, one.preset, page.join([one.question, how]), _tally(one)])
    return page.table(["experiment", "preset", "question", "verdict"], rows, kind="cards")


def section(one: Entry, anchor: str | None = None) -> Html:
    """The section on one folder; `anchor` is where the page's summary leads to."""
    what = [one.experiment, one.preset and f"preset {one.preset}", f"{one.kind} {one.name}"]
    parts: list[Content] = [tag("p", " · ".join(word for word in what if word), class_="eyebrow")]
    parts.append(tag("h2", one.question or one.experiment or one.name))
    if one.claims:
        parts.append(tag("p", f"{_answer(one.claims)}.", class_="answer"))
    if one.problem:
        parts.append(tag("p", one.problem, class_=f"problem{'' if one.damaged else ' unfinished'}"))
    if one.claims:
        parts.append(_verdict(one.claims))
    if one.figure:
        parts.append(page.picture(one.figure, f"Figure of {one.experiment or one.name}"))
    facts: list[tuple[str, Content]] = [(name, text) for name, text in one.facts if text]
    if one.paper:
        facts.append(("Paper", page.paper(one.paper)))
    if one.command:
        text = tag("p", one.before, class_="note") if one.before else None
        facts.append(("Reproduce", page.join([page.command(one.command), text])))
    parts.append(page.terms(facts) if facts else None)
    parts += [_grid(grid) for grid in one.grids if grid.rows]
    parts += [page.details(title, page.block(text)) for title, text in one.texts]
    return tag("section", *parts, id=anchor)


def _verdict(claims: Sequence[Any]) -> Html:
    rows: list[list[Content]] = []
    for c in claims:
        small = f"{c.metric}. Source: {c.source}" + (f". {c.note.capitalize()}" if c.note else "")
        statement = page.join([c.statement, tag("span", small, class_="small")])
        ends = ["[", page.number(c.low), ", ", page.number(c.high), "]"]
        share = tag("span", c.share_words(), class_="interval") if c.share_words() else None
        interval = tag("span", *ends, class_="interval") if c.low is not None else None
        drawn = page.strip([x for x in c.members if x is not None], c.low, c.high, c.threshold)
        _, _, of = c.needed().partition(" in ")
        needed = tag("span", "> ", tag("data", f"{c.threshold:g}", value=repr(c.threshold)), class_="number")
        needed = page.join([needed, f" in {of}"]) if of else needed
        estimate = page.join([page.number(c.estimate), " ", interval])
        verdict = page.join([page.badge(c.verdict), " *" if c.only_alone() else None])
        rows.append([statement, verdict, needed, estimate, drawn, page.join([c.members_above(), " ", share])])
    columns = [
        "claim",
        "verdict",
        "needed",
        "median [95\u00a0%]",
        "members, interval, threshold",
        "members above (share)",
    ]
    return page.join([page.table(columns, rows, kind="cards verdict"), tag("p", family_words(claims), class_="note")])


def _grid(grid: Grid) -> Html:
    rows = [[page.number(c) if isinstance(c, float) else "–" if c is None else c for c in row] for row in grid.rows]
    note = tag("p", grid.note, class_="note") if grid.note else None
    return page.details(grid.title, note, page.table(grid.columns, rows, kind="values"))


def _legend() -> Html:
    return tag(
        "p",
        "A claim was written before the run. It says that in most of all members (or another share) an estimate is "
        "above a threshold. It holds when the whole exact 95 % interval of the share of members above lies over that "
        "share, fails when the whole interval lies under it, and is undecided otherwise; a member that diverged "
        "counts as not above. Verdicts of earlier versions judged the mean by Student's interval. In the small "
        "pictures dots are members, the bar is the interval of the median, the dashed line is the threshold and the "
        "shaded side is "
        "where the claim holds. A dash stands for a number that there is not; a star after a preset says that some "
        "of its fields were changed.",
    )
