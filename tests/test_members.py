"""Members side by side: each trains as if it were alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.training import programs
from ebbtide.training.engine import Engine
from ebbtide.training.groups import Alone, SideBySide, from_dotted
from ebbtide.training.members import Members
from ebbtide.training.spec import Spec
from ebbtide.training.start import to_dotted
from tiny import SPEC, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 12


def trained(spec: Spec, members: list[int], state: Any = None, width: int = 1, until: int = STEPS) -> Members:
    made = Members(spec, members, state, width)
    made.train(until)
    return made


def member(arrays: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: array[i] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def two() -> dict[str, np.ndarray]:
    """The state of members 0 and 1 after twelve steps."""
    return trained(SPEC, [0, 1]).state()


def test_names_and_leaves_round_trip():
    tree = {"a": [jnp.arange(3.0), jnp.zeros((2, 2))], "b": (jnp.int32(7),)}
    arrays = to_dotted(tree)
    assert set(arrays) == {"a.0", "a.1", "b.0"}
    back = from_dotted(tree, {k: np.asarray(v) for k, v in arrays.items()})
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert all(
        (x == y).all() and x.dtype == y.dtype for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(back), strict=True)
    )


def test_a_state_that_lacks_a_leaf_or_has_another_shape_or_type_is_refused():
    tree = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    a = np.zeros(3, np.float32)
    with pytest.raises(KeyError, match="b"):
        from_dotted(tree, {"a": a})
    with pytest.raises(ValueError, match=r"b has shape \(5,\), the spec needs \(2,\)"):
        from_dotted(tree, {"a": a, "b": np.zeros(5, np.float32)})
    with pytest.raises(ValueError, match="b is float64, the spec needs float32"):
        from_dotted(tree, {"a": a, "b": np.zeros(2)})


def test_state_names_parameters_optimiser_and_position(two):
    assert {"params.exemplar.w", "params.blocks.0.attn.q", "step", "summed", "counted"} <= set(two)
    assert any(name.startswith("optimizer.") for name in two)
    assert all(array.shape[0] == 2 for array in two.values()) and two["step"].tolist() == [STEPS, STEPS]


def test_members_differ_in_parameters_and_data(two):
    start = Members(SPEC, [0, 1], None).state()
    assert not np.array_equal(start["params.exemplar.w"][0], start["params.exemplar.w"][1])
    assert two["summed"][0] != two["summed"][1]
    assert not np.array_equal(start["params.exemplar.w"][0], two["params.exemplar.w"][0])


@pytest.mark.parametrize("i", [0, 1])
def test_a_member_alone_is_bit_equal_to_the_same_member_in_company(two, i):
    assert same_bits(member(trained(SPEC, [i]).state(), 0), member(two, i))


def test_order_and_splitting_into_calls_change_nothing(two):
    both = Members(SPEC, [1, 0], None)
    for step in (1, 2, 7, STEPS):
        both.train(step)
    state = both.state()
    assert same_bits(member(state, 0), member(two, 1)) and same_bits(member(state, 1), member(two, 0))


def test_a_state_taken_over_continues_to_the_same_bits(two):
    half = trained(SPEC, [0, 1], until=5).state()
    assert same_bits(trained(SPEC, [0, 1], half).state(), two)
    second = {name: array[1:] for name, array in half.items()}
    assert same_bits(member(trained(SPEC, [1], second).state(), 0), member(two, 1))


def test_side_by_side_draws_the_same_inputs():
    """Under vmap the integers and exemplars of a member's prompts are the very same bits."""
    engine = Members(SPEC, [0, 1], None).engine
    split, index = SPEC.source.sizes().split(), jnp.arange(16, dtype=jnp.uint32)

    def prompt(data):
        return SPEC.task.sample(data.key, index, SPEC.source, data.bank, split)

    alone = [jax.jit(prompt)(engine.data(i)) for i in (0, 1)]
    data = jax.tree.map(lambda *xs: jnp.stack(xs), engine.data(0), engine.data(1))
    beside = jax.jit(jax.vmap(prompt))(data)
    for i in (0, 1):
        for name in beside._fields:
            assert np.array_equal(getattr(beside, name)[i], getattr(alone[i], name)), name
    assert not np.array_equal(alone[0].classes, alone[1].classes)


