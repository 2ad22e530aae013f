"""The cosine transform of the noise."""

import numpy as np
import pytest
from scipy.fft import idct

from xas_agent.agent.spectra.noise import inverse_dct


@pytest.mark.parametrize("points", [1, 2, 3, 8, 301])
def test_the_transform_is_that_of_scipy(points: int) -> None:
    coefficients = np.random.default_rng(points).normal(size=(3, points))
    expected = np.asarray(idct(coefficients, norm="ortho", axis=1))
    np.testing.assert_allclose(inverse_dct(coefficients), expected, atol=1e-12)
