"""A run that is killed again and again ends with the bits of one that was not (SIGKILL, no warning)."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from ebbtide.runs import atomic
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.fsck import examine
from ebbtide.runs.records import CHECKPOINTS, METRICS
from ebbtide.runs.writer import Writer
from ebbtide.training.schedule import Schedule
from ebbtide.training.worker import ENVIRONMENT
from effort import THOROUGH
from tiny import SPEC, final_state

CHILD = Path(__file__).with_name("crash_child.py")
SHORT = replace(
    SPEC,
    sequences=40 * SPEC.batch,
    schedule=Schedule(evaluations=11, checkpoints=3),
    evaluators=("icl",),
    evaluation_sequences=20,
)
"""40 steps; an evaluation every 4, checkpoints kept at 0, 20 and 40 steps."""

CHAIN = [
    *((point, 1) for point in atomic.POINTS if not point.startswith(("header.committed", "aside", "leftover"))),
    ("segment.committed", 2),  # leaves a segment nobody names, so that the next opening moves it aside ...
    ("aside.before_rename", 1),
    ("aside.after_rename", 1),
    ("segment.committed", 1),
    ("aside.committed", 1),
    ("manifest.mid_write", 2),  # ... and a temporary
    ("leftover.before_removal", 1),
    ("checkpoint.after_rename", 1),
]
SAME_ON_DISK = {
    *("header.before_write", "segment.before_write", "state.before_write"),  # as before: nothing is written yet
    *("header.before_fsync", "header.after_fsync"),  # as header.before_rename: the file is whole
    *("segment.before_fsync", "segment.after_fsync"),
    *("state.before_fsync", "state.after_fsync"),  # as manifest.before_write
    *("manifest.before_fsync", "manifest.after_fsync"),  # as checkpoint.before_rename
}
"""Points at which a killed process leaves the files that it leaves at another, which stays: only a machine that loses
its power tells a file that was synced from one that was not."""
PLAYED = [one for one in CHAIN if THOROUGH or one[0] not in SAME_ON_DISK]
HALF = len(PLAYED) // 2
FRESH = [("header.committed", 1)]  # passed once in the life of a folder, and header.after_rename ended that one
"""Points and which passing of them is the last moment of an attempt, one after another on one folder."""

OUTSTANDING = 16
"""Steps a kill can cost here: two slices that are not committed yet, of 8 steps each (a process does not
know its pace before its first slices; later a slice is one step here)."""


class Attempt(msgspec.Struct):
    """How an attempt ended (-9: killed), and the optimiser steps it began and ended with (-1: none)."""

    status: int
    began: int
    reached: int


class Child:
    """The process that makes attempts on one run folder; see crash_child.py."""

    def __init__(self, process: subprocess.Popen[str], path: Path):
        self.process, self.path = process, path

    def attempt(self, point: str = "-", nth: int = 0) -> Attempt:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{point} {nth}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the child ended at {point}"
        return Attempt(*map(int, line.split()))


@contextmanager
def child(path: Path, *defects: str) -> Iterator[Child]:
    command = [sys.executable, str(CHILD), str(path), SHORT.to_json().decode(), *defects]
    pipe = subprocess.PIPE
    with (
        path.with_suffix(".log").open("w") as log,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=log, text=True, env={**os.environ, **ENVIRONMENT}
        ) as process,
    ):
        yield Child(process, path)
        assert process.stdin is not None
        process.stdin.close()


def committed(path: Path) -> int:
    """Optimiser steps of the newest good checkpoint; -1: there is none."""
    found = RunFolder(path).latest() if (path / "run.json").exists() else None
    return found[1].sequences // SHORT.batch if found else -1


def kill(one: Child, chain: list[tuple[str, int]]) -> int:
    """Kills along the chain. After every kill nothing is damaged and nothing that was committed is lost; the
    next attempt begins exactly there, so that no work is done twice but what was outstanding, and a run
    that is killed for ever still moves on. Returns the steps committed in the end (-1: none)."""
    have = -1
    for point, nth in chain:
        before, made = have, one.attempt(point, nth)
        assert made.status == -signal.SIGKILL, f"{point}: ended with {made}"
        assert made.began in (-1, max(before, 0)), f"{point}: began at {made.began}, {before} were committed"
        if (one.path / "run.json").exists():
            report = examine(one.path)
            assert report.sound(), f"{point}: {report}"
        have = committed(one.path)
        assert have >= before, f"{point}: back from {before} to {have}"
        assert made.reached - max(have, 0) <= OUTSTANDING, f"{point}: {made}, {have} were committed"
    return have


def survive(one: Child, chain: list[tuple[str, int]]) -> None:
    """Kills along the chain, then trains to the end."""
    have = kill(one, chain)
    last = one.attempt()
    assert (last.status, last.began, last.reached) == (0, max(have, 0), SHORT.steps())


def fingerprint(path: Path) -> dict[str, Any]:
    """All that was computed, to the bit: curves, final state, the kept checkpoints with the hashes of
    every file they name. Not the seconds it took."""
    run = RunFolder(path)
    curves, state = run.arrays(), final_state(run)
    return {
        "curves": {name: (array.dtype, array.shape, array.tobytes()) for name, array in curves.items()},
        "state": {name: (array.dtype, array.shape, array.tobytes()) for name, array in state.items()},
        "manifests": [replace(manifest, seconds=0.0) for _, manifest in run.manifests()],
        "files": sorted(p.name for part in (METRICS, CHECKPOINTS) for p in (path / part).iterdir()),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Any]:
    """The run of a child that was never killed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with child(path) as one:
        survive(one, [])
    return fingerprint(path)


