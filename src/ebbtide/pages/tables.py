"""Tables of a page about one folder: arms, members, settings, versions."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ebbtide.errors import InputError, one_line
from ebbtide.evaluation.divergence import Curves
from ebbtide.evaluation.summary import known_scalars
from ebbtide.pages.page import Grid
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.studies.claim import number
from ebbtide.studies.describe import Flat, data_needed, defaults, differing, flat, value_text, within
from ebbtide.studies.study import Study
from ebbtide.studies.verdict import Verdict
from ebbtide.sweeps.axes import MEMBER, Point
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.results import Results
from ebbtide.sweeps.rows import SCALARS
from ebbtide.training.spec import Spec, from_builtins

UNREADABLE = (InputError, DamagedError, OSError)
"""Errors that reading a damaged folder may raise."""
MOST_ROWS = 500
"""Rows of a sweep's table on the page; `ebbtide sweep collect` writes all."""


def table_of_computation(verdict: Verdict | None) -> Iterable[Grid]:
    """Table of the scalars of each seed's curves; a claim may be about some of the seeds only."""
    if verdict is not None:
        count, rows = _side_by_side(verdict.summary.items())
        yield Grid(f"Numbers of each seed ({count})", ["seed", *[f"{i}" for i in range(count)]], rows)


def table_of_arms(arms: dict[str, Point]) -> Grid:
    """The fields that each arm sets."""
    rows = [[arm, ", ".join(f"{n} {value_text(v)}" for n, v in point.items())] for arm, point in arms.items()]
    return Grid("Arms: what each sets, on the same seeds", ["arm", "fields"], rows)


def table_of_axes(axes: dict[str, list[Any]]) -> Grid:
    """The values of each axis."""
    rows = [[name, value_text(values), str(len(values))] for name, values in axes.items()]
    return Grid("Axes: what differs between the members", ["field", "values", "how many"], rows)


def table_of_versions(identities: list[dict[str, Any]]) -> Grid:
    """Every value that a run of the sweep was made under."""
    found: dict[str, dict[str, None]] = {}
    for identity in identities:
        for name, value in identity.items():
            if value is not None:
                found.setdefault(name, {})[value_text(value)] = None
    return Grid("Versions", ["what", "value"], [[name, " or ".join(values)] for name, values in found.items()])


def table_of_failures(folder: SweepFolder) -> Iterable[Grid]:
    """Table of the tasks that failed repeatedly, with the last line of their output."""
    rows = []
    for task in sorted(folder.specs):
        try:
            failures = folder.failures(task) if folder.state(task) == "quarantined" else []
        except UNREADABLE:
            continue
        if failures:
            lines = failures[-1].text.strip().splitlines() or ["no message"]
            rows.append([task, failures[-1].kind, one_line(lines[-1])])
    yield Grid("Set aside: tasks that failed again and again", ["task", "how", "last words"], rows)


def table_of_members(results: Results, rows: list[dict[str, Any]], arms: Collection[str]) -> Grid:
    """The sweep's table without the scalars that no member has; an experiment's by arm and member."""
    names = [name for name in SCALARS if any(row[name] is not None for row in rows)]
    left = [MEMBER] if arms else results.axes
    each = len(rows) // len(arms) if arms else 0
    of = [[arm] for arm in arms for _ in range(each)] if arms else [[] for _ in rows]
    body = [
        [*arm, *[value_text(row[name]) for name in [*left, "state"]], *[row[name] for name in names]]
        for arm, row in zip(of, rows[:MOST_ROWS], strict=False)
    ]
    more = len(rows) - MOST_ROWS
    note = f"The first {MOST_ROWS}; {more} more: ebbtide sweep collect" if more > 0 else ""
    return Grid(f"Members one by one ({len(rows)})", [*(["arm"] if arms else []), *left, "state", *names], body, note)


def table_of_numbers(verdict: Verdict | None, spec: dict[str, Any]) -> Iterable[Grid]:
    """Tables of every claim's estimate in each member, and of the members' other scalars."""
    if verdict is None:
        return
    vary = spec.get("vary")
    lists: list[tuple[str, list[Any]]] = list(vary.items()) if isinstance(vary, dict) else []
    lists += [(f"{claim.claim}: {claim.metric}", claim.members) for claim in verdict.claims]
    lists += list(verdict.summary.items())
    count, rows = _side_by_side(lists)
    note = (
        "First what each claim estimates, then what else was read off the smoothed curves." if verdict.summary else ""
    )
    title = f"Numbers of each member ({count})" if spec else f"Numbers behind each claim ({count})"
    yield Grid(title, ["member", *[f"{i}" for i in range(count)]], rows, note)


def table_of_summary(run: RunFolder, curves: Curves | None, spec: dict[str, Any]) -> Iterable[Grid]:
    """Table of what is read off the smoothed curves of each member, for a run without a verdict."""
    if curves:
        vary = spec.get("vary")
        lists: list[tuple[str, list[Any]]] = list(vary.items()) if isinstance(vary, dict) else []
        lists += [(name, [number(x) for x in values]) for name, values in known_scalars(curves, run.chance()).items()]
        count, rows = _side_by_side(lists)
        note = "Read off the smoothed curves."
        yield Grid(f"Numbers of each member ({count})", ["member", *[f"{i}" for i in range(count)]], rows, note)


def _side_by_side(lists: Iterable[tuple[str, Sequence[Any]]]) -> tuple[int, list[list[Any]]]:
    """Length of the longest list, and a row for each list, filled up to that length."""
    lists = list(lists)
    count = max((len(values) for _, values in lists), default=0)
    return count, [[name, *values, *[None] * (count - len(values))] for name, values in lists]


def table_of_settings(
    builtins: dict[str, Any], study: Study | None, but: Collection[str] = ()
) -> tuple[Spec | None, Grid, str]:
    """The spec, its fields (not `but`) that differ from the defaults or from the study's preset `paper`, the data it
    needs."""
    title, columns = "Settings that differ from the defaults", ["field", "here", "default"]
    try:
        spec = from_builtins(builtins)
    except InputError as error:
        note = f"Made by another version of ebbtide, which knows its defaults ({error})."
        fields = [[name, value_text(value)] for name, value in flat(builtins).items()]
        return None, Grid("Settings", ["field", "here"], fields, note), ""
    usual, original = defaults(spec), _paper_fields(study)
    names = list(differing(builtins, usual))
    if original:
        title, columns = f"{title} or from preset paper", [*columns, "preset paper"]
        smaller = [name for name in differing(builtins, original) if name in original]
        names = [name for name in flat(builtins) if name in names or name in smaller]
    found, names = flat(builtins), [name for name in names if not within(name, but)]
    every = [found, usual, original] if original else [found, usual]
    rows = [[n, *[value_text(one[n]) if n in one else None for one in every]] for n in names]
    return spec, Grid(title, columns, rows), data_needed(spec)


def _paper_fields(study: Study | None) -> Flat:
    return flat(study.bases["paper"].spec.builtins()) if study and "paper" in study.bases else {}
