"""Energies that an adaptive scan chooses, on the simulated cathode's spectra."""

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.propose import EnergyProposer, EnergySettings
from xas_agent.agent.propose.kernel import GaussianProcessRegressor, XANESKernel, lengths, log_likelihood
from xas_agent.agent.types import Array, edge_ev
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

CO_K_EDGE_EV = edge_ev("Co")
SPECTRA = ReferenceSpectra(1.0)


def measured(energy: Array, x: float = 0.7) -> Array:
    """μ of the cathode without noise, with an edge step of 0.9 on a background of 0.6."""
    return absorption(SPECTRA.cathode(energy, x), energy, 0.9, 0.6)


Spectrum = Callable[[Array], Array]


def run(proposer: EnergyProposer, spectrum: Spectrum) -> str:
    while not (why := proposer.done()):
        energy = proposer.suggest()
        proposer.ingest(energy, spectrum(energy))
    return why


def scan(proposer: EnergyProposer, x: float = 0.7, noise: float = 0.0, drift: float = 0.0, at_once: int = 1) -> str:
    rng, level = np.random.default_rng(0), 0.0
    while not (why := proposer.done()):
        energy = proposer.suggest(at_once)
        walk = level + np.cumsum(drift * rng.standard_normal(len(energy)))
        level = walk[-1]
        proposer.ingest(energy, measured(energy, x) + walk + noise * rng.standard_normal(len(energy)))
    return why


def rmse(proposer: EnergyProposer, x: float = 0.7) -> float:
    """Root-mean-square error of the edge step, apart from a common level."""
    known = proposer.spectrum()
    error = known.mu - measured(known.energy, x)
    return float(np.std(error)) / 0.9


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize("x", [1.0, 0.5, 0.2])
def test_a_fifth_of_the_points_is_more_than_enough(x, at_once):
    proposer = EnergyProposer(EnergySettings(error=0.003), CO_K_EDGE_EV)
    why = scan(proposer, x, at_once=at_once)
    assert "is known to 0.00" in why
    assert proposer.points < len(proposer.grid) / 5
    assert rmse(proposer, x) < 0.003
    assert proposer.spectrum().edge_step == pytest.approx(0.9, rel=0.15)


def test_most_points_lie_at_the_edge():
    proposer = EnergyProposer(EnergySettings(error=0.003), CO_K_EDGE_EV)
    scan(proposer)
    energy = np.array(proposer.energies) - CO_K_EDGE_EV
    near = (energy > -10) & (energy < 30)
    assert near.mean() > 2 * 40 / 170


def test_better_than_even_steps():
    proposer = EnergyProposer(EnergySettings(error=1e-9, max_points=60), CO_K_EDGE_EV)
    scan(proposer)
    even = np.linspace(proposer.grid[0], proposer.grid[-1], 60)
    error = np.interp(proposer.grid, even, measured(even)) - measured(proposer.grid)
    assert rmse(proposer) < np.std(error) / 0.9 / 3


@pytest.mark.parametrize(("noise", "drift"), [(0.002, 0.0), (0.004, 0.0), (0.0005, 0.002)])
def test_the_expected_error_follows_noise_and_drift(noise, drift):
    proposer = EnergyProposer(EnergySettings(error=1e-9), CO_K_EDGE_EV)
    assert scan(proposer, noise=noise, drift=drift) == "113 points are measured"
    assert 0.4 < proposer.spectrum().error / rmse(proposer) < 2.5
    assert rmse(proposer) < 0.006


def test_a_descriptor_can_ask_for_more_points():
    def describe(energy: Array, spectra: Array) -> dict[str, Array]:
        """An oxidation state that follows the energy at half height by 3 eV per electron."""
        half = [np.interp(1.0, np.maximum.accumulate(mu[150:]), energy[150:]) for mu in spectra]
        return {"OS": np.array(half) / 3}

    few, more = (
        EnergyProposer(EnergySettings(error=0.01, descriptor_errors=limits), CO_K_EDGE_EV, describe)
        for limits in ({}, {"OS": 0.005})
    )
    scan(few)
    scan(more)
    assert few.descriptor_sd()["OS"] > 0.005 > more.descriptor_sd()["OS"]
    assert more.points > few.points
    with pytest.raises(ValueError, match="descriptor_errors without a model"):
        EnergyProposer(EnergySettings(descriptor_errors={"OS": 0.1}), CO_K_EDGE_EV)


