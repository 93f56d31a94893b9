"""The `sweep` commands. Every function returns the exit code."""

import shlex
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from ebbtide.cli.code import file_words
from ebbtide.cli.console import console, tell_written
from ebbtide.cli.parser import RUNS
from ebbtide.errors import Interrupted, one_line, require
from ebbtide.places import looking_in
from ebbtide.report.progress import ProgressLine, clock
from ebbtide.report.tables import short
from ebbtide.sweeps.folder import SweepFolder, places
from ebbtide.traced import default, kind_name, value_at

MOST_LINES = 30
"""Largest number of groups or tasks that a table lists one by one."""
STYLE = {"done": "green", "running": "cyan", "waiting": "dim", "quarantined": "bold red", "damaged": "bold red"}


def sweep(options: Namespace) -> int:
    """Runs a sweep, or with --dry-run prints its plan; exit code 1 when tasks were set aside."""
    from ebbtide.sweeps.sweep import read_sweep

    file = Path(options.file)
    if (file / "sweep.json").is_file():  # go on with a folder
        before, out = SweepFolder(file), file
        before.check_size()
        found = before.sweep
    else:
        found = read_sweep(file)
        out = Path(options.out or Path(RUNS) / f"sweep-{found.name}")
    check_execution(options)
    if options.dry_run:
        return print_plan(found, out, options, measure=options.measure)
    again = shlex.join(["ebbtide", "sweep", options.file, *given_words(options)])
    folder = train_sweep(found, out, options, again, retry=options.retry)
    return folder if isinstance(folder, int) else _status(folder)


def train_sweep(found: Any, out: Path, options: Namespace, command: str, *, retry: bool = False) -> SweepFolder | int:
    """The folder of a sweep after running it with a progress line, or the exit code when it did not finish. `command`
    is the one that continues it."""
    from ebbtide.sweeps.driver import DiskFullError, run_sweep

    def tell(text: str) -> None:
        console.print(text, soft_wrap=True)

    try:
        with ProgressLine(console, progress_words) as line:
            return run_sweep(found, out, on=options.executor, jobs=options.jobs, retry=retry, report=line, say=tell)
    except (Interrupted, KeyboardInterrupt):
        tell(f"stopped; what was trained is saved. Continue with:\n  {command}")
        return 130
    except DiskFullError as error:
        tell(f"{error}\nContinue with:\n  {command}")
        return 1


def sweep_status(options: Namespace) -> int:
    """Prints how many tasks are done, running, waiting or set aside; exit code 1 when one is set aside or
    damaged."""
    folder = SweepFolder(Path(options.folder))
    folder.check_size()
    return _status(folder)


def sweep_collect(options: Namespace) -> int:
    """Writes the results as one tidy table."""
    from ebbtide.sweeps.results import load

    rows = load(options.folder).write(Path(options.out), options.format, curves=options.curves)
    tell_written(Path(options.out), f"{rows} rows to {options.out}")
    tell_different_data(SweepFolder(Path(options.folder)), Path(options.out))
    return 0


def tell_different_data(folder: SweepFolder, out: Path | None = None) -> None:
    """Warns of data that changed between tasks; not into `out`, where that is this process's own standard output."""
    from ebbtide.sweeps.data import different_data

    for sentence in different_data(folder):
        tell_written(out, f"warning: {sentence}")


def sweep_figure(options: Namespace) -> int:
    """Draws a phase diagram or curves by the value of an axis."""
    from ebbtide.report.grid_figure import curves_by_figure, phase_figure
    from ebbtide.runs.output import check_output, write_output
    from ebbtide.sweeps.results import load
    from ebbtide.sweeps.views import curves_by, phase

    out, one, by = Path(options.out), bool(options.phase) != bool(options.curve), str(options.by or "")
    require(one, "figure", "both" if options.phase else "nothing", "give --phase X Y, or --curve NAME --by AXIS")
    require(bool(by) or not options.curve, "by", None, "--curve needs --by AXIS")
    require(out.suffix in (".png", ".svg"), "out", str(out), "must end in .png or .svg")
    check_output(out)
    results = load(options.folder)
    where = {name: value for name, value in (_pair(text, results) for text in options.where)}
    fixed = "".join(f", {name} = {_value(value)}" for name, value in where.items())
    title = f"{results.folder.sweep.name}{fixed}"
    if options.phase:
        x, y = options.phase
        found = phase(results, x, y, options.value, where)
        files = phase_figure(found, x=x, y=y, value=options.value, title=title)
    else:
        curves = curves_by(results, options.curve, by, options.split, where)
        chance = results.chance(options.curve)
        how: dict[str, Any] = {"metric": options.curve, "axis": by, "split": options.split}
        files = curves_by_figure(curves, **how, chance=chance, title=title)
    write_output(out, files[f"figure{out.suffix}"])
    console.print(f"figure  {out}", soft_wrap=True)
    return 0


