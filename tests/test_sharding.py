"""Members side by side over several devices: the same inputs to the bit, the same learning up to rounding.

Four devices are made of one processor, in a process of their own: XLA must be told before it starts.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.training.driver import train
from ebbtide.training.worker import ENVIRONMENT
from sharding_child import LAYOUTS, MEMBERS, WIDE, Arrays
from tiny import same_bits

BESIDE = [name for name in LAYOUTS if name != "alone"]
LEARNED = 2e-4
"""Another width is another program, whose sums have another order: after 12 steps of Adam at 3e-3 (which
divides by the root of a second moment that starts near 0) rounding of 1e-7 has grown to less than this."""
LOSS = 1e-4
"""Of the training loss, relative: a mean over hundreds of sequences."""
ACCURACY = 0.1
"""Of accuracies: a few of fifty sequences whose two best logits lie within rounding of each other."""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Arrays]:
    """What each layout came to, by name."""
    folder = tmp_path_factory.mktemp("sharding")
    flags = f"--xla_force_host_platform_device_count=4 {ENVIRONMENT['XLA_FLAGS']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("XLA", "JAX"))}
    cache = {name: value for name, value in os.environ.items() if name.startswith(("JAX_COMPILATION", "JAX_PERSIST"))}
    command = [sys.executable, str(Path(__file__).with_name("sharding_child.py")), str(folder)]
    quick = {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # it compiles much and computes little
    threads = {"NPROC": "8"}  # as many threads as devices wait for one another without end on a busy machine
    environment = clean | cache | ENVIRONMENT | quick | threads
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


def part(arrays: Arrays, *kinds: str) -> Arrays:
    return {name: array for name, array in arrays.items() if name.startswith(kinds)}


def check_inputs(wide: Arrays, narrow: Arrays) -> None:
    """Initial weights and first batches are equal bit for bit."""
    inputs = part(narrow, "start/", "batch/")
    assert {"start/params.exemplar.w", "batch/exemplars", "batch/labels", "batch/target"} <= set(inputs)
    assert same_bits(part(wide, "start/", "batch/"), inputs)


def check_learned(wide: Arrays, narrow: Arrays) -> None:
    """States and metrics are equal up to rounding; positions exactly."""
    assert part(wide, "state/", "seen/").keys() == part(narrow, "state/", "seen/").keys()
    assert np.array_equal(wide["state/step"], narrow["state/step"])
    params = part(narrow, "state/params.")
    assert params and all(np.ptp(array, axis=0).max() > 10 * LEARNED for array in params.values() if array.any())
    for name, array in params.items():
        np.testing.assert_allclose(wide[name], array, atol=LEARNED, rtol=0, err_msg=name)
    np.testing.assert_allclose(wide["seen/train_loss"], narrow["seen/train_loss"], rtol=LOSS)
    np.testing.assert_allclose(wide["seen/values"][..., 0], narrow["seen/values"][..., 0], atol=ACCURACY)


@pytest.mark.parametrize("name", BESIDE)
def test_side_by_side_every_member_starts_from_the_same_bits(found, name):
    check_inputs(found[name], found["alone"])


@pytest.mark.parametrize("name", BESIDE)
def test_side_by_side_every_member_learns_the_same(found, name):
    check_learned(found[name], found["alone"])


@pytest.mark.parametrize("name", BESIDE)
def test_the_members_lie_on_as_many_devices_as_asked_for_and_stay_there(found, name):
    """After training and an evaluation; as many members on each."""
    width, devices = LAYOUTS[name]
    assert set(found[name]["spread/devices"].tolist()) == {devices}
    assert set(found[name]["spread/members"].tolist()) == {width // devices}


def exchanged(arrays: Arrays, kinds: tuple[str, ...]) -> Arrays:
    """A planted defect: members 2 and 3 have each other's arrays."""
    order = [0, 1, 3, 2, 4, 5]
    return {name: a[order] if name.startswith(kinds) else a for name, a in arrays.items()}


def test_members_that_were_exchanged_would_have_been_noticed(found):
    """A test of the two tests above: seeds of another member, weights of another member, one bit."""
    wide, narrow = found["4 over 4"], found["alone"]
    for kinds in (("batch/",), ("start/params.exemplar.w",)):
        with pytest.raises(AssertionError):
            check_inputs(exchanged(wide, kinds), narrow)
    for kinds in (("state/params.",), ("state/params.readout.w",), ("seen/train_loss",)):
        with pytest.raises(AssertionError):
            check_learned(exchanged(wide, kinds), narrow)
    bit = wide | {"start/params.exemplar.w": np.nextafter(wide["start/params.exemplar.w"], np.float32(9))}
    with pytest.raises(AssertionError):
        check_inputs(bit, narrow)


def check_company(filled: Arrays, unfilled: Arrays) -> None:
    """Members 4 and 5 are the same bits, be there two copies of 5 beside them or members 0 and 1."""
    kinds = ("start/", "batch/", "state/", "seen/")
    ours, theirs = part(filled, *kinds), part(unfilled, *kinds)
    assert same_bits({k: a[4:6] for k, a in ours.items()}, {k: a[:2] for k, a in theirs.items()})


def test_what_fills_up_the_last_group_changes_no_bit_of_its_members(found):
    filled, unfilled = found["4 over 4"], found["4 over 4, unfilled"]
    check_company(filled, unfilled)
    with pytest.raises(AssertionError):
        check_company(exchanged(filled, ("state/",)) | {"state/step": filled["state/step"] + 1}, unfilled)


def test_a_run_over_devices_comes_to_its_end_and_says_how_it_was_made(found):
    run = found["run over 4"]
    assert [run[k].item() for k in ("processes", "width", "devices", "chosen")] == [0, 4, 4, "given"]
    assert run["state/step"].tolist() == [WIDE.steps()] * MEMBERS and part(run, "state/best.")
    assert run["seen/sequences"].tolist() == [0, 256, 512, 768, 1024]
    assert (run["seen/train_loss"][:, -1] < run["seen/train_loss"][:, 1]).all()
    trained = {k: a for k, a in run.items() if k.startswith(("state/params.", "state/optimizer."))}
    assert trained and same_bits(trained, {k: found["4 over 4"][k.replace("state/", "end/")] for k in trained})


def test_a_run_over_devices_is_continued_in_its_own_layout_to_the_same_bits(found):
    """Nobody says how the second time: it must not fall back to worker processes, which have one device."""
    run, again = found["run over 4"], found["run over 4, continued"]
    kinds = ("processes", "width", "devices", "state/", "seen/")
    assert same_bits(part(again, *kinds), part(run, *kinds))


def test_more_devices_than_there_are_is_told_in_one_line(found, tmp_path, one_line):
    message = found["refused"]["message"].item()
    assert message.startswith("devices = 8: must be at most 4") and len(message.splitlines()) == 1
    for processes in (0, 1):
        with pytest.raises(InputError) as caught:
            train(WIDE, tmp_path / "run", processes=processes, width=2, devices=2)
        one_line(caught, "devices", 2)
    assert not list(tmp_path.iterdir())
