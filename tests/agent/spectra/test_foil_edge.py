"""What one scan of a reference channel shows: a foil, a weak one, one upside down, or none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.spectra.align import Aligned, align
from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.foil import FOIL_READING_SD_EV
from xas_agent.agent.spectra.foil_edge import read_foils
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.types.array import Array
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Flag, Reason

EDGE = Edge(8333.0)
GRID = Grid(-9, 98, 1, (-9, -6), (40, 98))
SETTINGS = AlignmentSettings()
ENERGY = np.concatenate([np.arange(-150, -20, 5.0), np.arange(-20, 60, 0.5), np.arange(60, 450, 4.0)])
BEFORE_FOIL, AFTER_FOIL = 0.3, 0.05  # absorption of the gas between the ion chambers


def edge_at(e0: float, white_line: float = 0.0) -> Array:
    x = ENERGY - e0
    return 0.5 + np.arctan(x / 1.2) / np.pi + white_line * np.exp(-(((x - 4) / 3) ** 2)) - 2e-4 * x


FOIL = edge_at(0.4)
OXIDE = edge_at(11.0, white_line=0.5)


def transmission(mu: Array, reference: Array, noise: float = 2e-4) -> Batch:
    rng = np.random.default_rng(0)
    rows = np.stack([mu, reference])[:, None] + noise * rng.normal(size=(2, 3, len(ENERGY)))
    return Batch(EDGE.edge_ev + ENERGY, rows[0], reference=rows[1], transmission=True)


def aligned(batch: Batch) -> Aligned:
    return align(batch, GRID, EDGE, SETTINGS)


@given(st.floats(0.2, 2.5), st.floats(0.05, 2.0), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_spectrum_that_contains_the_foil_is_set_aside(foil: float, sample: float, metal: bool) -> None:
    mu = sample * (FOIL if metal else OXIDE)
    right = aligned(transmission(BEFORE_FOIL + mu, AFTER_FOIL + foil * FOIL))
    assert right.flags == ((),) * 3
    assert right.refused == (None,) * 3
    swapped = aligned(transmission(BEFORE_FOIL + mu + foil * FOIL, -AFTER_FOIL - foil * FOIL))
    reasons = [refusal and refusal.reason for refusal in swapped.refused]
    if foil > 0.15 * (foil + sample):
        assert reasons == [Reason.REFERENCE_UPSIDE_DOWN] * 3
    else:
        assert all(Flag.REFERENCE_UPSIDE_DOWN in flags for flags in swapped.flags)


def test_a_reference_upside_down_beside_a_mu_of_its_own_is_flagged_and_not_used() -> None:
    batch = replace(transmission(OXIDE, -FOIL), transmission=False)
    found = aligned(batch)
    assert found.flags == ((Flag.REFERENCE_UPSIDE_DOWN,),) * 3
    assert found.refused == (None,) * 3
    np.testing.assert_array_equal(found.quantities["energy_sd_ev"], SETTINGS.energy_sd_ev)
    without = aligned(replace(batch, reference=None))
    np.testing.assert_array_equal(found.mu, without.mu)


@pytest.mark.parametrize("sample", [OXIDE, FOIL, 0.1 * OXIDE])
@pytest.mark.parametrize("background", [0.05, 0.5])
def test_a_fluorescence_channel_for_iref_is_no_foil_upside_down(sample: Array, background: float) -> None:
    fluorescence = background + edge_at(11.0 if sample is not FOIL else 0.4, white_line=0.2)
    found = aligned(transmission(sample, -sample - np.log(fluorescence)))
    assert found.flags == ((Flag.NO_FOIL_EDGE,),) * 3
    assert found.refused == (None,) * 3


def test_a_dark_current_in_iref_does_not_set_good_spectra_aside() -> None:
    transmitted = np.exp(-OXIDE)
    found = aligned(transmission(OXIDE, np.log(transmitted / (transmitted + 0.02))))
    assert found.refused == (None,) * 3


def weak_foils(step_ev: float, width_ev: float, noise_in_steps: float) -> tuple[Array, Array]:
    """Errors and claimed standard deviations, eV, of the foils of 200 that are read."""
    energy = np.concatenate([np.arange(-150, -20, 5.0), np.arange(-20, 60, step_ev), np.arange(60, 450, 4.0)])
    foil = 0.01 * (0.5 + np.arctan(energy / width_ev) / np.pi)
    noise = 0.01 * noise_in_steps * np.random.default_rng(1).normal(size=(200, len(energy)))
    readings = read_foils(Batch(EDGE.edge_ev + energy, noise, reference=foil + noise), EDGE, SETTINGS)
    shift, sd = np.array([(reading.shift_ev, reading.sd_ev) for reading in readings]).T
    return shift[~np.isnan(shift)], sd[~np.isnan(shift)]


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("step_ev", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("noise_in_steps", [0.02, 0.04])
def test_the_uncertainty_of_a_weak_foil_is_its_true_one(step_ev: float, noise_in_steps: float) -> None:
    errors, claimed = weak_foils(step_ev, 1.2, noise_in_steps)
    assert len(errors) > 180
    assert rms(claimed) > 1.5 * FOIL_READING_SD_EV
    assert 0.8 < rms(claimed) / rms(errors) < 1.25


@pytest.mark.parametrize("width_ev", [0.8, 1.2, 2.5])
def test_a_foil_that_drowns_in_noise_is_not_read_with_confidence(width_ev: float) -> None:
    for noise_in_steps in (0.01, 0.02, 0.04, 0.05, 0.06, 0.08, 0.1, 0.2, 0.4):
        errors, claimed = weak_foils(0.5, width_ev, noise_in_steps)
        assert len(errors) < 50 or rms(claimed) > 0.7 * rms(errors)
    assert len(errors) == 0


def test_a_strong_foil_is_as_certain_as_repeated_scans() -> None:
    readings = read_foils(transmission(OXIDE, FOIL), EDGE, SETTINGS)
    assert {reading.sd_ev for reading in readings} == {FOIL_READING_SD_EV}


def test_a_constant_channel_is_no_foil():
    """Its derivative is rounding, of which some values look like an edge without noise."""
    energy, levels = np.linspace(-150, 600, 700), np.random.default_rng(0).uniform(-3, 3, (50, 1))
    rows = np.broadcast_to(levels, (50, 700)).copy()
    batch = Batch(EDGE.edge_ev + energy, np.tile(np.tanh(energy), (50, 1)), reference=rows, transmission=True)
    found = read_foils(batch, EDGE, SETTINGS)
    assert all(np.isnan(calibration.shift_ev) and calibration.flag is None for calibration in found)
