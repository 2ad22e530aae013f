"""Test MBACK in given windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.mback import normalise_by_mback
from xas_agent.agent.spectra.normalisation import NormalisationSettings, find_windows, larch_spans

E0 = 8333.0
ENERGY = E0 + np.concatenate([np.arange(-200, -30, 5.0), np.arange(-30, 40, 0.5), np.arange(40, 700, 3.0)])
TABLE = np.where(ENERGY < E0, 0.5, 3.9) * (ENERGY / E0) ** -2.7
WINDOWS = NormalisationSettings(pre2=-50, norm1=100)


def atom(width=1.5):
    """Return the table with an edge of finite width and a white line, both outside the windows."""
    x = ENERGY - E0
    rise = 0.5 + np.arctan(x / width) / np.pi
    sharp = np.where(np.abs(x) < 40, rise, x > 0)
    return (0.5 + 3.4 * (sharp + 0.6 * np.exp(-(((x - 6) / 4) ** 2)))) * (ENERGY / E0) ** -2.7


def match(mu, table=TABLE, order=2):
    mu = np.atleast_2d(mu)
    batch = Batch(ENERGY, mu, np.full(len(mu), E0))
    spans = larch_spans(batch, find_windows(batch, WINDOWS))
    return normalise_by_mback(batch, np.atleast_2d(table), spans, np.full(len(batch), order))


@given(st.floats(0.02, 50.0), st.floats(-3, 3), st.floats(-2e-3, 2e-3), st.floats(-2e-6, 2e-6))
@settings(max_examples=40, deadline=None)
def test_scale_and_background_are_found(scale, level, slope, curvature):
    x = ENERGY - E0
    mu = scale * (atom() + level + slope * x + curvature * x**2)
    matched = match(mu)
    assert matched.edge_step[0] == pytest.approx(3.4 * scale, rel=1e-6)
    post = (x > 100) & (x < 690)
    np.testing.assert_allclose(matched.flat[0][post], 1.0, atol=1e-6)
    np.testing.assert_allclose(matched.flat[0][x < -50], 0.0, atol=1e-6)
    gradient = np.interp(E0, ENERGY, np.gradient(matched.pre_edge[0], ENERGY))
    assert matched.pre_slope[0] == pytest.approx(gradient, rel=0.02, abs=1e-6 * scale)


def test_batch_equals_single_spectra():
    rng = np.random.default_rng(0)
    mu = np.array([atom(w) for w in (1.0, 1.5, 2.0)]) * rng.uniform(0.1, 2, (3, 1)) + rng.uniform(0, 1, (3, 1))
    mu += 1e-3 * rng.normal(size=mu.shape)
    together = match(mu)
    for i in range(3):
        alone = match(mu[i])
        np.testing.assert_allclose(alone.flat[0], together.flat[i], atol=1e-8)
        assert alone.edge_step[0] == pytest.approx(together.edge_step[i])


def test_table_without_edge_gives_no_step():
    matched = match(atom(), table=(ENERGY / E0) ** -2.7)
    assert matched.edge_step[0] == 0.0
    assert np.isfinite(matched.flat).all()
