"""Test the search for gross glitches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.spectra.gross_glitches import find_gross_glitches, may_have_gross_glitches
from xas_agent.agent.types.reasons import Flag

E0 = 8333.0
ENERGY = E0 + np.concatenate([np.arange(-120, -20, 5.0), np.arange(-20, 60, 0.5), np.arange(60, 500, 3.0)])


def spectra(count=1, noise=0.002, seed=0, width=1.2):
    x = ENERGY - E0 - 8
    white = 0.9 * np.exp(-((x - 4) ** 2) / 8) + 0.1 * np.sin(x / 8) * np.exp(-x / 80) * (x > 0)
    peak = 0.12 * np.exp(-(((x + 9) / 0.9) ** 2))  # a pre-edge peak of the core-hole width
    mu = 0.7 * ((0.5 + np.arctan(x / width) / np.pi) * (1 + white) + peak) + 0.4 - 3e-4 * x
    return mu + noise * np.random.default_rng(seed).normal(size=(count, len(x)))


@given(st.integers(0, 10_000), st.floats(0.2, 0.5), st.integers(1, 3), st.sampled_from([-1, 1]))
@settings(max_examples=100, deadline=None)
def test_glitch_of_20_to_50_per_cent_is_detected(seed, size, points, sign):
    mu = spectra(seed=seed)
    at = np.random.default_rng(seed).integers(6, len(ENERGY) - 8)
    mu[0, at : at + points] += 0.7 * size * sign
    assert may_have_gross_glitches(ENERGY[None], mu).all()


@pytest.mark.parametrize(("size", "min_detected"), [(0.05, 0.99), (0.1, 0.999)])
def test_most_smaller_glitches_are_detected(size, min_detected):
    rng = np.random.default_rng(0)
    mu = spectra(4000)
    for row, at, points, sign in zip(
        mu, rng.integers(6, len(ENERGY) - 8, 4000), rng.integers(1, 4, 4000), rng.choice([-1, 1], 4000), strict=True
    ):
        row[at : at + points] += 0.7 * size * sign
    assert may_have_gross_glitches(ENERGY[None], mu).mean() > min_detected


def test_clean_frames_are_unchanged():
    for noise in (0.0, 0.001, 0.005, 0.02):
        glitches = find_gross_glitches(ENERGY, spectra(200, noise), E0)
        assert glitches is None or glitches.count.sum() <= 1


def test_only_glitches_are_repaired():
    clean = spectra(5)
    spoiled = clean.copy()
    spoiled[2, 150] += 0.2
    glitches = find_gross_glitches(ENERGY, spoiled, E0)
    assert glitches is not None
    assert np.argwhere(glitches.found).tolist() == [[2, 150]]
    assert glitches.flags == ((), (), (Flag.GLITCHES_REPAIRED,), (), ())
    assert glitches.mu[2, 150] == pytest.approx(clean[2, 150], abs=0.02)
    good = np.delete(spoiled.ravel(), 2 * len(ENERGY) + 150)
    np.testing.assert_array_equal(np.delete(glitches.mu.ravel(), 2 * len(ENERGY) + 150), good)


def test_spectrum_of_few_points_is_not_searched():
    assert not may_have_gross_glitches(ENERGY[None, :12], spectra()[:, :12]).any()
