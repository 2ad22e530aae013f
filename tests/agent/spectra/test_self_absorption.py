"""Test the correction of self-absorption in thick samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.spectra.self_absorption import correct_self_absorption, damping, thick_alpha

X = np.arange(-60.0, 150.0, 0.5)
TRUE = (0.5 + np.arctan(X / 1.2) / np.pi) * (1 + 0.9 * np.exp(-(((X - 5) / 4) ** 2)) + 0.08 * np.sin(X / 8))


def measured(alpha):
    """Return the fluorescence of a thick sample, μₐ/(μₐ + α) with Δμ = 1, normalised so that μₐ = 1 gives 1."""
    return TRUE / (TRUE + alpha) * (1 + alpha)


@given(st.floats(0.05, 100.0))
def test_correction_inverts_the_thick_sample_formula(alpha):
    corrected = correct_self_absorption(measured(alpha), alpha)
    finite = np.isfinite(corrected)
    np.testing.assert_allclose(corrected[finite], TRUE[finite], atol=1e-9)
    assert finite.mean() > 0.9


def test_nothing_is_corrected_without_damping():
    np.testing.assert_allclose(correct_self_absorption(TRUE, 1e9), TRUE, rtol=1e-6)


def test_alpha_from_the_geometry():
    assert thick_alpha(40.0, 30.0, 230.0) == pytest.approx(0.35)
    steep = thick_alpha(40.0, 30.0, 230.0, angle_in_deg=90.0, angle_out_deg=10.0)
    assert steep == pytest.approx((30 + 40 / np.sin(np.deg2rad(10))) / 200)
    assert damping(0.35) == pytest.approx(0.35 / 1.35)
    small = 1 + 1e-4 * np.sin(X)
    fluorescence = small / (small + 0.35) * 1.35
    assert np.ptp(fluorescence) / np.ptp(small) == pytest.approx(damping(0.35), rel=1e-3)
    for wrong in ((40.0, 230.0, 30.0), (0.0, 30.0, 230.0)):
        with pytest.raises(ValueError, match="no edge"):
            thick_alpha(*wrong)
    with pytest.raises(ValueError, match="angles"):
        thick_alpha(40.0, 30.0, 230.0, angle_in_deg=0.0)


def test_values_impossible_for_a_thick_sample_are_nan():
    assert np.isnan(correct_self_absorption(np.array([[0.5, 1.4]]), 0.3)).tolist() == [[False, True]]