def test_points_without_a_value_end_the_scan_and_are_not_asked_for_again():
    proposer = EnergyProposer(EnergySettings(max_points=40), CO_K_EDGE_EV)
    dead = CO_K_EDGE_EV + 15.0
    while not proposer.done():
        energy = proposer.suggest()
        proposer.ingest(energy, np.where(np.abs(energy - dead) < 3, np.nan, measured(energy)))
    assert 30 < proposer.points < 40
    blind = EnergyProposer(EnergySettings(max_points=40), CO_K_EDGE_EV)
    while not (why := blind.done()):
        blind.ingest(energy := blind.suggest(), np.full(len(energy), np.nan))
    assert why == "40 points are measured, 40 without a value"
    with pytest.raises(ValueError, match="found 0 measured points"):
        blind.spectrum()


@pytest.mark.parametrize("at", [20, 40])
def test_a_glitch_of_one_point_costs_points_and_not_the_spectrum(at):
    found: list[int] = []
    for glitch in (0.0, 0.1):
        proposer, measured_before = EnergyProposer(EnergySettings(), CO_K_EDGE_EV), 0
        while not proposer.done():
            energy = proposer.suggest()
            number = measured_before + np.arange(len(energy))
            measured_before += len(energy)
            proposer.ingest(energy, measured(energy) + glitch * (number == at))
        assert rmse(proposer) < 0.003
        found.append(proposer.points)
    assert found[0] < found[1] < found[0] + 10


def test_a_foil_is_known_at_the_same_points():
    proposer = EnergyProposer(EnergySettings(error=0.003), CO_K_EDGE_EV)
    scan(proposer)
    foil = proposer.along(SPECTRA.foil(np.array(proposer.energies)))
    assert foil is not None
    assert np.std(foil - SPECTRA.foil(proposer.grid)) < 0.01


@given(st.floats(-40, 40), st.integers(0, 2**32 - 1))
def test_the_kernel_is_a_covariance(e0, seed):
    grid = CO_K_EDGE_EV + np.arange(-60, 110.1, 0.3)
    kernel = XANESKernel(grid, CO_K_EDGE_EV + e0, 0.1, 10.0, 0.01)
    rng = np.random.default_rng(seed)
    X = np.stack([rng.choice(grid, 40), np.arange(1.0, 41)], axis=1)
    covariance = kernel(X)
    np.testing.assert_allclose(covariance, covariance.T)
    np.testing.assert_allclose(np.diag(covariance), kernel.diag(X))
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * np.trace(covariance)


def test_structures_are_finest_at_the_edge():
    found = lengths(np.array([-60.0, -10.0, 0.0, 10.0, 30.0, 100.0]))
    assert list(found[1:4]) == [pytest.approx(1.6)] * 2 + [pytest.approx(0.85 * 10**0.5)]
    assert found[0] > found[4] > found[3]
    assert found[-1] == pytest.approx(8.5)


@pytest.mark.parametrize("range_ev", [(-10, 110), (-60, 20)])
def test_a_range_without_a_baseline_or_without_what_lies_behind_is_refused(range_ev):
    with pytest.raises(ValueError, match="from 20 eV below the edge to 35 eV above it"):
        EnergySettings(start_ev=range_ev[0], stop_ev=range_ev[1])


