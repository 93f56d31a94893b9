"""A folder of a run, sweep or computation as an entry of a page: read, checked, in words. Nothing is computed anew."""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ebbtide.errors import InputError, one_line
from ebbtide.pages.origin import KnownSweep, known_sweep, study_named
from ebbtide.pages.page import Entry, Grid
from ebbtide.pages.tables import (
    UNREADABLE,
    table_of_arms,
    table_of_axes,
    table_of_computation,
    table_of_failures,
    table_of_members,
    table_of_numbers,
    table_of_settings,
    table_of_summary,
    table_of_versions,
)
from ebbtide.report.progress import clock
from ebbtide.report.tables import divergence
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.records import Header
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import find_verdict, folder_in
from ebbtide.studies.computation import COMPUTED, read_record
from ebbtide.studies.describe import flat, run_command, scale_words, seeds, value_text
from ebbtide.studies.study import Experiment, Study
from ebbtide.studies.verdict import VERDICT, Verdict, judged_by, read_verdict, verdict_in
from ebbtide.sweeps.axes import MEMBER
from ebbtide.sweeps.folder import SWEEP, SweepFolder
from ebbtide.sweeps.results import Results
from ebbtide.training.spec import Spec

LARGEST_FIGURE = 2**24
CHANGED = "a preset: this version's experiment of this name makes another sweep"
RERUN = """from pathlib import Path
import ebbtide
from ebbtide.training.spec import from_json
ebbtide.train(from_json(Path("spec.json").read_bytes()), "again")"""


class Facts(NamedTuple):
    """Facts about a folder in addition to its verdict: its study and experiment in this version, what is missing, and
    the parts of the page. `draw` makes a figure, as a file of a kind, where the folder has none."""

    name: str
    kind: str
    verdict: Verdict | None
    problem: str
    study: Study | None
    experiment: Experiment | None
    title: str
    preset: str
    claims: Iterable[Claim] | None
    facts: list[tuple[str, str]]
    unlike: str
    seeds: str
    needs: str
    command: str
    otherwise: tuple[str, str]
    grids: list[Grid]
    texts: list[tuple[str, str]]
    created: str
    draw: Callable[[str], bytes] = lambda kind: b""


def entry_of(path: Path, kind: str = "svg") -> Entry:
    """The page's entry for one folder, with its figure as a file of this kind (`svg` or `png`) where there are both.
    Raises one of `UNREADABLE` when the folder's records cannot be trusted."""
    if (path / COMPUTED).exists():
        return _entry(path, facts_of_computation(path), kind)
    return _entry(path, facts_of_sweep(path) if (path / SWEEP).exists() else facts_of_run(RunFolder(path)), kind)


def entry_of_verdict(verdict: Verdict) -> Entry:
    """The entry for a verdict without its folder."""
    return Entry(
        name=verdict.digest[:12],
        kind="verdict",
        experiment=verdict.study,
        preset=verdict.preset,
        question=verdict.question,
        paper=verdict.paper,
        claims=verdict.claims,
        facts=[
            ("Sequences", f"{value_text(verdict.sequences)} for each member" if verdict.sequences else ""),
            ("Seeds", verdict.seeds),
            ("Unlike the paper", verdict.scaled),
            *_facts_of_verdict(verdict, None),
        ],
        command=verdict.command,
        grids=list(table_of_numbers(verdict, {})),
    )


def _facts_of_verdict(verdict: Verdict | None, claims: Iterable[Claim] | None) -> list[tuple[str, str]]:
    return [
        ("Interval", verdict.interval if verdict else ""),
        ("Judged by", judged_by(verdict, claims)),
        ("Registered", verdict.registered if verdict else ""),
        ("Trained by", verdict.trained_by if verdict else ""),
    ]


