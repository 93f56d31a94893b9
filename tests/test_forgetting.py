"""Weight forgetting: what is drawn again and when, by hand; the same bits whatever the slices, stops and company."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.keys import Purpose
from ebbtide.models.transformer import Transformer
from ebbtide.training.engine import Engine
from ebbtide.training.fields import override
from ebbtide.training.forgetting import Forgetting
from ebbtide.training.members import Members
from ebbtide.training.optimizer import SGD, Adam
from ebbtide.training.spec import Spec, from_builtins, from_json
from ebbtide.training.start import to_dotted
from tiny import SPEC, same_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

EVERY, UNTIL, STEPS = 4, 9, 14
"""In steps: drawn again at steps 4 and 8, and without an end at 12 too."""
BATCH = SPEC.batch
FORGETS = replace(SPEC, forgetting=Forgetting(every=EVERY * BATCH, until=UNTIL * BATCH))
FORGOTTEN = ("exemplar.w", "exemplar.b", "label.table")


def trained(spec: Spec, cuts: list[int], width: int = 1, order: tuple[int, ...] = (0, 1)) -> dict[str, np.ndarray]:
    """The state of the members after training up to every one of these steps, each time from what the last one left on
    disk; members in the order of their numbers."""
    stored: dict[str, np.ndarray] | None = None
    for cut in cuts:
        run = Members(spec, [*order], stored, width)
        run.train(cut)
        stored = run.state()
    assert stored is not None
    rows = np.argsort(order)
    return {name: array[rows] for name, array in stored.items()}


def of_members(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


SHAPES = {"exemplar": {"w": (3, 2), "b": (2,)}, "label": {"table": (4, 2)}, "readout": {"w": (2, 4)}}


def numbered(key: Any) -> dict[str, Any]:
    """Parameters of a made-up model, which show by which key they were drawn."""
    number = (jax.random.key_data(key)[..., 1] % 1009).astype(jnp.float32)
    return {part: {name: jnp.full(shape, number) for name, shape in one.items()} for part, one in SHAPES.items()}


@pytest.mark.parametrize("moments", [True, False], ids=["with moments", "without"])
@pytest.mark.parametrize("optimizer", [Adam(), SGD(momentum=0.9)], ids=["adam", "momentum"])
def test_what_is_forgotten(optimizer, moments):
    """Named arrays, and their moments where it is said, and nothing else; all as it was at any other step."""
    forgetting = Forgetting(every=EVERY * BATCH, moments=moments)
    params, key = numbered(jax.random.key(3)), jax.random.key(7)
    state = jax.tree.map(lambda x: x + 5, optimizer.init(params))
    forget = jax.jit(lambda step: forgetting.forget(params, state, step, BATCH, key, numbered))
    due, other = (to_dotted(forget(jnp.uint32(step))) for step in (EVERY, EVERY + 1))
    fresh, zeroed = to_dotted(numbered(jax.random.fold_in(key, EVERY))), 0
    for name, array in to_dotted((params, state)).items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)
        of = name[2:] if name.startswith("0.") else name[2:].partition(".")[2]
        if of in FORGOTTEN and (name.startswith("0.") or moments):
            array = fresh[of] if name.startswith("0.") else np.zeros_like(array)
            zeroed += name.startswith("1.")
        np.testing.assert_array_equal(due[name], array, err_msg=name)
    assert zeroed == moments * optimizer.moments * len(FORGOTTEN)


def test_when_it_is_due():
    def steps(until: int | None) -> list[int]:
        one = Forgetting(every=EVERY * BATCH, until=until and until * BATCH)
        return [step for step in range(14) if one.is_due(jnp.uint32(step), BATCH)]

    assert steps(None) == [4, 8, 12] and steps(12) == [4, 8, 12] and steps(11) == [4, 8] and steps(4) == [4]


def test_training_by_hand():
    """Steps of a run that forgets nothing, and between them the arrays replaced by those of an untrained model."""
    plain = Engine(SPEC)
    state, data = plain.init(0), plain.data(0)
    for step in range(STEPS):
        if step in (EVERY, 2 * EVERY):
            key = jax.random.fold_in(FORGETS.root(Purpose.FORGETTING, 0), step)
            fresh, arrays = to_dotted(plain.programs.init(key).params), to_dotted(state)
            for name in FORGOTTEN:
                arrays[f"params.{name}"] = fresh[name]
                for moment in ("mu", "nu"):
                    arrays[f"optimizer.{moment}.{name}"] = jnp.zeros_like(fresh[name])
            state = jax.tree.unflatten(jax.tree.structure(state), [arrays[name] for name in to_dotted(state)])
        state = plain.train(state, data, jnp.uint32(1))
    found, expected = trained(FORGETS, [STEPS], order=(0,)), to_dotted(state)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name][0], array, rtol=2e-4, atol=2e-5, err_msg=name)


def test_a_checkpoint_at_the_time_of_a_draw_holds_the_model_before_it():
    before, after = (of_members(trained(FORGETS, [cut]), "params.") for cut in (EVERY, EVERY + 1))
    step = 2 * SPEC.optimizer.lr  # an array that was not drawn again is at most this far from where it was
    for name, array in before.items():
        far = np.abs(after[name] - array).max() > step
        assert far == (name in FORGOTTEN), name


def test_slices_and_stops_change_no_bit():
    whole = trained(FORGETS, [STEPS])
    for cuts in ([EVERY, STEPS], [EVERY - 1, EVERY + 1, 2 * EVERY, STEPS], [*range(1, STEPS + 1)]):
        assert same_bits(trained(FORGETS, cuts), whole), cuts


def test_the_company_changes_no_bit_and_members_forget_differently():
    whole = trained(FORGETS, [STEPS])
    assert same_bits(trained(FORGETS, [STEPS], order=(1, 0)), whole)
    one = trained(FORGETS, [STEPS], order=(1,))
    assert same_bits({name: array[:1] for name, array in one.items()}, {n: array[1:] for n, array in whole.items()})
    beside = trained(FORGETS, [EVERY - 1, STEPS], width=2)
    for name, array in of_members(whole, "params.").items():
        np.testing.assert_allclose(beside[f"params.{name}"], array, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_spec_without_forgetting_has_neither_its_json_nor_its_program():
    def program(spec: Spec) -> str:
        engine = Engine(spec)
        shapes: Any = engine.programs.template, engine.data(0)
        return str(jax.make_jaxpr(engine.programs.take_steps)(*shapes, jnp.uint32(1)))

    assert b"forgetting" not in SPEC.to_json() and from_json(FORGETS.to_json()) == FORGETS
    assert Engine(SPEC).data(0).forgetting is None
    assert "cond[" not in program(SPEC) and "cond[" in program(FORGETS)
    assert len({SPEC.digest(), FORGETS.digest(), *SPEC.addresses(), *FORGETS.addresses()}) == 6


def test_it_is_set_on_the_command_line():
    data = SPEC.builtins()
    for name, text in {"forgetting.every": "64", "forgetting.until": "144"}.items():
        override(Spec, data, name, text)
    assert from_builtins(data) == FORGETS


BAD = [
    ("forgetting.every", 100, Forgetting(every=100)),
    ("forgetting.every", 1024, Forgetting(every=1024)),
    ("forgetting.until", 32, Forgetting(every=64, until=32)),
    ("forgetting.parts", (), Forgetting(every=64, parts=())),
    ("forgetting.parts", "embedding.*", Forgetting(every=64, parts=("embedding.*",))),
]


@pytest.mark.parametrize(("field", "value", "forgetting"), BAD)
def test_bad_input(field, value, forgetting, one_line):
    with pytest.raises(InputError) as caught:
        replace(SPEC, forgetting=forgetting).check()
    one_line(caught, field, value)


def test_a_frozen_array_is_not_forgotten(one_line):
    with pytest.raises(InputError, match=r"exemplar\.b, exemplar\.w, which freeze keeps") as caught:
        replace(FORGETS, freeze=("exemplar.*",)).check()
    one_line(caught, "forgetting.parts", ("exemplar.*", "label.*"))
    other = replace(FORGETS, freeze=("exemplar.*",), forgetting=Forgetting(every=64, parts=("label.*",)))
    other.check()
    with pytest.raises(InputError):
        replace(FORGETS, model=Transformer(layers=1, width=16, heads=2), freeze=("no.*",)).check()
