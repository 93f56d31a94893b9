"""The command line. Nothing heavy is imported before a command needs it."""

import argparse
import sys

from ebbtide import __version__
from ebbtide.errors import InputError, one_line

RUNS = "runs"
OVERRIDES = """any field of the spec by its dotted name: --task.context 4, --source omniglot, --source FILE.npz,
--task.labels shared, --model.width 32, --optimizer.lr 3e-4, --vary '{"optimizer.lr": [1e-3, 3e-4]}' ...
(`ebbtide run STUDY --dry-run` prints all fields with their values)"""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="ebbtide",
        description="The lab bench for the training dynamics of in-context learning.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"ebbtide {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    def layout(one: argparse.ArgumentParser) -> None:
        one.add_argument("--processes", type=int, metavar="N", help="worker processes; 0: this one (default: measured)")
        one.add_argument("--width", type=int, metavar="N", help="members side by side in a program (default: measured)")
        one.add_argument("--deterministic", action="store_true", help="refuse whatever is not repeatable bit for bit")

    command("studies", "list the studies: paper, claims, presets, expected minutes")
    run = command("run", "run a study: train, judge its claims, draw its figure")
    run.epilog = f"FIELD is {OVERRIDES}"
    run.usage = (
        "ebbtide run STUDY [--preset NAME] [--out DIR] [--check] [--processes N] [--width N]\n"
        "                   [--deterministic] [--dry-run] [--FIELD VALUE ...]"
    )
    run.add_argument("study", help="the study's name (see `ebbtide studies`)")
    run.add_argument("--preset", default="quick", help="size: quick, cpu or paper (default: quick)")
    run.add_argument("--out", help="run folder (default: runs/STUDY-PRESET-DIGEST)")
    run.add_argument("--check", action="store_true", help="exit with 1 unless every claim holds")
    layout(run)
    run.add_argument("--dry-run", action="store_true", help="print the spec and stop")
    listing = command("ls", "list the runs in a folder")
    listing.add_argument("folder", nargs="?", default=RUNS, help=f"default: {RUNS}")
    show = command("show", "show a run: spec, curves, verdict")
    show.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    show.add_argument("--figure", metavar="FILE", help="draw the curves to FILE (.png or .svg)")
    show.add_argument("--log", action="store_true", help="with --figure: logarithmic axis of sequences")
    resume = command("resume", "continue an interrupted run")
    resume.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    layout(resume)
    resume.add_argument("--check", action="store_true", help="exit with 1 unless every claim holds")
    export = command("export", "write a run's curves as one tidy table")
    export.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    export.add_argument("--format", default="csv", help="csv, parquet or json (default: csv)")
    export.add_argument("--out", required=True, help="file to write")
    fsck = command("fsck", "check every file of a run; says what a resume would do, changes nothing")
    fsck.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    command("verify", "exact checks without training: oracles, samplers, loss at initialisation ...")
    bench = command("bench", "how fast this machine is, and what of that ebbtide and plain code reach")
    bench.add_argument("--config", metavar="NAME", help="2L, 2L-shared, 2L-shared-wide or 12L (default: all)")
    bench.add_argument("--quick", action="store_true", help="under a minute a configuration, less of it")
    bench.add_argument("--json", metavar="FILE", help="write machine, rows and targets to FILE")
    return top


def overrides(rest: list[str]) -> list[tuple[str, str]]:
    """`--name value`, `--name=value` and `--name` (true) as pairs, in order."""
    pairs: list[tuple[str, str]] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise InputError("argument", word, "expected --FIELD VALUE (see ebbtide run --help)")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        pairs.append((name, value))
    return pairs


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    options, rest = parser().parse_known_args(arguments)
    if rest and options.command != "run":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    from ebbtide import commands
    from ebbtide.runs.folder import DamagedError

    try:
        options.fields = overrides(rest)
        return getattr(commands, options.command)(options)
    except (InputError, DamagedError) as error:
        sys.stderr.write(f"ebbtide: {error}\n")
        return 2
    except BrokenPipeError:  # `ebbtide ls | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written ...
        if error.filename is None:
            raise
        sys.stderr.write(f"ebbtide: {one_line(str(error.filename))}: {error.strerror}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
