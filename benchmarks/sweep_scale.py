"""How the sweep engine scales: `python benchmarks/sweep_scale.py [--json FILE]`. Nothing else should run meanwhile.

- plan: 10^5 members from a description to tasks on the disk: seconds and peak memory of the process;
- collect: 2,000 finished runs of one member to one table: seconds;
- overhead: a sweep of one task that trains about a minute, against `ebbtide.train` of the same spec in the same kind of
  process: the ratio of the wall-clock times, median over rounds in which the two take turns.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = {
    "batch": 16,
    "sequences": 1600,
    "source.classes": 64,
    "source.dim": 8,
    "source.exemplars": 2,
    "source.holdout_classes": 8,
    "source.holdout_exemplars": 2,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "schedule.evaluations": 41,
    "evaluation_sequences": 50,
}


def plan() -> dict[str, float]:
    """10^5 members: 2 widths x 5 learning rates x 5 exponents x 2,000 seeds."""
    from ebbtide.sweeps.driver import run_sweep
    from ebbtide.sweeps.folder import SweepFolder
    from ebbtide.sweeps.sweep import Sweep
    from ebbtide.training.driver import Interrupted

    axes = [
        {"field": "model.width", "values": [16, 32]},
        {"field": "optimizer.lr", "log": [1e-4, 1e-2, 5]},
        {"field": "task.zipf", "linear": [0, 2, 5]},
        {"seeds": 2000},
    ]
    import msgspec

    sweep = msgspec.convert({"name": "plan", "base": BASE, "axes": axes}, Sweep)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with contextlib.suppress(Interrupted):
            run_sweep(sweep, Path(folder) / "s", on=_Nothing())
        seconds = time.perf_counter() - began
        members = len(SweepFolder(Path(folder) / "s").members)
    return {"members": members, "seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


class _Nothing:
    """An executor that asks the driver to stop as soon as the plan is on the disk."""

    slots = 2

    def room(self) -> int:
        return 0

    def submit(self, tasks: list[str]) -> None: ...

    def finished(self) -> list:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)
        return []

    def stop(self) -> int:
        return 0


def collect(count: int = 2000) -> dict[str, float]:
    """`count` runs of one member each, written as a driver would have left them."""
    import msgspec
    import numpy as np

    from ebbtide.runs.records import Header, Instrument
    from ebbtide.runs.signed import SCHEMA
    from ebbtide.runs.writer import Writer
    from ebbtide.sweeps.driver import make_plan
    from ebbtide.sweeps.folder import SweepFolder, planning
    from ebbtide.sweeps.plan import TaskGroup, group
    from ebbtide.sweeps.results import load
    from ebbtide.sweeps.sweep import Sweep
    from ebbtide.tasks.fewshot import METRICS
    from ebbtide.training.watch import Watch

    text = {"name": "collect", "base": BASE, "axes": [{"seeds": count}], "task_members": 1}
    sweep = msgspec.convert(text, Sweep)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "s"
        folder = SweepFolder.make(path, sweep)
        planned = make_plan(sweep, group(sweep, sweep.points()), (), 1)
        with planning(path):
            folder.add([TaskGroup(msgspec.to_builtins(one.group.spec), one.tasks) for one in planned])
        for task in folder.specs:
            spec = folder.spec(task)
            instruments = [Instrument(n, "in_context_accuracy", 0.5) for n in spec.evaluators]
            what = (msgspec.to_builtins(spec), instruments, list(METRICS), {"jax": "none"}, {}, "")
            writer = Writer(folder.run_path(task), Header(SCHEMA, spec.digest(), *what))
            rows = {
                "sequences": np.linspace(0, spec.sequences, 41).astype(np.int64),
                "train_loss": rng.random((1, 41), np.float32),
                "values": rng.random((1, 41, len(instruments), len(METRICS), 2), np.float32),
            }
            state = {f"watch.{name}": array for name, array in Watch(1, None).arrays().items()}
            writer.commit(
                sequences=spec.sequences, state=state, evaluations=rows, kept=True, finished=True, seconds=1.0
            )
            writer.close()
        began = time.perf_counter()
        rows = load(path).write(Path(where) / "table.csv", "csv")
        seconds = time.perf_counter() - began
    return {"runs": rows, "seconds": seconds}


LONG = {"study": "transience", "base": {"sequences": 2_560_000}, "axes": [{"seeds": 1}]}
ALONE = """
import sys, msgspec
from ebbtide.sweeps.sweep import Sweep
from ebbtide.sweeps.plan import group, task_spec
from ebbtide.training.driver import train
sweep = msgspec.json.decode(sys.argv[1], type=Sweep)
one = group(sweep, sweep.points())[0]
train(task_spec(one.spec, one.values, 1), sys.argv[2], processes=0)
"""


def overhead(rounds: int) -> dict[str, float]:
    """A task of about a minute, in a sweep and alone, taking turns."""
    from ebbtide.training.worker import ENVIRONMENT

    text = json.dumps({"name": "overhead", **LONG})
    import os

    env = {**os.environ, **ENVIRONMENT}
    ratios, seconds = [], []
    for i in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "s.json").write_text(text)
            calls = [
                [
                    sys.executable,
                    "-m",
                    "ebbtide.cli",
                    "sweep",
                    f"{folder}/s.json",
                    "--out",
                    f"{folder}/s",
                    "--jobs",
                    "1",
                ],
                [sys.executable, "-c", ALONE, text, f"{folder}/run"],
            ]
            took = {}
            for which in (0, 1) if i % 2 else (1, 0):
                began = time.perf_counter()
                subprocess.run(calls[which], check=True, env=env, stdout=subprocess.DEVNULL)
                took[which] = time.perf_counter() - began
        ratios.append(took[0] / took[1])
        seconds.append(took[1])
    return {"rounds": rounds, "alone_seconds": statistics.median(seconds), "ratio": statistics.median(ratios)}


def main() -> None:
    """Measures all three and prints what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = {"plan": plan(), "collect": collect(), "overhead": overhead(options.rounds)}
    text = json.dumps(found, indent=1)
    sys.stdout.write(f"{text}\n")
    if options.json:
        options.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
