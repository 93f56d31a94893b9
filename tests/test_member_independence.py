"""A member's inputs and results do not depend on its company: not on order, values or fate of the others."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.tasks.fewshot import METRICS, FewShot
from ebbtide.training.engine import Engine
from ebbtide.training.groups import SideBySide
from ebbtide.training.members import Members
from ebbtide.training.optimizer import Adam, Descent
from ebbtide.training.programs import Data, Programs
from ebbtide.training.spec import Spec, from_json
from ebbtide.training.start import to_dotted
from tiny import SPEC, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 10
RATES = [3e-3, 1e-3, 3e-4]
THREE = replace(SPEC, members=3, vary={"optimizer.lr": RATES})
WIDTHS = [1, 3]
"""Members take turns in one program (CPU), or are mapped side by side in one program (accelerators)."""


Results = dict[int, dict[str, np.ndarray]]


def results(spec: Spec, order: list[int], width: int, kind: type[Members] = Members) -> Results:
    """State and metrics of every member after a few steps, by member."""
    run = kind(spec, order, None, width)
    run.train(STEPS)
    state = run.state()
    arrays = {**state, **run.evaluate()}
    return {member: {name: array[i] for name, array in arrays.items()} for i, member in enumerate(order)}


@lru_cache
def _engine(text: bytes) -> Engine:
    return Engine(from_json(text))


@lru_cache
def _inputs(text: bytes, member: int) -> dict[str, np.ndarray]:
    spec, engine = from_json(text), _engine(text)
    data, values = engine.data(member), spec.with_values(spec.values(member))
    index = jnp.arange(3 * spec.batch, dtype=jnp.uint32)
    prompt = values.task.sample(data.key, index, values.source, data.bank, values.source.sizes().split())
    bank = data.bank._replace(key=jax.random.key_data(data.bank.key))
    tree = (jax.random.key_data(data.key), bank, engine.init(member), prompt, engine.suite(member).prompts)
    return {name: np.asarray(leaf) for name, leaf in to_dotted(tree).items()}


def inputs(spec: Spec, member: int) -> dict[str, np.ndarray]:
    """All that a member is given, as bits: its data key, bank, initial state, and its first three batches
    and evaluation prompts."""
    return _inputs(spec.to_json(), member)


def assert_equal(some: Results, others: Results, members: list[int]) -> None:
    for member in members:
        different = [n for n in some[member] if some[member][n].tobytes() != others[member][n].tobytes()]
        assert not different, f"member {member} differs in {different[:3]}"


@pytest.fixture(scope="module")
def base() -> dict[int, Results]:
    """The results of the three members, for each width."""
    return {width: results(THREE, [0, 1, 2], width) for width in WIDTHS}


# ---- inputs


@pytest.fixture
def quickly() -> Iterator[None]:
    """Programs that only draw need not be fast ones."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    "change",
    [
        {"vary": {"optimizer.lr": [3e-3, 1e30, 3e-4]}},
        {"vary": {"optimizer.lr": [RATES[0], RATES[2], RATES[2]]}},
        {"members": 5, "vary": {"optimizer.lr": [*RATES, 1.0, 2.0]}},
        {"sequences": 2048},
        {"optimizer": Adam(lr=1.0, b1=0.5)},
    ],
    ids=lambda change: "-".join(change),
)
def test_inputs_of_the_others_do_not_change_by_a_bit(change):
    """Neither with another member's learning rate, nor with more members, nor with what is not an input."""
    changed = replace(THREE, **change)
    for member in (0, 2):
        assert same_bits(inputs(changed, member), inputs(THREE, member))


def test_a_members_own_source_value_changes_its_inputs_and_no_others():
    noise = [replace(SPEC, members=3, vary={"source.noise": [0.5, second, 0.5]}) for second in (1.0, 2.0)]
    assert all(same_bits(inputs(noise[0], m), inputs(noise[1], m)) for m in (0, 2))
    one, other = (inputs(spec, 1) for spec in noise)
    differ = {name for name in one if one[name].tobytes() != other[name].tobytes()}
    assert {"1.features", "1.noise", "3.exemplars", "4.exemplars"} == differ  # not classes, labels, key or weights


def test_members_have_different_keys_batches_and_weights():
    one, other = inputs(THREE, 0), inputs(THREE, 1)
    same = {name for name in one if one[name].tobytes() == other[name].tobytes()}
    assert not {"0", "2.params.exemplar.w", "3.classes", "3.indices", "3.labels"} & same
    assert {"1.features", "4.classes", "4.exemplars"} <= same  # the source and the evaluation are shared


def test_an_example_is_the_same_in_small_batches_and_large_ones(quickly, monkeypatch):
    """What the engine itself draws while training: 8 steps of 8 sequences, or 2 steps of 32."""
    seen: list[tuple[Any, ...]] = []
    sample = FewShot.sample

    def watched(task: FewShot, key: Any, index: Any, *rest: Any) -> Any:
        prompt = sample(task, key, index, *rest)
        jax.debug.callback(lambda *arrays: seen.append(arrays), index, prompt)
        return prompt

    monkeypatch.setattr(FewShot, "sample", watched)
    drawn, source = [], _engine(THREE.to_json())
    for batch, steps in ((8, 8), (32, 2)):
        seen.clear()
        own = Programs(replace(THREE, batch=batch), False)  # none that another test compiled
        jax.block_until_ready(own.train(source.init(1), source.data(1), jnp.uint32(steps)))
        jax.effects_barrier()
        examples = {}
        for index, prompt in seen:
            for lane, i in enumerate(np.asarray(index)):
                columns = [np.asarray(x).take(lane, axis=min(x.ndim - 1, 1)) for x in prompt]
                examples[int(i)] = b"".join(np.ascontiguousarray(c).tobytes() for c in columns)
        assert len(seen) == steps and sorted(examples) == list(range(64))
        drawn.append(examples)
    assert drawn[0] == drawn[1] and len(set(drawn[0].values())) > 60


