"""Runs that compute the same share their compiled functions, and only these."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder
from ebbtide.training.driver import train
from ebbtide.training.optimizer import Adam
from ebbtide.training.programs import programs_of
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec
from ebbtide.training.start import Start
from tiny import SPEC, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

OTHER_MEMBERS: dict[str, Callable[[Spec], Spec]] = {
    "seeds": lambda spec: replace(spec, seeds=Seeds(init=7, data=8, evaluation=9)),
    "the source's seed": lambda spec: replace(spec, source=replace(spec.source, seed=5)),
    "members": lambda spec: replace(spec, members=5, vary={"optimizer.lr": [1e-3] * 5}),
    "schedule": lambda spec: replace(spec, schedule=Schedule(evaluations=3), keep_best=None),
    "start": lambda spec: replace(spec, start=Start(run="elsewhere", sequences=512)),
}
OTHER_COMPUTATION: dict[str, Callable[[Spec], Spec]] = {
    "rate": lambda spec: replace(spec, optimizer=Adam(lr=1e-2)),
    "length": lambda spec: replace(spec, sequences=2 * spec.sequences),
    "evaluators": lambda spec: replace(spec, evaluators=("icl",)),
    "width": lambda spec: replace(spec, model=Transformer(layers=1, width=8, heads=2)),
}


class Mine(Transformer, frozen=True, tag="mine"):
    """A model in a file of the user."""


@pytest.mark.parametrize("change", OTHER_MEMBERS.values(), ids=OTHER_MEMBERS)
def test_specs_of_other_members_share_them(change):
    assert programs_of(change(SPEC)) is programs_of(SPEC)


@pytest.mark.parametrize("change", OTHER_COMPUTATION.values(), ids=OTHER_COMPUTATION)
def test_specs_of_another_computation_do_not(change):
    assert programs_of(change(SPEC)) is not programs_of(SPEC)


def test_code_of_the_user_is_compiled_anew():
    own = replace(SPEC, model=Mine(layers=1, width=16, heads=2))
    assert programs_of(own) is not programs_of(own)


def test_a_second_run_compiles_nothing_and_has_the_bits_of_a_first_one(tmp_path):
    def run(name: str, seed: int) -> Path:
        spec = replace(SPEC, seeds=Seeds(init=seed, data=seed, evaluation=seed))
        train(spec, tmp_path / name, processes=0)
        return tmp_path / name

    jax.clear_caches()
    first = RunFolder(run("first", 1)).arrays()
    compiled: list[str] = []

    def hear(event: str, duration_secs: float, **kwargs: str | int) -> None:
        compiled.extend([event] if "backend_compile" in event else [])

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        run("second", 2)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert compiled == []
    jax.clear_caches()
    again = RunFolder(run("again", 1)).arrays()
    assert same_bits(first, again) and np.isfinite(first["train_loss"][:, 1:]).all()
