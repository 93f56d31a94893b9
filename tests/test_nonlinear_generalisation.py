"""Study `nonlinear-generalisation`: the exact predictor, the measures of its claims, and its figures."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.evaluation.rules import rule_log_odds
from ebbtide.papers.nonlinear_generalisation import label_norm, measures
from ebbtide.papers.nonlinear_generalisation.settings import QUICK
from ebbtide.papers.nonlinear_generalisation.study import NONLINEAR_GENERALISATION
from ebbtide.sources.patterns import Patterns
from ebbtide.tasks.pattern_pairs import PatternPairs
from ideal_patterns import reads_or_knows_by_heart

pytestmark = pytest.mark.usefixtures("quick_compile")

ALPHA, COUNT = 0.7, 4


def odds_by_hand(pattern: np.ndarray, signs: np.ndarray) -> float:
    """The log odds of one prompt, by summing the probability of its pairs over all rules."""
    total = {1: 0.0, -1: 0.0}
    for a, b in permutations(range(COUNT), 2):
        if pattern[-1] not in (a, b):
            continue
        p = 1.0
        for j, y in zip(pattern[:-1], signs[:-1], strict=True):
            of_rule = ALPHA / 2 * ((j == a and y > 0) or (j == b and y < 0))
            p *= of_rule if j in (a, b) else (1 - ALPHA) / (2 * (COUNT - 2))
        total[1 if pattern[-1] == a else -1] += p
    with np.errstate(divide="ignore"):
        return float(np.log(total[1]) - np.log(total[-1]))


def test_the_exact_posterior_sums_over_all_rules():
    task, source = PatternPairs(context=5, informative=ALPHA), Patterns(relevant=COUNT, irrelevant=2, pairs=12)
    index, split = jnp.arange(40, dtype=jnp.uint32), source.sizes().split()
    prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    pattern, signs = np.asarray(prompt.latent["pattern"]).T, np.asarray(prompt.responses)
    by_hand = [odds_by_hand(pattern[:, i], signs[:, i]) for i in range(40)]
    np.testing.assert_allclose(rule_log_odds(pattern, signs, COUNT, ALPHA), by_hand, rtol=1e-9)
    assert np.isinf(by_hand).any() and np.isfinite(by_hand).any()


def test_the_exact_posterior_reads_no_label_of_the_query_and_refuses_certainty():
    pattern, signs = np.asarray([[0, 1], [1, 1], [0, 0]]), np.asarray([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    other = signs.copy()
    other[-1] = -1
    np.testing.assert_array_equal(rule_log_odds(pattern, signs, 4, 0.5), rule_log_odds(pattern, other, 4, 0.5))
    with pytest.raises(InputError, match="below 1"):
        rule_log_odds(pattern, signs, 4, 1.0)


def test_pairs_needed_lies_between_the_lengths_where_the_error_passes_the_limit():
    errors = np.full(len(measures.LENGTHS), 0.3)
    assert np.isnan(measures.pairs_needed(errors))
    errors[5:] = 0.0
    assert 6 < measures.pairs_needed(errors, 0.15) < 8
    assert measures.pairs_needed(errors, 0.15) == pytest.approx((6 * 8) ** 0.5)
    assert measures.pairs_needed(np.zeros_like(errors)) == measures.LENGTHS[0]


def test_longer_prompts_err_less_and_classical_predictors_see_the_same_pairs(monkeypatch):
    monkeypatch.setattr(measures, "PROMPTS", 500)
    spec = QUICK.world(0)
    few, many = (measures.draw_prompts(spec, "unseen", informative=alpha) for alpha in (0.2, 0.9))
    assert few.inputs.shape == (measures.LENGTHS[-1] + 1, 500, 30)
    exact, exact_many = (measures.baseline_errors(spec, one, a) for one, a in ((few, 0.2), (many, 0.9)))
    for name in measures.BASELINES:
        assert exact_many[name][-1] < 0.01
        assert measures.pairs_needed(exact_many[name]) < measures.pairs_needed(exact[name])
    assert (exact_many[measures.OPTIMUM] <= exact_many[measures.LOGISTIC] + 0.03).all()


def test_measures_of_a_layer_as_it_is_drawn(monkeypatch):
    monkeypatch.setattr(measures, "PROMPTS", 500)
    spec = QUICK.world(0)
    params = spec.model.init(jax.random.key(0), **spec.shape())
    prompt = measures.draw_prompts(spec, "unseen")
    same = np.asarray(prompt.latent["pattern"])
    share = (same[:, :20] == same[:, -1:]).mean()
    assert share < measures.attention_on_pattern(spec, params, prompt) < 0.7  # .2^2 x 9 is a small score
    sharp = params | {"q": 2 * jnp.eye(31), "k": 2 * jnp.eye(31)}
    assert measures.attention_on_pattern(spec, sharp, prompt) > 0.999
    losses = measures.losses_by_removal(spec, params, prompt)
    assert losses.shape == (2, len(measures.SHARES)) and losses[0, 0] == losses[1, 0]
    np.testing.assert_allclose(losses, 1, atol=0.1)


def test_the_map_shows_every_cell():
    ideal, _ = reads_or_knows_by_heart(NONLINEAR_GENERALISATION.experiment("label-norm"), "quick")
    drawn = NONLINEAR_GENERALISATION.experiment("label-norm").figures
    assert drawn is not None
    assert drawn(ideal, "made up")["map.png"].startswith(b"\x89PNG")
    assert len(label_norm.CELLS) == 18