# ---- results


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("order", [[2, 0, 1], [1, 0, 2]])
def test_the_order_of_members_changes_no_bit(base, width, order):
    assert_equal(results(THREE, order, width), base[width], [0, 1, 2])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rate", [2e-3, 1e30])
def test_another_rate_of_one_member_changes_no_bit_of_the_others(base, width, rate):
    """Also one so large that the member is lost."""
    changed = results(replace(THREE, vary={"optimizer.lr": [RATES[0], rate, RATES[2]]}), [0, 1, 2], width)
    assert_equal(changed, base[width], [0, 2])
    lost = np.isnan(changed[1]["values"]).all()
    assert lost == (rate > 1) and np.isfinite(base[width][1]["values"]).all()
    assert changed[1]["params.readout.b"].tobytes() != base[width][1]["params.readout.b"].tobytes()


def test_members_that_swap_their_rates_keep_their_seeds(base):
    """Seeds go with the place: two rates swapped are two new members, each as it would be without the other."""
    swapped = results(replace(THREE, vary={"optimizer.lr": [RATES[1], RATES[0], RATES[2]]}), [0, 1, 2], 1)
    assert_equal(swapped, base[1], [2])
    for member in (0, 1):
        rates = [RATES[1 - member] if m == member else 9.0 for m in range(3)]
        assert_equal(results(replace(THREE, vary={"optimizer.lr": rates}), [member], 1), swapped, [member])
        assert swapped[member]["summed"] != base[1][member]["summed"]


def test_side_by_side_measures_the_same_within_rounding(base):
    """Another width is another program, with sums in another order: losses agree to the rounding of
    float32 over ten steps, and an accuracy may differ by the few sequences that were nearly a tie."""
    loss = METRICS.index("loss")
    for member in range(3):
        one, other = base[1][member], base[3][member]
        np.testing.assert_allclose(one["values"][:, loss], other["values"][:, loss], rtol=1e-4)
        np.testing.assert_allclose(one["train_loss"], other["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(one["values"][..., 0], other["values"][..., 0], atol=2 / SPEC.evaluation_sequences)


# ---- tests of the tests above


class Named(SideBySide):
    """Mapped side by side under a name, so that a leak can reach the others."""

    programs: ClassVar[dict[Any, Any]] = {}

    def train(self, n: Any, going: Any) -> None:
        if Descent.update not in self.programs:
            steps, axes = Programs(self.engine.spec, False).take_steps, (0, Data(0, None, 0), None)  # pyright: ignore
            self.programs[Descent.update] = jax.jit(jax.vmap(steps, in_axes=axes, axis_name="members"))
        self.state = self.programs[Descent.update](self.state, self.data, n)


class ByTheCompany(Members):
    def _group(self, members: list[int], stored: Any) -> SideBySide:
        return Named(self.engine, members, stored, self.width, 1)


def test_an_optimiser_that_looks_at_all_members_would_have_been_noticed(quickly, monkeypatch):
    """The gradient divided by the mean of its size over members, beside the same without."""
    update, wild = Descent.update, replace(THREE, vary={"optimizer.lr": [RATES[0], 1e30, RATES[2]]})
    slow = replace(THREE, vary={"optimizer.lr": [RATES[0], 2e-3, RATES[2]]})

    def together(self: Descent, grads: Any, *rest: Any) -> Any:
        size = jax.lax.pmean(sum(jnp.abs(g).sum() for g in jax.tree.leaves(grads)), "members")
        return update(self, jax.tree.map(lambda g: g / size, grads), *rest)

    clean, *others = (results(spec, [0, 1, 2], 3, ByTheCompany) for spec in (THREE, slow, wild))
    for other in others:
        assert_equal(other, clean, [0, 2])
    monkeypatch.setattr(Descent, "update", together)
    leaky, *others = (results(spec, [0, 1, 2], 3, ByTheCompany) for spec in (THREE, slow, wild))
    for other in others:
        with pytest.raises(AssertionError, match=r"member 0 differs in \["):
            assert_equal(other, leaky, [0, 2])


def test_a_key_made_from_the_place_in_the_team_would_have_been_noticed(base):
    class ByPlace(Members):
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            key = self.groups[0].data.key
            for i, group in enumerate(self.groups):
                group.data = group.data._replace(key=jax.random.fold_in(key, i))

    here = results(THREE, [0, 1, 2], 1, ByPlace)
    with pytest.raises(AssertionError, match="member 0 differs"):
        assert_equal(results(THREE, [2, 0, 1], 1, ByPlace), here, [0, 1, 2])


def test_a_stream_drawn_batch_by_batch_would_have_been_noticed(quickly, monkeypatch):
    """One key to a batch, as common data loaders have it: the examples of another batch size are others."""
    sample = FewShot.sample

    def by_batch(task: FewShot, key: Any, index: Any, *rest: Any) -> Any:
        return sample(task, jax.random.fold_in(key, index[0]), index, *rest)

    monkeypatch.setattr(FewShot, "sample", by_batch)
    with pytest.raises(AssertionError):
        test_an_example_is_the_same_in_small_batches_and_large_ones(None, monkeypatch)
