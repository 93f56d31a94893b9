"""Weights & Biases, on line or off line as `WANDB_MODE` says, with one run of wandb for each series.

A row's step is its number of sequences. wandb keeps rows in the order of their steps and ignores one whose step it has
passed; so what it has is what lies up to its last step. On line the server tells that step when a run is resumed. Off
line nobody does: there the `.wandb` files of earlier processes are read, by the reader that comes with wandb.
"""

import subprocess
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import InputError, one_line, require
from ebbtide.follow.events import Event
from ebbtide.follow.optional import load
from ebbtide.follow.series import Row, Series
from ebbtide.runs.output import check_output_folder

MOST_OPEN = 200
"""Largest number of series: wandb keeps a run open for each."""
LONGEST = 128
"""Largest number of characters of wandb's names."""
STEP = "sequences"
SECONDS = 120.0
"""How long reading one file may take."""
WRITER_SECONDS = 10.0
"""How long the service of an earlier process may take to end; it was a fifth of a second when this was measured."""


class _Item(msgspec.Struct):
    step: int | None = msgspec.field(default=None, name="_step")


class _History(msgspec.Struct):
    item: _Item


class _Alert(msgspec.Struct):
    text: str = ""


class _Record(msgspec.Struct):
    """A line of what wandb's reader prints; fields that are of no use here are left out."""

    history: _History | None = None
    alert: _Alert | None = None


class Wandb:
    """A project of Weights & Biases."""

    def __init__(self, project: str, out: Path | None):
        """Raises `InputError` when wandb is not installed."""
        self._wandb = load("wandb", "wandb")
        self._project, self._out = project, out
        if out is not None:
            check_output_folder(out)
        everywhere = self._wandb.setup(settings=self._settings()).settings
        self._offline = everywhere.mode in ("offline", "dryrun")
        self.home = Path(everywhere.wandb_dir)
        self.place = f"project {project}, files in {self.home}"
        self._runs: dict[str, Any] = {}
        self._alerts: dict[str, set[str]] = {}

    def _settings(self) -> Any:
        """wandb's settings without what has nothing to do with a run of ours: the machine, the console, git."""
        options = {"console": "off", "silent": True, "disable_git": True, "save_code": False, "symlink": False}
        options |= {f"x_disable_{what}": True for what in ("stats", "machine_info", "meta")}
        options |= {"x_save_requirements": False, "x_transaction_log_flush_interval": 1.0}
        if self._out is not None:
            options["root_dir"] = str(self._out.absolute())
        return self._wandb.Settings(**options)

    def open(self, series: Series) -> Container[int]:
        """Reads what earlier processes wrote off line, or asks the server."""
        allowed = f"wandb keeps a run open for each series, and at most {MOST_OPEN} are followed; give --per cell"
        require(len(self._alerts) < MOST_OPEN, "to", "wandb", allowed)
        known, self._alerts[series.key] = self._read_back(name_of(series))
        return known if self._offline else range(self._run(series).starting_step)

    def _run(self, series: Series) -> Any:
        """The run of wandb, started or resumed unless it is open: one that adds nothing would leave an empty folder."""
        if series.key not in self._runs:
            self._runs[series.key] = self._start(series)
        return self._runs[series.key]

    def _start(self, series: Series) -> Any:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            run = self._wandb.init(
                project=self._project,
                id=name_of(series),
                name=series.name[-LONGEST:],
                group=series.group[:LONGEST],
                config=series.config,
                resume="allow",
                reinit="create_new",
                settings=self._settings(),
            )
        except (self._wandb.errors.Error, OSError, ValueError) as error:
            raise InputError("to", "wandb", f"wandb says: {one_line(' '.join(str(error).split()))}") from error
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        return run

    def send(self, series: Series, rows: list[Row]) -> None:
        """Logs the rows; wandb's service writes them within a second, and sends them when it is on line."""
        for row in rows:
            values = {_text(name): value for name, value in row.values.items()}
            self._run(series).log({**values, STEP: row.sequences}, step=row.sequences, commit=True)

    def alert(self, series: Series, event: Event, fresh: bool) -> None:
        """Sends an alert: off line when no file holds it, on line when no process has told it."""
        if event.text not in self._alerts[series.key] if self._offline else fresh:
            self._run(series).alert(event.kind, event.text, level=event.level.upper(), wait_duration=0)
            self._alerts[series.key].add(event.text)

    def close(self, stopped: bool) -> None:
        """Finishes the runs; on line and stopped they are left as they are, since finishing waits for the network."""
        for run in self._runs.values():
            if self._offline or not stopped:
                run.finish()

    def _read_back(self, name: str) -> tuple[set[int], set[str]]:
        """The steps and the alerts in the files that earlier processes wrote off line for this run."""
        files = sorted(self.home.glob(f"offline-run-*-{name}*/run-{name}.wandb"))
        _wait_for_writers(files)
        steps: set[int] = set()
        alerts: set[str] = set()
        for file in files:
            for record in self._records(file):
                if record.history is not None and record.history.item.step is not None:
                    steps.add(record.history.item.step)
                if record.alert is not None:
                    alerts.add(record.alert.text)
        return steps, alerts

    def _records(self, file: Path) -> Iterator[_Record]:
        """The records of a file, up to where it was cut off."""
        core = load("wandb", "wandb.util").get_core_path()
        words = [core, "leet", "inspect", "--no-observability", "--json", "--run-file", str(file), str(self.home)]
        try:
            done = subprocess.run(words, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise InputError("out", str(file), f"wandb's reader took longer than {SECONDS:g} seconds") from error
        reason = one_line(done.stderr.decode(errors="replace").strip())
        require(done.returncode == 0, "out", str(file), f"wandb's reader cannot read it: {reason}")
        for line in done.stdout.splitlines():
            with suppress(msgspec.MsgspecError):  # a record of a kind that is of no use here
                yield msgspec.json.decode(line, type=_Record)


def name_of(series: Series) -> str:
    """The id of a series' run in wandb."""
    return series.key[:16]


def _text(name: str) -> str:
    """The name of a curve; those that wandb uses itself get a word in front."""
    return f"curve {name}" if name.startswith("_") or name == STEP else name


def _wait_for_writers(files: list[Path]) -> None:
    """Waits until no other process has one of the files open: the service of a process that was killed outlives it for
    a moment, and may still write. Only Linux tells; elsewhere it waits until the files are three seconds old."""
    until = time.monotonic() + WRITER_SECONDS
    while files and _written(files) and time.monotonic() < until:
        time.sleep(0.1)


def _written(files: list[Path]) -> bool:
    processes = Path("/proc")
    if not (processes / "self/fd").is_dir():
        return any(time.time() - file.stat().st_mtime < 3 for file in files)
    wanted = {(found.st_dev, found.st_ino) for found in (file.stat() for file in files)}
    for descriptor in processes.glob("[0-9]*/fd/*"):
        with suppress(OSError):  # another user's process, or one that has ended
            found = descriptor.stat()
            if (found.st_dev, found.st_ino) in wanted:
                return True
    return False
