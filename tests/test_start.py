"""Runs that start from other runs' checkpoints, and parameters that training leaves alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.mechanisms.interventions import Ablate, Induction
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.plan import Estimate, group, plan, task_spec
from ebbtide.sweeps.sweep import Sweep
from ebbtide.training.driver import resume, train
from ebbtide.training.engine import Engine
from ebbtide.training.spec import Spec, from_json
from ebbtide.training.start import Start, shapes, to_dotted
from tiny import SPEC, check_both, final_state

pytestmark = pytest.mark.usefixtures("quick_compile")
DEEP = replace(SPEC, model=Transformer(layers=2, width=16, heads=2), evaluators=("icl",))
SECOND = ("blocks.1.*", "norm.*", "readout.*")


@pytest.fixture(scope="module")
def donor(tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("donor") / "run"
    train(DEEP, folder, processes=0)
    return RunFolder(folder)


def at(run: RunFolder, sequences: int) -> dict[str, np.ndarray]:
    """The parameters of a run's checkpoint."""
    from ebbtide.training.probe import checkpoints

    return dict(checkpoints(run))[sequences]


def graft(donor: RunFolder, **more: Any) -> Spec:
    start = Start(run=str(donor.path), sequences=1024, parts=SECOND)
    other = replace(DEEP.seeds, init=7)
    return replace(DEEP, start=start, freeze=SECOND, seeds=other, **more)


def test_grafted_and_frozen_parts_stay_the_donors(donor, tmp_path):
    train(graft(donor), tmp_path / "run", processes=0)
    theirs, first, last = at(donor, 1024), at(RunFolder(tmp_path / "run"), 0), at(RunFolder(tmp_path / "run"), 1024)
    for name, array in theirs.items():
        grafted = name.startswith(("blocks.1.", "norm.", "readout."))
        assert np.array_equal(first[name], array) == grafted or name.endswith(
            ("scale", "offset", "b_in", "b_out", ".b")
        )
        assert np.array_equal(last[name], array) == grafted, name
        assert np.array_equal(first[name], last[name]) == grafted, name


def test_upper_layers_alone_start_one_layer_lower(donor, tmp_path):
    parts = ("blocks.*", "norm.*", "readout.*")
    start = Start(run=str(donor.path), sequences=1024, parts=parts, skip=1)
    spec = replace(DEEP, model=replace(DEEP.model, layers=1), start=start, freeze=parts)
    check_both(spec)
    theirs, here = at(donor, 1024), shapes(spec.model, spec.shape())
    merged = to_dotted(start.merge(spec.model.init(jax.random.key(0), **spec.shape()), 1))
    assert set(merged) == set(here)
    for name, array in merged.items():
        source = name.replace("blocks.0.", "blocks.1.")
        assert np.array_equal(array, theirs[source][1]) == name.startswith(("blocks.", "norm.", "readout.")), name
    with pytest.raises(InputError, match=r"start.run = .*has no parameter blocks.1"):
        check_both(replace(DEEP, start=start))


def test_a_run_that_starts_anew_from_the_beginning_of_another_is_it_again(donor, tmp_path):
    spec = replace(DEEP, start=Start(run=str(donor.path), sequences=0), seeds=replace(DEEP.seeds, init=7))
    train(spec, tmp_path / "run", processes=0)
    ours, theirs = final_state(RunFolder(tmp_path / "run")), final_state(donor)
    for name, array in theirs.items():
        if name.startswith("params."):
            np.testing.assert_array_equal(ours[name], array, err_msg=name)


def starts_from(spec: Spec, theirs: dict[str, np.ndarray]) -> list[int]:
    """For every member of a run the place of the member of another run whose parameters it begins with."""
    engine, name = Engine(spec), next(iter(theirs))
    begun = [np.asarray(to_dotted(engine.init(m).params)[name]) for m in range(spec.members)]
    return [next(i for i, one in enumerate(theirs[name]) if np.array_equal(one, mine)) for mine in begun]


def test_a_member_starts_from_the_member_of_its_number_wherever_it_is(donor):
    """Split into tasks, in another order, or as a run that begins with a later number: the number decides."""
    spec, theirs = replace(DEEP, start=Start(run=str(donor.path), sequences=512)), at(donor, 512)
    assert starts_from(spec, theirs) == [0, 1]
    assert starts_from(replace(spec, vary={"seeds.member": [1, 0]}), theirs) == [1, 0]
    later = replace(spec, members=1, seeds=replace(DEEP.seeds, member=1))
    varied = replace(spec, members=1, vary={"seeds.member": [1]})
    assert starts_from(later, theirs) == starts_from(varied, theirs) == [1]
    assert later.addresses() == varied.addresses() == [spec.addresses()[1]]


def test_the_number_of_a_donors_member_is_that_of_its_seeds(donor, tmp_path):
    """A donor whose own members were numbered otherwise: the member of that number, not of that place."""
    turned = replace(DEEP, sequences=256, vary={"seeds.member": [4, 1]})
    train(turned, tmp_path / "turned", processes=0)
    spec = replace(
        DEEP, members=1, vary={"seeds.member": [1]}, start=Start(run=str(tmp_path / "turned"), sequences=256)
    )
    check_both(spec)
    assert starts_from(spec, at(RunFolder(tmp_path / "turned"), 256)) == [1]
    with pytest.raises(InputError, match=r"seeds.member = 0: .* but 4, 1"):
        check_both(replace(spec, vary={"seeds.member": [0]}))


