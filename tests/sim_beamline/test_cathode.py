from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import FEFF

from xas_agent.models.datasets import cathode as cathode_data
from xas_agent.sim_beamline.cathode import Cell, x_open_loop_end
from xas_agent.sim_beamline.experiments.charge import ChargeSettings
from xas_agent.sim_beamline.spectra import ReferenceSpectra

ENERGY = 7709 + np.arange(-60, 110, 0.5)


@pytest.fixture(scope="module")
def spectra() -> ReferenceSpectra:
    return ReferenceSpectra(broadening_ev=1.0)


@pytest.mark.parametrize("seed", range(10))
def test_open_loop_runs_past_the_target_for_every_seed(seed):
    assert 0.05 < x_open_loop_end(ChargeSettings(), seed) < 0.2


def test_seeds_differ():
    ends = [x_open_loop_end(ChargeSettings(), seed) for seed in range(10)]
    assert np.ptp(ends) > 0.03


@given(st.lists(st.floats(0, 2000), min_size=1, max_size=30), st.integers(0, 100))
@settings(max_examples=50)
def test_chemistry_depends_on_charge_alone_not_on_how_time_is_cut(steps, seed):
    s = ChargeSettings()
    cell, once = Cell(s, seed), Cell(s, seed)
    for c in (cell, once):
        c.apply(s.nominal_current_ma)
    for seconds in steps:
        cell.advance(seconds)
    once.advance(sum(steps))
    assert cell.x == pytest.approx(once.x, abs=1e-9)
    assert 0 <= cell.x <= 1.01


def test_without_current_nothing_changes_but_the_clock():
    cell = Cell(ChargeSettings(), 3)
    x = cell.x
    cell.advance(5000)
    assert (cell.x, cell.charge_mah, cell.time_s) == (x, 0, 5000)


def test_voltage_rises_on_charge_and_relaxes_when_the_current_stops():
    s = ChargeSettings()
    cell = Cell(s, 0)
    cell.apply(s.nominal_current_ma)
    voltages = []
    for _ in range(80):
        voltages.append(cell.voltage)
        cell.advance(180)
    assert np.all(np.diff(voltages) > 0)
    assert 3.7 < voltages[0] < voltages[-1] < 4.8
    under_current = cell.voltage
    cell.apply(0)
    assert under_current - cell.voltage == pytest.approx(0.036, abs=0.002)


@given(x=st.floats(0, 1))
@settings(max_examples=50)
def test_a_spectrum_is_linear_between_neighbouring_compositions(spectra, x):
    lower, upper = spectra.cathode(ENERGY, 0.5), spectra.cathode(ENERGY, 2 / 3)
    between = spectra.cathode(ENERGY, 0.5 + x * (2 / 3 - 0.5))
    np.testing.assert_allclose(between, (1 - x) * lower + x * upper, atol=1e-3)


def test_a_spectrum_looks_like_a_co_k_edge(spectra):
    for x in (0.1, 0.5, 1.0):
        mu = spectra.cathode(ENERGY, x)
        assert np.all(np.abs(mu[ENERGY < 7700]) < 0.03)
        assert 7728 < ENERGY[mu.argmax()] < 7734, "white line"
        assert mu[ENERGY > 7760].mean() == pytest.approx(1, abs=0.1)


def test_the_edge_rises_in_energy_as_lithium_leaves(spectra):
    edge = [
        float(np.interp(0.5, mu[:160], ENERGY[:160]))
        for mu in (spectra.cathode(ENERGY, x) for x in (1.0, 0.75, 0.5, 0.25, 0.0))
    ]
    assert np.all(np.diff(edge) > 0)


def test_x_may_change_along_the_sweep(spectra):
    x = np.linspace(0.6, 0.4, len(ENERGY))
    mu = spectra.cathode(ENERGY, x)
    for i in (0, 150, 339):
        assert mu[i] == pytest.approx(float(spectra.cathode(ENERGY[i], x[i])[0]))


def test_foil_stands_at_the_tabulated_edge(spectra):
    slope = np.gradient(spectra.foil(ENERGY), ENERGY)
    assert ENERGY[slope.argmax()] == pytest.approx(7709, abs=0.5)


def test_the_offset_moves_the_cathode_and_not_the_foil():
    here, there = ReferenceSpectra(1.0, 3.0), ReferenceSpectra(1.0, 2.0)
    np.testing.assert_allclose(here.cathode(ENERGY, 0.7), there.cathode(ENERGY + here.feff_scale, 0.7))
    np.testing.assert_array_equal(here.foil(ENERGY), there.foil(ENERGY))


@given(st.floats(0.01, 0.1), st.floats(0.8, 1.2), st.floats(-0.01, 0.01))
@settings(max_examples=50)
def test_extension_is_continuous_and_ends_at_nothing_and_at_the_background(first, last, slope):
    energy = np.arange(7712.0, 7811.0)
    mu = np.interp(energy, [7712, 7713, 7725, 7809, 7810], [first, 1.1 * first, 1, last - slope, last])
    grid = np.arange(7000.0, 8500.0, 0.1)
    out = cathode_data.extend(energy, mu, grid)
    assert np.all(np.isfinite(out))
    assert np.abs(np.diff(out)).max() < 0.2 * 0.1 + 1e-9
    assert 0 < out[0] < 0.02 * first
    assert out[-1] == pytest.approx(1, abs=1e-3)


def test_shipped_spectra_are_those_of_feff(tmp_path):
    cathode_data.build(FEFF, tmp_path / "made.npz")
    shipped_path = Path(str(files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz")))
    assert shipped_path.stat().st_size < 60_000
    with np.load(tmp_path / "made.npz") as made, np.load(shipped_path) as shipped:
        assert set(made) == set(shipped)
        for name in set(made) - {"feff_offset_ev"}:
            np.testing.assert_allclose(shipped[name], made[name], atol=1e-6)
