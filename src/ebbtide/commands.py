"""What each command of the command line does. Every function returns the exit code."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from ebbtide.cli import RUNS
from ebbtide.errors import InputError, require
from ebbtide.interrupts import raising
from ebbtide.report import tables
from ebbtide.runs.folder import INPUTS, Run, catalogue
from ebbtide.terminal import Terminal

WIDE = 140
"""Columns where the output is not a terminal (a file or a pipe folds nothing)."""

console = Terminal()
if not console.is_terminal:
    console = Terminal(width=WIDE)


def studies(options: Namespace) -> int:
    """Table of all studies, or of one with its experiments."""
    from ebbtide.studies import COMPUTED, STUDIES, find_any
    from ebbtide.studies.computed import Computed

    for study in [find_any(options.study)] if options.study else [*STUDIES, *COMPUTED]:
        console.print(Text(study.name, "bold"), Text(f"  {study.question}"))
        console.print(Text(f"  {study.paper}", "dim"))
        if study.claims:
            _describe_claims(study)
        if isinstance(study, Computed):
            from ebbtide.computed_commands import show_presets

            show_presets(study)
            continue
        if study.claims:
            _describe_presets(study)
        if options.study:
            from ebbtide.experiment_commands import show_experiments

            show_experiments(study)
        elif study.experiments:
            names = ", ".join(one.name for one in study.experiments)
            console.print(f"  experiments (ebbtide studies {study.name}): {names}", soft_wrap=True)
    return 0


def _describe_claims(study: Any) -> None:
    """The claims of a study itself."""
    claims = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    for column in ("claim", "estimated: mean over members of", "needed", "source"):
        claims.add_column(column)
    for claim in study.claims:
        claims.add_row(claim.statement, claim.metric, f"> {claim.threshold:g}", claim.source)
    console.print(claims)


def _describe_presets(study: Any) -> None:
    """The presets of a study's own run."""
    presets = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    for column in ("preset", "minutes on 2 cores", "members", "sequences each", "what it is"):
        presets.add_column(column)
    for name, preset in study.presets.items():
        minutes = "not timed" if preset.minutes is None else f"about {preset.minutes:g}"
        spec = preset.spec
        presets.add_row(name, minutes, str(spec.members), tables.short(spec.sequences), preset.note)
    console.print(presets)


def run(options: Namespace) -> int:
    """Trains a study's spec, judges its claims and draws its figure."""
    from ebbtide.studies import find_any
    from ebbtide.studies.computed import Computed
    from ebbtide.studies.rehearsal import check_judgeable
    from ebbtide.training.driver import train
    from ebbtide.training.feasible import check_feasible
    from ebbtide.training.fields import override
    from ebbtide.training.spec import from_builtins

    study = find_any(options.study)
    if isinstance(study, Computed):
        from ebbtide.computed_commands import run_computed

        return run_computed(study, options)
    if options.experiment is None and not study.claims:
        options.experiment = study.experiments[0].name
    if options.experiment is not None:
        from ebbtide.experiment_commands import run_experiment

        return run_experiment(study, options)
    for name, default in (("executor", "local"), ("jobs", None)):
        require(getattr(options, name) == default, name, getattr(options, name), "goes with --experiment")
    data: dict[str, Any] = msgspec.to_builtins(study.preset(options.preset).spec)
    for name, text in options.fields:
        override(data, name, text)
    spec = from_builtins(data)
    spec.check()
    check_feasible(spec)
    check_judgeable(study, spec, dict(options.fields))
    if options.dry_run:
        console.print(msgspec.json.format(spec.to_json(), indent=2).decode(), soft_wrap=True)
        return 0
    preset = options.preset if not options.fields else f"{options.preset}*"
    out = Path(options.out or Path(RUNS) / f"{study.name}-{options.preset}-{spec.digest()[:8]}")
    label = {"study": study.name, "preset": preset}
    console.print(
        f"{study.name}, preset {preset}: {spec.members} members x {tables.short(spec.sequences)} sequences into {out}",
        soft_wrap=True,
    )
    if (out / "run.json").exists() and Run(out).header.digest == spec.digest():
        console.print(f"this run exists and is {Run(out).status()}: continuing it where it was")
    return _train(out, options, lambda **how: train(spec, out, label=label, **how))


