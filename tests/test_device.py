"""Which kind of device computes a run: what is given, what goes with it, and what is chosen where nothing is."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import msgspec
import pytest
from msgspec.structs import replace

from ebbtide import machine
from ebbtide.errors import InputError
from ebbtide.models.recurrent import Recurrent
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import HEADER
from ebbtide.runs.signed import sign
from ebbtide.training import kernels
from ebbtide.training.device import FEW_MEMBERS, choose_device
from ebbtide.training.driver import train
from ebbtide.training.layout import choose
from tiny import SPEC

MANY = replace(SPEC, members=FEW_MEMBERS)


@pytest.fixture
def accelerator(monkeypatch) -> None:
    """A machine whose JAX computes on an accelerator; nothing is computed there."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize("requested", [None, "cpu"])
def test_without_an_accelerator_the_cpu_computes_and_nothing_is_said(requested):
    said: list[str] = []
    assert choose_device(MANY, requested, say=said.append) == "cpu" and not said


def test_an_accelerator_that_is_not_there_is_refused(one_line):
    with pytest.raises(InputError, match="finds no accelerator") as caught:
        choose_device(MANY, "gpu")
    one_line(caught, "device", "gpu")


def test_an_unknown_device_is_refused_with_the_nearest_one(one_line):
    with pytest.raises(InputError, match="must be one of cpu, gpu") as caught:
        choose_device(MANY, "gpus")
    one_line(caught, "device", "gpus")


@pytest.mark.parametrize(
    ("spec", "given", "device"),
    [
        (MANY, {}, "gpu"),
        (SPEC, {}, "cpu"),  # few members, which the compiled kernel serves
        (replace(SPEC, precision="tf32"), {}, "gpu"),
        (replace(SPEC, model=Recurrent(width=16)), {}, "gpu"),  # the kernel does not serve it
        (SPEC, {"requested": "gpu"}, "gpu"),
        (MANY, {"requested": "cpu"}, "cpu"),
        (MANY, {"processes": 2}, "cpu"),
        (SPEC, {"processes": 0}, "gpu"),
        (MANY, {"begun": "cpu"}, "cpu"),
        (SPEC, {"begun": "gpu"}, "gpu"),
        (MANY, {"begun": "cpu", "requested": "gpu"}, "gpu"),
    ],
)
def test_on_a_machine_with_an_accelerator(accelerator, spec, given, device):
    said: list[str] = []
    assert choose_device(spec, **given, say=said.append) == device
    assert len(said) == (not given) and all(one.startswith("note: ") and "\n" not in one for one in said)


@pytest.mark.parametrize(
    ("spec", "requested", "processes", "field", "value"),
    [
        (SPEC, "gpu", 2, "processes", 2),
        (SPEC, "cpu", 0, "processes", 0),
        (replace(SPEC, precision="bf16"), "cpu", None, "precision", "bf16"),
    ],
)
def test_what_does_not_go_together_is_refused(accelerator, one_line, spec, requested, processes, field, value):
    with pytest.raises(InputError) as caught:
        choose_device(spec, requested, processes)
    one_line(caught, field, value)


def test_on_the_cpu_of_such_a_machine_workers_train_by_the_compiled_kernel(accelerator):
    assert kernels.unsupported_reason(SPEC) == "it runs on the CPU only"
    assert kernels.unsupported_reason(SPEC, "cpu") is None
    assert choose(SPEC, device="cpu").processes >= 1 and choose(SPEC, device="gpu").processes == 0


def test_a_run_says_on_what_it_was_trained_and_one_begun_elsewhere_is_continued_with_a_note(tmp_path):
    """The header of a run says where it was begun: it is written by hand as if on an accelerator, side by side."""
    half = SPEC.sequences // 2
    run = train(SPEC, tmp_path / "run", processes=0, until=half)
    assert run.header.identity["platform"] == "cpu"
    header: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(run.header))
    header["identity"] |= {"platform": "gpu", "width": 2, "devices": 1, "kernel": "xla"}
    (run.path / HEADER).write_bytes(sign(header))
    said: list[str] = []
    done = train(SPEC, tmp_path / "run", say=said.append)
    assert done.status() == "complete" and any("continued on the CPU" in one for one in said)
    found = RunFolder(done.path).latest()
    assert found is not None and found[1].identity["width"] == 1 and not found[1].repeatable


def test_deterministic_sets_the_flag_of_gpus_where_jax_has_a_plugin_for_them(monkeypatch):
    there = {"XLA_FLAGS": "--xla_dump_to=x"}
    machine.set_deterministic(there)
    assert there == {"XLA_FLAGS": "--xla_dump_to=x"}  # no plugin here
    monkeypatch.setattr(machine, "find_spec", lambda name: name == "jax_cuda13_plugin")
    machine.set_deterministic(there)
    assert there["XLA_FLAGS"] == f"--xla_dump_to=x {machine.DETERMINISTIC}"
    machine.set_deterministic(there)
    assert there["XLA_FLAGS"].count(machine.DETERMINISTIC) == 1
    empty: dict[str, str] = {}
    machine.set_deterministic(empty)
    assert empty == {"XLA_FLAGS": machine.DETERMINISTIC}


def test_a_device_that_is_not_there_ends_the_command_with_one_line(tmp_path: Path):
    words = ["run", "transience", "--device", "gpu", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "ebbtide", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.strip() == "ebbtide: device = 'gpu': JAX finds no accelerator on this machine: must be cpu"
