"""One run or sweep folder as an entry of a page: read, checked, put into words. Nothing is computed anew."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import InputError, one_line
from ebbtide.report.entries import Entry, Grid
from ebbtide.report.progress import clock
from ebbtide.runs.folder import DamagedError, Run
from ebbtide.runs.reading import read_bounded
from ebbtide.studies import STUDIES
from ebbtide.studies.experiment import digest
from ebbtide.studies.settings import (
    Flat,
    data_needed,
    defaults,
    differing,
    flat,
    run_command,
    scaled,
    seeds,
    value_text,
)
from ebbtide.studies.study import Study, Verdict, read_verdict, verdict_in
from ebbtide.sweeps.axes import MEMBER
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.results import SCALARS, Results
from ebbtide.training.spec import Spec, from_builtins

LARGEST_FIGURE = 2**24
MOST_ROWS = 500
"""Rows of a sweep's table on the page; `ebbtide sweep collect` writes all."""
BROKEN = (InputError, DamagedError, OSError)
"""What reading a folder may raise that is the folder's fault."""
AGAIN = """from pathlib import Path
import ebbtide
from ebbtide.training.spec import from_json
ebbtide.train(from_json(Path("spec.json").read_bytes()), "again")"""
Rows = list[Sequence[str | float | None]]


def run_entry(run: Run) -> Entry:
    """A run: what it asked, what came of it, what it rests on. Raises one of `BROKEN` when it cannot be believed."""
    header, problem = run.header, ""
    study = _study(header.label.get("study", ""))
    newest = next(run.manifests(), None)
    curves = run.metrics() if newest and newest[1].segments else None  # raises where a segment is damaged
    total = header.spec["sequences"]
    if newest is None or not newest[1].finished:
        problem = f"Unfinished: {value_text(run.sequences())} of {value_text(total)} sequences. "
        problem += f"Continue with: ebbtide resume {run.path.name}"
    verdict = None
    try:
        verdict = read_verdict(run)
        if verdict is None and study is not None and not problem:
            problem = f"Not judged yet. Judge it with: ebbtide resume {run.path.name}"
    except InputError as error:
        problem = _sentence(error.allowed)
    spec, settings, needs = _settings(header.spec, study)
    seconds = newest[1].seconds if newest else 0.0
    repeatable = newest is not None and newest[1].repeatable
    facts = [
        ("Members", f"{header.spec['members']}, of {value_text(total)} sequences each"),
        ("Seeds", (verdict.seeds if verdict else "") or seeds(header.spec)),
        ("Scaled", (verdict.scaled if verdict else "") or (_scaled(study, header.spec) if study else "")),
        ("Data needed", needs),
        ("Interval", verdict.interval if verdict else ""),
        ("Training time", f"{clock(seconds)} as the run recorded it" if seconds else ""),
    ]
    identity: Rows = [[name, value_text(value)] for name, value in header.identity.items()]
    identity += [["repeatable bit for bit", value_text(repeatable)], ["spec", header.digest]]
    command = (verdict.command if verdict else "") or (_command(study, header.label, spec) if study else "")
    return Entry(
        name=run.path.name,
        kind="run",
        experiment=(verdict.study if verdict else "") or header.label.get("study", ""),
        preset=header.label.get("preset", ""),
        question=(verdict.question if verdict else "") or (study.question if study else ""),
        paper=verdict.paper if verdict else study.paper if study else "",
        problem=problem,
        claims=verdict.claims if verdict else None,
        facts=facts,
        command=command or AGAIN,
        before="" if command else "The file spec.json is at the end of this section.",
        figure=(_figure(run.path) if verdict else b"") or _drawn(run, curves),
        grids=[settings, *_members(verdict, header.spec), Grid("Versions", ["what", "value"], identity)],
        texts=[("Every field of the spec (spec.json)", _json(header.spec))],
        created=header.created,
    )


