"""Urns: what the source draws, the three predictors of a pool, and the fractions of a model's behaviour."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.special import log_softmax
from scipy.stats import chisquare

from ebbtide.analysis import pool_fractions
from ebbtide.analysis.predictions import Predictions, PromptSet
from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.pool_predictors import pool_predictors
from ebbtide.keys import Purpose, root
from ebbtide.models.transformer import Transformer
from ebbtide.sources.chains import Chains
from ebbtide.sources.functions import Functions
from ebbtide.sources.urns import Urns
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import Regression
from ebbtide.training.spec import Spec, from_json

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Urns(states=3, pool=4, seed=3), Markov(context=11)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=Transformer(layers=1, width=16, heads=1, pairing="states"),
    evaluators=TASK.evaluators(),
    keep_best=None,
)


@lru_cache
def draw(task: Markov = TASK) -> FunctionPrompt:
    key, split = root(2, Purpose.DATA), SOURCE.sizes().split()
    index = jnp.arange(2000, dtype=jnp.uint32)
    return compile_fast(lambda i: task.sample(key, i, SOURCE, SOURCE.build(), split))(index)


def symbols_of(prompt: FunctionPrompt) -> np.ndarray:
    return np.asarray(prompt.inputs).argmax(-1)


def test_all_draws_of_a_stream_are_from_one_urn_the_first_too():
    prompt = draw()
    symbols, urn = symbols_of(prompt), np.asarray(prompt.latent["chain"])
    assert chisquare(np.bincount(urn, minlength=4)).pvalue > 1e-3
    for number, logs in enumerate(np.asarray(SOURCE.build().logs, np.float64)):
        theta = np.exp(log_softmax(logs[0]))
        for draws in (symbols[0], symbols[1:], np.asarray(prompt.responses)[-1:]):
            seen = np.bincount(draws[..., urn == number].ravel(), minlength=3)
            assert chisquare(seen, theta * seen.sum()).pvalue > 1e-4


GOLDEN = {
    "pool": ["1222122222211", "2211222122222", "2010200002222", "1202022210222"],
    "prior": ["0002000000000", "1111111111111", "1011101101111", "1202122210222"],
}


@pytest.mark.parametrize("draw_from", GOLDEN)
def test_the_streams_are_pinned(draw_from):
    prompt = draw(replace(TASK, draw=draw_from))
    streams = np.concatenate([symbols_of(prompt)[:1], np.asarray(prompt.responses)])[:, :4].T
    assert ["".join(map(str, stream)) for stream in streams] == GOLDEN[draw_from]


def test_an_urn_forgets_what_was_drawn():
    prompt = draw(replace(TASK, draw="prior"))
    transitions = np.asarray(prompt.latent["transitions"])
    np.testing.assert_array_equal(transitions, np.broadcast_to(transitions[:, :1], transitions.shape))
    assert (np.asarray(prompt.latent["chain"]) == -1).all() and len(np.unique(transitions[:, 0, 0])) > 1990
    assert transitions[:, 0].mean(0) == pytest.approx(np.full(3, 1 / 3), abs=0.02)


def test_the_spec_survives_json_and_names_what_is_wrong_in_one_line():
    SPEC.check()
    assert from_json(SPEC.to_json()) == SPEC
    with pytest.raises(InputError, match=r"source.pool.*>= 0") as found:
        from_json(SPEC.to_json().decode().replace('"pool":4', '"pool":-1').encode())
    assert "\n" not in str(found.value)


def test_memory_and_counts_are_as_by_hand():
    symbols = symbols_of(draw())[:, :50]
    generalising, memorising, neither = np.exp(pool_predictors(SOURCE, replace(TASK, zipf=1.0), symbols))
    counts = np.cumsum(np.eye(3)[symbols], axis=0)
    np.testing.assert_allclose(generalising, (counts + 1) / (np.arange(1, 13)[:, None, None] + 3), atol=1e-14)
    theta = np.exp(log_softmax(np.asarray(SOURCE.build().logs[:, 0], np.float64), axis=-1))
    posterior = np.prod(theta ** counts[..., None, :], axis=-1) / np.arange(1, 5)
    posterior /= posterior.sum(-1, keepdims=True)
    np.testing.assert_allclose(memorising, posterior @ theta, atol=1e-12)
    np.testing.assert_allclose(neither, 1 / 3)


@pytest.mark.parametrize(
    ("source", "task", "line"),
    [
        (replace(SOURCE, pool=0), TASK, "source.pool = 0: must be above 0"),
        (Functions(), Regression(), "task = 'Regression': must be Markov"),
    ],
)
def test_without_a_pool_of_streams_nothing_is_memorised(source, task, line):
    with pytest.raises(InputError, match=line):
        pool_predictors(source, task, np.zeros((2, 1), int))
    with pytest.raises(InputError, match=line):
        pool_fractions.pool_losses(Spec(task=task, source=source))


def answered(source: Chains, *weights: tuple[float, float, float]) -> tuple[Predictions, np.ndarray]:
    """A member that gives mixtures of the predictors' answers at its checkpoints, up to a constant, and the answers."""
    spec, asked = replace(SPEC, source=source), PromptSet(draw(replace(TASK, draw="prior")))
    exact = pool_predictors(source, TASK, asked.inputs.argmax(-1))
    outputs = np.log(np.tensordot(np.asarray(weights), np.exp(exact), axes=1)) + 2
    return Predictions(np.arange(len(weights)), outputs, asked, spec), exact


WEIGHTS = ((0.0, 0.0, 1.0), (0.2, 0.1, 0.7), (0.6, 0.4, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@pytest.mark.parametrize("source", [SOURCE, Chains(states=3, pool=4, seed=3)], ids=["urns", "chains"])
def test_a_mixture_of_the_predictors_gets_its_own_weights_back(source):
    found = pool_fractions.measure_fractions(answered(source, *WEIGHTS)[0])
    np.testing.assert_allclose(found, WEIGHTS, atol=2e-3)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)


def test_the_relative_distance_is_0_at_counts_and_1_at_memory():
    asked, exact = answered(SOURCE, (1, 0, 0), (0.5, 0.5, 0), (0, 1, 0))
    course = pool_fractions.measure_course(asked)
    found = course.relative_distance()
    assert found[0] == pytest.approx(0, abs=1e-9) and found[2] == pytest.approx(1, abs=1e-9)
    assert 0.25 < found[1] < 0.75
    np.testing.assert_allclose([course.nearness[0, 0], course.nearness[2, 1]], 0, atol=1e-12)
    p, q = np.exp(exact[0]), np.exp(exact[1])
    by_hand = ((p - q) * (np.log(p) - np.log(q))).sum(-1).mean() / 2
    assert course.between == pytest.approx(by_hand, rel=1e-9)
    assert course.truth[0] < course.truth[1] < course.truth[2], "on urns of no pool counts are best"


def test_on_its_own_pool_memory_has_the_lowest_loss():
    generalising, memorising, neither = pool_fractions.pool_losses(SPEC, prompts=500)
    assert memorising + 0.01 < generalising < neither == pytest.approx(np.log(3))
    assert not np.allclose(pool_fractions.pool_losses(replace(SPEC, source=replace(SOURCE, seed=4)), 500), generalising)