def step(energy: Array, background: float = 0.0, height: float = 1.0) -> Array:
    """An edge 12 eV above the tabulated one on a background that decays as E^-3, with a white line."""
    from_e0 = energy - CO_K_EDGE_EV - 12
    edge = 0.5 + np.arctan(from_e0 / 2) / np.pi + 0.25 * np.exp(-4 * np.log(2) * ((from_e0 - 9) / 7) ** 2)
    return background * (energy / CO_K_EDGE_EV) ** -3 + height * edge


@pytest.mark.parametrize("error", [0.002, 0.005])
@pytest.mark.parametrize("at", [-17.0, -14.3, -11.2, -8.5])
def test_a_narrow_pre_edge_peak_is_not_missed(at, error):
    """It is 1.7 eV wide, as those of oxides of Ti, V and Cr; the spectrum beside it does not tell of it."""

    def spectrum(energy: Array) -> Array:
        return step(energy) + 0.3 * np.exp(-4 * np.log(2) * ((energy - CO_K_EDGE_EV - 12 - at) / 1.7) ** 2)

    proposer = EnergyProposer(EnergySettings(error=error), CO_K_EDGE_EV)
    run(proposer, spectrum)
    known = proposer.spectrum()
    assert np.abs(known.mu - spectrum(known.energy)).max() < 0.1
    assert np.sqrt(np.mean((known.mu - spectrum(known.energy)) ** 2)) < 2 * error


@pytest.mark.parametrize(("background", "height"), [(2.0, 0.02), (2.5, 0.1), (0.0, 1.0)])
def test_the_edge_step_is_counted_from_the_background(background, height):
    proposer = EnergyProposer(EnergySettings(), CO_K_EDGE_EV)
    why = run(proposer, lambda energy: step(energy, background, height))
    known = proposer.spectrum()
    assert "is known to 0.00" in why
    assert known.edge_step == pytest.approx(height, rel=0.1)
    assert known.e0_ev == pytest.approx(CO_K_EDGE_EV + 12, abs=1)
    error = np.sqrt(np.mean((known.mu - step(known.energy, background, height)) ** 2)) / height
    assert error < 0.004


def test_without_an_edge_nothing_is_known_of_its_step():
    proposer = EnergyProposer(EnergySettings(), CO_K_EDGE_EV)
    assert run(proposer, lambda energy: 1 - 1e-4 * (energy - CO_K_EDGE_EV)) == "113 points are measured"
    assert np.isnan(proposer.spectrum().error)


def test_an_energy_that_was_not_read_spoils_no_scan():
    proposer = EnergyProposer(EnergySettings(), CO_K_EDGE_EV)
    for number in count():
        if proposer.done():
            break
        energy = proposer.suggest()
        proposer.ingest(np.where(number in (5, 6), np.nan, energy), step(energy))
    assert len(set(proposer.energies)) > 40
    assert np.abs(proposer.spectrum().mu - step(proposer.spectrum().energy)).max() < 0.02


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_energy_is_refused(count):
    with pytest.raises(ValueError, match="expected at least 1"):
        EnergyProposer(EnergySettings(), CO_K_EDGE_EV).suggest(count)


def test_few_points_cover_the_whole_range():
    first = EnergyProposer(EnergySettings(max_points=10), CO_K_EDGE_EV).suggest()
    assert len(first) == 10
    assert (first[0], first[-1]) == (pytest.approx(CO_K_EDGE_EV - 60), pytest.approx(CO_K_EDGE_EV + 110, abs=0.3))


def test_the_likelihood_is_that_of_scikit_learn():
    energy = CO_K_EDGE_EV + np.linspace(-30, 90, 40)
    X, values = np.stack([energy, np.arange(1.0, 41)], axis=1), measured(energy)
    kernel = XANESKernel(energy, CO_K_EDGE_EV, 0.1, 1.0, 1e-3)
    fitted = GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=None).fit(X, values)  # pyright: ignore
    assert log_likelihood(kernel, X, values, 1e-6) == pytest.approx(fitted.log_marginal_likelihood_value_)
    with pytest.raises(np.linalg.LinAlgError):
        log_likelihood(kernel, X, values, -1.0)
