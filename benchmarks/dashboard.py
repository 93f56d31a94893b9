"""How soon `ebbtide dashboard` shows a root of many runs: `python benchmarks/dashboard.py [COUNT ...]`.

Makes COUNT run folders (default: 2,000, then 10,000) in a temporary folder and starts the command in a process of its
own, with nothing read before. Printed are the seconds until it listens; from the first request to the first answer and
to the whole list; of a later request that finds nothing new; and the processor seconds that the server had used when it
listened, and from there to the whole list (they tell more where the machine is busy). The file system's cache is as
making the folders has left it (warm).
"""
# ruff: noqa: T201 - its output is a table

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ebbtide.runs.records import Header, Instrument
from ebbtide.runs.signed import SCHEMA, sign
from ebbtide.runs.writer import Writer
from ebbtide.tasks.fewshot import METRICS
from ebbtide.training.spec import Spec

COUNTS = (2000, 10_000)
EVALUATIONS, MEMBERS, COMMITS = 40, 8, 3
WAIT = 120.0
"""Seconds after which a measurement is given up."""


def write_pattern(path: Path) -> None:
    """A finished run with as many members, evaluations and checkpoints as a small real one."""
    spec = Spec(members=MEMBERS)
    names = spec.evaluators
    instruments = [Instrument(name, "in_context_accuracy", 0.5) for name in names]
    label = {"study": "transience", "preset": "quick"}
    header = Header(SCHEMA, spec.digest(), spec.builtins(), instruments, list(METRICS), {"jax": "none"}, label, "")
    writer = Writer(path, header)
    each = EVALUATIONS // COMMITS
    for i in range(COMMITS):
        values = np.random.default_rng(i).random((MEMBERS, each, len(names), len(METRICS), 2)).astype(np.float32)
        rows = {
            "sequences": np.arange(i * each, (i + 1) * each, dtype=np.int64) * spec.batch,
            "train_loss": np.ones((MEMBERS, each), np.float32),
            "values": values,
        }
        writer.commit(
            sequences=spec.sequences * (i + 1) // COMMITS,
            state={"step": np.zeros(MEMBERS, np.uint32)},
            evaluations=rows,
            kept=i == 0,
            finished=i == COMMITS - 1,
            seconds=60.0 * (i + 1),
        )
    writer.close()


def make_root(root: Path, count: int) -> None:
    """`count` runs that differ in their label and time."""
    pattern = root.parent / "pattern"
    if not pattern.exists():
        write_pattern(pattern)
    head = json.loads((pattern / "run.json").read_bytes())["body"]
    for i in range(count):
        folder = root / f"run-{i:05d}"
        shutil.copytree(pattern, folder)
        made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=i)
        (folder / "run.json").write_bytes(sign(head | {"created": made.isoformat(timespec="seconds")}, indent=1))


def ask(port: int, tag: str = "") -> tuple[int, str, dict[str, Any], int]:
    """Status, tag, content and bytes of an answer with the list."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    link.request("GET", "/api/runs", headers={"If-None-Match": tag} if tag else {})
    found = link.getresponse()
    body = found.read()
    link.close()
    return found.status, found.headers["etag"], json.loads(body) if body else {}, len(body)


def processor_seconds(process: int) -> float:
    """Processor seconds that a process has used so far (Linux; nan elsewhere)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(root: Path, count: int) -> dict[str, float]:
    """Seconds of a cold start over a root, and the bytes of its list."""
    began = time.monotonic()
    words = [sys.executable, "-m", "ebbtide.cli", "dashboard", "--root", str(root), "--port", "0"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        port = int(line.rpartition(":")[2].strip(" /\n"))
        listens, started = time.monotonic() - began, processor_seconds(server.pid)
        began = time.monotonic()
        _, tag, found, size = ask(port)
        first, shown = time.monotonic() - began, len(found["rows"])
        while found["reading"]["done"] < count or len(found["rows"]) < count:
            _, tag, found, size = ask(port)
        whole, used = time.monotonic() - began, processor_seconds(server.pid)
        time.sleep(15)
        began = time.monotonic()
        ask(port, tag)
        again = time.monotonic() - began
    finally:
        server.terminate()
        server.wait()
    return {
        "listens": listens,
        "first": first,
        "shown": shown,
        "whole": whole,
        "again": again,
        "megabytes": size / 1e6,
        "started": started,
        "used": used,
    }


COLUMNS = ("runs", "listens", "first answer", "rows in it", "all rows", "again", "MB", "processor s")


def main() -> None:
    """Prints a row for each number of runs."""
    counts = [int(word) for word in sys.argv[1:]] or COUNTS
    print("  ".join(f"{name:>12}" for name in COLUMNS))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            root.mkdir()
            make_root(root, count)
            one = measure(root, count)
        seconds = [f"{one[name]:.2f}" for name in ("listens", "first", "whole", "again")]
        cells = [f"{count}", seconds[0], seconds[1], f"{one['shown']:.0f}", seconds[2], seconds[3]]
        cells += [f"{one['megabytes']:.1f}", f"{one['started']:.2f}+{one['used'] - one['started']:.2f}"]
        print("  ".join(f"{cell:>12}" for cell in cells))


if __name__ == "__main__":
    main()
