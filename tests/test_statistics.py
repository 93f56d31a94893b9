"""Intervals over a few members."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ebbtide.evaluation.statistics import interval


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
