"""Commands on run folders that train nothing: list, show, check, import, export, report."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.text import Text

from ebbtide.cli.console import claims_verdict, console, find_run, print_diverged, tell_written
from ebbtide.cli.parser import RUNS
from ebbtide.errors import require
from ebbtide.report import tables
from ebbtide.runs.folder import RunFolder, list_runs
from ebbtide.runs.identity import INPUTS


def ls(options: Namespace) -> int:
    """Prints a table of the runs in a folder."""
    from ebbtide.studies.verdict import read_verdict

    folder = Path(options.folder)
    require(folder.is_dir() or options.folder == RUNS, "folder", options.folder, "no such folder")
    runs = list_runs(folder)
    if not runs:
        console.print(f"no runs in {folder} (make one with: ebbtide run transience)")
        return 0

    def words(one: RunFolder) -> str:
        verdict = read_verdict(one)
        held = sum(c.verdict == "holds" for c in verdict.claims) if verdict else 0
        return f"{held}/{len(verdict.claims)} hold" if verdict else "-"

    console.print(tables.runs_table(runs, words))
    return 0


def fsck(options: Namespace) -> int:
    """Prints the condition of every file of a run folder; exit code 1 if one is damaged."""
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
    """Prints one run: its description, its curves, its verdict; with --figure writes the figure to a file."""
    from ebbtide.pages.origin import study_named
    from ebbtide.studies.verdict import judged_by, read_verdict

    found = find_run(options.run)
    header = found.header
    label = " ".join(header.label.values()) or "custom run"
    curves = found.metrics() if found.sequences() else None
    now = tables.status(found, curves)
    console.print(Text(found.path.name, "bold"), f" {label}  {now}", soft_wrap=True)
    identity = ", ".join(f"{k} {str(v)[:12] if k in INPUTS else v}" for k, v in header.identity.items())
    what = f"SHA-256 {header.digest[:12]}" if header.foreign else f"spec {header.digest[:12]}; {identity}"
    console.print(f"created {header.created}; {what}", style="dim", soft_wrap=True)
    for part in ("source", "task", "model", "optimizer") if not header.foreign else ():
        values = ", ".join(f"{k} {_flat(v)}" for k, v in header.spec[part].items() if k != "type")
        console.print(f"{part:10} {header.spec[part].get('type', '')}: {values}", soft_wrap=True)
    for part in ("interventions", "start", "freeze", "forgetting"):
        for one in [header.spec[part]] if isinstance(header.spec.get(part), dict) else header.spec.get(part) or []:
            console.print(f"{part:10} {one if isinstance(one, str) else _flat(one)}", soft_wrap=True)
    _newest(found)
    print_diverged(curves or {})
    console.print()
    console.print(tables.curves_table(found))
    verdict = read_verdict(found)
    if verdict:
        console.print()
        console.print(claims_verdict(verdict))
        study = study_named(verdict.study)
        judged = judged_by(verdict, own.claims if study and (own := study.own()) else None)
        console.print(Text(f"judged by {judged}" if judged else "", "dim"), soft_wrap=True)
    if options.figure:
        _figure(found, Path(options.figure), label, options.log)
    return 0


def _newest(found: RunFolder) -> None:
    """Prints the content of the newest intact checkpoint other than the curves: how it was made, the best models, which
    members stopped."""
    newest = found.latest()
    if newest is None or found.header.foreign:
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


def _flat(value: Any) -> str:
    if isinstance(value, dict) and "type" in value:
        rest = ", ".join(f"{k} {_flat(v)}" for k, v in value.items() if k != "type")
        return f"{value['type']}({rest})" if rest else str(value["type"])
    return str(value)


def _figure(found: RunFolder, out: Path, label: str, log: bool) -> None:
    from ebbtide.report.figure import curves_figure
    from ebbtide.runs.output import check_output, write_output

    require(out.suffix in (".png", ".svg"), "figure", str(out), "must end in .png or .svg")
    check_output(out, "figure")
    write_output(out, curves_figure(found, label, log=log)[f"figure{out.suffix}"], "figure")
    console.print(f"\nfigure  {out}", soft_wrap=True)


def import_(options: Namespace) -> int:
    """Writes a foreign run with the curves in a file of another program."""
    from ebbtide.report.foreign import import_curves

    run = import_curves(Path(options.source), Path(options.out))
    names = ", ".join(one.name for one in run.header.instruments)
    count = run.header.spec["members"]
    members = "1 member" if count == 1 else f"{count} members"
    done = f"{members} to {tables.short(run.sequences())} sequences; evaluators {names}"
    console.print(f"{options.out}: foreign run, {done}", soft_wrap=True)
    return 0


def export(options: Namespace) -> int:
    """Writes the curves as a tidy table; with the format wandb sends them to the project `--out`, as
    `follow RUN --to wandb --project OUT --once` does."""
    from ebbtide.report.export import export as write

    if options.format == "wandb":
        from ebbtide.cli.follow import send

        return send(options.run, "wandb", options.out, once=True)
    rows = write(find_run(options.run), options.format, Path(options.out))
    tell_written(Path(options.out), f"{rows} rows to {options.out}")
    return 0


def report(options: Namespace) -> int:
    """Writes one page about runs, sweeps or whole studies."""
    from ebbtide.pages.gather import gather
    from ebbtide.pages.page import NOT_RUN, entries_page
    from ebbtide.runs.output import check_output, write_output

    out = Path(options.out)
    require(out.suffix in (".html", ".htm"), "out", options.out, "must end in .html")
    check_output(out)
    entries = gather(options.what, Path(options.runs))
    own = [one for one in entries if one.kind != NOT_RUN]
    count = f"{len(own)} runs and experiments" if len(own) > 1 else own[0].experiment or own[0].name
    title = options.what[0] if len(options.what) == 1 and len(entries) > 1 else count
    write_output(out, entries_page(title, entries))
    damaged = sum(one.damaged for one in entries)
    words = f" ({damaged} damaged)" if damaged else ""
    tell_written(out, f"{count}{words} to {options.out}")
    return 0
