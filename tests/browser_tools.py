"""Folders for the dashboard to show, a server over them, and a browser that notices what a page must not do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import Writer
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.sweep import Sweep
from sweep_tools import SHORT_SWEEP, made
from tiny import SPEC, evaluations, header, watched, write_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EVIL = "<img src=x onerror=alert(1)>"
SEQUENCES = 2_560_000
EVALUATIONS = 41
DENSE = 5001
"""Number of evaluations of a run of which not all are sent at a time: one after each step."""
TRAIN = """
import sys, time, ebbtide, tiny
from pathlib import Path
from msgspec.structs import replace

def wait(progress):
    while not Path(sys.argv[2]).exists():
        time.sleep(0.05)

schedule = ebbtide.Schedule(evaluations=11, checkpoints=11)
ebbtide.train(replace(tiny.SPEC, sequences=25_600, schedule=schedule), sys.argv[1], report=wait)
"""
"""A real training run of two members with eleven evaluations, which commits each. The arguments are its folder, and a
file for which it waits once it has begun."""
SWEEP = Sweep(
    name="grid",
    base=SHORT_SWEEP.base,
    axes=(
        Axis(field="model.width", values=[8, 16]),
        Axis(field="optimizer.lr", values=[1e-3, 3e-3, 1e-2]),
        Axis(seeds=2),
    ),
)
"""Twelve members over two axes, two in each cell."""


def browser_path() -> str | None:
    """The browser of this machine; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def transient(members: int, evaluations: int = EVALUATIONS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Curves of members whose ICL rises and falls while IWL rises, and a falling loss [member, evaluation]."""
    draw = np.random.default_rng(members)
    at = np.linspace(0, 1, evaluations)
    peak = draw.normal(0.3, 0.03, (members, 1))
    rises, falls = 1 / (1 + np.exp(-(at - 0.4 * peak) / 0.03)), 1 / (1 + np.exp((at - 2 * peak) / 0.12))
    icl = 0.5 + 0.45 * rises * (0.2 + 0.8 * falls)
    iwl = 0.02 + 0.95 / (1 + np.exp(-(at - 1.9 * peak) / 0.1))
    noise = draw.normal(0, 0.012, (2, members, evaluations))
    loss = 0.7 * np.exp(-5 * at) + 0.02 + np.abs(draw.normal(0, 0.004, (members, evaluations)))
    loss[:, 0] = np.nan
    return {"icl": np.clip(icl + noise[0], 0, 1), "iwl": np.clip(iwl + noise[1], 0, 1)}, loss


def write(
    path: Path,
    members: int,
    *,
    diverged: int | None = None,
    evaluations: int = EVALUATIONS,
    sequences: int = SEQUENCES,
    **changes: Any,
) -> RunFolder:
    """A finished run with curves of `transient`; member `diverged` ends half-way with numbers that are not finite."""
    curves, loss = transient(members, evaluations)
    if diverged is not None:
        for one in (*curves.values(), loss):
            one[diverged, EVALUATIONS // 2 :] = np.nan
    label = {"study": "transience", "preset": "cpu"}
    return write_run(path, curves, loss, spec=replace(SPEC, sequences=sequences), **{"label": label, **changes})


def write_probe(run: Path, members: int) -> np.ndarray:
    """A measure of two layers of three heads as `ebbtide probe` writes it: values [checkpoint, member, layer, head]."""
    values = np.random.default_rng(0).uniform(0, 1, (5, members, 2, 3))
    (run / "probes").mkdir()
    axes = np.array(["checkpoint", "member", "layer", "head"])
    sequences = np.linspace(0, SEQUENCES, 5).astype(np.int64)
    np.savez(run / "probes/induction_strength-icl.npz", sequences=sequences, values=values, axes=axes)
    return values


class Growing:
    """A run that is being written: it holds the folder's lock, and commits evaluations when it is told to."""

    def __init__(self, path: Path, members: int = 3):
        self.members, self.at = members, 0
        self.curves, self.loss = transient(members)
        self.head = header(replace(SPEC, members=members, sequences=SEQUENCES), ("icl", "iwl"))
        self.writer = Writer(path, self.head)

    def grow(self, to: int) -> None:
        """Commits the evaluations up to number `to`."""
        rows = slice(self.at, to)
        sequences = np.linspace(0, SEQUENCES, EVALUATIONS).round()[rows]
        curves = {name: values[:, rows] for name, values in self.curves.items()}
        state = {"step": np.full(self.members, int(sequences[-1]) // 16, np.uint32), **watched(self.members)}
        self.writer.commit(
            sequences=int(sequences[-1]),
            state=state,
            evaluations=evaluations(self.head, curves, self.loss[:, rows], sequences),
            kept=True,
            finished=to == EVALUATIONS,
            seconds=float(to),
        )
        self.at = to

    def close(self) -> None:
        """Lets go of the folder."""
        self.writer.close()


def make_root(root: Path) -> Path:
    """A root with runs of few and of many members, a sweep, a hostile name, and what is damaged or foreign."""
    write(root / "ten", 10, diverged=3)
    write(root / "twelve", 12)
    write(root / "sixty", 60)
    write(root / "dense", 2, evaluations=DENSE, sequences=16 * (DENSE - 1), label={"study": "dense", "preset": "own"})
    write(root / EVIL, 3, label={"study": EVIL, "preset": "<b>bold</b>"})
    write(root / "probed", 3, label={"study": "positions", "preset": "quick"})
    write_probe(root / "probed", 3)
    (root / "broken").mkdir()
    (root / "broken/run.json").write_text('{"body": 1}')
    (root / "holiday").mkdir()
    (root / "holiday/notes.txt").write_text("nothing to see")
    made(root / "sweep-grid", SWEEP, 2)
    return root


def copy_runs(root: Path, count: int) -> Path:
    """A root of `count` equal runs under names of their own, with their files shared."""
    root.mkdir()
    first = write(root / "copy-00000", 2).path
    for i in range(1, count):
        shutil.copytree(first, root / f"copy-{i:05}", copy_function=os.link)
    return root


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """`ebbtide dashboard` over a root on a free port, as a process of its own; gives its address."""
    words = [sys.executable, "-m", "ebbtide", "dashboard", "--root", str(root), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert "http://" in first, first
        yield first.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Watch:
    """What a page did that no page may do: errors in its console, and requests to another host."""

    def __init__(self, page: Any, base: str, expected: tuple[str, ...] = ()):
        self.found: list[str] = []
        self.expected = expected
        page.on("console", lambda message: message.type in ("error", "warning") and self._note(message.text))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda request: request.url.startswith((base, "data:")) or self._note(request.url))
        page.on("dialog", lambda dialog: (self._note(f"dialog {dialog.message}"), dialog.dismiss()))

    def _note(self, words: str) -> None:
        if not any(one in words for one in self.expected):
            self.found.append(words)


Browse = Callable[..., Any]
"""browse(address after #, width, height, scheme, errors): a page of the server, watched until the test ends."""
