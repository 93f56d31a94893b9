"""A contest's folder as an entry of a page: its ranking, split by split, with the figure of one of them."""

from pathlib import Path

from ebbtide.contest.output import BASELINE, split_figure, table_rows
from ebbtide.contest.record import ContestRecord, SplitRecord, read_contest
from ebbtide.pages.page import Entry, Grid

DRAWN_FIRST = "elsewhere"
"""The split whose figure a page shows, where it could be made."""
COLUMNS = ["theory", "free parameters", "divergence", "95 % from", "to", "skill", "curve error", "coverage"]
NOTE = (
    "Divergence: KL of the strategy fractions in held-out cells, nats, with an interval over resampled members; skill: "
    f"1 - divergence / that of {BASELINE}; coverage: share of the held-out times within the theory's interval."
)


def entry_of_contest(path: Path) -> Entry:
    """The entry of a contest's folder, from contest.json alone: its figure is drawn anew.

    Raises:
        DamagedError: contest.json is not intact.
        InputError: contest.json is of another version.
    """
    record = read_contest(path)
    possible = sorted((one for one in record.splits if one.ranking()), key=lambda one: one.name != DRAWN_FIRST)
    of_all = "" if record.members == record.of_members else f" of {record.of_members}"
    return Entry(
        name=path.name,
        kind="contest",
        question=f"Which theory predicts the curves of {record.sweep} that it has not seen?",
        problem="" if possible else "No split could be made of these cells.",
        facts=[
            ("Cells", str(len(record.cells))),
            ("Members", f"{record.members}{of_all}, resampled {record.resamples} times"),
            *((f"Split {one.name}", _ranking_words(one)) for one in record.splits),
        ],
        figure=split_figure(record, possible[0])["svg"] if possible else b"",
        grids=[grid for one in record.splits for grid in _grids(record, one)],
    )


def _ranking_words(split: SplitRecord) -> str:
    """`persistence 0.035, bayes (mdl) 0.036, bayes (code) 0.141 nats; the noise floor, ... 0.015`: the three theories
    with the lowest divergence; or why the split is not possible."""
    if split.refused:
        return split.refused
    best = ", ".join(f"{one.name} {one.divergence:.3f}" for one in split.ranking()[:3])
    return f"{best} nats; the noise floor, by other seeds of the same cells, {split.floor:.3f}"


def _grids(record: ContestRecord, split: SplitRecord) -> list[Grid]:
    """Two tables of a split: the scores of its theories, and every pair of theories with what the data say of it."""
    if split.refused:
        return []
    rows = []
    for row in table_rows(record):
        if row["split"] == split.name and not row["refused"]:
            scores = [row[name] for name in ("divergence", "low", "high", "skill", "curve_error", "coverage")]
            rows.append([row["theory"], None if row["free"] is None else str(row["free"]), *scores])
    absent = "".join(f" Takes no part: {one.name} ({one.refused})." for one in split.theories if one.refused)
    pairs = [[pair.statement(), pair.verdict, pair.estimate, pair.low, pair.high] for pair in split.pairs]
    return [
        Grid(f"Split {split.name}: {split.words}", COLUMNS, rows, NOTE + absent),
        Grid(f"Split {split.name}: pairs", ["statement", "verdict", "nats", "95 % from", "to"], pairs),
    ]
