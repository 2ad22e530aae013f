"""Robust statistics against numpy and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import median_abs_deviation, theilslopes

from xas_agent.agent.types.robust import MAD_TO_SD, hodges_lehmann, mad_sd, median, nan_median, theil_sen

VALUES = st.floats(-1e6, 1e6)
SERIES = arrays(float, st.integers(1, 40), elements=VALUES)
POINTS = st.lists(st.tuples(st.integers(-50, 50), VALUES), min_size=2, max_size=40)


@given(SERIES)
def test_median_is_numpys_to_the_last_bit(values):
    assert median(values) == np.median(values)


@given(arrays(float, array_shapes(min_dims=1, max_dims=3), elements=st.one_of(VALUES, st.just(np.nan))))
def test_medians_ignore_nan(values):
    known = np.isfinite(values).any(axis=-1)
    expected = np.nanmedian(np.where(known[..., None], values, 0.0), axis=-1)
    np.testing.assert_array_equal(nan_median(values), expected)


def test_the_factor_makes_the_mad_of_a_gaussian_its_standard_deviation():
    values = np.random.default_rng(0).normal(scale=2.0, size=100_000)
    assert MAD_TO_SD * np.median(np.abs(values)) == pytest.approx(2.0, rel=0.01)


@given(SERIES)
def test_spread_is_scipys(values):
    expected = median_abs_deviation(values, scale="normal")
    assert mad_sd(values, median(values)) == pytest.approx(expected, rel=1e-5)


@given(POINTS)
def test_slope_is_scipys(points):
    x, y = np.array(points, float).T
    if np.ptp(x) == 0:
        assert theil_sen(x, y) == 0.0
    else:
        with np.errstate(invalid="ignore"):  # scipy also computes an interval, which is NaN for ties
            expected = theilslopes(y, x).slope
        assert theil_sen(x, y) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(arrays(float, st.integers(2, 30), elements=VALUES))
def test_location_is_the_median_of_the_means_of_all_pairs(values):
    means = [(a + b) / 2 for i, a in enumerate(values) for b in values[i + 1 :]]
    assert hodges_lehmann(values) == pytest.approx(np.median(means), rel=1e-12, abs=1e-12)


def test_statistics_tolerate_outliers():
    x = np.arange(20.0)
    y = 3.0 + 0.5 * x
    y[[2, 7, 11, 15]] += 1e6
    assert theil_sen(x, y) == pytest.approx(0.5)
    assert hodges_lehmann(y - 0.5 * x) == pytest.approx(3.0)
    assert mad_sd(y - 0.5 * x, 3.0) == 0.0
