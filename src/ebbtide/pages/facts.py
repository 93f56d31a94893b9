"""One run or sweep folder as an entry of a page: read, checked, put into words. Nothing is computed anew."""

import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ebbtide.errors import InputError, one_line
from ebbtide.pages.page import Entry, Grid
from ebbtide.papers.registry import COMPUTED, STUDIES
from ebbtide.report.progress import clock
from ebbtide.report.tables import divergence
from ebbtide.runs.folder import DamagedError, Run
from ebbtide.runs.reading import read_bounded
from ebbtide.studies.computed import read_record
from ebbtide.studies.describe import (
    Flat,
    data_needed,
    defaults,
    differing,
    field_words,
    flat,
    run_command,
    scaled,
    seeds,
    value_text,
    within,
)
from ebbtide.studies.experiment import Experiment, digest, find_verdict, folder_in, make_sweep
from ebbtide.studies.study import VERDICT, Study, Verdict, judged_by, read_verdict, verdict_in
from ebbtide.sweeps.axes import MEMBER, Point
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.results import SCALARS, Results
from ebbtide.sweeps.sweep import Origin, Sweep
from ebbtide.training.spec import Spec, from_builtins

LARGEST_FIGURE = 2**24
MOST_ROWS = 500
"""Rows of a sweep's table on the page; `ebbtide sweep collect` writes all."""
CHANGED = "a preset: this version's experiment of this name makes another sweep"
BROKEN = (InputError, DamagedError, OSError)
"""What reading a folder may raise that is the folder's fault."""
AGAIN = """from pathlib import Path
import ebbtide
from ebbtide.training.spec import from_json
ebbtide.train(from_json(Path("spec.json").read_bytes()), "again")"""


class Asked(NamedTuple):
    """The experiment that a sweep is: preset (with * when fields were changed), arms, and the command that makes the
    sweep (empty: a preset has changed since, and this version makes another one)."""

    study: Study
    experiment: Experiment
    preset: str
    arms: dict[str, Point]
    command: str


def asked(sweep: Sweep, verdict: Verdict | None = None) -> Asked | None:
    """The experiment that a sweep is, None when it is none: as its folder says; where an earlier version made that, the
    one that makes exactly this sweep, or the one that its verdict names."""
    made = _made_by(sweep)
    origin = sweep.origin or (made[0] if made else None) or (_judged_as(sweep, verdict) if verdict else None)
    study = _study(sweep.study or "")
    if origin is None or study is None or origin.experiment not in [one.name for one in study.experiments]:
        return None
    if sweep.name != f"{study.name}-{origin.experiment}-{origin.preset.rstrip('*')}":
        return None
    each = list(sweep.axes[0].points()) if sweep.axes else []
    arms = dict(zip(origin.arms, each, strict=True)) if len(each) == len(origin.arms) else {}
    return Asked(study, study.experiment(origin.experiment), origin.preset, arms, made[1] if made else "")


def _made_by(sweep: Sweep) -> tuple[Origin, str] | None:
    """The experiment of this version that makes exactly this sweep, and its command."""
    for study, one, preset in ((s, e, p) for s in STUDIES for e in s.experiments for p in e.settings):
        if sweep.study != study.name or sweep.name != f"{study.name}-{one.name}-{preset}":
            continue
        usual = make_sweep(study, one, preset).base
        changed = {name: value for name, value in sweep.base.items() if name not in usual or usual[name] != value}
        with contextlib.suppress(InputError):
            again = make_sweep(study, one, preset, changed)
            if again.origin is not None and digest(again) == digest(sweep):
                words = ["ebbtide", "run", study.name, "--experiment", one.name, "--preset", preset, "--check"]
                words += [word for name, value in changed.items() for word in field_words(name, value)]
                return again.origin, shlex.join(words)
    return None


def _judged_as(sweep: Sweep, verdict: Verdict) -> Origin | None:
    """What a verdict says of the sweep that it is of; its summary names the arms, unless one has not finished."""
    study, _, experiment = verdict.study.partition("/")
    names = tuple(dict.fromkeys(name.rpartition(": ")[0] for name in verdict.summary))
    if study != sweep.study or not experiment:
        return None
    return Origin(experiment=experiment, preset=verdict.preset, arms=names)


