"""Taps and interventions: they change what they say, and nothing else."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.mechanisms.intervene import answer, check_all, check_used, intervention_tap
from ebbtide.mechanisms.interventions import (
    Ablate,
    AnyIntervention,
    Forbid,
    Induction,
    KeepClean,
    MatchExemplars,
    PerfectCopy,
    PerfectPrevious,
    PreviousToken,
    Temperature,
)
from ebbtide.mechanisms.taps import AXES, axes, points, record
from ebbtide.models.deepset import DeepSet
from ebbtide.models.positions import Rotary
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import FunctionPrompt, Prompt
from intervention_tools import BATCH, MODEL, PROMPT, SHAPE, a_prompt, weights

pytestmark = pytest.mark.usefixtures("quick_compile")


def seen(*interventions: AnyIntervention, at: str = "*", model: Transformer = MODEL) -> dict[str, np.ndarray]:
    """Every point of a forward pass with interventions."""
    params = weights() if model is MODEL else model.init(jax.random.key(1), **SHAPE)
    tap = intervention_tap(model, params, PROMPT, interventions)
    return {name: np.asarray(value) for name, value in record(model, params, PROMPT, at, tap=tap)[1].items()}


@cache
def untouched() -> dict[str, np.ndarray]:
    """Every point of a forward pass without interventions."""
    return seen()


def test_every_point_has_named_axes():
    others = (Transformer(layers=1, width=8, heads=2, mlp_ratio=0, pairing="joint"), DeepSet(layers=1, width=8))
    found = {model: points(model, SHAPE) for model in (MODEL, *others)}
    for name, shape in (item for one in found.values() for item in one.items()):
        assert len(axes(name)) == len(shape), name
    assert {name.rpartition(".")[2] for one in found.values() for name in one} == set(AXES)


def test_taps_that_are_off_leave_the_same_program():
    plain = jax.make_jaxpr(MODEL.apply)(weights(), PROMPT)
    tapped = jax.make_jaxpr(lambda params, prompt: record(MODEL, params, prompt)[0])(weights(), PROMPT)
    none = jax.make_jaxpr(lambda params, prompt: answer(MODEL, params, prompt, ()))(weights(), PROMPT)
    assert str(plain) == str(tapped) == str(none)


def test_recording_changes_no_bit():
    plain = jax.jit(MODEL.apply)(weights(), PROMPT)
    logits, found = jax.jit(lambda p, x: record(MODEL, p, x, "blocks.*.attn.hook_pattern"))(weights(), PROMPT)
    np.testing.assert_array_equal(logits, plain)
    assert list(found) == ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    assert found["blocks.0.attn.hook_pattern"].shape == (BATCH, 4, 7, 7)
    assert found["blocks.1.attn.hook_pattern"].shape == (BATCH, 4, 1, 7)


def test_a_point_replaced_by_itself_changes_no_bit():
    """Each point alone gets its value of another pass; the place is an argument, so nothing is optimised away."""
    names = list(points(MODEL, SHAPE))
    clean = jax.jit(lambda params, prompt: record(MODEL, params, prompt, "*")[1])(weights(), PROMPT)

    @jax.jit
    def patched(params, prompt, clean, chosen):
        tap = lambda name, value: jnp.where(chosen == names.index(name), clean[name], value)  # noqa: E731
        return record(MODEL, params, prompt, tap=tap)[0]

    for i in range(len(names)):
        np.testing.assert_array_equal(patched(weights(), PROMPT, clean, i), clean["hook_logits"])
    for name in ("hook_embed", "blocks.0.attn.hook_pattern", "blocks.1.attn.hook_v"):
        np.testing.assert_array_equal(seen(KeepClean(at=name))["hook_logits"], untouched()["hook_logits"])


def test_under_vmap_grad_and_scan_and_reduced_inside():
    both = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), weights())

    def mean_pattern(params):
        reduce = lambda name, value: value.mean(0)  # noqa: E731
        return record(MODEL, params, PROMPT, "*.hook_pattern", reduce=reduce)[1]["blocks.1.attn.hook_pattern"]

    found = jax.jit(jax.vmap(mean_pattern))(both)
    np.testing.assert_allclose(found[0], untouched()["blocks.1.attn.hook_pattern"].mean(0), rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: mean_pattern(p)[0, 0, 0]))(weights())
    assert np.abs(gradient["blocks"][1]["attn"]["q"]).max() > 0 == np.abs(gradient["readout"]["w"]).max()
    _, rows = jax.lax.scan(lambda c, p: (c, mean_pattern(p)), 0, both)
    np.testing.assert_allclose(rows, found, rtol=1e-5)


def test_a_glob_that_names_nothing_is_refused(one_line):
    with pytest.raises(InputError) as caught:
        record(MODEL, weights(), PROMPT, "blocks.*.attn.hook_patern")
    one_line(caught, "point", "blocks.*.attn.hook_patern")
    assert "did you mean" in str(caught.value)


def test_ablated_heads_neurons_and_positions():
    got = seen(Ablate(at="blocks.0.attn.hook_z", heads=(1, 3)))["blocks.0.attn.hook_z"]
    assert (got[:, :, [1, 3]] == 0).all()
    np.testing.assert_array_equal(got[:, :, [0, 2]], untouched()["blocks.0.attn.hook_z"][:, :, [0, 2]])
    got = seen(Ablate(at="blocks.*.mlp.hook_post", neurons=(0, 31), how="mean"))["blocks.0.mlp.hook_post"]
    plain = untouched()["blocks.0.mlp.hook_post"]
    np.testing.assert_allclose(got[..., 31], np.broadcast_to(plain.mean(1)[:, None, 31], got.shape[:-1]), rtol=1e-5)
    np.testing.assert_array_equal(got[..., 1:31], plain[..., 1:31])
    got = seen(Ablate(at="hook_embed", positions=(2,)))["hook_embed"]
    assert (got[2] == 0).all() and (got[[0, 1, 3]] == untouched()["hook_embed"][[0, 1, 3]]).all()


def test_kept_patterns_and_values_do_not_feel_an_ablation():
    """With layer 0's heads gone but all of layer 1's attention kept, only the direct path of layer 0 is missing."""
    gone = Ablate(at="blocks.0.attn.hook_z")
    kept = seen(gone, KeepClean(at="blocks.1.attn.hook_pattern"), KeepClean(at="blocks.1.attn.hook_v"))
    np.testing.assert_array_equal(kept["blocks.1.attn.hook_z"], untouched()["blocks.1.attn.hook_z"])
    assert np.abs(kept["blocks.1.hook_resid_pre"] - untouched()["blocks.1.hook_resid_pre"]).max() > 0.01
    some = seen(gone, KeepClean(at="blocks.1.attn.hook_v", heads=(2,)))["blocks.1.attn.hook_v"]
    np.testing.assert_array_equal(some[:, :, 2], untouched()["blocks.1.attn.hook_v"][:, :, 2])
    np.testing.assert_array_equal(some[:, :, 0], seen(gone)["blocks.1.attn.hook_v"][:, :, 0])


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("pairing", ["interleaved", "joint"])
def test_induction_puts_attention_on_the_targets_labels(strength, pairing):
    model = Transformer(layers=2, width=16, heads=4, pairing=pairing)
    name = "blocks.1.attn.hook_pattern"
    got = seen(Induction(heads=(1,), strength=strength), at=name, model=model)[name]
    plain = seen(at=name, model=model)[name]
    np.testing.assert_array_equal(got[:, [0, 2, 3]], plain[:, [0, 2, 3]])
    row = got[:, 1, -1]
    places = np.arange(3) if pairing == "joint" else np.array([1, 3, 5])
    right = np.asarray(PROMPT.labels == PROMPT.target).T
    mixed = (~right).any(1)
    np.testing.assert_allclose(row.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.where(right, row[:, places], 0).sum(1)[mixed], strength, atol=1e-6)
    assert np.delete(row, places, axis=1).max() == 0


def test_exemplar_match_is_a_softmax_of_cosines():
    name = "blocks.1.attn.hook_pattern"
    x = np.asarray(PROMPT.exemplars)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    near = (x[:-1] * x[-1]).sum(-1).T
    got = seen(MatchExemplars(temperature=0.5))[name][:, 0, -1, [1, 3, 5]]
    expected = np.exp(near / 0.5) / np.exp(near / 0.5).sum(1, keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    sharp = seen(MatchExemplars(temperature=0.0))[name][:, 2, -1, [1, 3, 5]]
    np.testing.assert_array_equal(sharp, np.eye(3)[near.argmax(1)])


def test_previous_token_rows():
    name = "blocks.0.attn.hook_pattern"
    got = seen(PreviousToken(heads=(0,), strength=0.75))[name]
    for label in (1, 3, 5):
        assert (got[:, 0, label, label - 1] == 0.75).all() and (got[:, 0, label, label] == 0.25).all()
    np.testing.assert_array_equal(got[:, 0, [0, 2, 4, 6]], untouched()[name][:, 0, [0, 2, 4, 6]])
    np.testing.assert_array_equal(got[:, 1:], untouched()[name][:, 1:])
    every = seen(PreviousToken(rows="all"))[name]
    np.testing.assert_array_equal(every[:, :, 1:], np.broadcast_to(np.eye(7)[:-1], (BATCH, 4, 6, 7)))


def test_forbidden_tokens_get_no_attention():
    name = "blocks.1.attn.hook_pattern"
    got = seen(Forbid(layer=1))[name][:, :, -1]
    assert got[..., [0, 2, 4, 6]].max() == 0
    np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-6)
    first = seen(Forbid(keys="previous", heads=(2,)))["blocks.0.attn.hook_pattern"]
    assert first[:, 2, [1, 3, 5], [0, 2, 4]].max() == 0 < first[:, 2, [2, 4], [1, 3]].min()
    assert first[:, 1, [1, 3, 5], [0, 2, 4]].min() > 0


def test_a_head_at_another_temperature():
    name = "blocks.0.attn.hook_attn_scores"
    got = seen(Temperature(layer=0, heads=(3,), temperature=0.5))[name]
    lower = np.tril_indices(7)
    np.testing.assert_allclose(got[:, 3][:, *lower], 2 * untouched()[name][:, 3][:, *lower], rtol=1e-6)
    np.testing.assert_array_equal(got[:, :3], untouched()[name][:, :3])
    assert seen(Temperature(layer=0, temperature=0.01))["blocks.0.attn.hook_pattern"][:, :, 0, 1:].max() == 0


def test_a_perfect_first_layer_shows_the_token_before():
    """Keys are those of a model whose tokens were embedded one place earlier."""
    got = seen(PerfectPrevious())
    embed = got["hook_embed"]
    shifted = np.concatenate([embed[:1], embed[:-2], embed[-1:]])
    scaled = (shifted - shifted.mean(-1, keepdims=True)) / np.sqrt(shifted.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got["blocks.1.hook_k_input"], scaled, atol=1e-4)
    np.testing.assert_array_equal(got["blocks.1.hook_q_input"], got["blocks.1.hook_k_input"])
    plain = (embed - embed.mean(-1, keepdims=True)) / np.sqrt(embed.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got["blocks.1.hook_v_input"], plain, atol=1e-4)


def test_perfect_copy_reads_the_logits_off_a_heads_scores():
    got = seen(PerfectCopy(head=2))
    scores = got["blocks.1.attn.hook_attn_scores"][:, 2, -1, [1, 3, 5]]
    labels = np.asarray(PROMPT.labels).T
    for row in range(BATCH):
        for label in range(6):
            shown = scores[row][labels[row] == label]
            expected = np.log(np.exp(shown).sum()) if len(shown) else -1e20
            assert got["hook_logits"][row, label] == pytest.approx(expected, rel=1e-5)


def test_they_compose_in_the_order_given():
    first = seen(Induction(strength=1.0), Ablate(at="blocks.1.attn.hook_pattern"))["blocks.1.attn.hook_pattern"]
    assert (first == 0).all()
    last = seen(Ablate(at="blocks.1.attn.hook_pattern"), Induction(strength=1.0))["blocks.1.attn.hook_pattern"]
    np.testing.assert_allclose(last.sum(-1), 1, rtol=1e-6)


def test_any_length_of_context_and_rotary_positions():
    model = Transformer(layers=2, width=16, heads=4, mlp_ratio=0, positions=Rotary())
    shape: Any = {"context": 9, "dim": 5, "labels": 6}
    params, prompt = model.init(jax.random.key(0), **shape), a_prompt(9)
    every = (PreviousToken(), Induction(), Forbid(layer=1), Temperature(temperature=2.0), PerfectPrevious())
    assert np.isfinite(answer(model, params, prompt, every)).all()
    check_all(every, model, shape, Prompt)


@pytest.mark.parametrize(
    ("intervention", "field", "value"),
    [
        (Induction(layer=2), "interventions.0.layer", 2),
        (Induction(heads=(1, 4)), "interventions.0.heads", [1, 4]),
        (PerfectCopy(head=4), "interventions.0.head", 4),
        (Ablate(at="blocks.3.attn.hook_z"), "interventions.0.at", "blocks.3.attn.hook_z"),
        (Ablate(at="blocks.0.mlp.hook_post", heads=(0,)), "interventions.0.heads", [0]),
        (Ablate(at="blocks.0.mlp.hook_post", neurons=(32,)), "interventions.0.neurons", [32]),
        (Ablate(at="blocks.1.mlp.hook_post", positions=(1,)), "interventions.0.positions", [1]),
        (KeepClean(at="hook_embed", heads=(0,)), "interventions.0.heads", [0]),
    ],
)
def test_what_a_model_does_not_have_is_refused(intervention, field, value, one_line):
    for use in (lambda: check_all((intervention,), MODEL, SHAPE, Prompt), lambda: used((intervention,))):
        with pytest.raises(InputError) as caught:
            use()
        one_line(caught, field, value)


def used(interventions: Any, model: Any = MODEL, prompt: Any = PROMPT) -> Any:
    """A forward pass with interventions, of which only the shapes are computed."""
    params = jax.eval_shape(lambda key: model.init(key, **SHAPE), jax.random.key(0))
    return jax.eval_shape(lambda params: answer(model, params, prompt, interventions), params)


@pytest.mark.parametrize(
    ("intervention", "field", "words"),
    [
        (Ablate(at="block.0.attn.hook_z"), "at", "names no point of this model"),
        (Ablate(at="blocks.0.hook_mlp_out", heads=(1,)), "heads", "blocks.0.hook_mlp_out has no heads"),
        (Ablate(at="blocks.0.attn.hook_z", heads=(9,)), "heads", "must be from 0 to 3"),
        (Ablate(at="blocks.0.attn.hook_z", heads=()), "heads", "length >= 1"),
        (Ablate(at="blocks.0.attn.hook_z", heads=2), "heads", "expected array"),  # pyright: ignore
        (Ablate(at="blocks.0.attn.hook_z", heads=(-1,)), "heads", "expected int >= 0"),
        (Ablate(at="blocks.0.attn.hook_z", positions=(40,)), "positions", "must be from 0 to 6"),
        (Ablate(at="blocks.0.attn.hook_z", how="Mean"), "how", "one of zero, mean"),  # pyright: ignore
        (Ablate(at="blocks.0.attn.hook_z", how="resample"), "how", "one of zero, mean"),  # pyright: ignore
        (Temperature(layer=7), "layer", "must be from 0 to 1"),
        (Temperature(temperature=0.0), "temperature", "expected float > 0"),
        (Induction(strength=2.0), "strength", "expected float <= 1"),
        (Induction(strength=[0.5]), "strength", "expected float, got array"),  # pyright: ignore
        (Forbid(keys="labels"), "keys", "one of exemplars, previous"),  # pyright: ignore
    ],
)
def test_an_intervention_that_changes_nothing_or_something_else_is_refused_wherever_it_is_used(
    intervention, field, words
):
    with pytest.raises(InputError, match=words) as caught:
        used((Induction(), intervention))
    assert caught.value.field == f"interventions.1.{field}" and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=words):
        record(MODEL, weights(), PROMPT, "hook_embed", tap=intervention_tap(MODEL, weights(), PROMPT, (intervention,)))


@pytest.mark.parametrize("given", [Induction(), "induction", (Induction,), ({"type": "induction"},), (None,)])
def test_what_is_no_tuple_of_interventions_is_refused(given):
    with pytest.raises(InputError, match="must be a") as caught:
        check_used(given, MODEL, weights(), PROMPT)
    assert caught.value.field.startswith("interventions") and "\n" not in str(caught.value)


def test_interventions_of_labels_are_refused_for_functions_and_for_other_models(one_line):
    x = jnp.zeros((4, BATCH, 5))
    functions = FunctionPrompt(x, x[:, :, 0], jnp.ones((3, BATCH), bool), {})
    with pytest.raises(InputError, match="few-shot") as caught:
        used((Induction(),), prompt=functions)
    one_line(caught, "interventions.0", "Induction")
    assert used((Ablate(at="blocks.0.attn.hook_z", heads=(0,)),), prompt=functions).shape == (4, BATCH, 6)
    with pytest.raises(InputError, match="only a transformer"):
        used((Ablate(at="hook_embed"),), model=Recurrent(width=16))


def test_numbers_of_numpy_and_traced_numbers_are_numbers():
    head: Any = np.int64(1)
    used((Ablate(at="blocks.0.attn.hook_z", heads=(head,)), Induction(strength=np.float32(0.5))))  # pyright: ignore
    strengths = jnp.array([0.0, 1.0])
    many = jax.vmap(lambda s: answer(MODEL, weights(), PROMPT, (Induction(strength=s),)))(strengths)  # pyright: ignore
    np.testing.assert_allclose(many[1], answer(MODEL, weights(), PROMPT, (Induction(),)), rtol=1e-4, atol=1e-6)


def test_models_without_points_are_refused(one_line):
    with pytest.raises(InputError) as caught:
        check_all((Induction(),), Recurrent(), SHAPE, Prompt)
    one_line(caught, "interventions", "recurrent")
    joint = Transformer(layers=1, width=16, heads=4, pairing="joint")
    with pytest.raises(InputError, match="interleaved"):
        check_all((Forbid(),), joint, SHAPE, Prompt)
