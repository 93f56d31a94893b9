"""The command `prereg`: what a study claims, written down before it is run. It returns the exit code."""

from argparse import Namespace
from pathlib import Path

from ebbtide.cli.console import console
from ebbtide.papers.registry import resolve_study
from ebbtide.studies.registration import register, write_registration
from ebbtide.studies.study import setup


def prereg(options: Namespace) -> int:
    """Writes the claims, seeds and setting of an experiment into a file with their digest; nothing is trained."""
    one = setup(resolve_study(options.study), options.experiment, options.preset)
    plan = one.plan()
    registration = register(one.name(), one.preset, plan.work_digest(), plan.seed_words(), plan.claims())
    folder = Path(options.out) if options.out else one.study.registrations_folder()
    path = write_registration(folder, registration)
    console.print(f"{one.name()}, preset {one.preset}: {len(registration.claims)} claims in {path}", soft_wrap=True)
    console.print(f"seeds: {registration.seeds}", soft_wrap=True)
    console.print("Commit the file before the run; the verdict says whether it is as registered.")
    return 0