def _pair(text: str, results: Any) -> tuple[str, Any]:
    """The field and the value in `field=value`, the value as the results have it."""
    name, equals, value = text.partition("=")
    require(bool(equals), "where", text, "must be AXIS=VALUE")
    results.check_axis(name, "where")
    known = {_value(row.axes[name]): row.axes[name] for row in results.rows}
    return name, known.get(value, value)


def check_execution(options: Namespace) -> None:
    """Raises `InputError` for an unknown executor or kernel, or no jobs."""
    from ebbtide.sweeps.executors import check_name
    from ebbtide.training import kernels

    kernels.requested_kernel()
    check_name(options.executor)
    require(options.jobs is None or options.jobs >= 1, "jobs", options.jobs, "must be 1 or larger")


def print_plan(
    found: Any, out: Path, options: Namespace, *, measure: bool = False, arms: list[str] | None = None
) -> int:
    """Prints what running a sweep would train: groups, tasks, time and memory. Groups are named by the fields in which
    they differ, or by `arms`, which name equal parts of the points."""
    from ebbtide.sweeps import estimate
    from ebbtide.sweeps.driver import make_plan, missing_resources, preset_changed
    from ebbtide.sweeps.plan import group
    from ebbtide.training.layout import cores

    groups = group(found, found.points())
    before = SweepFolder(out) if (out / "sweep.json").is_file() else None
    known = before.members if before else {}
    if measure:
        for i, one in enumerate(groups):
            if estimate.estimate_cost(one.spec).source == "guessed":
                console.print(f"measuring group {i + 1} of {len(groups)} on one core (twenty seconds or more)")
                estimate.measure(one.spec)
    resources = found.resources
    jobs = options.jobs or max(1, cores() // resources.cpus)
    planned = make_plan(found, groups, known, jobs)
    names = ["arm"] if arms else list(dict.fromkeys(name for one in groups for name in one.static))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in [*names, "varied inside"]:
        table.add_column(name, overflow="fold")
    for name in ("members", "planned before", "tasks", "a member", "a task", "memory", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for one in planned[:MOST_LINES]:
        if arms:
            static = ["; ".join(dict.fromkeys(arms[row * len(arms) // found.size()] for row in one.group.rows))]
        else:
            static = [_field_text(one.group.spec, name) for name in names]
        cost, size = one.estimate, max((len(task.addresses) for task in one.tasks), default=0)
        work = -(-size // resources.cpus) * cost.seconds
        tasks = f"{len(one.tasks)} x {size}" if one.tasks else "-"
        times = [_span(cost.seconds), _span(work + cost.start) if size else "-"]
        memory = f"{cost.memory * min(resources.cpus, max(size, 1)) / 1e9:.1f} GB"
        counts = [str(len(one.group.rows)), str(one.known), tasks]
        table.add_row(*static, ", ".join(one.group.values) or "-", *counts, *times, memory, Text(cost.source, "dim"))
    console.print(Text.assemble((found.name, "bold"), f": {found.size()} members into {out}"), soft_wrap=True)
    console.print(table)
    if len(planned) > MOST_LINES:
        console.print(f"... and {len(planned) - MOST_LINES} more groups")
    _totals(planned, resources, jobs)
    with looking_in(places(out, found)):
        for text in (*preset_changed(before, found), *missing_resources(planned)):
            console.print(text, soft_wrap=True)
    return 0


def _field_text(spec: Any, name: str) -> str:
    """A field's value as text; a dash where its struct is absent (optimizer.decay.form without a decay)."""
    try:
        return _value(value_at(spec, name))
    except AttributeError:
        return "-"


def _totals(planned: list[Any], resources: Any, jobs: int) -> None:
    tasks = sum(len(one.tasks) for one in planned)
    members = sum(len(task.addresses) for one in planned for task in one.tasks)
    work = sum(
        one.estimate.start + -(-len(task.addresses) // resources.cpus) * one.estimate.seconds
        for one in planned
        for task in one.tasks
    )
    longest = max((one.estimate.start + one.estimate.seconds for one in planned if one.tasks), default=0.0)
    guessed = any(one.estimate.source == "guessed" and one.tasks for one in planned)
    console.print(
        f"\n{members} members to train in {len(planned)} groups of one static shape, {tasks} tasks; "
        f"{short(work * resources.cpus / 3600)} core-hours"
    )
    if tasks:
        console.print(
            f"about {_span(max(work / jobs, longest))} with {jobs} tasks at a time on cores like this machine's"
        )
    if resources.gpus:
        console.print("all times and memory are for CPU cores: nothing was measured on an accelerator", style="dim")
    elif guessed:
        words = "guessed: good to a factor of a few; --measure trains each such group for some seconds"
        console.print(words, style="dim")


def _status(folder: SweepFolder) -> int:
    from ebbtide.sweeps.plan import group_unchecked
    from ebbtide.sweeps.results import Results

    wanted: Counter[str] = Counter()
    unplanned = 0
    for one in group_unchecked(folder.sweep, folder.sweep.points()):
        for address in dict.fromkeys(one.addresses):
            if address in folder.members:
                wanted[folder.members[address].task] += 1
            else:
                unplanned += 1
    states = {task: folder.state(task) for task in wanted}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "tasks", "members"):
        table.add_column(name, justify="left" if not name else "right")
    for state, style in STYLE.items():
        tasks = [task for task, now in states.items() if now == state]
        if state == "damaged" and not tasks:
            continue
        table.add_row(Text(state, style), str(len(tasks)), str(sum(wanted[task] for task in tasks)))
    if unplanned:
        table.add_row(Text("not planned yet", "dim"), "-", str(unplanned))
    console.print(Text(folder.sweep.name, "bold"), f" {folder.path}", soft_wrap=True)
    console.print(table)
    older = sum(len(task.addresses) for _, task in folder.specs.values()) - sum(wanted.values())
    if older > 0:
        console.print(f"{older} more members here belong to earlier versions of this sweep", style="dim")
    running = [task for task, now in states.items() if now == "running"]
    for task in running[:MOST_LINES]:
        run = folder.run(task)
        if run is not None:
            done = f"{short(run.sequences())} of {short(run.header.spec['sequences'])} sequences"
            console.print(f"running     {task}  {done}", soft_wrap=True)
    print_diverged_members(Results(folder.path))
    aside = [task for task, now in states.items() if now == "quarantined"]
    for task in aside[:MOST_LINES]:
        last = folder.failures(task)[-1].text.strip().splitlines() or ["no message"]
        where = folder.path / "failures" / task
        console.print(f"quarantined {task}  {one_line(last[-1])}  ({where})", soft_wrap=True)
    if aside:
        console.print("try them again with --retry")
    damaged = [task for task, now in states.items() if now == "damaged"]
    for task in damaged[:MOST_LINES]:
        reason = folder.unreadable_reason(task)
        console.print(f"damaged     {task}  {reason}  ({folder.run_path(task)})", soft_wrap=True)
    if damaged:
        console.print("move their folders away, and the sweep trains them again")
    tell_different_data(folder)
    return 1 if aside or damaged else 0


def print_diverged_members(results: Any) -> None:
    """Prints the members of a sweep that diverged, by their axes, and when."""
    rows = [row for row in results.rows if row.state == "diverged"]
    for row in rows[:MOST_LINES]:
        axes = ", ".join(f"{name} {_value(value)}" for name, value in row.axes.items())
        at = short(row.scalars["diverged_sequences"])
        console.print(f"diverged    {axes}: not finite from {at} sequences on", soft_wrap=True)
    if len(rows) > MOST_LINES:
        console.print(f"... and {len(rows) - MOST_LINES} more members diverged")


def progress_words(p: Any) -> str:
    """The text of a `SweepProgress`: `tasks 3/12, 2 running | 12M/48M sequences, 96k/s, 6:12 left | icl 0.83 iwl 0.12
    loss 0.31`"""
    now = " ".join(f"{name} {value:.3f}" for name, value in p.latest.items() if value == value)
    left = "-" if p.eta != p.eta else clock(p.eta)
    head = f"tasks {p.done}/{p.tasks}, {p.active} running | {short(p.sequences)}/{short(p.total)} sequences"
    return f"{head}, {short(p.rate)}/s, {left} left" + (f" | {now}" if now else "")


def given_words(options: Namespace) -> list[str]:
    """The options to repeat when a sweep is continued, as words."""
    words = ["--out", options.out] if options.out else []
    words += ["--executor", options.executor] if options.executor != "local" else []
    words += ["--jobs", str(options.jobs)] if options.jobs else []
    return words + (file_words(options) if options.command == "sweep" else [])


def _span(seconds: float) -> str:
    """A duration in seconds as text: 83 -> 1:23, 7000 -> 1.9 h, 200000 -> 2.3 days."""
    if seconds < 3600:
        return clock(seconds)
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


def _value(value: Any) -> str:
    """A value as short text: a number, or a struct by its name and the fields that differ from their defaults."""
    if isinstance(value, msgspec.Struct):
        fields = {one.name: (getattr(value, one.name), default(one)) for one in msgspec.structs.fields(value)}
        differs = ", ".join(f"{name} {_value(now)}" for name, (now, usual) in fields.items() if now != usual)
        name = kind_name(value)
        return f"{name}({differs})" if differs else str(name)
    return f"{value:g}" if isinstance(value, float) else str(value)
