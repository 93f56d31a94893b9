"""The commands `studies`, `run` and `resume`. Every function returns the exit code."""

from argparse import Namespace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ebbtide.cli.console import claims_verdict, console, find_run, print_diverged, print_verdict, status_words
from ebbtide.cli.parser import RUNS, check_names
from ebbtide.cli.work import KINDS, clock_words, donor_words, train_run
from ebbtide.errors import require
from ebbtide.papers.registry import all_studies, find_study, resolve_study
from ebbtide.report import tables
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.computation import Computation
from ebbtide.studies.single_run import SingleRun, check_judgeable, conclude_run
from ebbtide.studies.study import Experiment, Study, Work, setup
from ebbtide.training.spec import Spec


def studies(options: Namespace) -> int:
    """Table of all studies, or of one with all its experiments."""
    for study in [resolve_study(options.study)] if options.study else all_studies().values():
        console.print(Text(study.name, "bold"), Text(f"  {study.question}"))
        console.print(Text(f"  {study.paper}", "dim"))
        for one in study.experiments:
            own = one.name == study.name
            if own or options.study:
                _describe(study, one)
        others = [one.name for one in study.experiments if one.name != study.name]
        if others and not options.study:
            console.print(f"  experiments (ebbtide studies {study.name}): {', '.join(others)}", soft_wrap=True)
    return 0


def _describe(study: Study, one: Experiment) -> None:
    """An experiment: its claims, presets, minutes."""
    if one.name != study.name:
        console.print()
        console.print(Text(f"{study.name} --experiment {one.name}", "bold"), Text(f"  {one.question}"))
        console.print(Text(f"  {one.section}", "dim"))
    console.print(_claims(one))
    console.print(_presets(study, one))
    for name, preset in one.presets.items():
        if isinstance(preset.work, Comparison):
            donor = preset.work.donor
            first = f"; trains first {donor_words(donor)}" if donor else ""
            console.print(Text(f"  {name}: {preset.scaled}{first}", "dim"), soft_wrap=True)


def _claims(experiment: Experiment) -> Table:
    """The claims; where presets differ in their arms, with the presets that a claim is asked in."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    arms = {name: one.work.arms for name, one in experiment.presets.items() if isinstance(one.work, Comparison)}
    for column in ("claim", "estimated, of every member", "needed", *(["asked in"] if arms else []), "source"):
        table.add_column(column)
    for claim in experiment.claims:
        asked = [", ".join(name for name, own in arms.items() if set(claim.arms) <= set(own))] if arms else []
        table.add_row(claim.statement, claim.metric, claim.needed(), *asked, claim.source)
    return table


def field_names(work: Work) -> tuple[str, ...]:
    """Names of the fields that `--FIELD VALUE` may change: of the computation's setting, else of the spec."""
    return type(work.setting).__struct_fields__ if isinstance(work, Computation) else Spec.__struct_fields__


def _presets(study: Study, experiment: Experiment) -> Table:
    """The presets: what each takes, and its size."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    table.add_column("preset")
    table.add_column("on 2 cores")
    works = [preset.work for preset in experiment.presets.values()]
    sizes = {SingleRun: ("members", "sequences each", "what it is"), Computation: ("seeds", "what it is")}
    for column in sizes.get(type(works[0]), ("arms", "members", "sequences each")):
        table.add_column(column)
    for name, preset in experiment.presets.items():
        needs = f" (needs {preset.needs})" if preset.needs else ""
        match preset.work:
            case SingleRun(base):
                spec = study.base(base).spec
                size = (str(spec.members), tables.short(spec.sequences), preset.scaled)
            case Computation(setting):
                size = (str(setting.seeds), preset.scaled)
            case Comparison() as work:
                sequences = work.base.get("sequences", study.base(work.preset).spec.sequences)
                size = (", ".join(work.arms), str(work.members), tables.short(sequences))
            case other:
                raise TypeError(other)
        table.add_row(name, clock_words(preset.minutes) + needs, *size)
    return table


def run(options: Namespace) -> int:
    """Does the work of an experiment, judges its claims and draws its figures; exit code 1 with --check when a claim
    does not hold."""
    one = setup(resolve_study(options.study), options.experiment, options.preset, options.fields)
    check_names(options, field_names(one.experiment.preset(one.size).work))
    plan = one.plan()
    kind = KINDS[type(plan)]
    kind.check_options(plan, options)
    plan.check()
    out = Path(options.out) if options.out else plan.folder_in(Path(RUNS))
    if options.dry_run:
        return kind.print_plan(plan, out, options)
    console.print(Text.assemble((one.name(), "bold"), f", preset {one.preset}: {one.experiment.question}"))
    console.print(f"{kind.size(plan)} into {out}", soft_wrap=True)
    code = kind.do(plan, out, options)
    return code if code is not None else kind.conclude(plan, out, options.check)


def resume(options: Namespace) -> int:
    """Continues a run, and its study's verdict after it."""
    from ebbtide.training import driver

    found = find_run(options.run)
    at = f"{tables.short(found.sequences())} of {tables.short(found.header.spec['sequences'])} sequences"
    console.print(f"{found.path}: {status_words(found)} at {at}", soft_wrap=True)
    code = train_run(found.path, options, lambda **how: driver.resume(found, **how))
    return code if code is not None else _conclude(RunFolder(found.path), options.check, options.study)


def _conclude(finished: RunFolder, check: bool, file: str | None) -> int:
    """Prints a run's curves, and its verdict if the run is a study's."""
    from ebbtide.training.run import spec_of

    label, verdict = finished.header.label, None
    study = None
    if "study" in label:
        study = resolve_study(file) if file else find_study(label["study"])
    if study is not None and (study.file or "file" in label):
        allowed = f"the run was trained for the study in {label.get('file', 'this package')}; name that file by --study"
        require(study.file == label.get("file"), "study", file or label["study"], allowed)
    if study is not None:
        check_judgeable(study, spec_of(finished), {})
        verdict = conclude_run(study, finished)
    console.print(tables.curves_table(finished))
    print_diverged(finished.metrics())
    if verdict is None:
        return 0
    console.print()
    console.print(claims_verdict(verdict))
    print_verdict(finished.path)
    return 1 if check and not verdict.holds() else 0
