"""Intervals over a few members, and over many prompts."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ebbtide.evaluation.statistics import interval, paired_bootstrap, paired_bootstraps


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_the_interval_covers_the_mean_of_normal_members_as_often_as_it_says(n):
    values = np.random.default_rng(5).normal(3.0, 2.0, (n, 4000))
    low, high = interval(values)
    assert 0.94 < ((low <= 3) & (high >= 3)).mean() < 0.96


def test_the_percentile_bootstrap_would_not_have_passed():
    """A test of the test above, and the reason for Student's interval."""
    generator = np.random.default_rng(5)
    values = generator.normal(3.0, 2.0, (4, 4000))
    means = values[generator.integers(0, 4, (2000, 4))].mean(axis=1)
    low, high = np.quantile(means, [0.0, 1.0], axis=0)
    assert ((low <= 3) & (high >= 3)).mean() < 0.90


def test_it_is_scipy_s():
    values = np.random.default_rng(0).normal(size=(5, 3))
    low, high = interval(values, level=0.9)
    theirs = ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose((low, high), (theirs.low, theirs.high))


def test_one_member_has_no_interval():
    for shape in ((1,), (1, 3)):
        low, high = interval(np.ones(shape))
        assert low.shape == high.shape == shape[1:] and np.isnan(low).all() and np.isnan(high).all()


def test_equal_members_have_an_interval_of_no_width():
    low, high = interval(np.full((4, 2), 0.25))
    assert low.tolist() == high.tolist() == [0.25, 0.25]


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