def run_entry(run: Run) -> Entry:
    """A run: what it asked, what came of it, what it rests on. Raises one of `BROKEN` when it cannot be believed."""
    header, problem = run.header, ""
    study = _study(header.label.get("study", ""))
    newest = next(run.manifests(), None)
    curves = run.metrics() if newest and newest[1].segments else None  # raises where a segment is damaged
    total = header.spec["sequences"]
    if newest is None or not newest[1].finished:
        problem = f"Unfinished: {value_text(run.sequences())} of {value_text(total)} sequences. "
        problem += f"Continue with: ebbtide resume {shlex.quote(run.path.name)}"
    verdict = None
    try:
        verdict = read_verdict(run)
        if verdict is None and study is not None and not problem:
            problem = f"Not judged yet. Judge it with: ebbtide resume {shlex.quote(run.path.name)}"
    except InputError as error:
        problem = _sentence(error.allowed)
    if curves and (words := divergence(curves)):
        problem = " ".join([f"Diverged: {words}.", problem]).strip()
    figure, why = (_figure(run.path), "") if verdict else (b"", "")
    if not figure:
        figure, why = _drawn(lambda: _curves(run, curves))
    spec, settings, needs = _settings(header.spec, study)
    seconds = newest[1].seconds if newest else 0.0
    repeatable = newest is not None and newest[1].repeatable
    facts = [
        ("Members", f"{header.spec['members']}, of {value_text(total)} sequences each"),
        ("Seeds", seeds(header.spec)),
        ("Unlike the paper", (verdict.scaled if verdict else "") or (_scaled(study, header.spec) if study else "")),
        ("Data needed", needs),
        ("Interval", verdict.interval if verdict else ""),
        ("Judged by", judged_by(verdict, study.claims if study else None)),
        ("Training time", f"{clock(seconds)} as the run recorded it" if seconds else ""),
    ]
    identity = [[name, value_text(value)] for name, value in header.identity.items()]
    identity.append(["repeatable bit for bit", value_text(repeatable)])
    identity.append(["spec", header.digest])
    command = (verdict.command if verdict else "") or (_command(study, header.label, spec) if study else "")
    return Entry(
        name=run.path.name,
        kind="run",
        experiment=(verdict.study if verdict else "") or header.label.get("study", ""),
        preset=header.label.get("preset", ""),
        question=(verdict.question if verdict else "") or (study.question if study else ""),
        paper=verdict.paper if verdict else study.paper if study else "",
        problem=" ".join([problem, why]).strip(),
        claims=verdict.claims if verdict else None,
        facts=facts,
        command=command or AGAIN,
        before="" if command else "The file spec.json is at the end of this section.",
        figure=figure,
        grids=[settings, *_members(verdict, header.spec), Grid("Versions", ["what", "value"], identity)],
        texts=[("Every field of the spec (spec.json)", _json(header.spec))],
        created=header.created,
    )


