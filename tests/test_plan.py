"""From points to tasks: groups of one shape, content addresses, sizes of tasks."""

import os

import jax
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.sweeps import estimate
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.plan import Estimate, TaskGroup, group, plan, task_name
from ebbtide.sweeps.sweep import Sweep
from ebbtide.tasks.labels import Shared
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Seeds, Spec
from tiny import SPEC

SMALL = {
    "batch": 16,
    "sequences": 1024,
    "source.classes": 64,
    "source.dim": 8,
    "source.exemplars": 2,
    "source.holdout_classes": 8,
    "source.holdout_exemplars": 2,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "evaluators": ["icl"],
    "evaluation_sequences": 50,
}
SEEDS = Axis(seeds=3)
LR = Axis(field="optimizer.lr", values=[1e-3, 3e-3])
SHARED = Axis(field="task.labels", values=["shared"])
WIDTH = Axis(field="model.width", values=[8, 16])


def sweep(*axes: Axis, **changes) -> Sweep:
    made = Sweep(name="try", base=SMALL, axes=axes, **changes)
    made.check()
    return made


def groups(*axes: Axis):
    made = sweep(*axes)
    return group(made, made.points())


def planned(found, known=(), seconds=1.0, task_seconds=600.0, slots=1):
    return plan(
        found, known, lambda spec: Estimate(seconds, 5.0, 1e8, "guessed"), task_seconds=task_seconds, slots=slots
    )


def addresses(*axes: Axis) -> list[str]:
    """In the order of the points."""
    rows = {row: a for one in groups(*axes) for row, a in zip(one.rows, one.addresses, strict=True)}
    return [rows[i] for i in range(len(rows))]


# --- what can share a program does


def test_traced_numbers_and_seeds_share_a_program_and_shapes_do_not():
    found = groups(WIDTH, LR, SEEDS)
    assert [one.static for one in found] == [{"model.width": 8}, {"model.width": 16}]
    assert [sorted(one.values) for one in found] == [["optimizer.lr", "seeds.member"]] * 2
    assert [one.rows for one in found] == [list(range(6)), list(range(6, 12))]
    assert found[0].values["optimizer.lr"] == [1e-3] * 3 + [3e-3] * 3


def test_a_field_of_an_optional_struct_can_be_varied():
    (one,) = groups(Axis(field="optimizer.decay.coefficient", values=[0.0, 1e-4]))
    assert list(one.values) == ["optimizer.decay.coefficient", "seeds.member"]


def test_text_axes_make_groups_and_may_bring_other_fields():
    labels = Axis(
        chain=(
            Axis(field="task.labels", values=["fixed"]),
            Axis(
                product=(Axis(field="task.labels.count", values=[4, 8]), Axis(field="task.labels", values=["shared"]))
            ),
        )
    )
    found = groups(labels, SEEDS)
    assert [one.spec.task.labels.total(64) for one in found] == [64, 4, 8]  # pyright: ignore
    assert isinstance(found[1].spec.task.labels, Shared)  # pyright: ignore
    assert all(list(one.values) == ["seeds.member"] for one in found)


def test_a_chain_of_traced_fields_is_one_group_with_the_bases_values():
    chain = Axis(chain=(LR, Axis(field="task.zipf", values=[0.5, 1.0])))
    (one,) = groups(chain)
    assert one.values["task.zipf"] == [0, 0, 0.5, 1.0]
    assert one.values["optimizer.lr"] == [1e-3, 3e-3, 1e-3, 1e-3]


def test_two_ways_to_write_one_shape_are_one_group():
    found = groups(Axis(field="model.width", values=[16, 16.0]), Axis(field="optimizer.lr", values=[1e-3]))
    assert len(found) == 1 and len(set(found[0].addresses)) == 1


