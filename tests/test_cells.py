"""Responses of several cells: the loss, the metrics, the two read-outs, and the models that read streams."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.compile import compile_fast
from ebbtide.evaluation.evaluators import Suite
from ebbtide.evaluation.metrics import TABLE, measure
from ebbtide.keys import Purpose, root
from ebbtide.models.cells import CellReadout
from ebbtide.models.model import Model, mean_loss, response_losses
from ebbtide.models.positions import NoPositions
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.sources.words import Words
from ebbtide.tasks.parsing import Parsing
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Spec

pytestmark = pytest.mark.usefixtures("quick_compile")

TASK, SOURCE = Parsing(context=12), Words(types=2, depth=3)
CELLS, VALUES = 4, 3
FORCED, LATENT = (CellReadout(decomposition, cells=CELLS) for decomposition in ("forced", "latent"))
LSTM = Recurrent(layers=1, width=16, positions=NoPositions(), pairing="states", readout=LATENT)
CAUSAL = Transformer(layers=2, width=16, heads=2, pairing="states", readout=LATENT)
WHOLE = replace(CAUSAL, pairing="whole", mask="none")
MODELS: dict[str, Model] = {"lstm": LSTM, "causal": CAUSAL, "whole": WHOLE}
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=LSTM,
    optimizer=Adam(lr=1e-2),
    batch=64,
    sequences=64_000,
    evaluators=("train", "held_out"),
    evaluation_sequences=200,
    keep_best=None,
)


@lru_cache
def draw(task: Parsing = TASK, n: int = 50) -> FunctionPrompt:
    key, split = root(5, Purpose.DATA), SOURCE.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def params_of(model: Model) -> Any:
    return compile_fast(lambda key: model.init(key, context=12, dim=6, labels=CELLS * VALUES))(root(0, Purpose.INIT))


def random_outputs(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(13, 50, CELLS * VALUES)).astype(np.float32)


def test_the_loss_is_the_mean_cross_entropy_of_the_cells():
    prompt, outputs = draw(), random_outputs()
    logits = outputs.reshape(13, 50, CELLS, VALUES).astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_hand = -np.take_along_axis(logs, np.asarray(prompt.responses)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(response_losses(jnp.asarray(outputs), prompt), by_hand.mean(-1), rtol=1e-5)
    assert float(mean_loss(jnp.asarray(outputs), prompt)) == pytest.approx(by_hand.mean(), rel=1e-5)


def test_the_metrics_are_those_of_their_definitions():
    prompt, outputs = draw(), random_outputs()
    said, right = outputs.reshape(13, 50, CELLS, VALUES).argmax(-1), np.asarray(prompt.responses)
    found = dict(zip(TASK.metrics, np.asarray(measure(TASK.metrics, jnp.asarray(outputs), prompt)), strict=True))
    for i, letters in enumerate(np.asarray(prompt.latent["letters"])):
        agree, stack = said[: letters + 1, i] == right[: letters + 1, i], right[: letters + 1, i, 1:] > 0
        assert found["configuration"][i] == pytest.approx(agree.all(-1).mean())
        assert found["cell_accuracy"][i] == pytest.approx(agree[:, 1:][stack].mean())
    perfect = 20 * np.eye(VALUES)[right].reshape(13, 50, -1)
    np.testing.assert_allclose(measure(TASK.metrics, jnp.asarray(perfect), prompt)[1:], 1)
    outputs[3, 7] = np.nan
    assert np.isnan(measure(TASK.metrics, jnp.asarray(outputs), prompt)[:, 7]).all()


def test_valid_answers_are_counted_within_the_word():
    task = replace(TASK, target="symbol")
    prompt = draw(task)
    valid = np.moveaxis(np.asarray(prompt.latent["valid"]), 1, 0)
    perfect = measure(task.metrics, jnp.asarray(20.0 * valid), prompt)
    np.testing.assert_allclose(perfect[1], 1)
    wrong = measure(task.metrics, jnp.asarray(-20.0 * valid), prompt)
    np.testing.assert_allclose(wrong[1], 0)


@pytest.mark.parametrize("task", [TASK, replace(TASK, target="symbol")], ids=lambda task: task.target)
def test_a_uniform_guess_scores_the_chance_level(task):
    prompt, outputs = draw(task, 2000), task.outputs(SOURCE)
    guess = np.random.default_rng(1).normal(size=(13, 2000, outputs)).astype(np.float32)
    means = np.asarray(measure(task.metrics, jnp.asarray(guess), prompt)).mean(1)
    for name, mean in list(zip(task.metrics, means, strict=True))[1:]:
        assert mean == pytest.approx(TABLE[name].chance(prompt, outputs, 1), abs=0.01)
    flat = measure(("loss",), jnp.zeros((13, 2000, outputs)), prompt)
    assert float(flat.mean()) == pytest.approx(TABLE["loss"].chance(prompt, outputs, 1), rel=1e-5)


def test_forced_cells_are_read_from_their_own_segments_by_one_head():
    params = FORCED.init(root(0, Purpose.INIT), 16, CELLS * VALUES)
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)

    def read(x: np.ndarray) -> np.ndarray:
        return np.asarray(FORCED.apply(params, jnp.asarray(x))).reshape(5, CELLS, VALUES)

    before = read(x)
    for cell in range(CELLS):
        moved = x.copy()
        moved[:, 4 * cell : 4 * cell + 4] += 1
        changed = (read(moved) != before).any((0, 2))
        np.testing.assert_array_equal(changed, np.arange(CELLS) == cell)
    turned = np.concatenate([x[:, :4], x[:, 8:12], x[:, 4:8], x[:, 12:]], axis=1)
    np.testing.assert_allclose(read(turned)[:, [0, 2, 1, 3]], before, rtol=1e-5)
    swapped = np.concatenate([x[:, 4:8], x[:, :4], x[:, 8:]], axis=1)
    assert not np.allclose(read(swapped)[:, 0], before[:, 1]), "the state has a head of its own"


def test_latent_cells_are_read_from_the_whole_state_by_heads_of_their_own():
    params = LATENT.init(root(0, Purpose.INIT), 16, CELLS * VALUES)
    x = np.random.default_rng(0).normal(size=(5, 16))
    found = np.asarray(LATENT.apply(params, jnp.asarray(x, jnp.float32))).reshape(5, CELLS, VALUES)
    for cell in range(CELLS):
        head = params["state"] if cell == 0 else jax.tree.map(lambda leaf, at=cell - 1: leaf[at], params["stack"])
        w = jax.tree.map(np.asarray, head)
        by_hand = 1 / (1 + np.exp(-(x @ w["w_in"] + w["b_in"]))) @ w["w_out"] + w["b_out"]
        np.testing.assert_allclose(found[:, cell], by_hand, atol=1e-5)


@pytest.mark.parametrize("readout", [FORCED, LATENT], ids=lambda one: one.decomposition)
@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_sizes_are_those_of_the_parameters(model, readout):
    model = replace(model, readout=readout)
    params = model.init(root(0, Purpose.INIT), context=12, dim=6, labels=CELLS * VALUES)
    heads = sum(np.prod(head[name].shape) for head in params["readout"].values() for name in ("w_in", "w_out"))
    assert readout.weights(16, CELLS * VALUES) == heads
    assert model.weights(dim=6, labels=CELLS * VALUES) <= model.parameters(context=12, dim=6, labels=CELLS * VALUES)
    assert model.tokens(12) == 13 and "label" not in params


@pytest.mark.parametrize("name", MODELS)
def test_only_the_whole_model_sees_later_symbols(name):
    model, prompt = MODELS[name], draw()
    params = params_of(model)
    answer = compile_fast(model.apply)
    before = np.asarray(answer(params, prompt))
    assert before.shape == (13, 50, CELLS * VALUES)
    after = np.asarray(answer(params, prompt._replace(inputs=prompt.inputs.at[8:].set(prompt.inputs[8:, ::-1]))))
    differs = np.abs(after - before).max((1, 2)) > 1e-6
    assert differs[8:].all() and differs[:8].all() == (name == "whole") and differs[:8].any() == (name == "whole")


def test_a_model_without_a_readout_of_cells_is_stored_as_before():
    for model in (Transformer(), Recurrent()):
        assert b"readout" not in msgspec.json.encode(model)
    assert b'"readout":{"decomposition":"latent"' in msgspec.json.encode(LSTM)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one == "causal" else pytest.mark.thorough) for one in MODELS]
)
def test_models_learn_the_stack(name):
    spec = replace(SPEC, model=MODELS[name], optimizer=Adam(lr=5e-3))
    spec.check()
    engine = Engine(spec)
    state = engine.train(engine.init(0), engine.data(0), jnp.uint32(300))
    suite: Suite = engine.suite(0)
    scores = np.asarray(engine.measure(state.params, suite))[:, :, 0]
    chance = suite.chance(CELLS * VALUES)
    assert list(chance.values()) == pytest.approx([1 / 3, 1 / 3])
    assert (scores[:, TASK.metrics.index("cell_accuracy")] > 0.8).all()
