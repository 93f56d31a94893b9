"""A checkpoint whose signature is right and whose state is not that of its spec: one line, and nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebbtide.cli import main
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.reading import load_record
from ebbtide.runs.writer import Writer
from ebbtide.training.driver import train
from tiny import SPEC, contents, final_state, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")
State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    return train(SPEC, tmp_path_factory.mktemp("whole") / "run", processes=0)


def half_way(whole: RunFolder, path: Path, change: Callable[[State], Any] = lambda state: None) -> RunFolder:
    """The run as it was interrupted after half of its sequences, its state changed by `change`, signed as ever."""
    manifest = next(manifest for _, manifest in whole.manifests() if manifest.sequences == 512)
    state = dict(load_record(whole.path, manifest.state))
    change(state)
    rows = {name: array[:3] if name == "sequences" else array[:, :3] for name, array in whole.arrays().items()}
    writer = Writer(path, whole.header)
    writer.commit(sequences=512, state=state, evaluations=rows, kept=True, finished=False, seconds=1.0)
    writer.close()
    return RunFolder(path)


def put(name: str, of: Callable[[np.ndarray], np.ndarray]) -> Callable[[State], None]:
    """Replaces an array by what `of` makes of it."""

    def change(state: State) -> None:
        state[name] = of(state[name])

    return change


def stopped_at(sequences: int) -> Callable[[State], None]:
    """Marks member 0 as stopped there, with the step that it would have."""

    def change(state: State) -> None:
        state["watch.stopped_at"] = np.array([sequences, -1])
        state["step"] = np.array([sequences // SPEC.batch, state["step"][1]], np.uint32)

    return change


W = "params.readout.w"
WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "a parameter is missing": (lambda state: state.pop(W), "lacks the array params.readout.w"),
    "the step is missing": (lambda state: state.pop("step"), "lacks the array step"),
    "a moment of Adam is missing": (
        lambda state: state.pop(next(name for name in state if name.startswith("optimizer."))),
        "lacks the array optimizer.",
    ),
    "an array of no use": (lambda state: state.update(extra=np.zeros(2)), "holds an array 'extra'"),
    "a field of the watch that is none": (
        lambda state: state.update({"watch.__class__": np.zeros(2)}),
        "holds an array 'watch.__class__'",
    ),
    "another shape": (put(W, lambda x: x[:, :-1]), "params.readout.w is float32 [2, 15, "),
    "another axis": (put(W, lambda x: x[..., None]), "params.readout.w is float32 [2, 16, "),
    "another type": (put(W, lambda x: x.astype(np.float64)), "params.readout.w is float64"),
    "whole numbers": (put(W, lambda x: x.astype(np.int32)), "params.readout.w is int32"),
    "a step ahead": (put("step", lambda x: x + np.uint32(1)), "step of member 0 is 33, at 512 sequences it is 32"),
    "a step back": (put("step", lambda x: x - np.uint32(8)), "step of member 0 is 24, at 512 sequences it is 32"),
    "one member behind": (
        put("step", lambda x: x - np.array([0, 1], np.uint32)),
        "step of member 1 is 31, at 512 sequences it is 32",
    ),
    "a watch of another window": (put("watch.recent", lambda x: np.repeat(x, 3, 1)), "watch.recent is float32 [2, 3]"),
    "a member that nothing may have stopped": (stopped_at(128), "watch.stopped_at is [128, -1]"),
    "a member that stopped later than it is": (stopped_at(2048), "watch.stopped_at is [2048, -1]"),
    "a part of the watch is missing": (lambda state: state.pop("watch.top_at"), "lacks the array watch.top_at"),
    "a part of the best models is missing": (
        lambda state: state.pop("best.readout.w"),
        "lacks the array best.readout.w",
    ),
    "best models of another shape": (put("best.readout.w", lambda x: x[:, 1:]), "best.readout.w is float32 [2, 15, "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_state_that_is_not_the_specs_is_refused_in_one_line(whole, tmp_path, capsys, name):
    change, says = WRONG[name]
    run = half_way(whole, tmp_path / "run", change)
    before = contents(run.path)
    assert main(["resume", str(run.path)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("ebbtide: ") and error.count("\n") == 1
    assert contents(run.path) == before


def test_a_sound_state_goes_on_to_the_same_bits(whole, tmp_path):
    run = half_way(whole, tmp_path / "run")
    assert same_bits(final_state(train(SPEC, run.path, processes=0)), final_state(whole))


def test_a_state_of_before_there_was_a_watch_goes_on(whole, tmp_path):
    def older(state: State) -> None:
        for name in [name for name in state if name.startswith(("watch.", "best."))]:
            del state[name]

    run = half_way(whole, tmp_path / "run", older)
    ours, theirs = final_state(train(SPEC, run.path, processes=0)), final_state(whole)
    parameters = [name for name in theirs if name.startswith("params.")]
    assert same_bits({name: ours[name] for name in parameters}, {name: theirs[name] for name in parameters})