def _entry(path: Path, own: Facts, kind: str) -> Entry:
    verdict, study, experiment = own.verdict, own.study, own.experiment
    figure, why = (_figure(path, kind), "") if verdict else (b"", "")
    if not figure:
        figure, why = _draw_safely(own.draw, kind)
    rest = [
        ("Seeds", (verdict.seeds if verdict else "") or own.seeds),
        ("Unlike the paper", (verdict.scaled if verdict else "") or own.unlike),
        ("Data needed", own.needs),
        *_facts_of_verdict(verdict, own.claims),
    ]
    return Entry(
        name=own.name,
        kind=own.kind,
        experiment=(verdict.study if verdict else "") or own.title,
        preset=(verdict.preset if verdict else "") or own.preset,
        question=(verdict.question if verdict else "") or (experiment.question if experiment else ""),
        paper=verdict.paper if verdict else study.paper if study else "",
        problem=" ".join([own.problem, why]).strip(),
        claims=verdict.claims if verdict else None,
        facts=[
            *[one for one in own.facts if one[0] in FIRST],
            *rest,
            *[one for one in own.facts if one[0] not in FIRST],
        ],
        command=own.command or own.otherwise[0],
        before="" if own.command else own.otherwise[1],
        figure=figure,
        grids=own.grids,
        texts=own.texts,
        created=own.created,
    )


FIRST = ("Arms", "Members", "Sequences")
"""Facts that come before those that every entry has."""


def _foreign(header: Header) -> tuple[None, Grid, str]:
    """What stands in place of the spec, its settings and the data that it needs: where a foreign run comes from."""
    rows = [["curves of", header.foreign], ["SHA-256", header.digest], ["spec and models", "none: trained elsewhere"]]
    return None, Grid("A foreign run", ["what", "value"], rows), ""


def facts_of_run(run: RunFolder) -> Facts:
    """Facts about a run: its question, its results, and the spec, seeds and versions behind them."""
    header, problem = run.header, ""
    study = study_named(header.label.get("study", ""))
    experiment = study.own() if study else None
    newest = next(run.manifests(), None)
    curves = run.metrics() if newest and newest[1].segments else None  # raises where a segment is damaged
    total = header.spec["sequences"]
    if newest is None or not newest[1].finished:
        so_far = f"{value_text(run.sequences())} of {value_text(total)} sequences"
        problem = f"Unfinished: {so_far}. Continue with: ebbtide resume {shlex.quote(run.path.name)}"
        if run.running():
            problem = f"Being trained: {so_far} are saved."
    verdict, damage = _read(lambda: read_verdict(run))
    if damage:
        problem = damage
    elif verdict is None and study is not None and not problem:
        problem = f"Not judged yet. Judge it with: ebbtide resume {shlex.quote(run.path.name)}"
    if curves and (words := divergence(curves)):
        problem = " ".join([f"Diverged: {words}.", problem]).strip()
    spec, settings, needs = _foreign(header) if header.foreign else table_of_settings(header.spec, study)
    seconds = newest[1].seconds if newest else 0.0
    identity = [[name, value_text(value)] for name, value in header.identity.items()]
    identity.append(["repeatable bit for bit", value_text(newest is not None and newest[1].repeatable)])
    identity.append(["spec", header.digest])
    command = (verdict.command if verdict else "") or (_command(study, header.label, spec) if study else "")
    numbers = table_of_numbers(verdict, header.spec) if verdict else table_of_summary(run, curves, header.spec)
    return Facts(
        name=run.path.name,
        kind="run",
        verdict=verdict,
        problem=problem,
        study=study,
        experiment=experiment,
        title=header.label.get("study", ""),
        preset=header.label.get("preset", ""),
        claims=experiment.claims if experiment else None,
        facts=[
            ("Members", f"{header.spec['members']}, of {value_text(total)} sequences each"),
            ("Training time", f"{clock(seconds)} as the run recorded it" if seconds else ""),
        ],
        unlike=_scale_words(study, header.spec) if study else "",
        seeds="" if header.foreign else seeds(header.spec),
        needs=needs,
        command=command,
        otherwise=("", "") if header.foreign else (RERUN, "The file spec.json is at the end of this section."),
        grids=[settings, *numbers, *([] if header.foreign else [Grid("Versions", ["what", "value"], identity)])],
        texts=[] if header.foreign else [("Every field of the spec (spec.json)", _json(header.spec))],
        created=header.created,
        draw=lambda kind: _curves(run, curves, kind),
    )


