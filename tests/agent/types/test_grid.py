from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from xas_agent.agent.types.grid import Grid, bin_means, continued


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 30))
def test_bin_means_are_exact_integrals_of_the_piecewise_linear_spectrum(seed, points, bins):
    rng = np.random.default_rng(seed)
    energy = np.cumsum(rng.uniform(0.05, 3.0, points))
    mu = rng.normal(size=(2, points))
    bounds = np.cumsum(rng.uniform(0.1, 4.0, bins + 1)) - 2
    found = bin_means(energy, mu, bounds)
    for row in range(2):
        for k in range(bins):
            inside = energy[(energy > bounds[k]) & (energy < bounds[k + 1])]
            knots = np.unique(np.r_[bounds[k], inside, bounds[k + 1]])
            area = np.trapezoid(np.interp(knots, energy, mu[row]), knots)
            assert found[row, k] == pytest.approx(area / (bounds[k + 1] - bounds[k]), abs=1e-9)


def test_coarse_grid_conserves_area():
    energy = np.linspace(0, 50, 2001)
    mu = np.sin(energy)[None] + 2
    coarse = bin_means(energy, mu, np.linspace(0, 50, 11))
    exact, _ = quad(lambda e: np.sin(e) + 2, 0, 50)
    assert coarse.sum() * 5 == pytest.approx(exact, rel=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_rows_with_separate_energies_or_bounds_are_independent(seed, rows):
    rng = np.random.default_rng(seed)
    energy = 8000 + np.cumsum(rng.uniform(0.1, 2.0, (rows, 30)), axis=1)
    mu, bounds = rng.normal(size=(rows, 30)), np.linspace(7990, 8050, 25)
    shifted = bounds + rng.normal(size=(rows, 1))
    together, each_bounds = bin_means(energy, mu, bounds), bin_means(energy[0], mu, shifted)
    for i in range(rows):
        np.testing.assert_allclose(together[i], bin_means(energy[i], mu[i : i + 1], bounds)[0], atol=1e-9)
        np.testing.assert_allclose(each_bounds[i], bin_means(energy[0], mu[i : i + 1], shifted[i])[0], atol=1e-9)


def test_footing_removes_level_and_scale():
    grid = Grid(-9, 98, 1, (-9, -6), (40, 98))
    rng = np.random.default_rng(0)
    mu = np.arctan(grid.energy - 10) / np.pi + 0.5 + 0.05 * rng.normal(size=(3, len(grid)))
    footed = grid.footing(mu)
    foot, anchor = grid.levels(footed)
    np.testing.assert_allclose(foot, 0, atol=1e-12)
    np.testing.assert_allclose(anchor, 1, atol=1e-12)
    np.testing.assert_allclose(grid.footing(0.37 * mu + 4.2), footed, atol=1e-9)


def test_window_outside_the_grid_is_rejected():
    with pytest.raises(ValueError, match="anchor_ev 40…120 eV"):
        Grid(-9, 98, 1, (-9, -6), (40, 120))


@pytest.mark.parametrize("stop", [18, 99])
def test_spectra_must_reach_the_level_and_cannot_pass_the_grid(stop):
    with pytest.raises(ValueError, match=f"short_stop_ev {stop} eV is not above 18 and up to 98 eV"):
        Grid(-9, 98, 1, (-9, -6), (18, 32), short_stop_ev=stop)


def test_spectra_are_cut_where_they_end():
    grid = Grid(-9, 98, 1, (-9, -6), (18, 32), short_stop_ev=27)
    assert grid.short_points == grid.points_to(27.4) == 37
    mu = np.arange(3.0 * len(grid)).reshape(3, -1)
    cut = grid.cut(mu, np.array([27.0, 50.9, 200.0]))
    assert np.isfinite(cut).sum(1).tolist() == [37, 60, 108]
    np.testing.assert_array_equal(cut[np.isfinite(cut)], mu[np.isfinite(cut)])
    whole = replace(grid, short_stop_ev=None)
    assert whole.short_points is None
    np.testing.assert_array_equal(whole.cut(mu, np.array([27.0, 50.9, 200.0])), mu)


def test_the_level_of_a_short_spectrum_continues_its_last_value():
    grid = Grid(-9, 98, 1, (-9, -6), (18, 32), short_stop_ev=27)
    mu = np.where(grid.energy < 10, 0.0, 2.0 + 0.1 * grid.energy)[None]
    short = grid.cut(mu, np.array([27.0]))
    foot, level = grid.levels(short)
    assert foot[0] == 0
    # 18…27 eV and five points more of the value at 27 eV.
    assert level[0] == pytest.approx((sum(2.0 + 0.1 * e for e in range(18, 28)) + 5 * 4.7) / 15)
    np.testing.assert_allclose(grid.footing(short)[0, :37], mu[0, :37] / level[0])


def test_only_an_unknown_end_is_continued():
    spectra = np.array([[1.0, 2.0, np.nan, np.nan], [1.0, 2.0, 3.0, 4.0]], np.float32)
    np.testing.assert_array_equal(continued(spectra), [[1, 2, 2, 2], [1, 2, 3, 4]])
    assert continued(spectra).dtype == np.float32
    assert np.isnan(continued(np.full((1, 3), np.nan))).all()
