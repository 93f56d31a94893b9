"""What `run STUDY` and `studies STUDY` do for studies that compute instead of training."""

from argparse import Namespace
from pathlib import Path

import msgspec
from rich.table import Table

from ebbtide.cli.console import claims_verdict, console, print_verdict
from ebbtide.cli.parser import RUNS
from ebbtide.errors import require
from ebbtide.studies.computed import Computed, conclude_computed


def run_computed(study: Computed, options: Namespace) -> int:
    """Computes, judges the claims and draws the figure; exit code 1 with --check when a claim does not hold."""
    require(options.experiment is None, "experiment", options.experiment, f"{study.name} has no experiments")
    usual = {"executor": "local", "jobs": None, "processes": None, "width": None, "deterministic": False}
    for name, value in (usual | {"kernel": None}).items():
        require(getattr(options, name) == value, name, getattr(options, name), f"{study.name} trains nothing")
    setting = study.setting(options.preset, options.fields)
    if options.dry_run:
        console.print(msgspec.json.format(msgspec.json.encode(setting), indent=2).decode(), soft_wrap=True)
        return 0
    out = Path(options.out or Path(RUNS) / f"{study.name}-{options.preset}-{setting.digest()[:8]}")
    preset = f"{options.preset}*" if options.fields else options.preset
    text = f"{study.name}, preset {preset}: {setting.seeds} seeds, computed in seconds, into {out}"
    console.print(text, soft_wrap=True)
    verdict = conclude_computed(study, options.preset, options.fields, out)
    console.print()
    console.print(claims_verdict(verdict))
    print_verdict(out)
    return 1 if options.check and not verdict.holds() else 0


def show_presets(study: Computed) -> None:
    """The presets of a study that computes."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    for column in ("preset", "time on one core", "seeds", "what it is"):
        table.add_column(column)
    for name, preset in study.presets.items():
        table.add_row(name, f"about {preset.seconds:g} s", str(preset.setting.seeds), preset.note)
    console.print(table)