def facts_of_sweep(path: Path) -> Facts:
    """A sweep, with the claims of its experiment where it has been judged."""
    results = Results(path)
    sweep, folder, rows = results.folder.sweep, results.folder, results.table()
    states = Counter(row["state"] for row in rows)
    verdict, problem = _read(lambda: find_verdict(path))
    known = known_sweep(sweep, verdict)
    again = f"ebbtide sweep {shlex.quote(path.name)} (where that folder lies)"
    if known and known.command:
        own = path == folder_in(path.parent, sweep)  # where its command looks for it
        again = known.command if own else f"{known.command} --out {shlex.quote(path.name)} (where that folder lies)"
    if verdict is None and not problem and (known or (path / VERDICT).exists()):
        why = "since its description changed" if (path / VERDICT).exists() else "yet"
        problem = f"Not judged {why}." + (f" Judge it with: {again}" if known and known.command else "")
    problem = _state_of_members(states, len(rows), again) or problem
    if states["diverged"]:
        words = f"{states['diverged']} of {len(rows)} members diverged: see the table of members."
        problem = " ".join([words, problem]).strip()
    study = known.study if known else study_named((verdict.study if verdict else "") or sweep.study or "")
    base = sweep.spec().builtins()
    identities, created, seconds = _runs_of(folder)
    axes = {name: list(dict.fromkeys(row[name] for row in rows)) for name in results.axes}
    _, settings, needs = table_of_settings(base, study, [*axes, "members"])
    arms = known.arms if known else {}
    preset = known.experiment.presets[known.preset.rstrip("*")] if known and known.command else None
    if preset and preset.needs:
        needs = preset.needs
    elif "source" in axes:
        needs = f"depends on the source: {value_text(axes['source'])}"
    finished = f"all {next(iter(states))}" if len(states) == 1 else _count_words(states)
    file = sweep if known is None or known.command else sweep.standalone()
    return Facts(
        name=path.name,
        kind="sweep",
        verdict=verdict,
        problem=problem,
        study=study,
        experiment=known.experiment if known else None,
        title=known.study.full_name(known.experiment) if known else sweep.name,
        preset=known.preset if known else sweep.preset if sweep.study else "",
        claims=known.experiment.claims_on(arms) if known else None,
        facts=[
            ("Arms", "; ".join(arms)),
            ("Members", f"{value_text(len(rows))}: {finished}"),
            ("Sequences", f"{value_text(base['sequences'])} for each member" if "sequences" not in axes else ""),
            ("Training time", f"{clock(seconds)} over all tasks, as they recorded it" if seconds else ""),
            ("Changed since", CHANGED if known and not known.command else ""),
        ],
        unlike=preset.scaled if preset else _scale_words(study, base, axes) if study else "",
        seeds=seeds(base | {"vary": {MEMBER: axes.get(MEMBER, [0])}}),
        needs=needs,
        command=known.command if known else verdict.command if verdict else "",
        otherwise=(f"ebbtide sweep {sweep.name}.json", "The file is at the end of this section."),
        grids=[
            table_of_arms(arms) if arms else table_of_axes(axes),
            settings,
            *table_of_numbers(verdict, {}),
            table_of_members(results, rows, arms),
            *table_of_failures(folder),
            table_of_versions(identities),
        ],
        texts=[(f"The sweep as a file ({sweep.name}.json)", file.to_json().decode())],
        created=created,
        draw=lambda kind: _draw_sweep(results, known, verdict, kind),
    )


def facts_of_computation(path: Path) -> Facts:
    """A computation, with its claims."""
    record = read_record(path)
    verdict, problem = _read(lambda: verdict_in(path))
    if verdict and verdict.digest != record.digest:
        verdict, problem = None, f"{VERDICT} is of another setting."
    if verdict is None and not problem:
        problem = f"Not judged yet. Judge it with: {record.command()}"
    study = study_named(record.study)
    name = record.study.partition("/")[2] or record.study
    experiment = next((one for one in study.experiments if one.name == name), None) if study else None
    fields = [[name, value_text(value)] for name, value in flat(record.setting).items()]
    return Facts(
        name=path.name,
        kind="computation",
        verdict=verdict,
        problem=problem,
        study=study,
        experiment=experiment,
        title=record.study,
        preset=record.preset,
        claims=experiment.claims if experiment else None,
        facts=[],
        unlike="",
        seeds="",
        needs="none: everything is made from the seeds",
        command=record.command(),
        otherwise=("", ""),
        grids=[Grid("Setting", ["field", "here"], fields), *table_of_computation(verdict)],
        texts=[],
        created=record.created,
    )