BAD = {
    "no such field": (Axis(field="model.widht", values=[8]), r"model\.widht = 8"),
    "wrong type": (Axis(field="model.width", values=["wide"]), r"model\.width = 'wide'"),
    "no such struct": (Axis(field="optimizer", values=["adamw"]), "optimizer = 'adamw'"),
    "heads do not divide": (Axis(field="model.width", values=[9]), r"model\.heads"),
    "a traced value out of range": (Axis(field="task.zipf", values=[0.0, -1.0]), r"task\.zipf = -1"),
    "a seed that is none": (Axis(field="seeds.init", values=[0.5]), r"seeds\.init = 0\.5"),
    "not a number": (Axis(field="optimizer.lr", values=[float("nan")]), "finite"),
    "more than any machine has": (Axis(field="model.width", values=[2**31]), "no machine has"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_point_that_cannot_be_trained_is_refused_before_anything_starts(name):
    axis, words = BAD[name]
    with pytest.raises(InputError, match=words) as error:
        groups(axis)
    assert "\n" not in str(error.value)


# --- addresses


def test_addresses_do_not_depend_on_the_company_nor_on_the_axes():
    alone = dict(zip([1e-3, 3e-3], addresses(LR), strict=True))
    more = addresses(Axis(field="optimizer.lr", values=[3e-3, 1e-2, 1e-3]))
    assert [more[2], more[0]] == [alone[1e-3], alone[3e-3]]
    assert addresses(SEEDS, LR)[0] == alone[1e-3]
    assert addresses(WIDTH, SEEDS, LR)[6] == alone[1e-3], "width 16 is the base's"
    assert len(set(addresses(WIDTH, SEEDS, LR))) == 12


def test_everything_that_is_computed_is_in_the_address():
    base = addresses(LR)
    for name, value in {"sequences": 2048, "evaluation_sequences": 60, "seeds.evaluation": 1, "task.zipf": 0.5}.items():
        made = Sweep(name="try", base={**SMALL, name: value}, axes=(LR,))
        assert set(group(made, made.points())[0].addresses).isdisjoint(base)


def test_a_member_has_one_address_whichever_way_it_is_written():
    varied = replace(SPEC, members=2, vary={"optimizer.lr": [1e-3, 2e-3], "seeds.member": [0, 1]})
    second = replace(SPEC, members=1, optimizer=Adam(lr=2e-3), seeds=Seeds(member=1))
    third = replace(SPEC, members=3, optimizer=Adam(lr=2e-3))
    assert varied.addresses()[1] == second.addresses()[0] == third.addresses()[1]
    assert len({*varied.addresses(), *third.addresses()}) == 4


def test_a_member_draws_the_same_wherever_it_is():
    """What the address promises: initial weights and data stream."""
    group_of_three = Engine(replace(SPEC, members=3, seeds=Seeds(init=5, data=6)))
    alone = Engine(replace(SPEC, members=1, seeds=Seeds(init=5, data=6, member=2)))
    named = Engine(replace(SPEC, members=1, vary={"seeds.member": [2], "seeds.init": [5], "seeds.data": [6]}))
    other = Engine(replace(SPEC, members=1, vary={"seeds.member": [2], "seeds.init": [6], "seeds.data": [6]}))
    weights = [
        np.asarray(e.init(m).params["readout"]["w"])
        for e, m in ((group_of_three, 2), (alone, 0), (named, 0), (other, 0))
    ]
    assert weights[0].tobytes() == weights[1].tobytes() == weights[2].tobytes() != weights[3].tobytes()

    keys = [
        jax.random.key_data(e.data(m).key).tolist()
        for e, m in ((group_of_three, 2), (alone, 0), (named, 0), (other, 0))
    ]
    assert keys[0] == keys[1] == keys[2] == keys[3]


def test_values_of_zero_and_defaults_are_the_same_member():
    """One address, so one computation: `test_traced_values` holds the two to the same prompts."""
    assert addresses(Axis(field="task.zipf", values=[0.0]))[0] == addresses()[0]


# --- tasks


@given(st.integers(1, 40), st.floats(0.1, 500), st.floats(30, 2000), st.integers(1, 16))
def test_every_member_is_in_exactly_one_task(seeds, seconds, task_seconds, slots):
    found = groups(Axis(seeds=seeds))
    (one,) = planned(found, seconds=seconds, task_seconds=task_seconds, slots=slots)
    members = [a for task in one.tasks for a in task.addresses]
    assert members == found[0].addresses
    sizes = [len(task.addresses) for task in one.tasks]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= max(1, task_seconds / seconds)


def test_tasks_are_as_long_as_asked_but_leave_no_slot_idle():
    found = groups(Axis(seeds=24))
    assert [len(t.addresses) for t in planned(found, seconds=60)[0].tasks] == [8, 8, 8], "ten minutes"
    assert len(planned(found, seconds=60, slots=8)[0].tasks) == 8
    assert len(planned(found, seconds=1, slots=8)[0].tasks) == 1, "not shorter than a minute"


def test_known_members_are_not_planned_again():
    found = groups(LR, SEEDS)
    known = set(found[0].addresses[:4])
    (one,) = planned(found, known)
    assert one.known == 4 and [a for t in one.tasks for a in t.addresses] == found[0].addresses[4:]
    assert planned(found, found[0].addresses)[0].tasks == []


def test_a_member_that_is_two_points_is_trained_once():
    found = groups(Axis(field="optimizer.lr", values=[1e-3, 1e-3]))
    assert sum(len(t.addresses) for t in planned(found)[0].tasks) == 1


def test_a_task_has_the_spec_of_its_members():
    found = groups(LR, SEEDS)
    (one,) = planned(found)
    record = TaskGroup(msgspec.to_builtins(one.group.spec), one.tasks)
    spec = record.task_spec(one.tasks[0])
    spec.check()
    assert spec.members == 6 and spec.vary == one.tasks[0].values
    wrong = replace(one.tasks[0], addresses=one.tasks[0].addresses[::-1])
    for changed in (wrong, replace(wrong, name=task_name(wrong.addresses))):
        with pytest.raises(InputError, match="is not what its plan says"):
            record.task_spec(changed)


def test_tasks_of_one_group_share_their_program_when_a_value_is_added():
    """The same fields are varied, so the bits of old and new members can be compared."""
    before = groups(LR, SEEDS)[0]
    after = groups(Axis(field="optimizer.lr", values=[1e-4, 1e-3, 3e-3]), SEEDS)[0]
    assert before.spec == after.spec and list(before.values) == list(after.values)
    (one,) = planned([after], set(before.addresses))
    assert one.tasks[0].values["optimizer.lr"] == [1e-4] * 3


def test_the_base_spec_may_be_written_in_any_order():
    made = Sweep(name="try", base={"task.labels.count": 8, "task.labels": "shared"})
    assert made.spec() == replace(Spec(), task=replace(Spec().task, labels=Shared(8)), members=1)


def test_a_guess_is_corrected_by_what_was_measured_beside_it(monkeypatch):
    """Three times as slow as guessed, so what was never measured is thought to be as well; a measurement stays."""
    wider = replace(SPEC, batch=2 * SPEC.batch)
    first = estimate.estimate_cost(SPEC)
    assert first.source == "guessed" and estimate.correction_factor([SPEC, wider]) == 1
    cost = estimate.Cost(rate=SPEC.sequences / first.seconds / 3, start=1.0, memory=1e8)
    monkeypatch.setattr(estimate, "_read", lambda spec: cost if spec == SPEC else None)
    assert estimate.correction_factor([SPEC, wider]) == pytest.approx(3)
    assert estimate.estimate_cost(wider, 3.0).seconds == pytest.approx(3 * estimate.estimate_cost(wider).seconds)
    assert estimate.estimate_cost(SPEC, 3.0) == estimate.estimate_cost(SPEC)
    assert estimate.estimate_cost(SPEC).source == "measured"


def test_costs_that_this_program_would_not_have_written_are_not_read(tmp_path, monkeypatch):
    """A pipe would block for ever, a file without end fill the memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    estimate.remember(SPEC, estimate.Cost(10.0, 1.0, 1e8))
    (file,) = (tmp_path / "ebbtide").iterdir()
    assert estimate.estimate_cost(SPEC).source == "measured"
    file.write_bytes(file.read_bytes() + b" " * 100_000)
    assert estimate.estimate_cost(SPEC).source == "guessed"
    file.unlink()
    os.mkfifo(file)
    assert estimate.estimate_cost(SPEC).source == "guessed"
    estimate.remember(SPEC, estimate.Cost(10.0, 1.0, 1e8))
    assert estimate.estimate_cost(SPEC).source == "measured"
