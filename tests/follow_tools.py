"""Runs that grow in steps, `ebbtide follow` as a process, and what trackers hold, read by their own readers."""

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import Writer
from tiny import SPEC, evaluations, header, watched

EVERY = 256
"""Sequences between two evaluations of a run that grows."""
Value = tuple[str, int, str, float]
"""The name of a series, the sequences, the name of a curve, its value."""


class Growing:
    """A run of two members that a test writes evaluation by evaluation, of as many as `total`."""

    def __init__(self, path: Path, total: int = 20, members: int = 2, names: tuple[str, ...] = ("icl", "iwl")):
        spec = replace(SPEC, members=members, sequences=EVERY * (total - 1))
        self.path, self.total, self.rows = path, total, 0
        self.header = header(spec, names)
        shape, rng = (members, total), np.random.default_rng(0)
        self.curves = {name: rng.uniform(0.75, 0.9, shape) for name in names}
        self.loss = rng.random(shape)
        self.loss[:, 0] = np.nan
        self.writer: Writer | None = None
        self.open()

    def open(self) -> None:
        """Opens the folder as a process that continues the run does."""
        self.writer = Writer(self.path, self.header)

    def close(self) -> None:
        """Ends as an interrupted process does."""
        assert self.writer is not None
        self.writer.close()
        self.writer = None

    def grow(self, rows: int = 1) -> None:
        """Commits so many evaluations, the last of which ends the run."""
        assert self.writer is not None
        new = slice(self.rows, self.rows + rows)
        at = np.arange(self.total)[new] * EVERY
        curves = {name: curve[:, new].astype(np.float32) for name, curve in self.curves.items()}
        self.rows += rows
        done = self.rows == self.total
        self.writer.commit(
            sequences=int(at[-1]),
            state=watched(len(self.loss)),
            evaluations=evaluations(self.header, curves, self.loss[:, new], at),
            kept=False,
            finished=done,
            seconds=1.0,
        )


def rows_of(run: RunFolder, name: str | None = None) -> Counter[Value]:
    """Every finite value of every member of a run: what a tracker should have, once each."""
    found, curves = Counter(), run.metrics()
    for curve, values in curves.items():
        if curve in ("sequences", "steps") or curve.endswith("/error"):
            continue
        for member, line in enumerate(values):
            for at, value in zip(curves["sequences"].tolist(), line.tolist(), strict=True):
                if np.isfinite(value):
                    found[f"{name or run.path.name}/{member}", at, curve, value] += 1
    return found


def process(words: list[str], cwd: Path, command: str = "follow") -> subprocess.Popen[str]:
    """A command, `ebbtide follow`, as a process of its own, off line, with a home of its own."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO", "HF_"))}
    env |= {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    env["PYTHONPATH"] = str(Path(ebbtide.__file__).parents[1])  # given relatively, it leads nowhere from another folder
    code = "import sys; from ebbtide.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, command, *words],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def followed(words: list[str], cwd: Path, command: str = "follow") -> tuple[int, str]:
    """The exit code of a command, and what it printed."""
    one = process(words, cwd, command)
    said, _ = one.communicate(timeout=120)
    return one.returncode, said


class OfTensorBoard:
    """What event files hold, by TensorBoard's own loader."""

    def __init__(self, out: Path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.values: Counter[Value] = Counter()
        self.alerts: Counter[str] = Counter()
        self.configs: dict[str, Any] = {}
        for folder in sorted({file.parent for file in out.rglob("events.out.tfevents.*")}):
            events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
            events.Reload()
            name = folder.name.rpartition("-")[0][::-1].replace("_", "/", 1)[::-1]
            for tag in events.Tags()["scalars"]:
                for one in events.Scalars(tag):
                    self.values[name, one.step, tag, one.value] += 1
            for tag in events.Tags()["tensors"]:
                texts = [text.decode() for one in events.Tensors(tag) for text in one.tensor_proto.string_val]
                if tag.startswith("event/"):
                    self.alerts.update(text.strip() for text in texts)
                elif tag == "config":
                    (config,) = texts
                    self.configs[name] = json.loads(config)


class OfTrackio:
    """What trackio's database holds: its tables, as its own storage class reads them."""

    def __init__(self, out: Path, project: str = "ebbtide"):
        self.values: Counter[Value] = Counter()
        with sqlite3.connect(out / f"{project}.db") as database:
            for name, step, values in database.execute("select run_name, step, metrics from metrics"):
                for curve, value in json.loads(values).items():
                    self.values[name, step, curve, value] += 1
            self.alerts = Counter(text for (text,) in database.execute("select text from alerts"))
            rows = database.execute("select run_name, config from configs")
            self.configs = {name: json.loads(config) for name, config in rows}
        database.close()


class OfWandb:
    """What the files of runs off line hold, by the reader that comes with wandb."""

    def __init__(self, out: Path):
        from wandb.util import get_core_path

        self.values: Counter[Value] = Counter()
        self.alerts: Counter[str] = Counter()
        self.configs: dict[str, Any] = {}
        for file in sorted(out.glob("wandb/offline-run-*/*.wandb")):
            words = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", file, out]
            done = subprocess.run(words, capture_output=True, check=True, timeout=60)
            name = ""
            for record in map(json.loads, done.stdout.splitlines()):
                if "run" in record:
                    name = record["run"]["display_name"]
                    self.configs[name] = record["run"]["config"]["update"]
                if "history" in record:
                    item = record["history"]["item"]
                    assert item["_step"] == item["sequences"]
                    for curve in item.keys() - {"_step", "_runtime", "_timestamp", "sequences"}:
                        self.values[name, item["_step"], curve, item[curve]] += 1
                if "alert" in record:
                    self.alerts[record["alert"]["text"]] += 1


READERS = {"tensorboard": OfTensorBoard, "trackio": OfTrackio, "wandb": OfWandb}


def skip_without(tracker: str) -> None:
    """Skips a test of a tracker that is not installed, by its name."""
    pytest.importorskip(tracker, reason=f"{tracker} is not installed (pip install 'ebbtide[{tracker}]')")