def test_side_by_side_trains_to_nearly_the_same_parameters(two):
    """Width 2 is another program: the same numbers up to rounding, which Adam can amplify a little."""
    wide = trained(SPEC, [0, 1], width=2)
    state = wide.state()
    assert state.keys() == two.keys() and state["step"].tolist() == two["step"].tolist()
    for name in two:
        if name.startswith("params."):
            np.testing.assert_allclose(state[name], two[name], atol=2e-4, err_msg=name)
    np.testing.assert_allclose(state["summed"], two["summed"], rtol=1e-4)
    narrow = trained(SPEC, [0, 1]).evaluate()
    np.testing.assert_allclose(wide.evaluate()["train_loss"], narrow["train_loss"], rtol=1e-4)
    again = Members(SPEC, [0, 1], state, width=2).state()
    looked = {k: a for k, a in state.items() if k in ("summed", "counted") or k.startswith(("best.", "watch."))}
    assert same_bits(again, wide.state() | looked)  # an evaluation changes these and nothing else


def test_the_learning_rate_of_a_member_is_its_own():
    spec = replace(SPEC, vary={"optimizer.lr": [3e-3, 1e-4]})
    state = trained(spec, [0, 1]).state()
    lone = trained(replace(SPEC, vary={"optimizer.lr": [5.0, 1e-4]}), [1]).state()
    assert same_bits(member(state, 1), member(lone, 0))
    start = Members(spec, [0, 1], None).state()
    moved = [np.abs(state["params.exemplar.w"][i] - start["params.exemplar.w"][i]).max() for i in (0, 1)]
    assert moved[0] > 5 * moved[1] > 0


def test_members_with_their_own_noise_have_their_own_banks_and_prompts():
    engine = Members(replace(SPEC, members=3, vary={"source.noise": [0.0, 1.0, 0.0]}), [0, 1, 2], None).engine
    banks = [engine.data(i).bank for i in range(3)]
    assert banks[0] is banks[2] and engine.suite(0) is engine.suite(2) and engine.suite(0) is not engine.suite(1)
    still, noisy = (np.asarray(b.features) for b in banks[:2])
    assert np.ptp(still, axis=1).max() == 0  # every exemplar is its class mean
    assert np.ptp(noisy, axis=1).min() > 0
    a, b = engine.suite(0).of("icl"), engine.suite(1).of("icl")
    assert np.array_equal(a.classes, b.classes) and not np.array_equal(a.exemplars, b.exemplars)


def test_members_with_their_own_rate_share_the_bank():
    engine = Members(replace(SPEC, vary={"optimizer.lr": [1e-3, 2e-3]}), [0, 1], None).engine
    assert engine.data(0).bank is engine.data(1).bank and engine.suite(0) is engine.suite(1)


def test_an_evaluation_reports_the_mean_loss_since_the_last_one():
    losses, whole = [], Members(SPEC, [0], None)
    assert np.isnan(whole.evaluate()["train_loss"]).all()
    single = Members(SPEC, [0], None)
    for step in range(1, 5):
        single.train(step)
        losses.append(single.evaluate()["train_loss"][0])
    whole.train(4)
    np.testing.assert_allclose(whole.evaluate()["train_loss"][0], np.mean(losses), rtol=1e-6)
    assert len(set(losses)) == 4 and 2 < losses[0] < 8  # about ln 66 at the start