def resume(options: Namespace) -> int:
    """Continues a run, and its study's verdict after it."""
    from ebbtide.training import driver

    found = find_run(options.run)
    at = f"{tables.short(found.sequences())} of {tables.short(found.header.spec['sequences'])} sequences"
    console.print(f"{found.path}: {found.status()} at {at}", soft_wrap=True)
    return _train(found.path, options, lambda **how: driver.resume(found, **how))


def _train(out: Path, options: Namespace, call: Any) -> int:
    from ebbtide.report.progress import ProgressLine
    from ebbtide.training.driver import Interrupted
    from ebbtide.training.team import WorkerError

    how = {"processes": options.processes, "width": options.width, "deterministic": options.deterministic}
    again = shlex.join(["ebbtide", "resume", str(out)])
    try:
        with ProgressLine(console) as line:
            finished: Run = call(report=line, say=lambda text: console.print(text), **how)
    except Interrupted:
        if not (out / "run.json").exists():
            console.print("stopped before the run was begun; nothing was written")
            return 130
        done = tables.short(Run(out).sequences())
        console.print(f"stopped; saved at {done} sequences. Continue with:\n  {again}", soft_wrap=True)
        return 130
    except KeyboardInterrupt:
        there = f" Continue with:\n  {again}" if (out / "run.json").exists() else ""
        console.print(f"stopped at once, without saving.{there}", soft_wrap=True)
        return 130
    except OSError as error:
        if error.filename is None or not (out / "run.json").exists():
            raise
        again = f"{error.strerror}; what was saved before is whole. Continue with: ebbtide resume {out}"
        raise OSError(error.errno, again, error.filename) from error
    except WorkerError as error:
        console.print(f"{error}\nContinue with:\n  {again}", soft_wrap=True)
        return 1
    return _conclude(finished, options.check)


def _conclude(finished: Run, check: bool) -> int:
    if "study" not in finished.header.label:
        console.print(tables.curves_table(finished))
        _diverged(finished.metrics())
        return 0
    from ebbtide.studies import find_study
    from ebbtide.studies.rehearsal import check_judgeable
    from ebbtide.studies.study import conclude
    from ebbtide.training.driver import spec_of

    study = find_study(finished.header.label["study"])
    check_judgeable(study, spec_of(finished), {})
    verdict = conclude(study, finished)
    console.print(tables.curves_table(finished))
    _diverged(finished.metrics())
    console.print()
    console.print(claims_verdict(verdict))
    print_verdict(finished.path)
    return 1 if check and not verdict.holds() else 0


def print_verdict(folder: Path) -> None:
    """Where the verdict and the figure are."""
    files = f"\nverdict {folder / 'verdict.json'}\nfigure  {folder / 'figure.png'}"
    console.print(files, soft_wrap=True)


def claims_verdict(verdict: Any) -> Table:
    """The claims of a verdict with their answers."""
    rows = []
    for c in verdict.claims:
        estimate = "-" if c.estimate is None else f"{c.estimate:.3f}"
        if c.low is not None:
            estimate += f" [{c.low:.3f}, {c.high:.3f}]"
        said = f"{c.statement} ({c.note})" if c.note else c.statement
        rows.append((said, c.metric, f"> {c.threshold:g}", estimate, c.members_above(), c.verdict))
    return tables.verdict_table(rows)


def ls(options: Namespace) -> int:
    """Table of the runs in a folder."""
    from ebbtide.studies.study import read_verdict

    folder = Path(options.folder)
    require(folder.is_dir() or options.folder == RUNS, "folder", options.folder, "no such folder")
    runs = catalogue(folder)
    if not runs:
        console.print(f"no runs in {folder} (make one with: ebbtide run transience)")
        return 0

    def words(one: Run) -> str:
        verdict = read_verdict(one)
        held = sum(c.verdict == "holds" for c in verdict.claims) if verdict else 0
        return f"{held}/{len(verdict.claims)} hold" if verdict else "-"

    console.print(tables.runs_table(runs, words))
    return 0


