"""Test normalisation, E0 and windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from xas_agent.agent.spectra.e0 import find_e0, find_edge
from xas_agent.agent.spectra.normalisation import NormalisationSettings, normalise

E0 = 8333.0
ENERGY = E0 + np.concatenate([np.arange(-200, -30, 5.0), np.arange(-30, 40, 0.35), np.arange(40, 700, 3.0)])


def edge(energy=ENERGY, width=1.5, white_line=0.8):
    e = energy - E0
    rise = 0.5 + np.arctan(e / width) / np.pi
    exafs = 0.1 * np.sin(np.sqrt(np.maximum(e, 0)) * 3) * np.exp(-np.maximum(e, 0) / 150)
    return rise * (1 + white_line * np.exp(-(((e - 6) / 4) ** 2)) + exafs)


def series(n, seed, energy=ENERGY):
    rng = np.random.default_rng(seed)
    rows = [edge(energy, w, h) for w, h in zip(rng.uniform(0.8, 2, n), rng.uniform(0.1, 1.2, n), strict=True)]
    tilt = rng.uniform(-4e-4, 4e-4, (n, 1)) * (energy - E0)
    return rng.uniform(0.2, 2, (n, 1)) * np.array(rows) + tilt + rng.uniform(0, 2, (n, 1))


@given(
    st.floats(-2.0, 2.0),
    st.floats(-1e-3, 1e-3),
    st.floats(0.01, 20.0),
    st.sampled_from(["edge_step", "area"]),
    st.sampled_from([None, 0, 1, 2, 3]),
)
@settings(max_examples=60, deadline=None)
def test_line_and_factor_do_not_matter(a, b, c, mode, nnorm):
    options = NormalisationSettings(mode=mode, nnorm=nnorm)
    mu = edge()
    plain, changed = normalise(ENERGY, mu, options), normalise(ENERGY, a + b * c * (ENERGY - E0) + c * mu, options)
    np.testing.assert_allclose(changed.flat, plain.flat, atol=1e-6)
    np.testing.assert_allclose(changed.norm, plain.norm, atol=1e-6)
    assert changed.edge_step[0] == pytest.approx(c * plain.edge_step[0], rel=1e-6)
    assert changed.e0[0] == pytest.approx(plain.e0[0], abs=1e-6)


@pytest.mark.parametrize("nvict", [0, 3])
def test_step_without_edge_is_read_inside_the_scan(nvict):
    x = ENERGY - E0
    normalised = normalise(ENERGY, 1 - 1e-3 * x - 1e-6 * x**2, NormalisationSettings(nvict=nvict))
    assert np.isnan(normalised.e0[0])
    assert abs(normalised.edge_step[0]) < 0.5  # at 0 eV it is 68
    assert np.isfinite(normalised.pre_slope[0])


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.booleans(), st.sampled_from(["edge_step", "area"]))
@settings(max_examples=40, deadline=None)
def test_batch_equals_single_spectra_in_any_order(seed, n, own_energies, mode):
    rng = np.random.default_rng(seed)
    mu = series(n, seed) + 1e-3 * rng.normal(size=(n, len(ENERGY)))
    energy = ENERGY + 0.05 * rng.normal(size=(n, 1)) if own_energies else ENERGY
    options = NormalisationSettings(mode=mode)
    together, order = normalise(energy, mu, options), rng.permutation(n)
    turned = normalise(energy[order] if own_energies else energy, mu[order], options)
    np.testing.assert_allclose(turned.flat, together.flat[order], atol=1e-9)
    for i in range(n):
        alone = normalise(energy[i] if own_energies else energy, mu[i], options)
        for name in ("flat", "norm", "pre_edge", "post_edge", "e0", "edge_step", "pre_slope", "post_slope"):
            np.testing.assert_allclose(getattr(together, name)[i], getattr(alone, name)[0], atol=1e-8, err_msg=name)


@pytest.mark.parametrize("own_energies", [False, True])
def test_large_batch_equals_single_spectra(own_energies):
    mu = series(250, 3)
    energy = ENERGY + 0.01 * np.arange(250)[:, None] if own_energies else ENERGY
    together = normalise(energy, mu)
    for i in (0, 100, 249):
        alone = normalise(energy[i] if own_energies else energy, mu[i])
        for name in ("flat", "pre_edge", "rise", "edge_step", "post_curvature"):
            np.testing.assert_allclose(getattr(together, name)[i], getattr(alone, name)[0], atol=1e-9, err_msg=name)
        assert together.windows is not None
        assert alone.windows is not None
        assert together.windows.norm2[i] == alone.windows.norm2[0]
        assert together.pre[1][i] == alone.pre[1][0]


@given(st.integers(0, 1000), st.sampled_from([0.5, 1.0, 2.5]))
@settings(max_examples=20, deadline=None)
def test_e0_is_the_maximum_of_the_gaussian_derivative(seed, sigma):
    mu, step = series(1, seed), 0.05
    fine = np.arange(-60, 80, step)
    derivative = gaussian_filter1d(np.interp(fine, ENERGY - E0, mu[0]), sigma / step, order=1)
    near = np.abs(fine) < 16
    expected = fine[near][derivative[near].argmax()]
    assert find_e0((ENERGY - E0)[None], mu, sigma, (-16, 16))[0] == pytest.approx(expected, abs=0.05)


def test_repeated_energies_equal_shared_energies():
    mu = series(5, 1)
    shared, own = normalise(ENERGY, mu), normalise(np.repeat(ENERGY[None], 5, 0), mu)
    np.testing.assert_allclose(own.flat, shared.flat, atol=1e-9)
    np.testing.assert_array_equal(own.post_order, shared.post_order)


@pytest.mark.parametrize(("nnorm", "slope", "curvature"), [(0, 0, 0), (1, 3e-4, 0), (2, 3e-4, -2e-7)])
def test_lines_of_a_synthetic_spectrum_are_recovered(nnorm, slope, curvature):
    x = ENERGY - E0
    mu = 1.2 - 4e-4 * x + np.where(x > 0, 0.7 + slope * x + curvature * x**2, 0.0)
    normalised = normalise(ENERGY, mu, NormalisationSettings(e0=E0, nnorm=nnorm))
    assert normalised.edge_step[0] == pytest.approx(0.7)
    assert normalised.pre_slope[0] == pytest.approx(-4e-4)
    assert normalised.post_slope[0] == pytest.approx(slope, abs=1e-12)
    assert normalised.post_curvature[0] == pytest.approx(curvature, abs=1e-12)
    np.testing.assert_allclose(normalised.flat[0], x > 0, atol=1e-9)


def test_victoreen_pre_edge_is_recovered():
    mu = (3e11 + 1e7 * ENERGY) * ENERGY**-3.0
    normalised = normalise(ENERGY, mu + 0.5 * (ENERGY > E0), NormalisationSettings(e0=E0, nvict=3, nnorm=0))
    np.testing.assert_allclose(normalised.pre_edge[0], mu, rtol=1e-9)
    assert normalised.edge_step[0] == pytest.approx(0.5)
    step = 1e-3
    slope = np.diff(np.interp([E0 - step, E0 + step], ENERGY, normalised.pre_edge[0]))[0] / (2 * step)
    assert normalised.pre_slope[0] == pytest.approx(slope, rel=1e-3)


def test_windows_follow_from_the_range():
    long = normalise(ENERGY, edge(), NormalisationSettings(e0=E0)).windows
    assert long is not None
    assert (long.pre1[0], long.pre2[0], long.norm1[0], long.nnorm[0]) == (-195, -97.5, 25, 2)
    assert long.norm2[0] == pytest.approx(ENERGY[-1] - E0, abs=2.5)
    for stop, order in ((250.0, 1), (40.0, 0)):
        kept = E0 + stop > ENERGY
        short = normalise(ENERGY[kept], edge()[kept], NormalisationSettings(e0=E0)).windows
        assert short is not None
        assert short.nnorm[0] == order


def test_area_and_none_need_no_edge_step():
    kept = ENERGY < E0 + 60
    energy, mu = ENERGY[kept], 0.4 + 3.0 * edge()[kept]
    normalised = normalise(energy, mu, NormalisationSettings(mode="area"))
    inside = (energy >= normalised.e0[0] - 20) & (energy <= normalised.e0[0] + 60)
    mean = np.trapezoid(normalised.flat[0][inside], energy[inside]) / np.ptp(energy[inside])
    assert mean == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(normalise(energy, mu, NormalisationSettings(mode="none")).flat[0], mu)


@given(st.integers(0, len(ENERGY) - 1), st.floats(-0.5, 0.5))
@settings(max_examples=50, deadline=None)
def test_one_wrong_point_does_not_move_the_edge(at, size):
    mu = edge()[None].copy()
    mu[0, at] += size
    assert find_edge(ENERGY[None], mu)[0] == pytest.approx(E0, abs=6.0)


def test_spectra_without_edge_give_finite_values():
    normalised = normalise(ENERGY, np.stack([np.zeros(len(ENERGY)), -edge(), edge()]))
    assert np.isfinite(normalised.flat).all()
    assert np.isfinite(normalised.e0[2])


@given(st.integers(0, 2**32 - 1), st.integers(4, 60), st.booleans())
@settings(max_examples=80, deadline=None)
def test_finite_input_never_raises(seed, points, own_energies):
    rng = np.random.default_rng(seed)
    energy = 7000 + np.cumsum(rng.uniform(1e-3, 8.0, (3 if own_energies else 1, points)), axis=1)
    mu = rng.normal(size=(3, points)) * 10.0 ** rng.integers(-8, 8)
    for mode in ("edge_step", "area"):
        assert np.isfinite(normalise(energy, mu, NormalisationSettings(mode=mode)).flat).all()