def sweep_entry(path: Path) -> Entry:
    """A sweep, with the claims of its experiment where it has been judged. Raises one of `BROKEN` when it cannot be
    believed."""
    results = Results(path)
    sweep, folder, rows = results.folder.sweep, results.folder, results.table()
    verdict, problem = None, ""
    states = Counter(row["state"] for row in rows)
    ended = states["finished"] + states["diverged"]
    try:
        verdict = find_verdict(path)
    except InputError as error:
        problem = _sentence(error.allowed)
    known = asked(sweep, verdict)
    again = f"ebbtide sweep {shlex.quote(path.name)} (where that folder lies)"
    if known and known.command:
        own = path == folder_in(path.parent, sweep)  # where its command looks for it
        again = known.command if own else f"{known.command} --out {shlex.quote(path.name)} (where that folder lies)"
    if verdict is None and not problem and (known or (path / VERDICT).exists()):
        why = "since its description changed" if (path / VERDICT).exists() else "yet"
        problem = f"Not judged {why}." + (f" Judge it with: {again}" if known and known.command else "")
    if ended < len(rows):
        rest = Counter({state: n for state, n in states.items() if state not in ("finished", "diverged")})
        problem = f"Unfinished: {ended} of {len(rows)} members are trained ({_counted(rest)}). Continue with: {again}"
    if states["diverged"]:
        words = f"{states['diverged']} of {len(rows)} members diverged: see the table of members."
        problem = " ".join([words, problem]).strip()
    figure, why = (_figure(path), "") if verdict else (b"", "")
    if not verdict and not known:
        figure, why = _drawn(lambda: _charted(results))
    study = known.study if known else _study((verdict.study if verdict else "") or sweep.study or "")
    base = msgspec.to_builtins(sweep.spec())
    identities, created, seconds = _company(folder)
    axes = {name: list(dict.fromkeys(row[name] for row in rows)) for name in results.axes}
    _, settings, needs = _settings(base, study, [*axes, "members"])
    arms = known.arms if known else {}
    setting = known.experiment.settings[known.preset.rstrip("*")] if known and known.command else None
    if setting and setting.needs:
        needs = setting.needs
    elif "source" in axes:
        needs = f"depends on the source: {value_text(axes['source'])}"
    unlike = setting.scaled if setting else _scaled(study, base, axes) if study else ""
    facts = [
        ("Arms", "; ".join(arms)),
        ("Members", f"{value_text(len(rows))}: {_counted(states) if len(states) > 1 else f'all {next(iter(states))}'}"),
        ("Sequences", f"{value_text(base['sequences'])} for each member" if "sequences" not in axes else ""),
        ("Seeds", (verdict.seeds if verdict else "") or seeds(base | {"vary": {MEMBER: axes.get(MEMBER, [0])}})),
        ("Unlike the paper", (verdict.scaled if verdict else "") or unlike),
        ("Data needed", needs),
        ("Interval", verdict.interval if verdict else ""),
        ("Judged by", judged_by(verdict, known.experiment.asked(arms) if known else None)),
        ("Training time", f"{clock(seconds)} over all tasks, as they recorded it" if seconds else ""),
        ("Changed since", CHANGED if known and not known.command else ""),
    ]
    command = known.command if known else verdict.command if verdict else ""
    file = sweep if known is None or known.command else sweep.standalone()
    name = f"{known.study.name}/{known.experiment.name}" if known else sweep.name
    return Entry(
        name=path.name,
        kind="sweep",
        experiment=verdict.study if verdict else name,
        preset=verdict.preset if verdict else known.preset if known else sweep.preset if sweep.study else "",
        question=(verdict.question if verdict else "") or (known.experiment.question if known else ""),
        paper=verdict.paper if verdict else study.paper if study else "",
        problem=" ".join([problem, why]).strip(),
        claims=verdict.claims if verdict else None,
        facts=facts,
        command=command or f"ebbtide sweep {sweep.name}.json",
        before="" if command else "The file is at the end of this section.",
        figure=figure,
        grids=[
            _arms(arms) if arms else _axes(axes),
            settings,
            *_members(verdict, {}),
            _tidy(results, rows, arms),
            *_set_aside(folder),
            _versions(identities),
        ],
        texts=[(f"The sweep as a file ({sweep.name}.json)", file.to_json().decode())],
        created=created,
    )


def computed_entry(path: Path) -> Entry:
    """A computation, with its claims. Raises one of `BROKEN` when it cannot be believed."""
    record, verdict, problem = read_record(path), None, ""
    try:
        verdict = verdict_in(path)
    except InputError as error:
        problem = _sentence(error.allowed)
    if verdict and verdict.digest != record.digest:
        verdict, problem = None, f"{VERDICT} is of another setting."
    if verdict is None and not problem:
        problem = f"Not judged yet. Judge it with: {record.command()}"
    fields = [[name, value_text(value)] for name, value in flat(record.setting).items()]
    facts = [
        ("Seeds", verdict.seeds if verdict else ""),
        ("Setting", verdict.scaled if verdict else ""),
        ("Data needed", "none: everything is made from the seeds"),
        ("Interval", verdict.interval if verdict else ""),
        ("Judged by", judged_by(verdict, next((one.claims for one in COMPUTED if one.name == record.study), None))),
    ]
    return Entry(
        name=path.name,
        kind="computation",
        experiment=record.study,
        preset=record.preset,
        question=verdict.question if verdict else "",
        paper=verdict.paper if verdict else "",
        problem=problem,
        claims=verdict.claims if verdict else None,
        facts=facts,
        command=record.command(),
        figure=_figure(path) if verdict else b"",
        grids=[Grid("Setting", ["field", "here"], fields), *_computed_members(verdict)],
        created=record.created,
    )