def fsck(options: Namespace) -> int:
    """Every file of a run folder: whole, damaged or left over; exit code 1 if one is damaged."""
    from ebbtide.runs.fsck import examine

    style = {"ok": "green", "damaged": "bold red", "leftover": "yellow"}
    places = [path for path in (Path(options.run), Path(RUNS) / options.run) if path.is_dir()]
    require(bool(places), "run", options.run, f"no folder of this name, here or in {RUNS}/")
    report = examine(places[0])
    for one in report.findings:
        console.print(Text(f"{one.kind:8}", style[one.kind]), Text(one.text), soft_wrap=True)
    console.print(Text(report.resume), soft_wrap=True)
    return 0 if report.sound() else 1


def show(options: Namespace) -> int:
    """One run: what it is, its curves, its verdict; optionally the figure to a file."""
    from ebbtide.studies import STUDIES
    from ebbtide.studies.study import judged_by, read_verdict

    found = find_run(options.run)
    header = found.header
    label = " ".join(header.label.values()) or "custom run"
    curves = found.metrics() if found.sequences() else None
    now = tables.status(found, curves)
    console.print(Text(found.path.name, "bold"), f" {label}  {now}", soft_wrap=True)
    identity = ", ".join(f"{k} {str(v)[:12] if k in INPUTS else v}" for k, v in header.identity.items())
    console.print(f"created {header.created}; spec {header.digest[:12]}; {identity}", style="dim", soft_wrap=True)
    for part in ("source", "task", "model", "optimizer"):
        values = ", ".join(f"{k} {_flat(v)}" for k, v in header.spec[part].items() if k != "type")
        console.print(f"{part:10} {header.spec[part].get('type', '')}: {values}", soft_wrap=True)
    for part in ("interventions", "start", "freeze"):
        for one in [header.spec[part]] if isinstance(header.spec.get(part), dict) else header.spec.get(part) or []:
            console.print(f"{part:10} {one if isinstance(one, str) else _flat(one)}", soft_wrap=True)
    _newest(found)
    _diverged(curves or {})
    console.print()
    console.print(tables.curves_table(found))
    verdict = read_verdict(found)
    if verdict:
        console.print()
        console.print(claims_verdict(verdict))
        said = judged_by(verdict, next((one.claims for one in STUDIES if one.name == verdict.study), None))
        console.print(Text(f"judged by {said}" if said else "", "dim"), soft_wrap=True)
    if options.figure:
        _figure(found, Path(options.figure), label, options.log)
    return 0


def _newest(found: Run) -> None:
    """What the newest good checkpoint says beside the curves: how it was made, the best models, who stopped."""
    newest = found.latest()
    if newest is None:
        return
    how = newest[1].identity
    layout = f"{how.get('processes')} processes, {how.get('width')} members side by side ({how.get('chosen')})"
    layout += f"; kernel {how.get('kernel', 'xla')}"
    bits = "repeatable bit for bit" if newest[1].repeatable else "not repeatable bit for bit"
    console.print(f"layout     {layout}; {bits}", soft_wrap=True)
    best, name = found.best(), found.header.spec.get("keep_best")
    if name in [one.name for one in found.header.instruments]:
        pairs = zip(best["value"], best["sequences"], strict=True)
        each = ", ".join(f"{value:.3f} at {tables.short(int(at))}" if at >= 0 else "-" for value, at in pairs)
        console.print(f"best {name:5} {each} (a model of each member is kept)", soft_wrap=True)
    if (best["stopped_at"] >= 0).any():
        each = ", ".join(tables.short(int(at)) if at >= 0 else "-" for at in best["stopped_at"])
        console.print(f"stopped    {each} (early stopping, in sequences)", soft_wrap=True)


