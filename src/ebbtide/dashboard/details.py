"""One folder in detail: what `ebbtide report` says of it, as data, and what can be asked of it.

Importing this module imports JAX; the server does so in a thread, once the list is read.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebbtide.dashboard.curves import numbers
from ebbtide.dashboard.places import COMPUTED, SWEEP, Root
from ebbtide.dashboard.probes import probes_of
from ebbtide.dashboard.rows import BROKEN, now_of, reason
from ebbtide.errors import one_line
from ebbtide.evaluation.units import unit_of
from ebbtide.pages.facts import Facts, facts_of_computation, facts_of_run, facts_of_sweep
from ebbtide.pages.page import Grid
from ebbtide.report.tables import short
from ebbtide.runs.folder import RunFolder, checkpoint_names
from ebbtide.runs.records import Checkpoint
from ebbtide.studies.verdict import Verdict

LARGEST_STATE = 2**26
"""Largest number of bytes of a checkpoint that is read for the best models' values."""
LONGEST_CELL = 2000
MOST_ROWS = 2000
"""Largest number of rows of a table."""


def details_of(root: Root, name: str, path: Path) -> dict[str, Any]:
    """The answer to `/api/run`: a run, sweep or computation; of a damaged folder its name, and the reason."""
    try:
        if (path / COMPUTED).exists():
            return _derived(name, facts_of_computation(path))
        if (path / SWEEP).exists():
            root.check_runs_of(path)
            return _derived(name, facts_of_sweep(path))
        return _run(root, name, path)
    except BROKEN as error:
        return {"name": name, "kind": "damaged", "status": "damaged", "problem": reason(error)}


def _derived(name: str, facts: Facts) -> dict[str, Any]:
    """A folder that is no single run: what its report says."""
    return {"name": name, **_said(facts), "commands": _commands(facts, [])}


def _run(root: Root, name: str, path: Path) -> dict[str, Any]:
    facts, run = facts_of_run(RunFolder(path)), RunFolder(path)
    header, spec = run.header, run.header.spec
    now = now_of(run)
    place = shlex.quote(str(path))
    resume = [("continue", f"ebbtide resume {place}")] if now.status == "interrupted" else []
    probe = {"what": "probe the heads", "command": f"ebbtide probe {place} --measure induction_strength"}
    commands = [
        *_commands(facts, resume),
        {"what": "check every file", "command": f"ebbtide fsck {place}"},
        *([] if header.foreign else [probe]),
        {"what": "write the curves as a table", "command": f"ebbtide export {place} --out curves.csv"},
    ]
    return {
        "name": name,
        "label": {one_line(key): one_line(text) for key, text in header.label.items()},
        "digest": header.digest,
        "status": now.status,
        "status_words": now.words,
        "members": spec["members"],
        "sequences": now.sequences,
        "total": spec["sequences"],
        "batch": spec["batch"],
        "rate": now.rate,
        "eta": now.eta,
        "changed": now.changed,
        "evaluators": [
            {"name": one.name, "headline": one.headline, "chance": one.chance, "unit": unit_of(one.headline)}
            for one in header.instruments
        ],
        "metrics": header.metrics,
        "varied": {one_line(str(key)): list(values) for key, values in (spec.get("vary") or {}).items()},
        "checkpoints": [int(one) for one in checkpoint_names(path)],
        "best": _best(run, now.newest),
        "probes": probes_of(path),
        "command": commands[0]["command"],
        "commands": commands,
        **_said(facts),
    }


def _said(facts: Facts) -> dict[str, Any]:
    """What the report of any folder says."""
    tables = {table.title: table for table in facts.grids}
    settings = next((one for title, one in tables.items() if title.startswith("Setting")), Grid("", [], []))
    identity = next((one for title, one in tables.items() if title == "Versions"), Grid("", [], []))
    said = [*facts.facts, ("Seeds", facts.seeds), ("Unlike the paper", facts.unlike), ("Data needed", facts.needs)]
    question = (facts.verdict.question if facts.verdict else "") or (
        facts.experiment.question if facts.experiment else ""
    )
    return {
        "kind": facts.kind,
        "title": facts.title,
        "question": question,
        "paper": facts.study.paper if facts.study else "",
        "created": facts.created,
        "facts": [[key, _cell(text)] for key, text in said if text],
        "settings_columns": settings.columns,
        "settings": _rows(settings.rows),
        "identity": _rows(identity.rows),
        "verdict": verdict_of(facts.verdict),
        "problem": _cell(facts.problem),
    }


def _commands(facts: Facts, first: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """The commands to copy, the most useful first."""
    again = [("reproduce", facts.command)] if facts.command else []
    again += (
        [("reproduce, with the file from the report", facts.otherwise[0])]
        if facts.otherwise[0] and not facts.command
        else []
    )
    return [{"what": what, "command": command} for what, command in [*first, *again] if command]


def _rows(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [[_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows[:MOST_ROWS]]


def _cell(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} ..."


def verdict_of(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict as a page shows it; None where there is none."""
    if verdict is None:
        return None
    claims = [
        {
            "claim": one.claim,
            "statement": one.statement,
            "metric": one.metric,
            "source": one.source,
            "verdict": one.verdict,
            "needed": one.needed(),
            "threshold": one.threshold,
            "estimate": one.estimate,
            "low": one.low,
            "high": one.high,
            "members": one.members_above(),
            "share": one.share_words(),
            "note": one.note,
        }
        for one in verdict.claims
    ]
    return {"study": verdict.study, "preset": verdict.preset, "registered": verdict.registered, "claims": claims}


def _best(run: RunFolder, newest: Checkpoint | None) -> dict[str, Any] | None:
    """The best model of each member so far by the metric of `keep_best`: its value, and where it was reached."""
    by = run.header.spec.get("keep_best")
    if not isinstance(by, str) or newest is None or newest[1].state.size > LARGEST_STATE:
        return None
    try:
        best = run.best()
    except BROKEN:
        return None
    at = [int(one) if one >= 0 else None for one in best["sequences"]]
    words = ", ".join("-" if one is None else short(one) for one in at)
    return {"by": one_line(by), "values": numbers(best["value"]), "sequences": at, "words": words}