def _computed_members(verdict: Verdict | None) -> Iterable[Grid]:
    """What was read off the curves of each seed; a claim may be about some of them only."""
    if verdict is not None:
        count, rows = _side_by_side(verdict.summary.items())
        yield Grid(f"Numbers of each seed ({count})", ["seed", *[f"{i}" for i in range(count)]], rows)


def _arms(arms: dict[str, Point]) -> Grid:
    rows = [[arm, ", ".join(f"{n} {value_text(v)}" for n, v in point.items())] for arm, point in arms.items()]
    return Grid("Arms: what each sets, on the same seeds", ["arm", "fields"], rows)


def _axes(axes: dict[str, list[Any]]) -> Grid:
    rows = [[name, value_text(values), str(len(values))] for name, values in axes.items()]
    return Grid("Axes: what differs between the members", ["field", "values", "how many"], rows)


def _counted(states: Counter[str]) -> str:
    """`6 finished, 2 missing`."""
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


def _tidy(results: Results, rows: list[dict[str, Any]], arms: Collection[str]) -> Grid:
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


def _members(verdict: Verdict | None, spec: dict[str, Any]) -> Iterable[Grid]:
    """What every claim estimates in each member, and what else was read off their curves."""
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


def _side_by_side(lists: Iterable[tuple[str, Sequence[Any]]]) -> tuple[int, list[list[Any]]]:
    """How many numbers the longest list has, and a row for each list, filled up to so many."""
    lists = list(lists)
    count = max((len(values) for _, values in lists), default=0)
    return count, [[name, *values, *[None] * (count - len(values))] for name, values in lists]


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
        fields = [[name, value_text(value)] for name, value in flat(builtins).items()]
        return None, Grid("Settings", ["field", "here"], fields, note), ""
    usual, original = defaults(spec), _original(study)
    names = list(differing(builtins, usual))
    if original:
        title, columns = f"{title} or from preset paper", [*columns, "preset paper"]
        smaller = [name for name in differing(builtins, original) if name in original]
        names = [name for name in flat(builtins) if name in names or name in smaller]
    found, names = flat(builtins), [name for name in names if not within(name, but)]
    every = [found, usual, original] if original else [found, usual]
    rows = [[n, *[value_text(one[n]) if n in one else None for one in every]] for n in names]
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


def _drawn(draw: Callable[[], bytes]) -> tuple[bytes, str]:
    """A figure, and why there is none. Whatever drawing raises, the page is about more than this figure."""
    try:
        return draw(), ""
    except Exception as error:  # a drawing library may raise anything; one figure must not take the page
        return b"", f"No figure: {one_line(f'{type(error).__name__}: {error}')}."


def _curves(run: Run, curves: dict[str, Any] | None) -> bytes:
    """The curves of a run that has no figure of its own yet."""
    if curves is None or len(curves["sequences"]) < 3:
        return b""
    from ebbtide.report.figure import curves_figure

    return curves_figure(run, "")["figure.svg"]


def _charted(results: Results) -> bytes:
    """Of a sweep that has no figure of its own: ICL by its axis, or the phase diagram of its two axes."""
    from ebbtide.report.grid_figure import curves_by_figure, phase_figure
    from ebbtide.sweeps.views import curves_by, phase

    axes = [name for name in results.axes if name != MEMBER]
    title = ""
    try:
        if len(axes) == 1:
            curves, how = curves_by(results, "icl", axes[0]), {"metric": "icl", "axis": axes[0], "split": None}
            return curves_by_figure(curves, **how, chance=results.chance("icl"), title=title)["figure.svg"]
        if len(axes) == 2 and any(row.state == "finished" for row in results.rows):
            y, x = axes
            found = phase(results, x, y, "transience")
            return phase_figure(found, x=x, y=y, value="transience", title=title)["figure.svg"]
    except (*BROKEN, ValueError):  # nothing has finished, no member has this curve, or a name that cannot be drawn
        pass
    return b""


def _json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