def _diverged(curves: Any) -> None:
    """The members that diverged, and when."""
    if words := tables.divergence(curves):
        console.print(f"diverged   {words}; not finite from there on, and left out of all means", soft_wrap=True)


def _flat(value: Any) -> str:
    if isinstance(value, dict) and "type" in value:
        rest = ", ".join(f"{k} {_flat(v)}" for k, v in value.items() if k != "type")
        return f"{value['type']}({rest})" if rest else str(value["type"])
    return str(value)


def _figure(found: Run, out: Path, label: str, log: bool) -> None:
    from ebbtide.report.figure import curves_figure
    from ebbtide.runs.output import check_output, write_output

    require(out.suffix in (".png", ".svg"), "figure", str(out), "must end in .png or .svg")
    check_output(out, "figure")
    write_output(out, curves_figure(found, label, log=log)[f"figure{out.suffix}"], "figure")
    console.print(f"\nfigure  {out}", soft_wrap=True)


def export(options: Namespace) -> int:
    """Writes the curves as a tidy table."""
    from ebbtide.report.export import export as write

    rows = write(find_run(options.run), options.format, Path(options.out))
    tell_written(Path(options.out), f"{rows} rows to {options.out}")
    return 0


def report(options: Namespace) -> int:
    """Writes one page about runs, sweeps or whole studies."""
    from ebbtide.report.entries import NOT_RUN, entries_page
    from ebbtide.runs.output import check_output, write_output
    from ebbtide.studies.gather import gather

    out = Path(options.out)
    require(out.suffix in (".html", ".htm"), "out", options.out, "must end in .html")
    check_output(out)
    entries = gather(options.what, Path(options.runs))
    made = [one for one in entries if one.kind != NOT_RUN]
    count = f"{len(made)} runs and experiments" if len(made) > 1 else made[0].experiment or made[0].name
    title = options.what[0] if len(options.what) == 1 and len(entries) > 1 else count
    write_output(out, entries_page(title, entries))
    damaged = sum(one.damaged for one in entries)
    words = f" ({damaged} damaged)" if damaged else ""
    tell_written(out, f"{count}{words} to {options.out}")
    return 0


def verify(options: Namespace) -> int:
    """Exact checks; exit code 1 if one fails."""
    from ebbtide import verify as checks

    def report(check: Any) -> None:
        mark = Text("ok  ", "green") if check.passed else Text("FAIL", "bold red")
        console.print(mark, Text(f"{check.name}: {check.detail}"), soft_wrap=True)

    passed, found = checks.run(report)
    for name, table in found.items():
        console.print()
        console.print(tables.truth_table(table, f"Accuracy of each oracle on each evaluator ({name})"))
    return 0 if passed else 1


def bench(options: Namespace) -> int:
    """Measures the reference configurations; exit code 130 when interrupted."""
    from ebbtide.bench.bench import measure
    from ebbtide.bench.configs import CONFIGS, find_config
    from ebbtide.bench.table import Status, show
    from ebbtide.runs.output import check_output

    configs = [find_config(options.config)] if options.config else list(CONFIGS.values())
    out = Path(options.json) if options.json else None
    if out:
        check_output(out, "json")
    try:
        with raising(), Status() as status:
            found = measure(configs, quick=options.quick, say=status)
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        return 130
    if out:
        found.write(out)
    show(found, Terminal(width=max(console.width, 200)))
    return 0


def tell_written(out: Path | None, text: str) -> None:
    """Says what was written to `out`: on the error stream where `out` is what this process prints to."""
    from ebbtide.runs.output import is_stdout

    to = Terminal(stderr=True) if out and is_stdout(out) else console
    to.print(text, soft_wrap=True)


def find_run(name: str) -> Run:
    """The run folder of that name, here or in the default folder. Raises `InputError` when there is none."""
    for path in (Path(name), Path(RUNS) / name):
        if (path / "run.json").is_file():
            return Run(path)
    raise InputError("run", name, f"no run folder of this name, here or in {RUNS}/")