def sweep_entry(path: Path) -> Entry:
    """A sweep, with the claims of its experiment where it has been judged. Raises one of `BROKEN` when it cannot be
    believed."""
    results = Results(path)
    sweep, folder = results.folder.sweep, results.folder
    rows = results.table()
    verdict, problem = None, ""
    states = Counter(row["state"] for row in rows)
    ended = states["finished"] + states["diverged"]
    if ended < len(rows):
        rest = ", ".join(f"{n} {state}" for state, n in sorted(states.items()) if state not in ("finished", "diverged"))
        problem = f"Unfinished: {ended} of {len(rows)} members are trained ({rest}). "
        problem += f"Continue with: ebbtide sweep {path.name}"
    try:
        verdict = verdict_in(path)
        if verdict is not None and verdict.digest != digest(sweep):
            verdict, problem = None, problem or "Not judged since its description changed."
    except InputError as error:
        problem = _sentence(error.allowed)
    study = _study((verdict.study if verdict else "") or sweep.study or "")
    base = msgspec.to_builtins(sweep.spec())
    identities, created, seconds = _company(folder)
    axes = {name: list(dict.fromkeys(row[name] for row in rows)) for name in results.axes}
    _, settings, needs = _settings(base, study, axes)
    grid = Grid(
        "Axes: what differs between the members",
        ["field", "values", "how many"],
        [[name, value_text(values), len(values)] for name, values in axes.items()],
    )
    facts = [
        ("Members", f"{value_text(len(rows))}, {_counted(states)}"),
        ("Sequences", f"{value_text(base['sequences'])} for each member" if "sequences" not in axes else ""),
        ("Seeds", (verdict.seeds if verdict else "") or seeds(base | {"vary": {MEMBER: axes.get(MEMBER, [0])}})),
        ("Scaled", (verdict.scaled if verdict else "") or (_scaled(study, base, axes) if study else "")),
        ("Data needed", needs if "source" not in axes else f"differs: source is one of {value_text(axes['source'])}"),
        ("Interval", verdict.interval if verdict else ""),
        ("Training time", f"{clock(seconds)} over all tasks, as they recorded it" if seconds else ""),
    ]
    command = verdict.command if verdict else ""
    return Entry(
        name=path.name,
        kind="sweep",
        experiment=verdict.study if verdict else sweep.name,
        preset=verdict.preset if verdict else sweep.preset if sweep.study else "",
        question=(verdict.question if verdict else "") or "",
        paper=verdict.paper if verdict else study.paper if study else "",
        problem=problem,
        claims=verdict.claims if verdict else None,
        facts=facts,
        command=command or f"ebbtide sweep {sweep.name}.json",
        before="" if command else "The file is at the end of this section.",
        figure=_figure(path) or _charted(results),
        grids=[
            grid,
            settings,
            *_members(verdict, {}),
            _tidy(results, rows),
            *_set_aside(folder),
            _versions(identities),
        ],
        texts=[(f"The sweep as a file ({sweep.name}.json)", sweep.to_json().decode())],
        created=created,
    )


def _counted(states: Counter[str]) -> str:
    """`all finished`; `6 finished, 2 missing`."""
    if len(states) == 1:
        return f"all {next(iter(states))}"
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items()))


def _company(folder: SweepFolder) -> tuple[list[dict[str, Any]], str, float]:
    """Of all runs of a sweep that can be read: identities, when the newest was made, seconds of training."""
    identities, created, seconds = [], "", 0.0
    for task in sorted(folder.specs):
        try:
            run = folder.run(task)
        except BROKEN:
            continue
        if run is not None:
            identities.append(run.header.identity | {"members": None})
            created = max(created, run.header.created)
            newest = next(run.manifests(), None)
            seconds += newest[1].seconds if newest else 0.0
    return identities, created, seconds


def _versions(identities: list[dict[str, Any]]) -> Grid:
    """Every value that a run of the sweep was made under."""
    found: dict[str, dict[str, None]] = {}
    for identity in identities:
        for name, value in identity.items():
            if value is not None:
                found.setdefault(name, {})[value_text(value)] = None
    return Grid("Versions", ["what", "value"], [[name, " or ".join(values)] for name, values in found.items()])


def _set_aside(folder: SweepFolder) -> Iterable[Grid]:
    """Tasks that failed again and again, with the last line of what they printed."""
    rows = []
    for task in sorted(folder.specs):
        try:
            failures = folder.failures(task) if folder.state(task) == "quarantined" else []
        except BROKEN:
            continue
        if failures:
            lines = failures[-1].text.strip().splitlines() or ["no message"]
            rows.append([task, failures[-1].kind, one_line(lines[-1])])
    yield Grid("Set aside: tasks that failed again and again", ["task", "how", "last words"], rows)


def _tidy(results: Results, rows: list[dict[str, Any]]) -> Grid:
    """The sweep's table without the scalars that no member has."""
    names = [name for name in SCALARS if any(row[name] is not None for row in rows)]
    columns = [*results.axes, "state", *names]
    body = [[row[name] if name in names else value_text(row[name]) for name in columns] for row in rows[:MOST_ROWS]]
    more = len(rows) - MOST_ROWS
    note = f"The first {MOST_ROWS}; {more} more: ebbtide sweep collect" if more > 0 else ""
    return Grid(f"Members one by one ({len(rows)})", columns, body, note)


