"""Regression in context: what the task draws, what the models may see, and that a run of it is a run like any other."""

import os
import signal
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError, Interrupted
from ebbtide.evaluation.metrics import measure
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.interventions import Induction, PreviousToken
from ebbtide.models.positions import Learned, NoPositions
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder
from ebbtide.sources.functions import Functions
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import SHIFTS, Regression
from ebbtide.training import driver
from ebbtide.training.driver import resume, train
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec, from_json

pytestmark = pytest.mark.usefixtures("quick_compile")

TASK, SOURCE = Regression(context=6), Functions(dim=4)
SPEC = Spec(
    task=TASK,
    source=replace(SOURCE, pool=4),
    model=Transformer(layers=2, width=16, heads=2),
    optimizer=Adam(lr=3e-3),
    batch=32,
    sequences=9_600,
    members=2,
    evaluators=("train", "prior"),
    evaluation_sequences=400,
    schedule=Schedule(evaluations=4, checkpoints=2),
)


@lru_cache
def draw(task: Regression = TASK, source: Functions = SOURCE, n: int = 2000) -> FunctionPrompt:
    split = source.sizes().split()
    key = root(3, Purpose.DATA)
    return compile_fast(lambda i: task.sample(key, i, source, source.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def test_responses_are_the_weights_answer_and_noise():
    prompt = draw()
    clean = jnp.einsum("sbd,bd->sb", prompt.inputs, prompt.latent["weights"])
    assert float(clean.var()) == pytest.approx(1.0, abs=0.08)  # scale 1 / sqrt(dim)
    assert float((prompt.responses - clean).std()) == pytest.approx(0.5, abs=0.01)
    assert float(prompt.inputs.std()) == pytest.approx(1.0, abs=0.01)


def test_a_pool_is_all_that_training_draws_and_prior_draws_none_of_it():
    source = Functions(dim=4, pool=5)
    pool = np.asarray(source.build().pool)
    pooled, fresh = draw(source=source), draw(replace(TASK, draw="prior"), source)
    members = np.asarray(pooled.latent["member"])
    assert set(members) == set(range(5))
    np.testing.assert_array_equal(np.asarray(pooled.latent["weights"]), pool[members])
    assert (np.asarray(fresh.latent["member"]) == -1).all()
    assert len(np.unique(np.asarray(fresh.latent["weights"]), axis=0)) == 2000


def test_sparse_weights():
    weights = np.asarray(draw(source=Functions(dim=8, nonzero=3)).latent["weights"])
    assert ((weights != 0).sum(1) == 3).all()
    assert (weights**2).sum(1).mean() == pytest.approx(1.0, abs=0.08)
    assert (weights != 0).mean(0) == pytest.approx(np.full(8, 3 / 8), abs=0.06)


def test_representations_keep_their_width_and_are_orthogonal_layers():
    source = Functions(dim=5, layers=2, representations=3)
    bank = source.build()
    eye = np.broadcast_to(np.eye(5), (3, 2, 5, 5))
    np.testing.assert_allclose(np.asarray(bank.maps @ jnp.swapaxes(bank.maps, -1, -2)), eye, atol=1e-5)
    prompt = draw(source=source, n=600)
    x, which = np.asarray(prompt.inputs), np.asarray(prompt.latent["representation"])
    assert set(which) == {0, 1, 2}
    z = x
    for layer in range(2):
        z = np.einsum("bij,sbj->sbi", np.asarray(bank.maps)[which, layer], z)
        z = np.where(z > 0, z, 0.01 * z)
    clean = np.einsum("sbd,bd->sb", z, np.asarray(prompt.latent["weights"]))
    assert float((np.asarray(prompt.responses) - clean).std()) == pytest.approx(0.5, abs=0.02)


def test_noise_levels_are_mixed_evenly():
    prompt = draw(replace(TASK, noise=(0.0, 2.0)))
    level = np.asarray(prompt.latent["level"])
    rest = np.asarray(prompt.responses - jnp.einsum("sbd,bd->sb", prompt.inputs, prompt.latent["weights"]))
    assert level.mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(rest[:, level == 0]).max() < 1e-5 and rest[:, level == 1].std() == pytest.approx(2.0, abs=0.05)


def test_signs_are_classes():
    prompt = draw(replace(TASK, link="sign", noise=(0.0,)))
    clean = jnp.einsum("sbd,bd->sb", prompt.inputs, prompt.latent["weights"])
    np.testing.assert_array_equal(np.asarray(prompt.responses), np.asarray(clean > 0))
    assert prompt.responses.dtype == jnp.int32


def test_steps_are_numbers_and_mixed_prompts_are_one_or_the_other():
    linear, step, mixed = (np.asarray(draw(replace(TASK, link=link)).responses) for link in ("linear", "step", "mixed"))
    np.testing.assert_array_equal(step, np.where(linear > 0, 1.0, -1.0))
    steps = (np.abs(mixed) == 1).all(0)
    np.testing.assert_array_equal(mixed, np.where(steps, step, linear))
    assert steps.mean() == pytest.approx(0.5, abs=0.05)


def test_examples_do_not_depend_on_the_batch():
    some = TASK.sample(
        root(3, Purpose.DATA), jnp.asarray([7], jnp.uint32), SOURCE, SOURCE.build(), SOURCE.sizes().split()
    )
    np.testing.assert_allclose(np.asarray(draw().inputs[:, 7]), np.asarray(some.inputs[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(draw().responses[:, 7]), np.asarray(some.responses[:, 0]), rtol=1e-4)


def test_random_lengths_are_uniform():
    present = np.asarray(draw(replace(TASK, lengths="random")).present)
    assert np.bincount(present.sum(0), minlength=7)[1:] == pytest.approx(np.full(6, 2000 / 6), abs=70)
    assert (np.diff(present.astype(int), axis=0) <= 0).all()  # the first pairs are those that are there


def test_shifts_are_what_they_say():
    def inputs(shift: str) -> np.ndarray:
        source = Functions(dim=8)
        return np.asarray(draw(replace(TASK, shift=shift), source).inputs)  # pyright: ignore

    plain = inputs("none")
    for same_power in ("skewed", "subspace", "orthants", "sorted"):
        assert (inputs(same_power) ** 2).sum(-1).mean() == pytest.approx(8.0, rel=0.05)
    np.testing.assert_allclose(inputs("shrunk"), plain / 2, rtol=1e-6)
    np.testing.assert_allclose(inputs("stretched"), plain * 2, rtol=1e-6)
    assert np.linalg.matrix_rank(inputs("subspace")[:, 0], tol=1e-4) == 4
    orthants = inputs("orthants")
    assert (np.sign(orthants[:-1]) == np.sign(orthants[:1])).all()
    assert not (np.sign(orthants[-1]) == np.sign(orthants[0])).all()
    orthogonal = inputs("orthogonal")
    assert np.abs(np.einsum("sbd,bd->sb", orthogonal[:-1], orthogonal[-1])).max() < 1e-3
    assert (orthogonal[-1] ** 2).sum(-1) == pytest.approx(np.full(2000, 8.0), rel=1e-3)
    repeated = inputs("repeated")
    assert (repeated[:-1] == repeated[-1]).all(-1).any(0).all()
    sorted_ = np.asarray(draw(replace(TASK, shift="sorted")).responses)[:-1]
    assert (np.diff(sorted_, axis=0) >= 0).all()
    noisy = draw(replace(TASK, shift="noisy"))
    rest = np.asarray(noisy.responses - jnp.einsum("sbd,bd->sb", noisy.inputs, noisy.latent["weights"]))
    assert rest.std() == pytest.approx(1.0, abs=0.02)


def test_every_evaluator_is_a_task_of_its_own():
    assert TASK.evaluators() == ("train", "prior", *SHIFTS)
    tasks = [replace(TASK, lengths="random").variant(name) for name in TASK.evaluators()]
    assert len(set(tasks)) == len(tasks) and all(one.lengths == "full" for one in tasks)
    with pytest.raises(InputError, match=r"evaluators = 'skewd': .*did you mean 'skewed'"):
        TASK.evaluator("skewd", SOURCE)


def test_metrics_by_hand():
    prompt = FunctionPrompt(jnp.zeros((2, 2, 1)), jnp.asarray([[1.0, 2.0], [3.0, 1.0]]), jnp.ones((1, 2), bool), {})
    outputs = jnp.asarray([[[0.0], [0.0]], [[3.0], [0.0]]])
    loss, query, explained = measure(TASK.metrics, outputs, prompt)
    assert loss.tolist() == [0.5, 2.5] and query.tolist() == [0.0, 1.0]
    np.testing.assert_allclose(np.asarray(explained), [1.0, 1 - 1 / 5], rtol=1e-6)
    labels = prompt._replace(responses=jnp.asarray([[0, 1], [1, 0]]))
    _, query, explained = measure(TASK.metrics, jnp.zeros((2, 2, 2)), labels)
    np.testing.assert_allclose(np.asarray(query), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(explained), 0, atol=1e-6)


INTERLEAVED = {
    "transformer": Transformer(layers=2, width=16, heads=2),
    "relu": Transformer(layers=2, width=16, heads=2, attention="relu", norm="post", activation="relu"),
    "linear": Transformer(layers=2, width=16, heads=2, attention="linear", norm="none", mlp_ratio=0),
    "lstm": Recurrent(layers=2, width=16),
}


def outputs(model: Transformer | Recurrent, prompt: FunctionPrompt) -> np.ndarray:
    params = model.init(jax.random.key(1), context=6, dim=4, labels=0)
    return np.asarray(model.apply(params, prompt))


@pytest.mark.parametrize("name", INTERLEAVED)
def test_an_answer_depends_on_what_came_before_alone(name):
    model, prompt = INTERLEAVED[name], draw(n=5)
    before = outputs(model, prompt)
    assert before.shape == (7, 5, 1)
    changed = outputs(model, prompt._replace(responses=prompt.responses.at[3].add(1.0)))
    np.testing.assert_array_equal(before[:4], changed[:4])  # its own response is not seen
    assert (np.abs(before[4:] - changed[4:]) > 1e-7).all()
    moved = outputs(model, prompt._replace(inputs=prompt.inputs.at[3].add(1.0)))
    np.testing.assert_array_equal(before[:3], moved[:3])
    assert (np.abs(before[3:] - moved[3:]) > 1e-7).all()


@pytest.mark.parametrize("attention", ["softmax", "relu", "linear"])
def test_without_mask_and_positions_the_order_of_pairs_does_not_matter(attention):
    model = Transformer(
        layers=3, width=16, heads=2, attention=attention, mask="none", positions=NoPositions(), pairing="joint"
    )
    prompt, order = draw(n=5), jnp.asarray([3, 1, 0, 5, 2, 4])
    turned = prompt._replace(
        inputs=prompt.inputs.at[:6].set(prompt.inputs[order]),
        responses=prompt.responses.at[:6].set(prompt.responses[order]),
    )
    before = outputs(model, prompt)
    assert before.shape == (1, 5, 1)
    np.testing.assert_allclose(before, outputs(model, turned), rtol=1e-4, atol=1e-5)
    causal = replace(model, mask="causal")
    assert np.abs(outputs(causal, prompt) - outputs(causal, turned)).max() > 1e-3


@pytest.mark.parametrize("attention", ["softmax", "relu", "linear"])
def test_pairs_that_are_not_there_are_not_seen(attention):
    """A prompt whose last pairs are masked is answered like a shorter one."""
    model = Transformer(
        layers=2, width=16, heads=2, attention=attention, mask="none", positions=NoPositions(), pairing="joint"
    )
    prompt = draw(n=5)
    masked = prompt._replace(present=prompt.present.at[4:].set(False))
    keep = jnp.asarray([0, 1, 2, 3, 6])
    short = prompt._replace(inputs=prompt.inputs[keep], responses=prompt.responses[keep], present=prompt.present[:4])
    np.testing.assert_allclose(outputs(model, masked), outputs(model, short), rtol=1e-4, atol=1e-5)


REFUSED = [
    ("source", replace(SPEC, source=Gaussian())),
    ("source", replace(SPEC, task=Spec().task, evaluators=("train",))),
    ("model.mask", replace(SPEC, model=Transformer(mask="none"))),
    ("task.lengths", replace(SPEC, task=replace(TASK, lengths="random"))),
    ("task.noise", replace(SPEC, task=replace(TASK, noise=()))),
    ("task.shift", replace(SPEC, task=replace(TASK, shift="orthogonal"))),
    ("task.shift", replace(SPEC, evaluators=("train", "orthogonal"))),
    ("evaluators", replace(SPEC, evaluators=("train", "icl"))),
    ("source.nonzero", replace(SPEC, source=Functions(dim=4, nonzero=5))),
    ("source.representations", replace(SPEC, source=Functions(dim=4, representations=2))),
    ("interventions.0", replace(SPEC, interventions=(Induction(layer=1),))),
    ("interventions.0", replace(SPEC, interventions=(PreviousToken(rows="labels"),))),
]


@pytest.mark.parametrize(("field", "spec"), REFUSED)
def test_what_does_not_go_together_is_refused_in_one_line(field, spec):
    with pytest.raises(InputError, match=rf"^{field} = ") as caught:
        spec.check()
    assert "\n" not in str(caught.value)


def test_a_spec_of_functions_is_text_and_back():
    assert from_json(SPEC.to_json()) == SPEC
    assert SPEC.shape() == {"context": 6, "dim": 4, "labels": 0}
    assert replace(SPEC, task=replace(TASK, link="sign")).shape()["labels"] == 2


@pytest.mark.parametrize(
    "link",
    ["linear", pytest.param("sign", marks=pytest.mark.thorough), pytest.param("mixed", marks=pytest.mark.thorough)],
)
def test_training_learns_the_functions(link):
    engine = Engine(replace(SPEC, task=replace(TASK, link=link, noise=(0.1,))))
    state, data, suite = engine.init(0), engine.data(0), engine.suite(0)
    before = np.asarray(engine.measure(state.params, suite))
    assert before.shape == (2, len(TASK.metrics), 2)
    state = engine.train(state, data, jnp.uint32(300))
    after = np.asarray(engine.measure(state.params, suite))
    assert after[0, 0, 0] < 0.6 * before[0, 0, 0] and after[0, 2, 0] > 0.3
    assert after[0, 2, 0] > after[1, 2, 0] + 0.3  # four functions are learned sooner than all


@pytest.mark.thorough
def test_a_run_of_functions_is_interrupted_and_resumed_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "SLICE_SECONDS", 0.05)
    whole = train(SPEC, tmp_path / "whole", processes=0)
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "run", processes=0, report=lambda progress: os.kill(os.getpid(), signal.SIGINT))
    assert 0 < RunFolder(tmp_path / "run").sequences() < SPEC.sequences
    run = resume(RunFolder(tmp_path / "run"), processes=0)
    assert run.header.metrics == list(TASK.metrics) and run.chance() == {"train": 0.0, "prior": 0.0}
    curves = run.metrics()
    assert curves["prior"].shape == (2, 4) and np.isfinite(curves["train"]).all()
    assert (curves["train_loss"][:, -1] < curves["train_loss"][:, 1]).all()
    for name, curve in whole.metrics().items():
        np.testing.assert_array_equal(curve, curves[name])


def test_learned_positions_are_added_to_both_tokens_of_a_pair():
    model = Transformer(layers=1, width=16, heads=2, positions=Learned())
    params = model.init(jax.random.key(0), context=6, dim=4, labels=0)
    assert params["position"]["table"].shape == (13, 16) and params["label"]["table"].shape == (1, 16)
