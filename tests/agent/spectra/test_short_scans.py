"""Test scans that end before the grid of a model that allows it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.spectra.align import Aligned, align
from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.normalisation import NormalisationSettings
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.spectra.theory import align_theory
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Flag, Reason

EDGE = Edge(8333.0, feff_minus_experiment_ev=2.0)
GRID = Grid(-9, 98, 1, (-9, -6), (18, 32), short_stop_ev=27)
DEFAULT = AlignmentSettings()


def edge_shape(e):
    """Return a normalised K edge with a white line and one EXAFS wiggle, E0 12 eV above the table."""
    rise = np.arctan((e - 12.0) / 1.5) / np.pi + 0.5
    return rise * (1 + 0.8 * np.exp(-(((e - 16) / 4) ** 2)) + 0.1 * np.sin(e / 9) * np.exp(-(((e - 60) / 60) ** 2)))


def scan(stop: float = 460.0, start: float = -130.0) -> Batch:
    """Return a scan with steps of 0.5 eV from ``start`` to ``stop``, eV from the tabulated edge."""
    e = np.arange(start, stop + 0.25, 0.5)
    return Batch(EDGE.edge_ev + e, (1.3 - 4e-4 * e + 0.7 * edge_shape(e))[None])


def aligned(batch: Batch, alignment: AlignmentSettings = DEFAULT, background=None) -> Aligned:
    return align(batch, GRID, EDGE, alignment, series_background=background)


@pytest.mark.parametrize(
    ("stop", "known_to", "largest"),
    # The level 1 of a scan that ends inside its window is an extrapolation.
    [(25.0, 27, 0.04), (30.0, 32, 0.02), (40.0, 42, 0.02), (60.5, 62, 0.02), (95.5, 97, 0.02)],
)
def test_short_scan_equals_the_long_one_as_far_as_it_reaches(stop, known_to, largest):
    short, long = aligned(scan(stop)), aligned(scan())
    assert short.refused == long.refused == (None,)
    assert short.flags == ((Flag.SHORT_SCAN,),)
    assert long.flags == ((),)
    known = GRID.energy <= known_to
    np.testing.assert_array_equal(np.isfinite(short.mu[0]), known)
    assert np.isfinite(long.mu).all()
    assert np.abs(short.mu - long.mu)[0, known].max() < largest
    assert short.quantities["extrapolated_ev"][0] == max(32 - 2 - stop, 0)


def test_scan_that_ends_too_early_is_refused_with_both_energies():
    refusal = aligned(scan(24.5)).refused[0]
    assert refusal is not None
    assert refusal.reason == Reason.DOES_NOT_COVER_THE_GRID
    assert refusal.detail == "measured 8203.0…8357.5 eV, needed at least 8325.0…8358.0 eV"
    assert aligned(scan(24.5)).flags == ((),)


def test_energies_of_the_refusal_are_those_that_the_monochromator_shows():
    foil = AlignmentSettings(energy_shift_ev=1.5)
    refusal = aligned(scan(20.0), foil).refused[0]
    assert refusal is not None
    assert refusal.detail == "measured 8203.0…8353.0 eV, needed at least 8323.5…8356.5 eV"


def test_model_of_whole_spectra_refuses_short_ones():
    whole = replace(GRID, short_stop_ev=None)
    refusal = align(scan(90.0), whole, EDGE, DEFAULT).refused[0]
    assert refusal is not None
    assert refusal.reason == Reason.DOES_NOT_COVER_THE_GRID
    up_to_its_limit = align(scan(93.5), whole, EDGE, DEFAULT)
    assert up_to_its_limit.refused == (None,)
    assert np.isfinite(up_to_its_limit.mu).all()


def test_known_edge_step_replaces_the_level_of_the_white_line():
    long = aligned(scan())
    step = long.quantities["edge_step"][0]
    alone, held = aligned(scan(25.0)), aligned(scan(25.0), background=long.background)
    assert held.quantities["edge_step"][0] == pytest.approx(step, rel=1e-9)
    assert alone.quantities["edge_step"][0] > 1.1 * step
    assert held.flags == ((Flag.BACKGROUND_HELD, Flag.SHORT_SCAN),)
    known = np.isfinite(held.mu[0])
    assert np.abs(held.mu - long.mu)[0, known].max() < 0.04


@pytest.mark.parametrize(
    "normalisation",
    [
        NormalisationSettings(nnorm=2),
        NormalisationSettings(norm1=10, norm2=20),
        NormalisationSettings(mode="area"),
        NormalisationSettings(mode="none"),
    ],
)
def test_footing_removes_the_scale_of_any_normalisation(normalisation):
    short = aligned(scan(30.0), AlignmentSettings(normalisation=normalisation))
    assert short.refused == (None,)
    known = np.isfinite(short.mu[0])
    assert known.sum() == 42
    assert np.abs(short.mu - aligned(scan()).mu)[0, known].max() < 0.08


def test_computed_row_that_ends_before_the_grid():
    e = np.linspace(0.0, 100.0, 120)
    energy, mu = (EDGE.edge_ev + e + 2.0)[None], edge_shape(e)[None]
    whole = align_theory(energy, mu, GRID, EDGE.edge_ev)
    points = int((e + 2.0 <= 35.0).sum())
    short = align_theory(energy[:, :points], mu[:, :points], GRID, EDGE.edge_ev)
    assert whole.refused == short.refused == (None,)
    assert (whole.flags, short.flags) == (((),), ((Flag.SHORT_SCAN,),))
    known = np.isfinite(short.mu[0])
    assert GRID.energy[known][-1] == 34
    np.testing.assert_allclose(short.mu[0, known], whole.mu[0, known], atol=0.01)
    too_short = align_theory(energy[:, :20], mu[:, :20], GRID, EDGE.edge_ev).refused[0]
    assert too_short is not None
    assert "needed at least" in too_short.detail
    assert "…8360.0 eV" in too_short.detail


def test_scans_of_a_batch_may_end_at_different_energies():
    stops, points = (28.0, 60.0, 200.0), 400
    axes = [EDGE.edge_ev + np.linspace(-130.0, stop, points) for stop in stops]
    mu = np.stack([0.7 * edge_shape(e - EDGE.edge_ev) for e in axes])
    together = aligned(Batch(np.stack(axes), mu))
    for i, e in enumerate(axes):
        alone = aligned(Batch(e, mu[i : i + 1]))
        np.testing.assert_array_equal(together.mu[i], alone.mu[0])
        assert together.flags[i] == alone.flags[0]
    assert np.isfinite(together.mu).sum(1).tolist() == [40, 72, 108]


@given(st.integers(0, 2**32 - 1), st.integers(12, 400))
@settings(max_examples=100, deadline=None)
def test_finite_input_never_raises(seed, points):
    rng = np.random.default_rng(seed)
    energy = EDGE.edge_ev + np.cumsum(rng.uniform(1e-3, 2.0, points)) - rng.uniform(0, 400)
    mu = rng.normal(size=(2, points)) * 10.0 ** rng.integers(-8, 8)
    answered = [r is None for r in aligned(Batch(energy, mu)).refused]
    found = aligned(Batch(energy, mu)).mu[answered]
    assert np.isfinite(found[:, : GRID.short_points]).all()
