"""Intervals over a few members."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import t as student

from ebbtide.evaluation.statistics import interval


@pytest.mark.parametrize(("n", "least", "most"), [(4, 0.85, 0.90), (8, 0.92, 0.98), (16, 0.92, 0.98)])
def test_the_interval_covers_the_mean_of_normal_members_as_often_as_it_says(n, least, most):
    """95 %; for four members, as the docstring owns, 7/8: the range cannot do better."""
    values = np.random.default_rng(5).normal(3.0, 2.0, (n, 1200))
    low, high = interval(values, resamples=2000)
    coverage = ((low <= 3) & (high >= 3)).mean()
    assert least < coverage < most


def test_the_plain_percentile_bootstrap_would_not_have_passed():
    """A test of the test above: without the expansion the same members cover too seldom."""
    generator = np.random.default_rng(5)
    for n, least in ((4, 0.85), (8, 0.92)):
        values = generator.normal(3.0, 2.0, (n, 1200))
        means = values[generator.integers(0, n, (2000, n))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975], axis=0)
        assert ((low <= 3) & (high >= 3)).mean() < least


def test_with_four_members_it_is_about_their_range():
    values = np.array([0.1, 0.4, 0.5, 0.9])
    low, high = interval(values)
    assert low == pytest.approx(0.1, abs=0.05) and high == pytest.approx(0.9, abs=0.05)


def test_with_many_members_it_is_student_s():
    values = np.random.default_rng(0).normal(size=200)
    low, high = interval(values)
    half = student.ppf(0.975, 199) * values.std(ddof=1) / np.sqrt(200)
    assert float(high - low) / 2 == pytest.approx(half, rel=0.06)
    assert float(high + low) / 2 == pytest.approx(values.mean(), abs=0.1 * half)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(1).normal(size=8)
    narrow, wide = interval(values, level=0.5), interval(values, level=0.95)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_member_has_no_interval():
    for shape in ((1,), (1, 3)):
        low, high = interval(np.ones(shape))
        assert low.shape == high.shape == shape[1:] and np.isnan(low).all() and np.isnan(high).all()


def test_equal_members_have_an_interval_of_no_width():
    low, high = interval(np.full((4, 2), 0.25))
    assert low.tolist() == high.tolist() == [0.25, 0.25]


@given(hnp.arrays(np.float64, (4,), elements=st.floats(-100, 100)), st.floats(-10, 10), st.floats(0.1, 10))
def test_it_lies_within_the_range_and_moves_with_shift_and_scale(values, shift, scale):
    low, high = interval(values, resamples=500)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert values.min() - slack <= low <= high <= values.max() + slack
    moved = interval(values * scale + shift, resamples=500)
    np.testing.assert_allclose(moved, (low * scale + shift, high * scale + shift), rtol=1e-9, atol=1e-7)


def test_columns_are_independent_and_the_result_repeats():
    values = np.random.default_rng(2).normal(size=(4, 3, 2))
    low, high = interval(values, resamples=500)
    assert low.shape == high.shape == (3, 2)
    one = interval(values[:, 1, 1], resamples=500)
    assert (low[1, 1], high[1, 1]) == (one[0], one[1])
    assert np.array_equal(interval(values, resamples=500), (low, high))
