import numpy as np
import pytest

from xas_agent.agent.spectra.polynomials import Segment, fit_polynomial


def _segment(first: int, last: int, order: int) -> Segment:
    return Segment((np.array([first]), np.array([last])), np.array([order]))


def test_spectra_on_one_axis_have_the_polynomials_of_numpy():
    rng = np.random.default_rng(0)
    energy = np.sort(rng.uniform(8200, 8800, 300))
    mu = rng.normal(size=(4, 300)) + 1e-6 * (energy - 8300) ** 2
    fitted = fit_polynomial(energy[None], mu, _segment(100, 300, 3), np.full((4, 1), 8333.0))
    for row, values in zip(mu, fitted.values, strict=True):
        expected = np.polynomial.Polynomial.fit(energy[100:], row[100:], 3)(energy)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_a_window_of_equal_energies_is_an_error():
    energy = np.array([8300.0, 8310.0, 8310.0, 8310.0])
    with pytest.raises(np.linalg.LinAlgError, match="same energy"):
        fit_polynomial(energy[None], np.ones((1, 4)), _segment(1, 4, 1), np.full((1, 1), 8333.0))
