"""The work of an experiment on the command line, by its kind: a run, the arms of a sweep, or a computation."""

import shlex
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.table import Table

from ebbtide.cli.code import file_words
from ebbtide.cli.console import claims_verdict, console, print_diverged, print_verdict, status_words
from ebbtide.cli.sweep import (
    check_execution,
    given_words,
    print_diverged_members,
    print_plan,
    tell_different_data,
    train_sweep,
)
from ebbtide.errors import Interrupted, require
from ebbtide.places import looking_in
from ebbtide.report import tables
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.comparison import SweepPlan
from ebbtide.studies.computation import ComputationPlan
from ebbtide.studies.donor import Donor
from ebbtide.studies.single_run import RunPlan
from ebbtide.sweeps.folder import places
from ebbtide.sweeps.results import Results


class Kind(NamedTuple):
    """The functions by which the command line does a plan of one kind. `check_options` refuses options that are not for
    this kind; `size` describes the amount of work; `do` returns an exit code where the work was not completed, else
    None."""

    check_options: Callable[[Any, Namespace], None]
    size: Callable[[Any], str]
    print_plan: Callable[[Any, Path, Namespace], int]
    do: Callable[[Any, Path, Namespace], int | None]
    print_results: Callable[[Any, Path, Any], None]

    def conclude(self, plan: Any, out: Path, check: bool) -> int:
        """Judges the work in a folder and prints its results; 1 where `check` asks for claims that do not hold."""
        with looking_in(places(out, plan.sweep) if isinstance(plan, SweepPlan) else ()):
            verdict = plan.conclude(out)
        self.print_results(plan, out, verdict)
        console.print()
        console.print(claims_verdict(verdict))
        print_verdict(out)
        return 1 if check and not verdict.holds() else 0


LAYOUT = {"processes": None, "width": None, "device": None}
"""Options that say where the members of a single run are trained, with their usual values."""


def refuse(options: Namespace, usual: dict[str, Any], allowed: str) -> None:
    """Raises `InputError` for an option that has another value than its usual one."""
    for name, value in usual.items():
        require(getattr(options, name) == value, name, getattr(options, name), allowed)


def clock_words(minutes: float | None) -> str:
    """`about 5 min`, `about 10 s`, `not timed`."""
    if minutes is None:
        return "not timed"
    return f"about {minutes:g} min" if minutes >= 1 else f"about {60 * minutes:.0f} s"


# ---- one run


def _size_of_run(plan: RunPlan) -> str:
    return f"{plan.spec.members} members x {tables.short(plan.spec.sequences)} sequences"


def _print_spec(plan: RunPlan, out: Path, options: Namespace) -> int:
    console.print(msgspec.json.format(plan.spec.to_json(), indent=2).decode(), soft_wrap=True)
    return 0


def _train(plan: RunPlan, out: Path, options: Namespace) -> int | None:
    from ebbtide.training.driver import train

    if (out / "run.json").exists() and RunFolder(out).header.digest == plan.spec.digest():
        console.print(f"this run exists ({status_words(RunFolder(out))}): continuing it where it was")
    return train_run(out, options, lambda **how: train(plan.spec, out, label=plan.label, **how))


def _print_curves(plan: RunPlan | None, out: Path, verdict: Any) -> None:
    run = RunFolder(out)
    console.print(tables.curves_table(run))
    print_diverged(run.metrics())


def train_run(out: Path, options: Namespace, call: Callable[..., RunFolder]) -> int | None:
    """Trains with a progress line; None, or the exit code when the run did not come to its end."""
    from ebbtide.report.progress import ProgressLine
    from ebbtide.training.team import WorkerError

    how = {name: getattr(options, name) for name in ("processes", "width", "device", "deterministic")}
    again = shlex.join(["ebbtide", "resume", str(out), *file_words(options)])
    try:
        with ProgressLine(console) as line:
            call(report=line, say=lambda text: console.print(text), **how)
    except Interrupted:
        if not (out / "run.json").exists():
            console.print("stopped before the run was begun; nothing was written")
            return 130
        done = tables.short(RunFolder(out).sequences())
        console.print(f"stopped; saved at {done} sequences. Continue with:\n  {again}", soft_wrap=True)
        return 130
    except KeyboardInterrupt:
        there = f" Continue with:\n  {again}" if (out / "run.json").exists() else ""
        console.print(f"stopped at once, without saving.{there}", soft_wrap=True)
        return 130
    except OSError as error:
        if error.filename is None or not (out / "run.json").exists():
            raise
        again = f"{error.strerror}; what was saved before is whole. Continue with: {again}"
        raise OSError(error.errno, again, error.filename) from error
    except WorkerError as error:
        console.print(f"{error}\nContinue with:\n  {again}", soft_wrap=True)
        return 1
    return None


