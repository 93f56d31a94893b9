"""The same run twice is the same bits, on one thread; where that is not promised, it is not claimed."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.runs.folder import RunFolder
from ebbtide.training.driver import train
from ebbtide.training.members import Members
from ebbtide.training.schedule import Schedule
from ebbtide.training.start import to_dotted
from ebbtide.training.worker import ENVIRONMENT
from tiny import SPEC, final_state, same_bits

SHORT = replace(SPEC, members=1, sequences=512, schedule=Schedule(evaluations=3, checkpoints=2))


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> tuple[RunFolder, RunFolder]:
    """One spec trained two times, each time by a fresh worker process."""
    folder = tmp_path_factory.mktemp("twice")
    first, second = (train(SHORT, folder / name, processes=1) for name in ("first", "second"))
    return first, second


def test_the_same_run_in_fresh_processes_has_the_same_bits(twice):
    first, second = twice
    assert same_bits(final_state(first), final_state(second))
    assert same_bits(first.arrays(), second.arrays())
    assert np.isfinite(first.arrays()["values"]).all() and np.ptp(first.arrays()["values"]) > 0


def test_one_bit_of_difference_would_have_been_noticed(twice):
    """A test of the test above."""
    state = final_state(twice[0])
    other = state | {"params.readout.b": np.nextafter(state["params.readout.b"], np.float32(9))}
    assert same_bits(state, state) and not same_bits(state, other)


def test_a_run_says_whether_it_is_deterministic(twice, tmp_path):
    """Workers run on one thread and say so; this process runs on as many as there are and must not."""
    for run in twice:
        assert run.header.identity["deterministic"] is True
    here = train(SHORT, tmp_path / "here", processes=0)
    assert here.header.identity["deterministic"] is False
    assert RunFolder(here.path).header.identity == here.header.identity


@pytest.mark.parametrize("lacking", ENVIRONMENT)
def test_a_worker_without_its_whole_environment_makes_no_promise(monkeypatch, lacking):
    from ebbtide.training.worker import identity

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(lacking)
    assert identity()["deterministic"] is False


# ---- one compiled step, again and again, in a process of one thread

REPEATS = 200


def bits(tree: Any) -> str:
    """A hash of every bit of a pytree's arrays."""
    text = hashlib.sha256()
    for name, leaf in to_dotted(tree).items():
        text.update(name.encode() + np.asarray(leaf).tobytes())
    return text.hexdigest()


def outcomes(function: Callable[[], Any], times: int = REPEATS) -> int:
    """How many different results (to the bit) `times` calls have."""
    return len({bits(function()) for _ in range(times)})


def step_of(spec: Any = SPEC) -> Callable[[], Any]:
    """One optimiser step, compiled, always from the same buffers (nothing is given up to the call)."""
    members = Members(spec, [0], None)
    step = jax.jit(members.engine.programs.take_steps)
    state, data = members.groups[0].state, members.groups[0].data
    return lambda: step(state, data, jnp.uint32(1))


def report() -> None:
    """What the child process prints: outcomes of a step, and how many threads XLA computes on."""
    several = outcomes(step_of())
    names = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    sys.stdout.write(f"\n{several} {names.count('tf_XLAEigen')} {jax.default_backend()}\n")


def child(environment: dict[str, str]) -> tuple[int, int, str]:
    env = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
    env |= {"PYTHONPATH": str(Path(__file__).parent), **environment}
    code = "import test_repeatability; test_repeatability.report()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    several, threads, backend = done.stdout.split()[-3:]
    return int(several), int(threads), backend


@pytest.mark.thorough
def test_a_step_repeated_on_one_thread_always_has_the_same_bits():
    several, threads, backend = child(ENVIRONMENT)
    assert several == 1 and backend == "cpu"
    assert threads <= 1  # the environment does what it is for


def test_a_step_that_sometimes_differs_would_have_been_noticed():
    """A test of the test above: one call of two hundred differs in the last bit of one number."""
    tree, calls = {"a": np.ones(5, np.float32), "b": [np.zeros(3)]}, iter(range(REPEATS))

    def step() -> Any:
        last = np.float32(1 + 1e-7) if next(calls) == 137 else np.float32(1)
        return {**tree, "a": np.append(tree["a"][:-1], last)}

    assert outcomes(step) == 2
    assert outcomes(lambda: tree) == 1
