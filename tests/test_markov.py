"""Streams of a Markov chain: what the task draws, that it is served as other streams are, and the exact predictors."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.special import log_softmax
from scipy.stats import chisquare

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.chains import (
    frequency_log_probs,
    pool_log_posterior,
    retrieval_log_probs,
    row_log_probs,
    stationary,
    true_log_probs,
)
from ebbtide.evaluation.concepts import concept_average, cue_frequencies
from ebbtide.kernel.native import unsupported_reason
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.intervene import intervention_tap
from ebbtide.mechanisms.interventions import PreviousToken
from ebbtide.mechanisms.taps import record
from ebbtide.models.transformer import Transformer
from ebbtide.sources.chains import Chains
from ebbtide.sources.functions import Functions
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Spec, from_json

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Chains(states=3, pool=4, seed=3), Markov(context=11)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=Transformer(layers=2, width=16, heads=2, pairing="states"),
    optimizer=Adam(lr=3e-3),
    batch=32,
    sequences=9_600,
    evaluators=TASK.evaluators(),
    evaluation_sequences=300,
    keep_best=None,
)


@lru_cache
def draw(task: Markov = TASK, source: Chains = SOURCE, n: int = 3000) -> FunctionPrompt:
    key, split = root(2, Purpose.DATA), source.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, source, source.build(), split))(jnp.arange(n, dtype=jnp.uint32))


LONG = (Markov(context=200), replace(SOURCE, pool=0), 300)


def symbols_of(prompt: FunctionPrompt, n: int | None = None) -> np.ndarray:
    """The symbols of the first n streams, of all unless given."""
    return np.asarray(prompt.inputs)[:, :n].argmax(-1)


def pool_logs(source: Chains = SOURCE) -> np.ndarray:
    """log T of the pool, normalised in float64."""
    return log_softmax(np.asarray(source.build().logs, np.float64), axis=-1)


def transitions_seen(prompt: FunctionPrompt, mine: np.ndarray, states: int = 3) -> np.ndarray:
    counts = np.zeros((states, states))
    np.add.at(counts, (symbols_of(prompt)[:, mine].ravel(), np.asarray(prompt.responses)[:, mine].ravel()), 1)
    return counts


@pytest.mark.parametrize("concentration", [1.0, 0.4])
def test_rows_are_distributions_from_a_dirichlet(concentration):
    logs = np.asarray(Chains(states=4, pool=2000, concentration=concentration).build().logs, np.float64)
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(np.exp(logs).sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(logs).var(axis=0), np.full((4, 4), 3 / 16 / (4 * concentration + 1)), rtol=0.15)


def test_a_stream_is_of_one_chain_of_the_pool_and_begins_anywhere():
    prompt = draw()
    np.testing.assert_array_equal(symbols_of(prompt)[1:], np.asarray(prompt.responses)[:-1])
    assert chisquare(np.bincount(symbols_of(prompt)[0], minlength=3)).pvalue > 1e-3
    chain = np.asarray(prompt.latent["chain"])
    assert chisquare(np.bincount(chain, minlength=4)).pvalue > 1e-3
    for c, logs in enumerate(pool_logs()):
        seen = transitions_seen(prompt, chain == c)
        for row, expected in zip(seen, np.exp(logs), strict=True):
            assert chisquare(row, expected * row.sum()).pvalue > 1e-4
        np.testing.assert_allclose(np.asarray(prompt.latent["transitions"])[chain == c][0], np.exp(logs), rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "source"), [(TASK, replace(SOURCE, pool=0)), (replace(TASK, draw="prior"), SOURCE)], ids=["none", "prior"]
)
def test_without_a_pool_every_stream_has_a_chain_of_its_own(task, source):
    prompt = draw(task, source)
    assert (np.asarray(prompt.latent["chain"]) == -1).all()
    transitions = np.asarray(prompt.latent["transitions"])
    assert len(np.unique(transitions[:, 0, 0])) > 2990
    assert transitions.mean(0) == pytest.approx(np.full((3, 3), 1 / 3), abs=0.02)
    own = np.take_along_axis(transitions[None], symbols_of(prompt)[:, :, None, None], axis=2)[:, :, 0]
    expected = np.take_along_axis(own, np.asarray(prompt.responses)[..., None], axis=-1).mean()
    assert expected == pytest.approx(1 / 2, abs=0.01)  # E[sum of squares] of a Dirichlet row of 3 is 2 / (3 + 1)


def test_a_stream_depends_on_its_number_alone():
    whole, key, split = draw(), root(2, Purpose.DATA), SOURCE.sizes().split()
    some = compile_fast(lambda i: TASK.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.asarray([7, 3], jnp.uint32))
    np.testing.assert_array_equal(whole.responses[:, jnp.asarray([7, 3])], some.responses)


GOLDEN = {
    "pool": ["1212121212120", "1211212121212", "0010200002121", "1002110210211"],
    "prior": ["1212112111100", "1010121012121", "0010101001010", "1102022100222"],
}


@pytest.mark.parametrize("draw_from", GOLDEN)
def test_the_streams_are_pinned(draw_from):
    prompt = draw(replace(TASK, draw=draw_from))
    streams = np.concatenate([symbols_of(prompt)[:1], np.asarray(prompt.responses)])[:, :4].T
    assert ["".join(map(str, stream)) for stream in streams] == GOLDEN[draw_from]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": Functions()}, r"source = 'functions': must be chains for the task markov"),
        ({"model": Transformer()}, r"model.pairing = 'interleaved': must be states for the task markov"),
        ({"task": Dynamics(), "evaluators": ("train",)}, r"source = 'chains': must be functions"),
        ({"evaluators": ("train", "fresh")}, "must be one of train, prior"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, line):
    with pytest.raises(InputError, match=line) as found:
        replace(SPEC, **changes).check()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ('"states":3', '"states":1', r"source.states.*>= 2"),
        ('"pool":4', '"pool":-1', r"source.pool.*>= 0"),
        ('"concentration":1.0', '"concentration":0.0', r"source.concentration.*> 0"),
        ('"draw":"pool"', '"draw":"fresh"', r"task.draw"),
        ('"context":11', '"context":0', r"task.context.*>= 1"),
    ],
)
def test_a_hostile_field_is_named_in_one_line(before, after, line):
    text = SPEC.to_json().decode()
    assert before in text
    with pytest.raises(InputError, match=line) as found:
        from_json(text.replace(before, after).encode())
    assert "\n" not in str(found.value)


def test_the_spec_survives_json_and_the_kernel_serves_it():
    SPEC.check()
    assert from_json(SPEC.to_json()) == SPEC
    assert SPEC.shape() == {"context": 11, "dim": 3, "labels": 3}
    assert unsupported_reason(SPEC.model, {"context": 11, "dim": 3, "labels": 3}) is None


@pytest.mark.thorough
def test_training_comes_near_to_the_pool_and_not_below_it():
    """A large pool of prompts: the model's loss lies between that of the best predictor and the uniform one's."""
    prompt = draw()
    best = -np.take_along_axis(
        retrieval_log_probs(symbols_of(prompt), pool_logs()), np.asarray(prompt.responses)[..., None], -1
    ).mean()
    measured = compile_fast(SPEC.model.loss)
    engine = Engine(SPEC)
    state = engine.train(engine.init(0), engine.data(0), jnp.uint32(300))
    after = float(measured(state.params, prompt))
    assert best < after < best + 0.5 * (np.log(3) - best)


def test_the_best_predictor_of_a_pool_is_the_average_over_its_chains():
    """Two derivations: counts of transitions here, likelihoods slot by slot in the average over concepts."""
    logs = pool_logs()
    symbols, responses = symbols_of(draw(), 200), np.asarray(draw().responses)[:, :200]
    by_concepts = concept_average(np.moveaxis(logs[:, symbols], 0, 2), responses)
    np.testing.assert_allclose(retrieval_log_probs(symbols, logs), by_concepts.predictive, atol=1e-12)
    np.testing.assert_allclose(pool_log_posterior(symbols, logs), by_concepts.posterior, atol=1e-11)


def test_answers_are_probabilities_and_parts_are_the_whole(monkeypatch):
    symbols, logs = symbols_of(draw(), 50), pool_logs()
    for likelihood in ("bigram", "unigram"):
        for answer in ("row", "stationary"):
            found = retrieval_log_probs(symbols, logs, likelihood, answer)
            np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-12)
            monkeypatch.setattr("ebbtide.evaluation.chains.PART", 100)
            np.testing.assert_allclose(retrieval_log_probs(symbols, logs, likelihood, answer), found, atol=1e-13)
            monkeypatch.undo()
    for found in (row_log_probs(symbols, 3), *(frequency_log_probs(symbols, 3, of=of) for of in ("symbols", "rows"))):
        np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-12)


def test_counts_are_those_of_cues_and_responses():
    symbols, responses = symbols_of(draw(), 100), np.asarray(draw().responses)[:, :100]
    found, by_cue = row_log_probs(symbols, 3, 0.7), cue_frequencies(symbols, responses, 3, 0.7)
    np.testing.assert_allclose(np.exp(found), by_cue, atol=1e-14)


def test_a_stationary_distribution_is_kept_by_its_chain_and_comes_of_counts():
    transitions = np.exp(pool_logs(Chains(states=5, pool=30)))
    kept = stationary(transitions)
    np.testing.assert_allclose(np.einsum("ci,cij->cj", kept, transitions), kept, atol=1e-13)
    long = draw(*LONG)
    ends = np.exp([frequency_log_probs(symbols_of(long), 3, of=of)[-1] for of in ("symbols", "rows")])
    truth = stationary(np.asarray(long.latent["transitions"], np.float64))
    assert np.abs(ends - truth).mean() < 0.04 and np.abs(ends[0] - ends[1]).mean() < 0.01


def test_unigram_retrieval_ignores_the_order_of_symbols():
    symbols, logs = symbols_of(draw(), 40), pool_logs()
    end = retrieval_log_probs(symbols, logs, "unigram", "stationary")[-1]
    np.testing.assert_allclose(retrieval_log_probs(symbols[::-1], logs, "unigram", "stationary")[-1], end, atol=1e-12)
    assert np.abs(retrieval_log_probs(symbols[::-1], logs)[-1] - retrieval_log_probs(symbols, logs)[-1]).max() > 0.1


def test_the_true_row_has_the_lowest_loss_and_more_counts_come_near_it():
    prompt = draw(*LONG)
    symbols, truth = symbols_of(prompt), np.asarray(prompt.latent["transitions"], np.float64)
    rows = true_log_probs(symbols, truth)
    divergence = (np.exp(rows) * (rows - row_log_probs(symbols, 3))).sum(-1).mean(1)
    assert divergence[-1] < 0.02 < 0.2 < divergence[0]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda s, logs: row_log_probs(s, 2), "symbols = 2: must be from 0 to 1"),
        (lambda s, logs: row_log_probs(s, 3, 0.0), "smoothing = 0.0: must be above 0"),
        (lambda s, logs: frequency_log_probs(s, 3, float("nan")), "smoothing = nan: must be above 0"),
        (lambda s, logs: retrieval_log_probs(s, logs + 1), "logs = 1.0: must be logarithms of probabilities"),
        (lambda s, logs: retrieval_log_probs(s, logs * np.nan), "logs = nan: must be logarithms"),
    ],
)
def test_predictors_refuse_what_is_no_stream_and_no_pool(wrong, line):
    with pytest.raises(InputError, match=line):
        wrong(symbols_of(draw(), 40), pool_logs())


def test_keys_are_not_shared():
    """The first symbol, the chain and the followers are drawn independently: a stream's first symbol tells nothing of
    its chain."""
    prompt = draw()
    counts = np.zeros((3, 4))
    np.add.at(counts, (symbols_of(prompt)[0], np.asarray(prompt.latent["chain"])), 1)
    assert chisquare(counts.ravel()).pvalue > 1e-3
    assert jax.tree.map(jnp.shape, dict(prompt.latent)) == {"chain": (3000,), "transitions": (3000, 3, 3)}


def test_a_clamped_head_of_a_stream_attends_to_the_previous_symbol_and_its_keys_are_not_trained():
    clamp = PreviousToken(layer=0, heads=(1,), rows="all")
    engine = Engine(replace(SPEC, interventions=(clamp,)))
    start, prompt = engine.init(0), draw(n=8)
    tap = intervention_tap(engine.spec.model, start.params, prompt, (clamp,))
    _, found = record(engine.spec.model, start.params, prompt, "blocks.0.attn.hook_pattern", tap=tap)
    pattern = np.asarray(found["blocks.0.attn.hook_pattern"])[:, 1, 1:]
    np.testing.assert_array_equal(pattern, np.broadcast_to(np.eye(pattern.shape[1], pattern.shape[2]), pattern.shape))
    first = np.asarray(start.params["blocks"][0]["attn"]["k"])
    trained = engine.train(start, engine.data(0), jnp.uint32(20))
    moved = np.abs(np.asarray(trained.params["blocks"][0]["attn"]["k"]) - first)
    assert moved[:, :8].min() > 0 and moved[:, 8:].max() == 0
