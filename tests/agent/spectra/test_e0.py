"""Test that the derivative of many spectra on one axis is that of each alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from xas_agent.agent.spectra.banded import Banded
from xas_agent.agent.spectra.e0 import E0_STEP_EV, find_inflection
from xas_agent.agent.types import bin_means

GAPS = st.sampled_from([0.1, 0.37, 1.0, 5.0])


@settings(max_examples=30)
@given(st.lists(GAPS, min_size=60, max_size=120), st.floats(-45, 10), st.booleans())
def test_the_inflection_does_not_depend_on_the_other_spectra(gaps: list[float], start: float, first: bool) -> None:
    """Axes may end inside the search window, where spectra continue with their last values."""
    energy = start + np.cumsum(gaps)
    centres = np.linspace(-8, 25, 80)
    mu = np.arctan((energy - centres[:, None]) / 2) + 0.2 * np.exp(-(((energy - centres[:, None] - 6) / 3) ** 2))
    together = find_inflection(energy[None], mu, 1.0, (-12.0, 28.0), first)
    alone = [find_inflection(energy[None], row[None], 1.0, (-12.0, 28.0), first) for row in mu]
    for column, rows in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(column, np.concatenate(rows), atol=1e-7)


@pytest.mark.parametrize("smoothing_ev", [0.5, 1.0, 3.9])
def test_the_height_is_that_of_the_gaussian_derivative(smoothing_ev: float) -> None:
    energy = np.arange(-60.0, 100.0, 0.37)
    mu = np.arctan(energy / 2) + 0.1 * np.sin(energy)
    bounds = np.arange(-50, 50, E0_STEP_EV)
    sigma = smoothing_ev / E0_STEP_EV
    derivative = gaussian_filter1d(bin_means(energy[None], mu[None], bounds)[0], sigma, order=1)
    _, [height], _ = find_inflection(energy[None], mu[None], smoothing_ev, (-16.0, 16.0))
    assert height * E0_STEP_EV == pytest.approx(derivative[100:-100].max(), rel=5e-3)  # its energies lie elsewhere


def test_a_constant_has_no_inflection() -> None:
    energy = np.arange(-60.0, 100.0, 0.37)
    assert np.isnan(find_inflection(energy[None], np.full((1, len(energy)), 0.5), 1.0, (-16.0, 16.0))).all()


@pytest.mark.parametrize(("points", "results", "spectra"), [(1, 1, 1), (90, 33, 5), (300, 200, 400), (20, 64, 3)])
def test_a_banded_matrix_gives_the_products_of_the_whole_one(points: int, results: int, spectra: int) -> None:
    rng = np.random.default_rng(points)
    matrix, mu = rng.normal(size=(points, results)), rng.normal(size=(spectra, points))
    middle = np.arange(results) * points / results
    matrix[np.abs(np.arange(points)[:, None] - middle) > 6] = 0.0
    np.testing.assert_allclose(Banded(matrix)(mu), mu @ matrix, atol=1e-12)
