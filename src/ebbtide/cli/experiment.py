"""What `run STUDY --experiment NAME` and `studies STUDY` do."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ebbtide.cli.console import claims_verdict, console, print_verdict
from ebbtide.cli.parser import RUNS
from ebbtide.cli.sweep import (
    check_execution,
    given_words,
    print_diverged_members,
    print_plan,
    tell_different_data,
    train_sweep,
)
from ebbtide.errors import require
from ebbtide.places import looking_in
from ebbtide.report.tables import short
from ebbtide.studies.donor import Donor
from ebbtide.studies.experiment import Experiment, Setting, conclude_experiment, folder_in, make_sweep, overridden
from ebbtide.studies.rehearsal import check_judgeable_arms
from ebbtide.studies.study import Study
from ebbtide.sweeps.folder import places
from ebbtide.sweeps.results import Results


def run_experiment(study: Study, options: Namespace) -> int:
    """Trains an experiment's arms, judges its claims and draws its figure; exit code 1 with --check when a claim
    does not hold."""
    from ebbtide.training.fields import parse

    experiment = study.experiment(options.experiment)
    for name in ("processes", "width"):
        allowed = "belongs to a single run; with --experiment use --jobs"
        require(getattr(options, name) is None, name, getattr(options, name), allowed)
    require(not options.deterministic, "deterministic", True, "is what an experiment does by itself on the CPU")
    changed = {name: parse(text) for name, text in options.fields}
    sweep = make_sweep(study, experiment, options.preset, changed)
    sweep.check()
    check_execution(options)
    preset = f"{options.preset}*" if changed else options.preset
    out = Path(options.out) if options.out else folder_in(Path(RUNS), sweep)
    setting = overridden(study, experiment, options.preset, changed)
    if changed:
        check_judgeable_arms(study, experiment, options.preset, changed)
    missing = setting.donor if setting.donor and not setting.donor.ready() else None
    if options.dry_run and missing:
        console.print(f"first {_donor(missing)}; the arms' plan can be made when it is there", soft_wrap=True)
        return 0
    if options.dry_run:
        return print_plan(sweep, out, options, arms=list(setting.arms))
    console.print(
        Text.assemble((f"{study.name}/{experiment.name}", "bold"), f", preset {preset}: {experiment.question}")
    )
    size = f"{len(setting.arms)} arms x {setting.members} members into {out}"
    console.print(size, Text(setting.scaled, "dim"), sep="\n", soft_wrap=True)
    words = ["ebbtide", "run", study.name, "--experiment", experiment.name, "--preset", options.preset]
    words += [*given_words(options), *[word for name, text in options.fields for word in (f"--{name}", text)]]
    again = shlex.join(words)
    if missing and (code := _train_donor(missing, again)):
        return code
    folder = train_sweep(sweep, out, options, again)
    if isinstance(folder, int):
        return folder
    tell_different_data(folder)
    with looking_in(places(folder.path, folder.sweep)):
        verdict = conclude_experiment(study, experiment, preset, folder)
    console.print(_arms_table(verdict, setting, experiment.scalars))
    print_diverged_members(Results(out))
    console.print()
    console.print(claims_verdict(verdict))
    print_verdict(out)
    return 1 if options.check and not verdict.holds() else 0


def _donor(donor: Donor) -> str:
    size = f"{donor.spec.members} members x {short(donor.spec.sequences)} sequences"
    return f"the run that arms start from: {size} into {donor.path}"


def _train_donor(donor: Donor, again: str) -> int:
    """Trains the run that arms start from, or goes on with it; 0, or the exit code when it did not come to its end.
    `again` is the command that continues it."""
    from ebbtide.report.progress import ProgressLine
    from ebbtide.training.driver import Interrupted, train
    from ebbtide.training.team import WorkerError

    console.print(f"first {_donor(donor)}", soft_wrap=True)
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


def _arms_table(verdict: Any, setting: Setting, names: tuple[str, ...]) -> Table:
    """One line an arm: means over members."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm (mean over members)")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for arm in setting.arms:
        values = [[v for v in verdict.summary.get(f"{arm}: {name}", []) if v is not None] for name in names]
        table.add_row(arm, *[f"{sum(v) / len(v):.3f}" if v else "-" for v in values])
    return table


def show_experiments(study: Study) -> None:
    """The experiments of a study: claims, presets, minutes."""
    for one in study.experiments:
        console.print()
        console.print(Text(f"{study.name} --experiment {one.name}", "bold"), Text(f"  {one.question}"))
        console.print(Text(f"  {one.section}", "dim"))
        console.print(_claims(one))
        console.print(_settings(study, one))
        for name, setting in one.settings.items():
            first = f"; trains first {_donor(setting.donor)}" if setting.donor else ""
            console.print(Text(f"  {name}: {setting.scaled}{first}", "dim"), soft_wrap=True)


def _claims(experiment: Experiment) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    for column in ("claim", "estimated: mean over members of", "needed", "asked in", "source"):
        table.add_column(column)
    for claim in experiment.claims:
        asked = [name for name, setting in experiment.settings.items() if set(claim.arms) <= set(setting.arms)]
        table.add_row(claim.statement, claim.metric, f"> {claim.threshold:g}", ", ".join(asked), claim.source)
    return table


def _settings(study: Study, experiment: Experiment) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    for column in ("preset", "minutes on 2 cores", "arms", "members", "sequences each"):
        table.add_column(column)
    for name, setting in experiment.settings.items():
        minutes = "not timed" if setting.minutes is None else f"about {setting.minutes:g}"
        minutes += f" (needs {setting.needs})" if setting.needs else ""
        spec = study.preset(setting.preset).spec
        sequences = short(setting.base.get("sequences", spec.sequences))
        table.add_row(name, minutes, ", ".join(setting.arms), str(setting.members), sequences)
    return table
