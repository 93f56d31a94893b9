"""Writes the tables of verdicts on the pages of docs/papers: `python benchmarks/verdict_tables.py [VERDICT.json ...]`.

A page marks the place of a table by `<!-- verdict: NAME -->` and `<!-- end of verdict -->`; the table between them is
made of docs/papers/verdicts/NAME.json, the verdict.json of the run as it was written. A file that is given is copied
there first, under the name of its experiment and preset; NAME.again.json is the same experiment trained by the other of
the compiled kernel and XLA, and where the two differ in a word the claim is undecided. A page's
`<!-- verdicts of this page -->` marks the count over all its tables: how many claims hold, how many would by chance.
A test compares every page with its verdicts.
"""

import re
import sys
import textwrap
from collections import Counter
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ebbtide.studies.claim import Judgement, family_words, most_false_holds
from ebbtide.studies.verdict import Verdict

PAPERS = Path(__file__).parents[1] / "docs" / "papers"
VERDICTS = PAPERS / "verdicts"
END = "<!-- end of verdict -->"
TABLE = re.compile(rf"<!-- verdict: (\S+) -->\n.*?{END}", re.DOTALL)
TOTAL = re.compile(rf"<!-- verdicts of this page -->\n.*?{END}", re.DOTALL)


def verdict_named(name: str) -> Verdict:
    """A published verdict, such as `transience-l2-quick`."""
    return msgspec.json.decode((VERDICTS / f"{name}.json").read_bytes(), type=Verdict)


def name_of(verdict: Verdict) -> str:
    """Its experiment and preset: `transience-l2-quick`."""
    return f"{verdict.study.replace('/', '-')}-{verdict.preset}"


def words_again(name: str) -> dict[str, str]:
    """The words of each claim where another rounding trained the members; empty where none has."""
    if not (VERDICTS / f"{name}.again.json").exists():
        return {}
    return {claim.claim: claim.verdict for claim in verdict_named(f"{name}.again").claims}


def reconciled(claim: Judgement, again: str) -> Judgement:
    """The claim, undecided where another rounding says another word."""
    return claim if again in ("", claim.verdict) else replace(claim, verdict="undecided")


def number_words(value: float | None) -> str:
    """Three decimals; one from 10 on; none, with commas, from 1,000 on."""
    if value is None:
        return ""
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 3}f}"


def row(claim: Judgement, again: str = "") -> str:
    """A table's row on a claim, with its word by another rounding where that differs."""
    differs = again not in ("", claim.verdict)
    interval = "" if claim.low is None else f" [{number_words(claim.low)}, {number_words(claim.high)}]"
    cells = (
        f"{claim.statement} ({claim.source})",
        f"{claim.metric} {claim.needed().removesuffix(' in most')}",
        number_words(claim.estimate) + interval,
        f"{claim.members_above()} ({claim.share_words()})",
        f"**{reconciled(claim, again).verdict}**"
        + (f" ({claim.verdict} here, {again} by another rounding)" if differs else "\\*" if claim.only_alone() else ""),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def basis(verdict: Verdict) -> str:
    """Words on how the verdict was registered and what trained its members."""
    trained = f"; trained by {verdict.trained_by}" if verdict.trained_by else ""
    return verdict.registered[:1].upper() + verdict.registered[1:] + trained + "."


def table(name: str) -> str:
    """The table of a verdict, with what it rests on."""
    verdict, again = verdict_named(name), words_again(name)
    lines = [
        f"<!-- verdict: {name} -->",
        f"`{verdict.command}`",
        "",
        "| claim | asked of each member | median [95 %] | members (share of all seeds) | verdict |",
        "|---|---|---|---|---|",
        *(row(claim, again.get(claim.claim, "")) for claim in verdict.claims),
        "",
        basis(verdict) + (f" Again by {verdict_named(f'{name}.again').trained_by}." if again else ""),
        family_words(verdict.claims).replace(" * ", " \\* "),
        END,
    ]
    return "\n".join(lines)


def total(names: list[str]) -> str:
    """How many claims of these verdicts hold, and how many would by chance if all were false."""
    claims = [
        reconciled(claim, again.get(claim.claim, ""))
        for name in names
        for again in (words_again(name),)
        for claim in verdict_named(name).claims
    ]
    counts = Counter(claim.verdict for claim in claims)
    words = (
        f"Of {len(claims)} claims of {len(names)} run{'s' if names[1:] else ''} {counts['holds']} "
        f"hold{'s' if counts['holds'] == 1 else ''}, {counts['undecided']} "
        f"{'is' if counts['undecided'] == 1 else 'are'} undecided and {counts['fails']} "
        f"fail{'s' if counts['fails'] == 1 else ''}. If all were false, at most "
        f"{most_false_holds(claims):.2f} would hold by chance."
    )
    return f"<!-- verdicts of this page -->\n{textwrap.fill(words, 120)}\n{END}"


def written(page: str) -> str:
    """A page with its tables and its count as they should be."""
    names = TABLE.findall(page)
    page = TABLE.sub(lambda found: table(found[1]), page)
    return TOTAL.sub(lambda found: total(names), page)


def main() -> None:
    VERDICTS.mkdir(exist_ok=True)
    for path in map(Path, sys.argv[1:]):
        try:
            data = path.read_bytes()
            verdict = msgspec.json.decode(data, type=Verdict)
        except (OSError, msgspec.DecodeError) as error:
            sys.exit(f"VERDICT.json = {path}: must be the verdict of a run ({error})")
        first = VERDICTS / f"{name_of(verdict)}.json"
        other = first.exists() and verdict_named(first.stem).trained_by != verdict.trained_by
        (first.with_suffix(".again.json") if other else first).write_bytes(data)
    for path in sorted(PAPERS.glob("*.md")):
        path.write_text(written(path.read_text()))


if __name__ == "__main__":
    main()
