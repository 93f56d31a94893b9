"""Intervals over a few members, and over many prompts."""

import doctest

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr

from ebbtide.errors import InputError
from ebbtide.evaluation import statistics
from ebbtide.evaluation.statistics import (
    FEWEST,
    corrected,
    median_interval,
    paired_bootstrap,
    paired_bootstraps,
    probability_of_as_many,
    share_interval,
)
from ebbtide.verify import coverage


def test_the_examples_give_what_they_show():
    found = doctest.testmod(statistics, extraglobs={"np": np})
    assert found.attempted >= 5 and not found.failed


@pytest.mark.parametrize("count", [0, 1, 13, 19, 20])
def test_the_share_and_its_test_are_scipy_s(count):
    theirs = binomtest(count, 20, 0.8, alternative="greater")
    assert probability_of_as_many(count, 20, 0.8) == pytest.approx(theirs.pvalue)
    exact = binomtest(count, 20).proportion_ci(0.95, "exact")
    assert share_interval(count, 20) == pytest.approx((exact.low, exact.high))


def test_ranks_are_correlated_as_by_scipy_with_ties_and_nan_where_nothing_varies():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, (2, 7, 9))
    for axis in (0, 1):
        ours = statistics.rank_correlation(a, b, axis)
        rows = zip(np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1), strict=True)
        np.testing.assert_allclose(ours, [float(np.asarray(spearmanr(x, y))[0]) for x, y in rows], atol=1e-12)
    steps, flat, broken = np.arange(3), np.ones(3), np.asarray([1.0, np.nan, 2.0])
    assert np.isnan(statistics.rank_correlation(steps, np.stack([flat, broken]))).all()


@pytest.mark.parametrize(("count", "n", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (2, 5, 0.0), (2, 5, 1.0)])
def test_what_is_no_share_is_refused(count, n, level):
    with pytest.raises(InputError, match=r"(count|level) = .* must be"):
        share_interval(count, n, level)


def test_holm_by_hand():
    """Smallest first: times 4, times 3, times 2, times 1, and never below the one before."""
    assert corrected(np.array([0.02, 0.001, 0.9, 0.0201])).tolist() == pytest.approx([0.06, 0.004, 0.9, 0.06])
    assert corrected(np.array([0.5, 0.6])).tolist() == [1.0, 1.0]
    assert corrected(np.array([])).tolist() == []


def test_the_ends_are_the_order_statistics_of_the_sign_test_s_tables():
    """Ranks r and n + 1 - r for 95 % (Conover 1999, table A3; by hand: 2 P(Bin(n, 1/2) < r) <= .05)."""
    for n, r in {6: 1, 8: 1, 9: 2, 12: 3, 15: 4, 17: 5, 20: 6, 25: 8}.items():
        low, high = median_interval(np.random.default_rng(n).permutation(n) + 1.0)
        assert (low, high) == (r, n + 1 - r)


@pytest.mark.parametrize("n", [0, 1, FEWEST - 1])
def test_few_members_have_no_interval(n):
    low, high = median_interval(np.ones((n, 3)))
    assert low.shape == high.shape == (3,) and np.isnan(low).all() and np.isnan(high).all()
    assert np.isfinite(median_interval(np.ones(FEWEST))).all()


def test_whole_numbers_and_equal_members_have_an_interval_of_values_that_there_are():
    low, high = median_interval(np.array([[1, 4], [1, 4], [1, 4], [1, 4], [2, 4], [1, 4]], float))
    assert low.tolist() == [1.0, 4.0] and high.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("paths", coverage.PATHS, ids=str)
@pytest.mark.parametrize("n", coverage.MEMBERS)
def test_the_interval_of_the_median_covers_it_as_often_as_it_says(paths, n):
    """From 93 to 97 % of the time, for members that take one path or two, with few and with many members."""
    assert 0.93 < coverage.of_median(paths, n) < 0.97


def test_student_s_interval_of_the_mean_does_not():
    """A test of the test above, and why the lab gave that interval up: members that mostly miss the rare path agree too
    well."""
    assert coverage.of_mean(coverage.Paths(rare=0.1), 6) < 0.6
    assert 0.94 < coverage.of_mean(coverage.Paths(), 6) < 0.96


@pytest.mark.parametrize("n", coverage.MEMBERS)
def test_the_exact_share_is_covered_whatever_it_is(n):
    assert min(coverage.of_share(share, n) for share in (0.1, 0.5, 0.7, 0.9, 0.97)) >= 0.95


@pytest.mark.parametrize("n", coverage.MEMBERS)
def test_worlds_and_prompts_count_where_members_have_their_own(n):
    """Members that share one world and its prompts agree on what is true of that world only."""
    assert 0.93 < coverage.of_median(coverage.Paths(world=0.03), n) < 0.97
    assert coverage.of_median(coverage.Paths(world=0.03), n, shared=True) < 0.5


def test_the_bootstrap_over_prompts_covers_the_mean_as_often_as_it_says():
    values = np.random.default_rng(0).exponential(2.0, (400, 300))
    ends = [paired_bootstrap(row, seed=i, resamples=400, level=0.9)[1:] for i, row in enumerate(values)]
    assert 0.85 < np.mean([low <= 2 <= high for low, high in ends]) < 0.94


def test_the_bootstrap_of_many_prompts_is_the_normal_interval_and_repeats_itself():
    values = np.random.default_rng(1).normal(0.3, 1.0, 5000)
    mean, low, high = paired_bootstrap(values, seed=3)
    assert mean == values.mean() and paired_bootstrap(values, seed=3) == (mean, low, high)
    half = 1.96 * values.std() / np.sqrt(5000)
    np.testing.assert_allclose((low, high), (mean - half, mean + half), atol=0.15 * half)
    assert paired_bootstrap(values, seed=4)[1:] != (low, high)


def test_a_row_of_many_is_bootstrapped_as_if_alone():
    """Also where draws come in several parts, and by its definition: means of the drawn values."""
    values = np.random.default_rng(2).exponential(1.0, (3, 3000))
    many = np.stack(paired_bootstraps(values, seed=5, resamples=400))
    alone = [paired_bootstrap(row, seed=5, resamples=400) for row in values]
    np.testing.assert_allclose(many.T, alone, rtol=1e-13)
    drawn = np.random.default_rng(5).integers(0, 3000, (400, 3000))
    np.testing.assert_allclose(many[1:, 1], np.quantile(values[1][drawn].mean(1), (0.025, 0.975)), rtol=1e-13)


def test_the_bootstrap_of_equal_or_single_values():
    assert paired_bootstrap(np.full(7, 0.25), seed=0) == (0.25, 0.25, 0.25)
    mean, low, high = paired_bootstrap(np.array([2.0]), seed=0)
    assert mean == 2 and np.isnan(low) and np.isnan(high)
