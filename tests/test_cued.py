"""Cues and responses of a hidden concept: what the task draws, and that its optimum is the Bayesian model average."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.concepts import concept_average
from ebbtide.keys import Purpose, root
from ebbtide.models.transformer import Transformer
from ebbtide.sources.concepts import Concepts
from ebbtide.sources.functions import Functions
from ebbtide.tasks.cued import Cued
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Spec, from_json

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Concepts(concepts=6, cues=3, responses=4), Cued(context=8)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=Transformer(layers=2, width=16, heads=2),
    optimizer=Adam(lr=3e-3),
    batch=32,
    sequences=9_600,
    evaluators=TASK.evaluators(),
    evaluation_sequences=300,
)


@lru_cache
def draw(task: Cued = TASK, n: int = 4000) -> FunctionPrompt:
    key, split = root(2, Purpose.DATA), SOURCE.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def table_of(prompt: FunctionPrompt, concept: int, rows: slice = slice(None)) -> np.ndarray:
    """How often each response follows each cue in the prompts of a concept."""
    mine = np.asarray(prompt.latent["concept"]) == concept
    cues, said = np.asarray(prompt.inputs)[rows][:, mine].argmax(-1), np.asarray(prompt.responses)[rows][:, mine]
    counts = np.zeros((3, 4))
    np.add.at(counts, (cues.ravel(), said.ravel()), 1)
    return counts / counts.sum(1, keepdims=True)


def test_tables_are_distributions_from_a_dirichlet():
    logs = np.asarray(Concepts(concepts=3000, cues=2, responses=4, concentration=0.6).build().logs, np.float64)
    np.testing.assert_allclose(np.exp(logs).sum(-1), 1, rtol=1e-5)
    expected = 0.25 * 0.75 / (4 * 0.6 + 1)  # variance of a component
    assert np.exp(logs).var(axis=0) == pytest.approx(np.full((2, 4), expected), rel=0.1)


def test_responses_follow_the_table_of_the_concept():
    prompt, tables = draw(), np.exp(np.asarray(SOURCE.build().logs))
    for concept in range(6):
        assert table_of(prompt, concept) == pytest.approx(tables[concept], abs=0.06)
    assert prompt.inputs.sum(-1) == pytest.approx(np.ones((9, 4000)))


def test_wrong_responses_tell_nothing_but_the_query_is_answered():
    prompt, tables = draw(replace(TASK, change="wrong")), np.exp(np.asarray(SOURCE.build().logs))
    assert table_of(prompt, 2, slice(0, 8)) == pytest.approx(np.full((3, 4), 0.25), abs=0.05)
    assert table_of(prompt, 2, slice(8, 9)) == pytest.approx(tables[2], abs=0.12)


def test_a_switch_is_to_another_concept_in_the_middle():
    prompt, tables = draw(replace(TASK, change="switch")), np.exp(np.asarray(SOURCE.build().logs))
    assert table_of(prompt, 2, slice(4, 9)) == pytest.approx(tables[2], abs=0.07)
    others = tables[[0, 1, 3, 4, 5]].mean(0)
    assert table_of(prompt, 2, slice(0, 4)) == pytest.approx(others, abs=0.07)


def test_fresh_concepts_are_of_no_pool():
    fresh = draw(replace(TASK, draw="prior"))
    assert (np.asarray(fresh.latent["concept"]) == -1).all()


@pytest.mark.thorough
def test_no_model_does_better_than_the_average_over_concepts():
    """The average's own log-loss is its expected loss under the truth; a trained model lies above and comes near."""
    prompt, logs = draw(), np.asarray(SOURCE.build().logs, np.float64)
    cues = np.asarray(prompt.inputs).argmax(-1)
    found = concept_average(np.moveaxis(logs[:, cues], 0, 2), np.asarray(prompt.responses))
    said = np.take_along_axis(found.predictive, np.asarray(prompt.responses)[..., None], -1)[..., 0]
    best = -said.mean()
    engine = Engine(SPEC)
    state, suite = engine.init(0), engine.suite(0)
    before = np.asarray(engine.measure(state.params, suite))[0, 0, 0]
    state = engine.train(state, engine.data(0), jnp.uint32(300))
    after = np.asarray(engine.measure(state.params, suite))[:, 0, 0]
    assert best - 0.02 < after[0] < before and after[0] - best < 0.6 * (before - best)


def test_specs():
    assert from_json(SPEC.to_json()) == SPEC and SPEC.shape() == {"context": 8, "dim": 3, "labels": 4}
    for field, spec in (
        ("source", replace(SPEC, source=Functions())),
        ("source.concepts", replace(SPEC, source=replace(SOURCE, concepts=1))),
        ("evaluators", replace(SPEC, evaluators=("train", "noisy"))),
    ):
        with pytest.raises(InputError, match=rf"^{field} = "):
            spec.check()