def _read(read: Callable[[], Verdict | None]) -> tuple[Verdict | None, str]:
    """A verdict, and the reason why there is none."""
    try:
        return read(), ""
    except InputError as error:
        return None, error.allowed[:1].upper() + error.allowed[1:]


def _state_of_members(states: Counter[str], members: int, again: str) -> str:
    """A sentence on a sweep that has not been trained to its end: the numbers of members by state, and the command that
    continues it."""
    ended = states["finished"] + states["diverged"]
    if ended == members:
        return ""
    rest = Counter({state: n for state, n in states.items() if state not in ("finished", "diverged")})
    return f"Unfinished: {ended} of {members} members are trained ({_count_words(rest)}). Continue with: {again}"


def _count_words(states: Counter[str]) -> str:
    """`6 finished, 2 missing`."""
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items()))


def _runs_of(folder: SweepFolder) -> tuple[list[dict[str, Any]], str, float]:
    """Identities of all runs of a sweep that can be read, the time at which the newest was made, and the seconds of
    training of all."""
    identities, created, seconds = [], "", 0.0
    for task in sorted(folder.specs):
        try:
            run = folder.run(task)
            newest = next(run.manifests(), None) if run else None
        except UNREADABLE:
            continue
        if run is not None:
            identities.append(run.header.identity | {"members": None})
            created = max(created, run.header.created)
            seconds += newest[1].seconds if newest else 0.0
    return identities, created, seconds


def _scale_words(study: Study, spec: dict[str, Any], but: Collection[str] = ()) -> str:
    paper = study.bases.get("paper")
    return scale_words(spec, paper.spec, paper.note, but) if paper else ""


def _command(study: Study, label: dict[str, str], spec: Spec | None) -> str:
    name = label.get("preset", "").rstrip("*")
    base = study.bases.get(name) if study.own() else None
    return run_command(study.name, name, base.spec, spec.builtins()) if base and spec is not None else ""


def _figure(path: Path, kind: str) -> bytes:
    """The figure in a folder, of this kind if it can be; nothing when there is none that can be read."""
    for one in sorted(("svg", "png"), key=lambda one: one != kind):
        try:
            return read_bounded(path, f"figure.{one}", LARGEST_FIGURE)
        except UNREADABLE:
            continue
    return b""


def _draw_safely(draw: Callable[[str], bytes], kind: str) -> tuple[bytes, str]:
    """A figure, and why there is none. Whatever drawing raises, the page is about more than this figure."""
    try:
        return draw(kind), ""
    except Exception as error:  # a drawing library may raise anything; one figure must not take the page
        return b"", f"No figure: {one_line(f'{type(error).__name__}: {error}')}."


def _curves(run: RunFolder, curves: dict[str, Any] | None, kind: str) -> bytes:
    """Figure of the curves of a run that has no figure file yet."""
    if curves is None or len(curves["sequences"]) < 3:
        return b""
    from ebbtide.report.figure import render
    from ebbtide.report.plot import plot_run

    return render(plot_run(run), kind)


def _draw_sweep(results: Results, known: KnownSweep | None, verdict: Verdict | None, kind: str) -> bytes:
    """Figure of a sweep that belongs to no experiment: ICL by its axis, or the phase diagram of its two axes."""
    from ebbtide.report.figure import render

    axes = [name for name in results.axes if name != MEMBER]
    if known or verdict:
        return b""
    try:
        if len(axes) == 1:
            return render(results.plot(by=axes[0]), kind)
        if len(axes) == 2 and any(row.state == "finished" for row in results.rows):
            return render(results.plot_phase("transience", x=axes[1], y=axes[0]), kind)
    except (*UNREADABLE, ValueError):  # nothing has finished, no member has this curve, or a name that cannot be drawn
        pass
    return b""


def _json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()
