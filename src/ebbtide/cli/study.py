"""What `studies`, `run` and `resume` do. Every function returns the exit code."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from ebbtide.cli.console import claims_verdict, console, find_run, print_diverged, print_verdict
from ebbtide.cli.parser import RUNS
from ebbtide.errors import require
from ebbtide.report import tables
from ebbtide.runs.folder import Run


def studies(options: Namespace) -> int:
    """Table of all studies, or of one with its experiments."""
    from ebbtide.papers.registry import COMPUTED, STUDIES, find_any
    from ebbtide.studies.computed import Computed

    for study in [find_any(options.study)] if options.study else [*STUDIES, *COMPUTED]:
        console.print(Text(study.name, "bold"), Text(f"  {study.question}"))
        console.print(Text(f"  {study.paper}", "dim"))
        if study.claims:
            _describe_claims(study)
        if isinstance(study, Computed):
            from ebbtide.cli.computed import show_presets

            show_presets(study)
            continue
        if study.claims:
            _describe_presets(study)
        if options.study:
            from ebbtide.cli.experiment import show_experiments

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
    from ebbtide.papers.registry import find_any
    from ebbtide.studies.computed import Computed
    from ebbtide.studies.rehearsal import check_judgeable
    from ebbtide.training.driver import train
    from ebbtide.training.feasible import check_feasible
    from ebbtide.training.fields import override
    from ebbtide.training.spec import Spec, from_builtins

    study = find_any(options.study)
    if isinstance(study, Computed):
        from ebbtide.cli.computed import run_computed

        return run_computed(study, options)
    if options.experiment is None and not study.claims:
        options.experiment = study.experiments[0].name
    if options.experiment is not None:
        from ebbtide.cli.experiment import run_experiment

        return run_experiment(study, options)
    for name, default in (("executor", "local"), ("jobs", None)):
        require(getattr(options, name) == default, name, getattr(options, name), "goes with --experiment")
    data: dict[str, Any] = msgspec.to_builtins(study.preset(options.preset).spec)
    for name, text in options.fields:
        override(Spec, data, name, text)
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
        print_diverged(finished.metrics())
        return 0
    from ebbtide.papers.registry import find_study
    from ebbtide.studies.rehearsal import check_judgeable
    from ebbtide.studies.study import conclude
    from ebbtide.training.run import spec_of

    study = find_study(finished.header.label["study"])
    check_judgeable(study, spec_of(finished), {})
    verdict = conclude(study, finished)
    console.print(tables.curves_table(finished))
    print_diverged(finished.metrics())
    console.print()
    console.print(claims_verdict(verdict))
    print_verdict(finished.path)
    return 1 if check and not verdict.holds() else 0
