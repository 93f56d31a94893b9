"""`ebbtide follow`: a run's evaluations and events for an experiment tracker, while it trains or afterwards."""

from argparse import Namespace
from pathlib import Path

from ebbtide.cli.console import console
from ebbtide.cli.parser import RUNS
from ebbtide.follow.command import parse_command
from ebbtide.follow.follow import follow as follow_folder
from ebbtide.follow.trackers import Tracker, tracker_named
from ebbtide.interrupts import raise_on_stop_signals


def follow(options: Namespace) -> int:
    """Follows a run or a sweep until nothing more is to come."""
    command = parse_command(options.alert) if options.alert is not None else None
    return send(options.run, options.to, options.project, options.out, options.per, command, once=options.once)


def send(
    name: str,
    to: str,
    project: str | None = None,
    out: str | None = None,
    per: str = "member",
    command: list[str] | None = None,
    *,
    once: bool,
) -> int:
    """Sends the run or sweep of this name, here or in the default folder, to a tracker."""

    def find() -> Path | None:
        there = [path for path in (Path(name), Path(RUNS) / name) if path.is_dir()]
        return there[0] if there else None

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    def tracker() -> Tracker:
        made = tracker_named(to, project, Path(out) if out else None)
        say(f"following {name} to {to}: {made.place}")
        return made

    with raise_on_stop_signals():
        return follow_folder(find, name, tracker, per=per, alert=command, once=once, say=say)
