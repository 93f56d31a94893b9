"""Writes the tables of verdicts on the pages of docs/papers: `python benchmarks/verdict_tables.py [VERDICT.json ...]`.

A page marks the place of a table by `<!-- verdict: NAME -->` and `<!-- end of verdict -->`; the table between them is
made of docs/papers/verdicts/NAME.json, the verdict.json of the run as it was written. A file that is given is copied
there first, under the name of its experiment and preset. `<!-- verdicts of this page -->` marks the count over all
tables of a page: how many claims hold, and how many would by chance. A test compares every page with its verdicts.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from ebbtide.evaluation.statistics import corrected
from ebbtide.studies.claim import TAIL, Judgement, family_words, most_false_holds
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


def number_words(value: float | None) -> str:
    """Three decimals; one from 10 on; none, with commas, from 1,000 on."""
    if value is None:
        return ""
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 3}f}"


def row(claim: Judgement) -> str:
    """A table's row on a claim."""
    interval = "" if claim.low is None else f" [{number_words(claim.low)}, {number_words(claim.high)}]"
    cells = (
        f"{claim.statement} ({claim.source})",
        f"{claim.metric} {claim.needed().removesuffix(' in most')}",
        number_words(claim.estimate) + interval,
        f"{claim.members_above()} ({claim.share_words()})",
        f"**{claim.verdict}**" + ("\\*" if claim.only_alone() else ""),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def basis(verdict: Verdict) -> str:
    """Words on how the verdict was registered and what trained its members."""
    trained = f"; trained by {verdict.trained_by}" if verdict.trained_by else ""
    return verdict.registered[:1].upper() + verdict.registered[1:] + trained + "."


def table(name: str) -> str:
    """The table of a verdict, with what it rests on."""
    verdict = verdict_named(name)
    lines = [
        f"<!-- verdict: {name} -->",
        f"`{verdict.command}`",
        "",
        "| claim | asked of each member | median [95 %] | members (share of all seeds) | verdict |",
        "|---|---|---|---|---|",
        *map(row, verdict.claims),
        "",
        basis(verdict),
        family_words(verdict.claims).replace(" * ", " \\* "),
        END,
    ]
    return "\n".join(lines)


def total(names: list[str]) -> str:
    """How many claims of these verdicts hold, how many would by chance, and how many do with Holm's correction over all
    of them."""
    claims = [claim for name in names for claim in verdict_named(name).claims]
    counts = Counter(claim.verdict for claim in claims)
    p_values = corrected(np.asarray([claim.p for claim in claims], np.float64))
    strong = sum(claim.verdict == "holds" and p <= TAIL for claim, p in zip(claims, p_values, strict=True))
    words = (
        f"Of {len(claims)} claims of {len(names)} runs {counts['holds']} hold, {counts['undecided']} are undecided and "
        f"{counts['fails']} fail. If all were false, at most {most_false_holds(claims):.2f} would hold by chance; with "
        f"Holm's correction over the whole page {strong} hold."
    )
    return f"<!-- verdicts of this page -->\n{words}\n{END}"


def written(page: str) -> str:
    """A page with its tables and its count as they should be."""
    names = TABLE.findall(page)
    page = TABLE.sub(lambda found: table(found[1]), page)
    return TOTAL.sub(lambda found: total(names), page)


def main() -> None:
    VERDICTS.mkdir(exist_ok=True)
    for path in map(Path, sys.argv[1:]):
        data = path.read_bytes()
        (VERDICTS / f"{name_of(msgspec.json.decode(data, type=Verdict))}.json").write_bytes(data)
    for path in sorted(PAPERS.glob("*.md")):
        path.write_text(written(path.read_text()))


if __name__ == "__main__":
    main()
