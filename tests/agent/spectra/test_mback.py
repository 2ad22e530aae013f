import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfc

from xas_agent.agent.spectra.mback import ERFC_WIDTH_EV, mback
from xas_agent.agent.spectra.normalisation import NormalisationSettings

E0 = 8333.0
ENERGY = E0 + np.concatenate([np.arange(-200, -30, 5.0), np.arange(-30, 40, 0.5), np.arange(40, 700, 3.0)])
TABLE = np.where(ENERGY < E0, 0.5, 3.9) * (ENERGY / E0) ** -2.7
WINDOWS = NormalisationSettings(pre2=-50, norm1=100)


def atom(width=1.5):
    """The table with an edge of finite width and a white line where neither window is."""
    x = ENERGY - E0
    rise = 0.5 + np.arctan(x / width) / np.pi
    sharp = np.where(np.abs(x) < 40, rise, x > 0)
    return (0.5 + 3.4 * (sharp + 0.6 * np.exp(-(((x - 6) / 4) ** 2)))) * (ENERGY / E0) ** -2.7


@given(st.floats(0.02, 50.0), st.floats(-3, 3), st.floats(-2e-3, 2e-3), st.floats(-2e-6, 2e-6))
@settings(max_examples=40, deadline=None)
def test_scale_and_background_are_found(scale, level, slope, curvature):
    x = ENERGY - E0
    mu = scale * (atom() + level + slope * x + curvature * x**2)
    found = mback(ENERGY, mu, TABLE, WINDOWS, e0=np.array([E0]))
    assert found.edge_step[0] == pytest.approx(3.4 * scale, rel=1e-6)
    post = (x > 100) & (x < 690)
    np.testing.assert_allclose(found.flat[0][post], 1.0, atol=1e-6)
    np.testing.assert_allclose(found.flat[0][x < -50], 0.0, atol=1e-6)
    gradient = np.interp(E0, ENERGY, np.gradient(found.pre_edge[0], ENERGY))
    assert found.pre_slope[0] == pytest.approx(gradient, rel=0.02, abs=1e-6 * scale)


def test_a_batch_is_as_its_spectra_alone():
    rng = np.random.default_rng(0)
    mu = np.array([atom(w) for w in (1.0, 1.5, 2.0)]) * rng.uniform(0.1, 2, (3, 1)) + rng.uniform(0, 1, (3, 1))
    mu += 1e-3 * rng.normal(size=mu.shape)
    together = mback(ENERGY, mu, TABLE)
    for i in range(3):
        alone = mback(ENERGY, mu[i], TABLE)
        np.testing.assert_allclose(alone.flat[0], together.flat[i], atol=1e-8)
        assert alone.edge_step[0] == pytest.approx(together.edge_step[i])


def test_scatter_about_the_emission_line_is_taken_off():
    scatter = 0.3 * erfc((ENERGY - (E0 - 120)) / ERFC_WIDTH_EV)
    how = {"settings": WINDOWS, "e0": np.array([E0])}
    without = mback(ENERGY, atom() + scatter, TABLE, **how)
    found = mback(ENERGY, atom() + scatter, TABLE, **how, emission_ev=E0 - 120)
    assert found.edge_step[0] == pytest.approx(3.4, rel=1e-5)
    assert abs(without.edge_step[0] / 3.4 - 1) > 1e-3


def test_what_cannot_be_matched_is_said():
    with pytest.raises(ValueError, match="no edge"):
        mback(ENERGY, atom(), (ENERGY / E0) ** -2.7)
    with pytest.raises(ValueError, match="order"):
        mback(ENERGY, atom(), TABLE, order=9)