def test_the_chain_passes_every_point():
    assert {*atomic.POINTS} > SAME_ON_DISK
    assert {point for point, _ in CHAIN + FRESH} == set(atomic.POINTS)
    assert len(atomic.POINTS) == len(set(atomic.POINTS)) > 30


def test_a_run_killed_at_every_named_point_ends_with_the_same_bits(tmp_path, whole):
    """Two folders at a time, each with its half of the points: nearly all of an attempt is JAX's start."""

    def play(name: str, *chains: list[tuple[str, int]]) -> None:
        with child(tmp_path / name) as one:
            for chain in chains:
                shutil.rmtree(tmp_path / name, ignore_errors=True)
                survive(one, chain) if chain is chains[-1] else kill(one, chain)

    with ThreadPoolExecutor(2) as pool:
        for played in [pool.submit(play, "a", FRESH, PLAYED[:HALF]), pool.submit(play, "b", PLAYED[HALF:])]:
            played.result()
    for name in ("a", "b"):
        assert fingerprint(tmp_path / name) == whole
        report = examine(tmp_path / name)
        left = [f.text for f in report.findings if f.kind == "leftover"]
        assert report.sound() and all(text.startswith("aside/") for text in left) and "finished" in report.resume


@pytest.mark.parametrize(
    ("defect", "chain", "says"),
    [
        ("header_in_place", [("header.mid_write", 1)], "header.mid_write: Report"),
        ("checkpoint_in_place", [("state.mid_write", 2)], "state.mid_write: Report"),
        ("drop_before_commit", [("checkpoint.committed", 2), ("state.mid_write", 1)], "back from"),
        ("rows_again", [("segment.committed", 2)], "curves"),
    ],
)
def test_a_broken_writer_does_not_survive(tmp_path, whole, defect, chain, says):
    """The checks above can fail: each of these writers goes wrong when it is killed at the right moment."""
    with pytest.raises(AssertionError, match=says), child(tmp_path / "run", defect) as one:
        survive(one, chain)
        assert fingerprint(tmp_path / "run") == whole


LONG = replace(
    SPEC,
    sequences=25_000 * SPEC.batch,
    schedule=Schedule(evaluations=25, checkpoints=4),
    evaluators=("icl",),
    evaluation_sequences=20,
)
KILLS, SEED = 100, 0


