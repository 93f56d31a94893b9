"""One run over several processes of JAX's distributed runtime, on this machine."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.runs.folder import RunFolder
from ebbtide.sources.features import Features
from ebbtide.training import hosts
from ebbtide.training.driver import train
from ebbtide.training.worker import ENVIRONMENT
from sweep_tools import until
from tiny import LONG, SPEC, final_state, same_bits

FOUR = replace(SPEC, members=4)


def start(
    folder: Path, count: int, *options: str, devices: int = 1, within: list[Path] | None = None
) -> list[subprocess.Popen[str]]:
    """The processes of a distributed run, each in its own working folder where `within` names them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    flags = f"{ENVIRONMENT['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    env = {**os.environ, **ENVIRONMENT}
    if devices > 1:  # they meet in every broadcast: one thread for all of them would wait for itself
        env = {**env, "XLA_FLAGS": flags, "NPROC": str(2 * devices)}
    child = Path(__file__).with_name("hosts_child.py")
    return [
        subprocess.Popen(
            [sys.executable, str(child), port, str(count), str(i), str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=within[i] if within else None,
        )
        for i in range(count)
    ]


def end(children: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    try:
        outputs = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    assert not any("Traceback" in text for _, text in outputs), outputs
    said = [text.splitlines()[-1] if text else "" for text, _ in outputs]  # before it: what Gloo prints
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> RunFolder:
    return train(FOUR, tmp_path_factory.mktemp("alone") / "run", processes=1)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.thorough)])
def test_the_bits_do_not_depend_on_the_number_of_processes(count, alone, tmp_path):
    assert end(start(tmp_path / "run", count, "1")) == [(0, "done complete")] * count
    run = RunFolder(tmp_path / "run")
    assert same_bits(final_state(run), final_state(alone)) and same_bits(run.arrays(), alone.arrays())
    assert run.header.identity["hosts"] == count and "hosts" not in alone.header.identity
    found = run.latest()
    assert found is not None and found[1].repeatable


@pytest.mark.thorough
def test_members_go_over_the_devices_of_every_process(alone, tmp_path):
    assert end(start(tmp_path / "run", 2, "2", devices=2)) == [(0, "done complete")] * 2
    state, expected = final_state(RunFolder(tmp_path / "run")), final_state(alone)
    for name, array in expected.items():
        if name.startswith("params."):
            np.testing.assert_allclose(state[name], array, rtol=2e-3, atol=2e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("others", [1, 3])
def test_stopping_process_0_saves_and_others_go_on_with_another_number_of_processes(others, tmp_path):
    children = start(tmp_path / "run", 2, "1", "long")
    until(lambda: (tmp_path / "run" / "run.json").exists() and RunFolder(tmp_path / "run").sequences() > 0)
    children[0].send_signal(signal.SIGTERM)
    assert end(children) == [(130, "interrupted")] * 2
    assert 0 < RunFolder(tmp_path / "run").sequences() < LONG.sequences
    if others == 1:
        train(LONG, tmp_path / "run", processes=1)
    else:
        assert end(start(tmp_path / "run", others, "1", "long")) == [(0, "done complete")] * others
    whole = train(LONG, tmp_path / "whole", processes=1)
    run = RunFolder(tmp_path / "run")
    assert same_bits(final_state(run), final_state(whole)) and same_bits(run.arrays(), whole.arrays())


def test_what_is_refused_ends_all_processes_with_the_same_line(alone):
    ended = end(start(alone.path, 2, "1", str(SPEC.sequences * 2)))
    assert [code for code, _ in ended] == [2, 2] and ended[0] == ended[1]
    assert "holds a run with another spec" in ended[0][1]


def write_features(folder: Path, seed: int) -> Path:
    """A folder with a small file of features; another seed gives another file of the same size."""
    folder.mkdir()
    np.savez(folder / "x.npz", features=np.random.default_rng(seed).normal(size=(80, 4, 8)).astype(np.float32))
    return folder


def test_hosts_whose_data_files_differ_are_refused_by_all_processes_with_the_same_line(tmp_path):
    within = [write_features(tmp_path / f"host{i}", seed) for i, seed in enumerate((0, 0, 1))]
    ended = end(start(tmp_path / "run", 3, "1", "data", within=within))
    assert [code for code, _ in ended] == [2] * 3 and len({said for _, said in ended}) == 1
    assert "source = 'x.npz': process 2 has other content there than process 0" in ended[0][1]
    assert not (tmp_path / "run").exists()


FEATURES = replace(FOUR, source=Features(path="x.npz", classes=64, exemplars=2, holdout_classes=8, holdout_exemplars=2))


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ([{"inputs": {"source_sha256": "f" * 64}}], r"source = 'x.npz': process 1 has other content there .*, not "),
        ([{"inputs": {}}], "process 1 has other content there than process 0 .SHA-256 None"),
        ([None, {"error": ["source.path", "x.npz", "no such file"]}], "no such file .in process 2 of 3."),
    ],
)
def test_the_process_whose_data_are_not_those_of_process_0_is_named(others, says, tmp_path, monkeypatch):
    monkeypatch.chdir(write_features(tmp_path / "here", 0))
    monkeypatch.setattr(hosts, "_gather", lambda mine: [mine, *(mine if one is None else one for one in others)])
    with pytest.raises(InputError, match=says) as caught:
        hosts.check_hosts(FEATURES)
    assert "\n" not in str(caught.value)


def test_hosts_with_the_same_data_and_a_source_without_a_file_are_let_through(tmp_path, monkeypatch):
    monkeypatch.chdir(write_features(tmp_path / "here", 0))
    monkeypatch.setattr(hosts, "_gather", lambda mine: [mine, mine])
    hosts.check_hosts(FEATURES)
    hosts.check_hosts(FOUR)


def test_what_one_process_lacks_is_told_to_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # there is no x.npz
    monkeypatch.setattr(hosts, "_gather", lambda mine: [mine, mine])
    with pytest.raises(InputError, match=r"in process 0 of 2"):
        hosts.check_hosts(FEATURES)


@pytest.mark.parametrize("length", [0, 1, 5, 15, 16, 17, 31, 32, 33, 100])
def test_a_message_longer_than_a_piece_arrives_whole(monkeypatch, length):
    """What JAX does to arrays on their way is done here: integers are cut to 32 bits."""
    monkeypatch.setattr(hosts, "LARGEST_PIECE", 16)
    monkeypatch.setattr(hosts, "SMALLEST_MESSAGE", 4)
    sent = []

    def carried(array, is_source=True):
        sent.append(np.asarray(array).nbytes)
        return np.asarray(jnp.asarray(array))

    monkeypatch.setattr(hosts.multihost_utils, "broadcast_one_to_all", carried)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", lambda array: carried(array)[None])
    message = {"data": np.arange(length, dtype=np.uint8), "do": "state"}
    for found in (hosts._broadcast(message), *hosts._gather(message)):
        assert found["do"] == "state" and found["data"].tobytes() == message["data"].tobytes()
    assert max(sent) <= 16


def test_the_length_of_a_message_may_be_above_two_gibibytes():
    for size in (0, 1, 2**31 - 1, 2**31, 3 * 2**40):
        assert hosts._size(np.asarray(jnp.asarray(hosts._bytes(size)))) == size


def test_without_other_processes_one_line_says_so(tmp_path):
    with pytest.raises(InputError, match="distributed"):
        train(FOUR, tmp_path / "run", distributed=True)
    with pytest.raises(InputError, match="processes = 2"):
        train(FOUR, tmp_path / "run", distributed=True, processes=2)
    assert not (tmp_path / "run").exists()