def test_distinct_sequences_come_again_in_the_same_order():
    """Twelve steps on 24 sequences that come again against the same steps by hand: batches of 16 overlap the seam."""
    spec = replace(SPEC, distinct=24)
    engine = Engine(spec)
    state, data, split = engine.init(0), engine.data(0), spec.source.sizes().split()
    ours = trained(spec, [0]).state()

    @jax.jit
    def step(params: Any, optimizer: Any, at: Any, index: Any) -> Any:
        prompt = spec.task.sample(data.key, index, spec.source, data.bank, split)
        _, grads = engine.programs.loss_and_grad(params, prompt)
        return spec.optimizer.update(grads, optimizer, params, at, spec.steps())

    params, optimizer = state.params, state.optimizer
    for at in range(STEPS):
        index = np.arange(at * spec.batch, (at + 1) * spec.batch) % 24
        params, optimizer = step(params, optimizer, jnp.uint32(at), jnp.asarray(index, jnp.uint32))
    for name, array in to_dotted(params).items():
        np.testing.assert_allclose(ours[f"params.{name}"][0], array, atol=1e-5, err_msg=name)
    fresh = trained(SPEC, [0]).state()
    assert max(np.abs(ours[name] - fresh[name]).max() for name in fresh if name.startswith("params.")) > 1e-3


def test_all_sequences_that_there_are_is_no_number_of_them(one_line):
    with pytest.raises(InputError) as caught:
        replace(SPEC, distinct=SPEC.sequences).check()
    one_line(caught, "distinct", SPEC.sequences)


OWN = replace(SPEC, members=5, keep_best="icl", seeds=replace(SPEC.seeds, world=3))
"""Five members with classes and evaluation prompts of their own."""


@pytest.mark.parametrize("spec", [OWN, replace(OWN, seeds=SPEC.seeds)], ids=["own worlds", "one world"])
@pytest.mark.parametrize("at_a_time", [1, 2, 4])
def test_members_side_by_side_are_evaluated_as_if_alone_however_many_at_a_time(spec, at_a_time, monkeypatch):
    """Four places for five members: the second group is one member and three copies of it."""
    one = 4 * spec.evaluation_sequences * (spec.model.stored_values(5) + spec.outputs())
    monkeypatch.setattr(programs, "CPU_EVALUATION_BYTES", at_a_time * one)
    alone, wide = Members(spec, list(range(5)), None), Members(spec, list(range(5)), None, width=4)
    alone.groups[:] = [Alone(alone.engine, m, member_rows(wide.state(), m)) for m in range(5)]
    one, other = alone.evaluate(), wide.evaluate()
    loss = spec.metrics().index("loss")
    np.testing.assert_allclose(one["values"][:, :, loss], other["values"][:, :, loss], rtol=1e-5)
    np.testing.assert_allclose(one["values"], other["values"], atol=1e-5)
    assert len({values.tobytes() for values in other["values"]}) == 5


def member_rows(state: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: array[i : i + 1] for name, array in state.items()}


@pytest.mark.parametrize("width", [1, 4])
def test_the_best_models_are_those_of_the_members_that_were_found(width):
    made = Members(OWN, list(range(5)), None, width)
    first = made.state()
    made.train(STEPS)
    found = np.array([True, False, True, False, False])
    for rows, group in zip(made.rows, made.groups, strict=True):
        group.keep_best(found[rows])
    made.train(STEPS + 2)
    kept, now = made.state(), trained(OWN, list(range(5)), width=width).state()
    for name in (name for name in kept if name.startswith("best.")):
        present = name.replace("best.", "params.")
        for i in range(5):
            wanted = now[present] if found[i] else first[present]
            np.testing.assert_array_equal(kept[name][i], wanted[i], err_msg=name)
    assert not np.array_equal(first["params.exemplar.w"][0], now["params.exemplar.w"][0])


def test_members_side_by_side_begin_with_the_bits_they_begin_with_alone():
    alone, wide = (Members(OWN, list(range(5)), None, width) for width in (1, 4))
    assert same_bits(alone.state(), wide.state())
    several = wide.groups[0]
    assert isinstance(several, SideBySide) and not several.worlds.shared
    for i in range(4):
        for mine, own in zip(
            jax.tree.leaves(several.prompts), jax.tree.leaves(alone.engine.suite(i).prompts), strict=True
        ):
            np.testing.assert_array_equal(mine[i], own)