def start(path: Path) -> subprocess.Popen[str]:
    """`ebbtide.train` with two worker processes; what it reports goes to a file beside the folder."""
    command = [sys.executable, str(CHILD), str(path), LONG.to_json().decode(), "--processes", "2"]
    with path.with_suffix(".log").open("w") as log, path.with_suffix(".err").open("w") as errors:
        return subprocess.Popen(command, stdout=log, stderr=errors, text=True)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes a process has started, by id."""
    try:
        return [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def reported(path: Path, have: int) -> tuple[int, int]:
    """The sequences an attempt began with and the last it told of; `have` when it died before a word."""
    seen = [int(line) for line in path.with_suffix(".log").read_text().splitlines()] or [have]
    return seen[0], max(seen)


def outcome(path: Path) -> tuple[Any, ...]:
    """As `fingerprint`, without how the evaluations are cut into segments: a commit takes what is there, and
    what is there when 0.2 seconds have passed depends on the clock."""
    found = fingerprint(path)
    kept = [replace(one, segments=[]) for one in found["manifests"] if one.kept]
    return found["curves"], found["state"], kept


@pytest.mark.crash
def test_a_run_killed_a_hundred_times_ends_with_the_same_bits(tmp_path):
    """Kills at seeded random moments, of the driver or of a worker, until a hundred runs or parts of runs
    have died; every run that reaches its end has the same bits."""
    before = began_at = time.monotonic()
    for name in ("whole", "again"):  # the second finds its programs compiled, as all that follow
        began_at = time.monotonic()
        assert start(tmp_path / name).wait(300) == 0
    length, draw = time.monotonic() - began_at, random.Random(SEED)
    expected = outcome(tmp_path / "whole")
    assert outcome(tmp_path / "again") == expected
    kills, by_worker, ended, orphans, trained, path = 0, 0, 0, 0, 0, tmp_path / "run-0"
    while kills < KILLS or not ended:
        have = max(committed(path), 0) * LONG.batch
        process = start(path)
        try:
            process.wait(draw.uniform(0, length) if kills < KILLS else 300)  # a run that goes on ends earlier
        except subprocess.TimeoutExpired:
            family = workers(process)
            victim = draw.choice([process.pid, *family[:2]])
            by_worker += victim != process.pid
            os.kill(victim, signal.SIGKILL)
            code = process.wait(60)
            if victim == process.pid:
                assert code == -signal.SIGKILL
            else:  # the driver may just have come to its end
                said = path.with_suffix(".err").read_text()
                one_line = re.fullmatch(r"a worker process was killed by SIGKILL \(.*\)\n", said)
                assert code == 0 or (code == 1 and one_line), said
            kills += 1
            for _ in range(100):  # a worker notices at its next message that its driver has gone
                if not any(alive(pid) for pid in family):
                    break
                time.sleep(0.1)
            orphans += sum(alive(pid) for pid in family)
            if (path / "run.json").exists():
                report = examine(path)
                assert report.sound()
                if "nothing to do" in report.resume:  # killed after its last commit: nobody would tidy up
                    Writer(path, RunFolder(path).header).close()
        began, reached = reported(path, have)
        assert began == have, f"began at {began}, {have} were committed"
        trained += reached - began
        if process.returncode == 0:
            assert outcome(path) == expected
            left = [f.text for f in examine(path).findings if f.kind == "leftover" and not f.text.startswith("aside/")]
            orphans, ended = orphans + len(left), ended + 1
            path = tmp_path / f"run-{ended}"
    assert orphans == 0
    needed = ended * LONG.sequences + max(committed(path), 0) * LONG.batch
    ratio = trained / needed
    assert ratio <= 1.5  # what a kill costs is what was not committed: some tenths of a second of some seconds
    print(  # noqa: T201 - `make crash` shows it
        f"\n{kills} of {KILLS} kills survived ({by_worker} of a worker), bits equal: {ended} of {ended} finished runs, "
        f"orphans: {orphans}, trained {ratio:.2f} times what was needed, run of {length:.0f} s, "
        f"{time.monotonic() - before:.0f} s in all"
    )