def _members(verdict: Verdict | None, spec: dict[str, Any]) -> Iterable[Grid]:
    """What every claim estimates in each member, and what else was read off their curves."""
    if verdict is None:
        return
    vary = spec.get("vary")
    lists: list[tuple[str, list[Any]]] = list(vary.items()) if isinstance(vary, dict) else []
    lists += [(f"{claim.claim}: {claim.metric}", claim.members) for claim in verdict.claims]
    lists += list(verdict.summary.items())
    count = max((len(values) for _, values in lists), default=0)
    rows = [[name, *values, *[None] * (count - len(values))] for name, values in lists]
    note = (
        "First what each claim estimates, then what else was read off the smoothed curves." if verdict.summary else ""
    )
    title = f"Numbers of each member ({count})" if spec else f"Numbers behind each claim ({count})"
    yield Grid(title, ["member", *[f"{i}" for i in range(count)]], rows, note)


def _settings(
    builtins: dict[str, Any], study: Study | None, but: Collection[str] = ()
) -> tuple[Spec | None, Grid, str]:
    """The spec, its fields (not `but`) that differ from the defaults or from the study's preset `paper`, the data it
    needs."""
    title, columns = "Settings that differ from the defaults", ["field", "here", "default"]
    try:
        spec = from_builtins(builtins)
    except InputError as error:
        note = f"Made by another version of ebbtide, which knows its defaults ({error})."
        fields: Rows = [[name, value_text(value)] for name, value in flat(builtins).items()]
        return None, Grid("Settings", ["field", "here"], fields, note), ""
    usual, original = defaults(spec), _original(study)
    names = list(differing(builtins, usual))
    if original:
        title, columns = f"{title} or from preset paper", [*columns, "preset paper"]
        smaller = [name for name in differing(builtins, original) if name in original]
        names = [name for name in flat(builtins) if name in names or name in smaller]
    found, names = flat(builtins), [name for name in names if name not in but]
    every = [found, usual, original] if original else [found, usual]
    rows: Rows = [[n, *[value_text(one[n]) if n in one else None for one in every]] for n in names]
    return spec, Grid(title, columns, rows), data_needed(spec)


def _original(study: Study | None) -> Flat:
    return flat(msgspec.to_builtins(study.presets["paper"].spec)) if study and "paper" in study.presets else {}


def _scaled(study: Study, spec: dict[str, Any], but: Collection[str] = ()) -> str:
    preset = study.presets.get("paper")
    return scaled(spec, preset.spec, preset.note, but) if preset else ""


def _command(study: Study, label: dict[str, str], spec: Spec | None) -> str:
    base = label.get("preset", "").rstrip("*")
    if spec is None or base not in study.presets:
        return ""
    return run_command(study.name, base, study.presets[base].spec, msgspec.to_builtins(spec))


def _study(name: str) -> Study | None:
    """The study of this name, or of which it is an experiment."""
    return next((one for one in STUDIES if name == one.name or name.startswith(f"{one.name}/")), None)


def _figure(path: Path) -> bytes:
    """The figure in a folder; nothing when there is none that can be read."""
    for name in ("figure.svg", "figure.png"):
        try:
            return read_bounded(path, name, LARGEST_FIGURE)
        except BROKEN:
            continue
    return b""


def _drawn(run: Run, curves: dict[str, Any] | None) -> bytes:
    """The curves of a run that has no figure of its own yet."""
    if curves is None or len(curves["sequences"]) < 3:
        return b""
    from ebbtide.report.figure import curves_figure

    return curves_figure(run, "Accuracy and loss")["figure.svg"]  # names from a folder could be read as formulas


def _charted(results: Results) -> bytes:
    """Of a sweep that has no figure of its own: ICL by its axis, or the phase diagram of its two axes."""
    from ebbtide.report.grid_figure import curves_by_figure, phase_figure
    from ebbtide.sweeps.views import curves_by, phase

    axes = [name for name in results.axes if name != MEMBER]
    try:
        if len(axes) == 1:
            curves = curves_by(results, "icl", axes[0])
            chance, title = results.chance("icl"), "ICL accuracy"
            files = curves_by_figure(curves, metric="icl", axis=axes[0], split=None, chance=chance, title=title)
            return files["figure.svg"]
        if len(axes) == 2 and any(row.state == "finished" for row in results.rows):
            y, x = axes
            found = phase(results, x, y, "transience")
            return phase_figure(found, x=x, y=y, value="transience", title="Transience")["figure.svg"]
    except (*BROKEN, ValueError):  # nothing has finished, no member has this curve, values that cannot be written
        pass
    return b""


def _json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