# ---- the arms of a sweep


def _check_sweep_options(plan: SweepPlan, options: Namespace) -> None:
    refuse(options, LAYOUT, "belongs to a single run; with --experiment use --jobs")
    refuse(options, {"deterministic": False}, "is what an experiment does by itself on the CPU")
    check_execution(options)


def _size_of_sweep(plan: SweepPlan) -> str:
    one, size = plan.comparison, plan.setup.experiment.preset(plan.setup.size)
    return f"{size.scaled}\n{len(one.arms)} arms x {one.members} members"


def _print_sweep_plan(plan: SweepPlan, out: Path, options: Namespace) -> int:
    donor = plan.comparison.donor
    if donor and not donor.ready():
        console.print(f"first {donor_words(donor)}; the arms' plan can be made when it is there", soft_wrap=True)
        return 0
    return print_plan(plan.sweep, out, options, arms=list(plan.comparison.arms))


def donor_words(donor: Donor) -> str:
    """Words on the run that arms start from: how large it is, and where."""
    size = f"{donor.spec.members} members x {tables.short(donor.spec.sequences)} sequences"
    return f"the run that arms start from: {size} into {donor.path}"


def _train_arms(plan: SweepPlan, out: Path, options: Namespace) -> int | None:
    again = plan.setup.command(*given_words(options), study=options.study)
    donor = plan.comparison.donor
    if donor and not donor.ready() and (code := _train_donor(donor, again)):
        return code
    folder = train_sweep(plan.sweep, out, options, again)
    if isinstance(folder, int):
        return folder
    tell_different_data(folder)
    return None


def _train_donor(donor: Donor, again: str) -> int:
    """Trains the run that arms start from, or goes on with it; 0, or the exit code when it did not come to its end.
    `again` is the command that continues it."""
    from ebbtide.report.progress import ProgressLine
    from ebbtide.training.driver import train
    from ebbtide.training.team import WorkerError

    console.print(f"first {donor_words(donor)}", soft_wrap=True)
    try:
        with ProgressLine(console) as line:
            train(donor.spec, donor.path, label=donor.label, report=line)
    except (Interrupted, KeyboardInterrupt):
        console.print(f"stopped; what was trained is saved. Continue with:\n  {again}", soft_wrap=True)
        return 130
    except WorkerError as error:
        console.print(f"{error}\nContinue with:\n  {again}", soft_wrap=True)
        return 1
    return 0


def _print_arms(plan: SweepPlan, out: Path, verdict: Any) -> None:
    """One line an arm: means over members."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm (mean over members)")
    names = plan.setup.experiment.scalars
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for arm in plan.comparison.arms:
        values = [[v for v in verdict.summary.get(f"{arm}: {name}", []) if v is not None] for name in names]
        table.add_row(arm, *[f"{sum(v) / len(v):.3f}" if v else "-" for v in values])
    console.print(table)
    print_diverged_members(Results(out))


# ---- a computation


def _check_computation_options(plan: ComputationPlan, options: Namespace) -> None:
    usual = LAYOUT | {"executor": "local", "jobs": None, "deterministic": False}
    refuse(options, usual | {"kernel": None}, f"{plan.setup.study.name} trains nothing")


def _print_setting(plan: ComputationPlan, out: Path, options: Namespace) -> int:
    console.print(msgspec.json.format(msgspec.json.encode(plan.computation.setting), indent=2).decode(), soft_wrap=True)
    return 0


KINDS: dict[type, Kind] = {
    RunPlan: Kind(
        lambda plan, options: refuse(options, {"executor": "local", "jobs": None}, "goes with --experiment"),
        _size_of_run,
        _print_spec,
        _train,
        _print_curves,
    ),
    SweepPlan: Kind(_check_sweep_options, _size_of_sweep, _print_sweep_plan, _train_arms, _print_arms),
    ComputationPlan: Kind(
        _check_computation_options,
        lambda plan: f"{plan.computation.setting.seeds} seeds, computed in seconds,",
        _print_setting,
        lambda plan, out, options: None,
        lambda plan, out, verdict: None,
    ),
}
