"""Members with classes and evaluation prompts of their own (`seeds.world`)."""

import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.analysis.predictions import predict_member
from ebbtide.errors import InputError
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.glyphs import Glyphs
from ebbtide.tasks.regression import Regression
from ebbtide.training.driver import train
from ebbtide.training.limits import needed_bytes
from ebbtide.training.members import Members
from ebbtide.training.probe import prompts_of
from ebbtide.training.spec import Seeds, Spec
from ebbtide.training.worlds import Worlds
from tiny import SPEC, check_both, final_state

pytestmark = pytest.mark.usefixtures("quick_compile")
OWN = replace(SPEC, seeds=Seeds(init=3, data=4, evaluation=70, member=2, world=100))
OWN = replace(OWN, source=replace(OWN.source, seed=40))
FUNCTIONS = Spec(
    task=Regression(context=4, noise=(0.1,)),
    source=Functions(dim=2, pool=3, seed=40),
    model=Transformer(layers=1, width=16, heads=2),
    batch=16,
    sequences=512,
    members=2,
    schedule=eb.Schedule(evaluations=2, checkpoints=2),
    evaluators=("train",),
    evaluation_sequences=40,
    keep_best="train",
    seeds=Seeds(evaluation=70, world=100),
)


def alone(spec: Spec, i: int) -> Spec:
    """The run of member i alone, with the seeds of its world written out."""
    number = spec.seeds.member + i
    seeds = replace(spec.seeds, evaluation=170 + number, member=number, world=None)
    return replace(spec, members=1, seeds=seeds, source=replace(spec.source, seed=140 + number))


@pytest.mark.parametrize("spec", [OWN, FUNCTIONS], ids=["classes", "functions"])
def test_a_member_computes_what_a_run_on_its_world_alone_computes(tmp_path, spec):
    """To the bit: parameters, optimiser, every metric of every evaluator."""
    run = train(spec, tmp_path / "own", processes=0)
    state, curves = final_state(run), run.metrics()
    for i in range(spec.members):
        other = train(alone(spec, i), tmp_path / f"alone{i}", processes=0)
        theirs = final_state(other)
        assert theirs.keys() == state.keys()
        for name, array in theirs.items():
            np.testing.assert_array_equal(state[name][i], array[0], err_msg=name)
        for name, curve in other.metrics().items():
            if curve.ndim == 2:
                np.testing.assert_array_equal(curves[name][i], curve[0], err_msg=name)


def test_members_differ_in_classes_and_prompts_and_those_who_share_do_not():
    own, shared = Worlds(OWN), Worlds(replace(OWN, seeds=replace(OWN.seeds, world=None)))
    assert not np.array_equal(own.of(0).bank.features, own.of(1).bank.features)
    assert not np.array_equal(own.of(0).suite.of("icl").indices, own.of(1).suite.of("icl").indices)
    assert shared.of(0) is shared.of(1) and own.of(1) is own.of(1)


def test_members_trained_side_by_side_learn_their_own_classes():
    """The bank is an argument of the step that is mapped over members: what is learned is what each learns alone, up
    to rounding, and far from what it would learn of the other's classes."""
    few = replace(OWN, sequences=160)
    side = Members(few, [0, 1], None, width=2)
    apart = Members(few, [0, 1], None)
    shared = Members(replace(few, seeds=replace(few.seeds, world=None)), [0, 1], None)
    for members in (side, apart, shared):
        members.train(10)
    losses = [members.evaluate()["train_loss"] for members in (side, apart, shared)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert (np.abs(losses[2] - losses[1]) > 0.01).all()


@pytest.mark.parametrize(
    "source",
    [
        Gaussian(classes=20, dim=4, holdout_classes=4),
        Gaussian(classes=20, dim=4, holdout_classes=4, infinite=True),
        Glyphs(classes=20, exemplars=2, holdout_classes=4, holdout_exemplars=1, side=28),
    ],
    ids=["finite", "infinite", "glyphs"],
)
def test_one_program_draws_the_prompts_of_all_seeds(source):
    """The program is compiled with the seed 0 in the source: nothing but the bank may depend on the seed."""
    spec = replace(OWN, source=replace(source, seed=40))
    worlds = Worlds(spec)
    for m in range(2):
        assert len(worlds._programs) == (1 if m else 0)
        got = worlds.of(m).suite.of("icl")
        np.testing.assert_array_equal(got.exemplars, prompts_of(alone(spec, m), "icl", 50).exemplars)


def test_what_is_asked_of_a_trained_member_is_asked_in_its_own_world(tmp_path):
    """Its prompts in `probe`, and the fresh prompts and the source on which claims on functions are judged."""
    np.testing.assert_array_equal(
        prompts_of(OWN, "icl", 50, member=1).exemplars, Worlds(OWN).of(1).suite.of("icl").exemplars
    )
    run = train(FUNCTIONS, tmp_path / "own", processes=0).snapshot()
    first, second = (predict_member(run, m, "train", 20, True) for m in range(2))
    sources = [one.spec.source for one in (first, second)]
    assert [source.seed for source in sources if isinstance(source, Functions)] == [140, 141]
    assert not np.array_equal(first.inputs, second.inputs)
    other = predict_member(train(alone(FUNCTIONS, 1), tmp_path / "alone", processes=0).snapshot(), 0, "train", 20, True)
    np.testing.assert_array_equal(second.outputs, other.outputs)
    np.testing.assert_array_equal(second.inputs, other.inputs)


def test_the_field_names_another_computation_and_leaves_older_names_as_they_were():
    shared = replace(OWN, seeds=replace(OWN.seeds, world=None))
    assert shared.digest() != OWN.digest() and set(OWN.addresses()).isdisjoint(shared.addresses())
    assert Spec(seeds=Seeds()).digest() == Spec().digest()


def test_worlds_are_counted_in_the_memory_that_a_run_needs():
    shared = replace(OWN, seeds=replace(OWN.seeds, world=None))
    prompts = 2 * 50 * 3 * 8 * 4
    assert needed_bytes(OWN) - needed_bytes(shared) == OWN.source.bank_bytes() + prompts


def test_seeds_beyond_the_largest_are_refused(one_line):
    most = 2**31 - 1 - 3 - 70
    with pytest.raises(InputError) as caught:
        check_both(replace(OWN, seeds=replace(OWN.seeds, world=most + 1)))
    one_line(caught, "seeds.world", most + 1)
    check_both(replace(OWN, seeds=replace(OWN.seeds, world=most)))
