"""Tasks of a pool with unequal probabilities: what is drawn, and that exact predictors begin with them."""

from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import chisquare

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.chains import retrieval_log_probs
from ebbtide.evaluation.pools import checked_weights, pool_weights
from ebbtide.evaluation.recurrences import modular_posterior, pool_posterior
from ebbtide.evaluation.words import next_symbol_probs
from ebbtide.keys import Purpose, root
from ebbtide.sources.chains import Chains
from ebbtide.sources.recurrences import ModularRecurrences, Recurrences
from ebbtide.sources.words import Words
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.parsing import Parsing
from ebbtide.tasks.recurrence import Recurrence

pytestmark = pytest.mark.usefixtures("quick_compile")

CASES: dict[str, tuple[Any, Any, str]] = {
    "chains": (Markov(context=4), Chains(states=3, pool=4), "chain"),
    "recurrences": (Recurrence(context=4), Recurrences(pool=4), "member"),
    "modular": (Recurrence(context=4), ModularRecurrences(modulus=5, pool=4), "member"),
    "words": (Parsing(context=12, target="symbol"), Words(types=3, depth=3, pool=4), "member"),
}
MANY = 4000


def numbers(name: str, zipf: float) -> np.ndarray:
    """Numbers in the pool of the tasks of many prompts."""
    task, source, latent = CASES[name]
    task = replace(task, zipf=zipf)
    task.check(source)
    key, split, bank = root(3, Purpose.DATA), source.sizes().split(), source.build()
    draw = compile_fast(lambda index: task.sample(key, index, source, bank, split).latent[latent])
    return np.asarray(draw(jnp.arange(MANY, dtype=jnp.uint32)))


@pytest.mark.parametrize("zipf", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("name", CASES)
def test_tasks_of_a_pool_have_the_probabilities_that_are_asked_for(name, zipf):
    counts = np.bincount(numbers(name, zipf), minlength=4)
    assert chisquare(counts, MANY * pool_weights(4, zipf)).pvalue > 1e-4
    assert chisquare(counts, MANY * pool_weights(4, zipf + 0.5)).pvalue < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_without_a_pool_there_is_nothing_to_skew(name, one_line):
    task, source, _ = CASES[name]
    with pytest.raises(InputError, match="without a pool") as caught:
        replace(task, zipf=1.0).check(replace(source, pool=0))
    one_line(caught, "task.zipf", 1.0)


WEIGHTS = np.asarray([0.7, 0.2, 0.1])


def test_retrieval_from_a_pool_of_chains_is_the_rule_of_bayes():
    rows = np.random.default_rng(1).dirichlet(np.ones(2), (3, 2))
    streams = np.asarray(list(product(range(2), repeat=4))).T
    found = np.exp(retrieval_log_probs(streams, np.log(rows), weights=WEIGHTS))
    for stream, own in zip(streams.T, np.moveaxis(found, 1, 0), strict=True):
        for t in range(4):
            steps = [rows[:, a, b] for a, b in pairwise(stream[: t + 1])]
            likely = WEIGHTS * np.prod(steps, axis=0)
            np.testing.assert_allclose(own[t], likely / likely.sum() @ rows[:, stream[t]], atol=1e-12)


def test_the_posterior_of_recurrences_is_the_rule_of_bayes():
    a, b, noise = np.asarray([0.5, -0.5, 0.9]), np.asarray([1.0, 0.0, 0.2]), 0.3
    terms = np.asarray([0.1, 0.8, 1.1, 1.4])
    found = pool_posterior(terms.reshape(4, 1, 1), a.reshape(3, 1, 1), b[:, None], noise, WEIGHTS)
    for n in range(4):
        wrong = sum((terms[i + 1] - a * terms[i] - b) ** 2 for i in range(n)) + np.zeros(3)
        likely = WEIGHTS * np.exp(-wrong / (2 * noise**2))
        likely /= likely.sum()
        np.testing.assert_allclose(found.posterior[n, 0], likely, atol=1e-12)
        np.testing.assert_allclose(found.predictions[n, 0, 0], likely @ (a * terms[n] + b), atol=1e-12)


def test_the_posterior_of_modular_recurrences_is_the_weight_of_those_that_are_left():
    pool, stream = np.asarray([[1, 1], [1, 2], [2, 1]]), np.asarray([[0], [1], [2]])  # the second has erred by then
    found = modular_posterior(stream, 5, pool, WEIGHTS)[:, 0]
    np.testing.assert_allclose(found[0], [0, 0.8, 0.2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found[1], [0, 0, 0.7 / 0.8, 0.1 / 0.8, 0], atol=1e-12)
    np.testing.assert_allclose(found[2], [0, 0, 0, 1, 0], atol=1e-12)


def test_a_bracket_is_closed_by_each_partner_with_the_weight_of_the_pairings_that_say_so():
    source, pool = Words(types=2, depth=2), np.asarray([[0, 1], [1, 0]])
    word = np.asarray([[0], [2], [4], [2], [4]])  # ()(): the first closing bracket shows the pairing
    found = next_symbol_probs(word, source, pool, np.asarray([0.9, 0.1]))[:, 0]
    closing = found[1, 4:] / found[1, 4:].sum()
    np.testing.assert_allclose(closing, [0.9, 0.1], atol=1e-12)
    np.testing.assert_allclose(found[3, 4:] / found[3, 4:].sum(), [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "field"),
    [(np.ones(2) / 2, "shape of weights"), (np.ones(3), "weights"), (np.asarray([1.0, 0.0, 0.0]), "weights")],
)
def test_weights_that_are_no_probabilities_are_refused(weights, field):
    with pytest.raises(InputError) as caught:
        checked_weights(weights, 3)
    assert caught.value.field == field and "\n" not in str(caught.value)


def test_the_weights_are_those_that_the_tasks_draw_by():
    from ebbtide.tasks.draws import zipf_weights

    np.testing.assert_allclose(pool_weights(7, 1.3), jax.device_get(zipf_weights(7, 1.3)), rtol=1e-6)