def test_a_sweep_grafts_the_same_however_it_is_split_into_tasks(donor):
    base = to_builtins(replace(DEEP, start=Start(run=str(donor.path), sequences=512)))
    base = {name: value for name, value in base.items() if name not in ("members", "vary")}
    groups = group(sweep := Sweep(name="s", base=base, axes=(Axis(seeds=2),)), sweep.points())
    for most in (1, 2):
        how = {"task_seconds": 600, "slots": 1, "task_members": most}
        (planned,) = plan(groups, (), lambda spec: Estimate(60.0, 1.0, 1e6, "x"), **how)
        specs = [task_spec(planned.group.spec, one.values, len(one.addresses)) for one in planned.tasks]
        assert [m for spec in specs for m in starts_from(spec, at(donor, 512))] == [0, 1]


def test_another_run_in_a_donors_place_is_read_anew(tmp_path):
    """What was read is remembered by what it was, not by where it lay."""
    for init in (1, 2):
        spec = replace(DEEP, sequences=256, seeds=replace(DEEP.seeds, init=init))
        run = train(spec, tmp_path / "run", processes=0)
        start = Start(run=str(run.path), sequences=256)
        assert starts_from(replace(DEEP, start=start), at(run, 256)) == [0, 1]
        shutil.rmtree(run.path)


def test_one_member_may_be_the_start_of_all(donor, tmp_path):
    spec = replace(DEEP, start=Start(run=str(donor.path), sequences=512, member=1))
    train(spec, tmp_path / "run", processes=0)
    first, theirs = at(RunFolder(tmp_path / "run"), 0), at(donor, 512)
    for name, array in theirs.items():
        np.testing.assert_array_equal(first[name], np.stack([array[1]] * 2), err_msg=name)


@pytest.fixture
def as_in_a_child() -> Iterator[None]:
    """Programs are compiled in this process as in those that it starts, so that their bits may be compared."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.thorough  # a donor and the arms that start from it in worker processes: test_donor.py
@pytest.mark.usefixtures("as_in_a_child")
def test_worker_processes_start_from_it_too(donor, tmp_path):
    for name, processes in (("here", 0), ("there", 1)):
        train(graft(donor), tmp_path / name, processes=processes)
    here, there = (at(RunFolder(tmp_path / name), 0) for name in ("here", "there"))
    for name, array in here.items():
        np.testing.assert_array_equal(there[name], array, err_msg=name)


@pytest.mark.thorough
def test_interventions_act_in_training_and_in_evaluation(tmp_path):
    """With all of its last layer's attention on the right label a model learns to copy, not otherwise so fast."""
    helped = replace(DEEP, sequences=4096, interventions=(Induction(layer=1),))
    for name, spec in (("helped", helped), ("plain", replace(DEEP, sequences=4096))):
        train(spec, tmp_path / name, processes=0)
    curves = {name: RunFolder(tmp_path / name).metrics() for name in ("helped", "plain")}
    assert curves["helped"]["icl/loss"][:, -1].max() < curves["plain"]["icl/loss"][:, -1].min() - 0.3
    gone = replace(DEEP, interventions=(Ablate(at="hook_logits"),))
    train(gone, tmp_path / "gone", processes=0)
    loss = RunFolder(tmp_path / "gone").metrics()["icl/loss"]
    np.testing.assert_allclose(loss, np.log(DEEP.outputs()), rtol=1e-5)


def test_the_spec_reads_back_and_is_named_by_what_it_changes(donor):
    spec = graft(donor, interventions=(Induction(heads=(0,)), Ablate(at="blocks.0.attn.hook_z", heads=(1,))))
    check_both(spec)
    assert from_json(spec.to_json()) == spec
    assert len({spec.digest(), DEEP.digest(), graft(donor).digest()}) == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sequences": 513}, "start.sequences"),
        ({"parts": ("blocks.7.*",)}, "start.parts"),
        ({"member": 2}, "start.member"),
        ({"run": "nowhere"}, "start.run"),
    ],
)
def test_starts_that_cannot_be_are_refused(donor, change, field):
    start = replace(Start(run=str(donor.path), sequences=512), **change)
    with pytest.raises(InputError) as caught:
        check_both(replace(DEEP, start=start))
    assert caught.value.field == field and len(str(caught.value).splitlines()) == 1


def test_a_donor_of_another_shape_is_refused(donor):
    wide = replace(DEEP, model=Transformer(layers=2, width=32, heads=2), start=Start(run=str(donor.path), sequences=0))
    with pytest.raises(InputError, match=r"has shape \["):
        check_both(wide)
    deep = replace(DEEP, model=Transformer(layers=3, width=16, heads=2), start=Start(run=str(donor.path), sequences=0))
    with pytest.raises(InputError, match="has no parameter blocks"):
        check_both(deep)
    many = replace(DEEP, members=3, start=Start(run=str(donor.path), sequences=0))
    with pytest.raises(InputError, match=r"seeds.member = 2: .* has no member of this number, but 0, 1 \("):
        check_both(many)
    with pytest.raises(InputError, match="names no parameter"):
        check_both(replace(DEEP, freeze=("blocks.9.*",)))


def test_a_resumed_graft_goes_on_to_the_same_bits(donor, tmp_path):
    spec = graft(donor)
    train(spec, tmp_path / "run", processes=0)
    before = final_state(RunFolder(tmp_path / "run"))
    newest: Path = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    newest.rename(tmp_path / "gone")
    resume(RunFolder(tmp_path / "run"), processes=0)
    for name, array in final_state(RunFolder(tmp_path / "run")).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
