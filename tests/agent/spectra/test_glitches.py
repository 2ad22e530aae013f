"""Test the fine search for glitches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import voigt_profile

from xas_agent.agent.spectra.glitches import GlitchSettings, find_glitches

E0 = 8345.0
RELATIVE = np.concatenate([np.arange(-150, -30, 4.0), np.arange(-30, 45, 0.4), np.arange(45, 500, 2.5)])
ENERGY = E0 + RELATIVE
NOISE = 0.003
SETTINGS = GlitchSettings()


def xanes(white_line=1.0, pre_edge=0.15, width=1.0, x=RELATIVE):
    """Return an edge broadened by 1.8 eV, with a white line, EXAFS and a pre-edge peak.

    The peak is a Voigt profile with σ of ``width`` eV and γ of 0.4 eV (the core hole).
    """
    k = np.sqrt(np.maximum(x, 0) / 3.81)
    exafs = 0.08 * np.sin(2 * 1.9 * k) * np.exp(-0.01 * k**2) * (1 - np.exp(-np.maximum(x, 0) / 15))
    peak = pre_edge * voigt_profile(x + 9, width, 0.4) / voigt_profile(0, width, 0.4)
    line = white_line * np.exp(-(((x - 4) / 1.6) ** 2) / 2)
    return 0.5 + np.arctan(x / 0.9) / np.pi + line + peak + exafs


def series(n, seed, noise=NOISE):
    rng = np.random.default_rng(seed)
    rows = [xanes(w, p) for w, p in zip(rng.uniform(0.3, 2, n), rng.uniform(0, 0.3, n), strict=True)]
    return np.array(rows) + noise * rng.normal(size=(n, len(ENERGY)))


def with_glitches(mu, seed, sigma=NOISE, fraction=0.05):
    """Return spectra with 5 % of the points moved up or down by 5…50 σ, and the mask of these points."""
    rng = np.random.default_rng(seed)
    at = rng.random(mu.shape) < fraction
    return mu + np.where(at, rng.choice([-1, 1], mu.shape) * rng.uniform(5, 50, mu.shape) * sigma, 0), at


def rates(found, at):
    return (found & at).sum() / at.sum(), (found & ~at).sum() / (~at).sum()


def test_most_glitches_are_found_and_few_good_points_altered():
    spoiled, at = with_glitches(series(40, 1), 2)
    glitches = find_glitches(ENERGY, spoiled, E0, SETTINGS)
    hit, touched = rates(glitches.found, at)
    assert hit >= 0.95
    assert touched <= 0.005


def test_earlier_frames_help():
    rng = np.random.default_rng(3)
    progress = np.linspace(0, 1, 30)[:, None]
    drifting = (1 + 0.05 * progress) * (
        (1 - progress) * xanes(0.4, 0.2) + progress * xanes(0.9, 0.05)
    ) + 0.1 * progress
    clean = drifting + NOISE * rng.normal(size=drifting.shape)
    spoiled, at = with_glitches(clean, 4)
    alone = find_glitches(ENERGY, spoiled[5:], E0, SETTINGS)
    together = find_glitches(ENERGY, spoiled[5:], E0, SETTINGS, earlier=spoiled[:5])
    hit, touched = rates(together.found, at[5:])
    assert hit >= 0.98
    assert hit > rates(alone.found, at[5:])[0]
    assert touched <= 0.005


def test_frames_in_turn_equal_their_batch():
    spoiled, _ = with_glitches(series(14, 5), 6)
    together = find_glitches(ENERGY, spoiled[5:], E0, SETTINGS, earlier=spoiled[:5])
    for i in range(5, 14):
        one = find_glitches(ENERGY, spoiled[i : i + 1], E0, SETTINGS, earlier=spoiled[i - 5 : i])
        np.testing.assert_array_equal(one.found[0], together.found[i - 5])
        np.testing.assert_allclose(one.mu[0], together.mu[i - 5], atol=1e-9)


def test_unit_does_not_matter_with_earlier_frames():
    spoiled, _ = with_glitches(series(10, 7), 8)
    unscaled, scaled = (
        find_glitches(ENERGY, k * spoiled[5:], E0, SETTINGS, earlier=k * spoiled[:5]) for k in (1.0, 1e-8)
    )
    assert (unscaled.found != scaled.found).mean() < 1e-3


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize(("white_line", "pre_edge", "width"), [(3.0, 0.0, 1.0), (0.5, 0.8, 0.45), (0.0, 0.05, 0.45)])
def test_sharp_white_line_and_narrow_pre_edge_peak_are_kept(noise, white_line, pre_edge, width):
    """A FWHM of 1.5 eV covers four points."""
    rng = np.random.default_rng(7)
    mu = xanes(white_line, pre_edge, width) + noise * rng.normal(size=(20, len(ENERGY)))
    found = find_glitches(ENERGY, mu, E0, SETTINGS).found
    assert found.mean() <= 0.005
    features = (np.abs(RELATIVE - 4) < 5) | (np.abs(RELATIVE + 9) < 3) | (np.abs(RELATIVE) < 4)
    assert found[:, features].mean() <= 0.01


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0), st.floats(-5.0, 5.0))
@settings(max_examples=15, deadline=None)
def test_good_points_are_kept_and_unit_and_order_do_not_matter(seed, factor, level):
    rng = np.random.default_rng(seed)
    spoiled, _ = with_glitches(series(4, seed), seed + 1)
    glitches = find_glitches(ENERGY, spoiled, E0, SETTINGS)
    np.testing.assert_array_equal(glitches.mu[~glitches.found], spoiled[~glitches.found])
    np.testing.assert_array_equal(glitches.size != 0, glitches.found)
    order = rng.permutation(4)
    np.testing.assert_array_equal(find_glitches(ENERGY, spoiled[order], E0, SETTINGS).found, glitches.found[order])
    scaled = find_glitches(ENERGY, level + factor * spoiled, E0, SETTINGS)
    assert (scaled.found != glitches.found).mean() < 1e-3


def test_two_neighbouring_glitches_are_found_with_their_sizes():
    mu = series(1, 8)
    at = int(np.argmin(np.abs(RELATIVE - 80)))
    mu[0, at : at + 2] += [0.1, 0.08]
    glitches = find_glitches(ENERGY, mu, E0, SETTINGS)
    assert glitches.size[0, at] == pytest.approx(0.1, abs=0.02)
    assert glitches.size[0, at + 1] == pytest.approx(0.08, abs=0.02)
    sigmas = np.abs(glitches.size / glitches.sigma)[glitches.found]
    assert (sigmas > SETTINGS.threshold / 2).all()
    assert glitches.mu[0, at] == pytest.approx(xanes(1.0, 0.15)[at], abs=0.05)


def test_spectrum_with_too_many_glitches_is_unchanged():
    mu, at = with_glitches(series(2, 9), 10, fraction=0.06)
    mu[1, at[1]] = series(2, 9)[1, at[1]]
    glitches = find_glitches(ENERGY, mu, E0, GlitchSettings(max_fraction=0.03))
    assert glitches.too_many.tolist() == [True, False]
    np.testing.assert_array_equal(glitches.mu[0], mu[0])


@given(st.integers(0, 2**32 - 1), st.integers(3, 60))
@settings(max_examples=40, deadline=None)
def test_finite_input_never_raises(seed, points):
    rng = np.random.default_rng(seed)
    energy = 8000 + np.cumsum(rng.uniform(1e-3, 10, points))
    mu = rng.normal(size=(7, points)) * 10.0 ** rng.integers(-8, 8) * rng.integers(0, 2, (7, 1))
    for earlier in (None, mu[:0], np.zeros((5, points))):
        glitches = find_glitches(energy, mu, float(rng.uniform(7900, 8300)), SETTINGS, earlier=earlier)
        assert np.isfinite(glitches.mu).all()
