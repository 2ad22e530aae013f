"""Test the alignment of measured and computed spectra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.spectra.align import align
from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.e0 import find_e0
from xas_agent.agent.spectra.foil import EnergyCalibration
from xas_agent.agent.spectra.foil_edge import read_foils
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.spectra.theory import align_theory, with_tail
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.agent.types.tables import AbsorptionTable, Tabulated

EDGE = Edge(8333.0, feff_minus_experiment_ev=2.0)
GRID = Grid(-9, 98, 1, (-9, -6), (40, 98))
SETTINGS = AlignmentSettings()


def edge_shape(e):
    """Return a normalised K edge with a white line and one EXAFS wiggle, E0 12 eV above the table."""
    rise = np.arctan((e - 12.0) / 1.5) / np.pi + 0.5
    return rise * (1 + 0.8 * np.exp(-(((e - 16) / 4) ** 2)) + 0.1 * np.sin(e / 9) * np.exp(-(((e - 60) / 60) ** 2)))


def measured(step=0.7, slope=-4e-4, level=1.3, curve=2e-7, shift=0.0, points=700, start=-130.0, stop=460.0):
    e = np.linspace(start, stop, points)
    mu = level + slope * e + step * edge_shape(e - shift) * (1 - curve * (e - 12) ** 2)
    return EDGE.edge_ev + e, mu[None]


def theory():
    e = np.linspace(2.0, 100.0, 109)
    return (EDGE.edge_ev + e + 2.0)[None], edge_shape(e)[None] + 0.0


def test_measured_and_computed_spectra_align_equally():
    energy, mu = measured()
    aligned = align(Batch(energy, mu), GRID, EDGE, SETTINGS)
    computed = align_theory(*theory(), GRID, EDGE.edge_ev)
    assert aligned.refused == computed.refused == (None,)
    assert np.abs(aligned.mu - computed.mu).max() < 0.02


@given(
    st.floats(0.05, 3.0), st.floats(-1e-3, 1e-3), st.floats(-3.0, 3.0), st.floats(-8.0, 8.0), st.integers(600, 1200)
)
@settings(max_examples=60, deadline=None)
def test_background_step_and_offset_do_not_matter(step, slope, level, shift, points):
    energy, mu = measured(step=step, slope=slope * step, level=level, points=points)
    edge = Edge(EDGE.edge_ev - shift, EDGE.feff_minus_experiment_ev)
    aligned = align(Batch(energy - shift, mu), GRID, edge, SETTINGS)
    assert aligned.refused == (None,)
    reference = align(Batch(*measured()), GRID, EDGE, SETTINGS)
    # The EXAFS has the same effect on the post-edge curve of all spectra.
    expected = reference.quantities["edge_step"][0] / 0.7
    assert aligned.quantities["edge_step"][0] / step == pytest.approx(expected, rel=0.02)
    assert aligned.quantities["e0_ev"][0] == pytest.approx(EDGE.edge_ev + 12.0 - shift, abs=1.0)
    assert np.abs(aligned.mu - reference.mu).max() < 0.02


def test_energy_scale_is_removed():
    edge = Edge(EDGE.edge_ev, feff_minus_experiment_ev=2.0, scale=1.04)
    x = np.array([-10.0, 0.0, 100.0])
    np.testing.assert_allclose(edge.to_feff_scale(1.04 * x), x + 2.0)
    np.testing.assert_allclose(edge.to_measured_scale(edge.to_feff_scale(x)), x)
    energy, mu = measured()
    stretched = align(Batch(EDGE.edge_ev + 1.04 * (energy - EDGE.edge_ev), mu), GRID, edge, SETTINGS)
    # The windows are on the measured scale, which changes the post-edge curve slightly.
    np.testing.assert_allclose(stretched.mu, align(Batch(energy, mu), GRID, EDGE, SETTINGS).mu, atol=0.02)


def test_foil_calibrates_the_energies():
    energy, mu = measured()
    e = energy - EDGE.edge_ev
    foil = (np.arctan(e / 1.2) / np.pi + 0.5 + 0.08 * np.sin(e / 11) * (e > 5))[None]
    true = align(Batch(energy, mu, reference=foil), GRID, EDGE, SETTINGS)
    shifted = align(Batch(energy + 0.8, mu, reference=foil), GRID, EDGE, SETTINGS)
    assert shifted.quantities["foil_shift_ev"][0] - true.quantities["foil_shift_ev"][0] == pytest.approx(
        -0.8, abs=0.02
    )
    assert np.abs(shifted.mu - true.mu).max() < 5e-3
    uncalibrated = AlignmentSettings(calibrate_on_reference=False)
    ignored = align(Batch(energy + 0.8, mu, reference=foil), GRID, EDGE, uncalibrated)
    assert ignored.quantities["foil_shift_ev"][0] == 0.0


def foil_scan(at, noise=0.0, height=1.0, slope=0.0):
    e = measured(start=-200.0, stop=600.0)[0]
    x = e - EDGE.edge_ev - at
    k = np.sqrt(np.maximum(x, 0) / 3.81)
    exafs = 0.12 * np.sin(4.4 * k + 1) * np.exp(-0.01 * k**2) * (1 - np.exp(-np.maximum(x, 0) / 15))
    foil = height * (0.5 + np.arctan(x / 1.2) / np.pi + exafs) + slope * x
    foils = foil + noise * np.random.default_rng(0).normal(size=(20, len(x)))
    return Batch(e, foils, reference=foils)


def shifts(batch):
    return np.array([reading.shift_ev for reading in read_foils(batch, EDGE, SETTINGS)])


@pytest.mark.parametrize("noise", [1e-4, 2e-3, 1e-2])
@pytest.mark.parametrize("at", [-40, -25, -20, -16, 16, 20, 25, 40])
def test_foil_edge_far_from_the_table_is_not_read(at, noise):
    assert np.isnan(shifts(foil_scan(at, noise))).all()


@pytest.mark.parametrize("slope", [-5e-3, 2e-4, 1e-3])
def test_sloping_reference_has_no_edge(slope):
    assert np.isnan(shifts(foil_scan(0.0, 1e-4, height=0.0, slope=slope))).all()


@pytest.mark.parametrize("at", [-13.0, -2.0, 0.3, 13.0])
@pytest.mark.parametrize(("height", "slope", "noise"), [(1.0, 0.0, 1e-2), (0.1, -1e-3, 1e-3), (0.1, 1e-3, 1e-3)])
def test_thin_and_thick_foils_near_the_table_are_read(at, height, slope, noise):
    np.testing.assert_allclose(shifts(foil_scan(at, noise, height, slope)), -at, atol=0.3)


def test_stated_shift_and_uncertainty_apply_without_foil():
    energy, mu = measured()
    stated = AlignmentSettings(energy_shift_ev=-0.8, energy_sd_ev=0.6)
    aligned = align(Batch(energy + 0.8, mu), GRID, EDGE, stated)
    np.testing.assert_allclose(aligned.mu, align(Batch(energy, mu), GRID, EDGE, SETTINGS).mu, atol=5e-3)
    assert aligned.quantities["energy_sd_ev"][0] == 0.6
    assert aligned.flags == ((),)
    flat = np.ones_like(mu)
    assert align(Batch(energy, mu, reference=flat), GRID, EDGE, stated).flags == ((Flag.NO_FOIL_EDGE,),)


def test_foil_course_has_precedence_over_one_reading():
    energy, mu = measured()
    courses = [EnergyCalibration(0.5, 0.1, Flag.FOIL_OFF_ITS_COURSE)]
    aligned = align(Batch(energy - 0.5, mu, reference=np.ones_like(mu)), GRID, EDGE, SETTINGS, calibrations=courses)
    np.testing.assert_allclose(aligned.mu, align(Batch(energy, mu), GRID, EDGE, SETTINGS).mu, atol=5e-3)
    assert aligned.quantities["energy_sd_ev"][0] == 0.1
    assert aligned.flags == ((Flag.FOIL_OFF_ITS_COURSE,),)


def test_held_course_is_flagged_in_frame_without_foil():
    held = align(Batch(*measured()), GRID, EDGE, SETTINGS, calibrations=[EnergyCalibration(0.5, 0.1, Flag.FOIL_HELD)])
    assert held.quantities["foil_shift_ev"][0] == 0.5
    assert held.flags == ((Flag.FOIL_HELD,),)
    assert align(
        Batch(*measured()), GRID, EDGE, SETTINGS, calibrations=[EnergyCalibration(np.nan, np.nan)]
    ).flags == ((),)


def test_all_of_the_energies_error_is_the_frames_own_where_the_foil_is_forgotten():
    """The frames before were calibrated by it, so that the error is not common to the series."""
    forgotten = EnergyCalibration(np.nan, np.nan, Flag.FOIL_FORGOTTEN)
    found = align(Batch(*measured()), GRID, EDGE, SETTINGS, calibrations=[forgotten])
    assert found.flags == ((Flag.FOIL_FORGOTTEN,),)
    assert found.quantities["energy_sd_frame_ev"][0] == found.quantities["energy_sd_ev"][0] == SETTINGS.energy_sd_ev


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.booleans())
@settings(max_examples=30, deadline=None)
def test_batch_equals_single_frames(seed, n, own_energies):
    rng = np.random.default_rng(seed)
    pairs = [measured(step=s, shift=d) for s, d in zip(rng.uniform(0.2, 2, n), rng.uniform(-1, 1, n), strict=True)]
    mu = np.concatenate([m for _, m in pairs]) + 0.002 * rng.normal(size=(n, 700))
    energy = pairs[0][0] + (0.01 * rng.normal(size=(n, 1)) if own_energies else 0.0)
    together = align(Batch(energy, mu, reference=mu), GRID, EDGE, SETTINGS)
    for i in range(n):
        one = energy[i] if own_energies else energy
        alone = align(Batch(one, mu[i : i + 1], reference=mu[i : i + 1]), GRID, EDGE, SETTINGS)
        np.testing.assert_allclose(together.mu[i], alone.mu[0], atol=1e-6)
        for name, values in together.quantities.items():
            assert values[i] == pytest.approx(alone.quantities[name][0], abs=1e-7), name


def test_noise_does_not_depend_on_the_range_of_other_scans():
    scans = [measured(start=-130.0), measured(start=-30.0, stop=350.0), measured(start=-12.0)]
    noise = 0.003 * np.random.default_rng(0).normal(size=(1, 700))
    energy, mu = np.stack([e for e, _ in scans]), np.concatenate([m + noise for _, m in scans])
    together = align(Batch(energy, mu), GRID, EDGE, SETTINGS).quantities["noise"]
    alone = [align(Batch(e, m + noise), GRID, EDGE, SETTINGS).quantities["noise"][0] for e, m in scans]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (measured(stop=80.0), Reason.DOES_NOT_COVER_THE_GRID),
        (measured(start=-5.0), Reason.DOES_NOT_COVER_THE_GRID),
        (measured(points=60), Reason.GAP_IN_THE_ENERGIES),
        (measured(start=-11.5), Reason.NO_PRE_EDGE),
        ((measured()[0], np.random.default_rng(0).normal(size=(1, 700))), Reason.EDGE_STEP_WITHIN_NOISE),
        ((measured()[0], -measured()[1]), Reason.NEGATIVE_EDGE_STEP),
        ((measured()[0], np.ones((1, 700))), Reason.EDGE_STEP_WITHIN_NOISE),
    ],
)
def test_invalid_spectra_are_refused_with_the_reason(case, reason):
    energy, mu = case
    aligned = align(Batch(energy, mu), GRID, EDGE, SETTINGS)
    assert aligned.refused[0] is not None
    assert aligned.refused[0].reason == reason
    assert any(c.isdigit() for c in aligned.refused[0].detail)  # states the measured value


@pytest.mark.parametrize(
    ("first", "last", "gap_ev"), [(70, 85, 15), (70, 130, 26), (-40, -2, 9), (-60, -10, None), (97, 200, None)]
)
def test_gap_is_measured_on_the_grid(first, last, gap_ev):
    energy, mu = measured(stop=700.0, points=3400)
    relative = energy - EDGE.edge_ev
    kept = (relative <= first) | (relative >= last)
    refusal = align(Batch(energy[kept], mu[:, kept]), GRID, EDGE, SETTINGS).refused[0]
    # On the measured scale the grid is 2 eV lower, -11…96 eV.
    if gap_ev is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.reason == Reason.GAP_IN_THE_ENERGIES
        assert float(refusal.detail.split()[0]) == pytest.approx(gap_ev, abs=0.5)


@given(st.integers(0, 2**32 - 1), st.integers(12, 400))
@settings(max_examples=100, deadline=None)
def test_finite_input_never_raises(seed, points):
    rng = np.random.default_rng(seed)
    energy = EDGE.edge_ev + np.cumsum(rng.uniform(1e-3, 2.0, points)) - rng.uniform(0, 400)
    mu = rng.normal(size=(2, points)) * 10.0 ** rng.integers(-8, 8)
    aligned = align(Batch(energy, mu, reference=mu), GRID, EDGE, SETTINGS)
    assert np.isfinite(aligned.mu).all()
    assert len(aligned.refused) == 2


def test_normalised_spectrum_is_not_rescaled():
    energy, mu = measured(step=1.0, slope=0.0, level=0.0, curve=0.0)
    aligned = align(Batch(energy, mu, normalised=True), GRID, EDGE, SETTINGS)
    assert aligned.refused == (None,)
    assert aligned.quantities["edge_step"][0] == 1.0


def test_noise_is_measured():
    energy, mu = measured(step=1.0)
    noisy = mu + 0.01 * np.random.default_rng(1).normal(size=mu.shape)
    assert align(Batch(energy, noisy), GRID, EDGE, SETTINGS).quantities["noise"][0] == pytest.approx(0.01, rel=0.25)


def test_tail_continues_value_and_slope():
    energy, mu = theory()
    longer, tailed = with_tail(energy, mu, energy[0, 0] - 30)
    assert (np.diff(longer) > 0).all()
    assert (np.diff(tailed[0, :13]) > 0).all()
    join = np.diff(tailed[0, 10:15]) / np.diff(longer[0, 10:15])
    assert join[1] == pytest.approx(join[2], rel=0.35)


def test_short_feff_row_is_refused():
    energy, mu = theory()
    aligned = align_theory(energy[:, :80], mu[:, :80], GRID, EDGE.edge_ev)
    assert aligned.refused[0] is not None
    assert aligned.refused[0].reason == Reason.DOES_NOT_COVER_THE_GRID


def test_first_inflection_is_e0_of_the_foil():
    e = np.linspace(-30, 60, 900)
    two = (np.arctan(e / 1.0) + 1.1 * np.arctan((e - 9) / 1.0))[None]
    assert find_e0(e[None], two, 1.0, (-15, 15), first_inflection=True)[0] == pytest.approx(0.0, abs=0.3)
    assert find_e0(e[None], two, 1.0, (-15, 15))[0] == pytest.approx(9.0, abs=0.3)


def test_victoreen_curve_is_subtracted_on_absolute_energies():
    energy, mu = measured(slope=0.0, level=0.0)
    curve = 3.0 * (energy / EDGE.edge_ev) ** -4
    aligned = align(Batch(energy, mu + curve), GRID, EDGE, AlignmentSettings(normalisation={"nvict": 4}))
    assert aligned.lines is not None
    np.testing.assert_allclose(aligned.lines.pre_edge[0], curve, atol=0.04)
    np.testing.assert_allclose(aligned.mu, align(Batch(energy, mu), GRID, EDGE, SETTINGS).mu, atol=0.02)


def test_held_background_respects_the_flatten_setting():
    energy, mu = measured(start=-30.0, stop=110.0)
    held = {"background": {"pre_slope": -5e-4, "post_slope": 2e-3}, "pre_edge_ev": (-150.0, -5.0)}
    flat = align(Batch(energy, mu), GRID, EDGE, AlignmentSettings(**held)).mu
    sloped = align(Batch(energy, mu), GRID, EDGE, AlignmentSettings(normalisation={"flatten": False}, **held)).mu
    assert sloped[0, -1] - flat[0, -1] > 0.05


@pytest.mark.parametrize("start_ev", [-19.0, -17.0])
def test_scan_that_begins_late_is_normalised_by_the_points_that_it_has(start_ev):
    whole = align(Batch(*measured(slope=0.0)), GRID, EDGE, SETTINGS)
    late = align(Batch(*measured(slope=0.0, start=start_ev)), GRID, EDGE, SETTINGS)
    assert late.refused == (None,)
    np.testing.assert_allclose(late.mu, whole.mu, atol=0.02)
    too_late = align(Batch(*measured(slope=0.0, start=-13.0)), GRID, EDGE, SETTINGS).refused[0]
    assert too_late is not None
    assert too_late.reason == Reason.NO_PRE_EDGE


TABLE_EV = EDGE.edge_ev + np.arange(-1000.0, 2000.0, 2.0)
BARE = (0.5 + 3.4 * np.heaviside(TABLE_EV - EDGE.edge_ev, 1)) * (TABLE_EV / EDGE.edge_ev) ** -2.7
TABULATED = Tabulated(AbsorptionTable(TABLE_EV, BARE))
MBACK = AlignmentSettings(normalisation={"mode": "mback"})


@pytest.mark.parametrize(("first", "last", "within"), [(-130.0, 460.0, 0.02), (-60.0, 120.0, 0.05)])
def test_mback_finds_the_step_of_long_and_short_scans(first, last, within):
    x = np.linspace(first, last, 600)
    below = 0.5 * (1 + x / EDGE.edge_ev) ** -2.7
    mu = 0.2 * (below + 3.4 * edge_shape(x)) + 0.3 - 2e-4 * x
    aligned = align(Batch(EDGE.edge_ev + x, mu[None]), GRID, EDGE, MBACK, tabulated=TABULATED)
    assert aligned.refused == (None,)
    assert aligned.quantities["edge_step"][0] == pytest.approx(0.2 * 3.4, rel=within)


def test_mback_of_a_batch_on_different_energies_equals_single_scans():
    scans = [measured(shift=s, start=-130 - s) for s in (0.0, 1.0, 2.0)]
    energy, mu = np.stack([e for e, _ in scans]), np.concatenate([m for _, m in scans])
    together = align(Batch(energy, mu), GRID, EDGE, MBACK, tabulated=TABULATED)
    for i in range(3):
        alone = align(Batch(energy[i], mu[i : i + 1]), GRID, EDGE, MBACK, tabulated=TABULATED)
        np.testing.assert_allclose(together.mu[i], alone.mu[0], atol=1e-5)


def test_mback_refuses_scan_without_pre_edge():
    energy, mu = measured(start=-10.0)
    refusal = align(Batch(energy, mu), GRID, EDGE, MBACK, tabulated=TABULATED).refused[0]
    assert refusal is not None
    assert refusal.reason == Reason.NO_PRE_EDGE


def damped(alpha):
    energy, mu = measured(level=0.0, slope=0.0, curve=0.0)
    absorption = mu / 0.7
    return energy, absorption / (absorption + alpha) * (1 + alpha)


def self_absorption(**correction):
    return AlignmentSettings(self_absorption=correction)


def test_fluorescence_is_corrected_for_self_absorption():
    energy, mu = damped(0.4)
    clean = align(Batch(*measured(level=0.0, slope=0.0, curve=0.0)), GRID, EDGE, SETTINGS).mu
    uncorrected = align(Batch(energy, mu, fluorescence=True), GRID, EDGE, SETTINGS)
    aligned = align(Batch(energy, mu, fluorescence=True), GRID, EDGE, self_absorption(alpha=0.4))
    assert np.abs(aligned.mu - clean).max() < 0.15 * np.abs(uncorrected.mu - clean).max()
    assert aligned.flags == ((Flag.SELF_ABSORPTION_CORRECTED,),)
    assert aligned.quantities["self_absorption_damping"][0] == pytest.approx(0.4 / 1.4)


def test_self_absorption_is_only_reported_with_correct_false():
    energy, mu = damped(0.4)
    report_only = self_absorption(formula="NiO", correct=False)
    aligned = align(Batch(energy, mu, fluorescence=True), GRID, EDGE, report_only, tabulated=Tabulated(alpha=0.4))
    np.testing.assert_array_equal(aligned.mu, align(Batch(energy, mu), GRID, EDGE, SETTINGS).mu)
    assert aligned.flags == ((Flag.SELF_ABSORPTION_LEFT_IN,),)
    unknown = align(Batch(energy, mu, fluorescence=True), GRID, EDGE, report_only)
    assert unknown.flags == ((Flag.SELF_ABSORPTION_NOT_KNOWN,),)
    assert np.isnan(unknown.quantities["self_absorption_damping"][0])


def test_transmission_is_flagged_and_not_corrected():
    energy, mu = measured()
    aligned = align(Batch(energy, mu), GRID, EDGE, self_absorption(alpha=0.4))
    np.testing.assert_array_equal(aligned.mu, align(Batch(energy, mu), GRID, EDGE, SETTINGS).mu)
    assert aligned.flags == ((Flag.NOT_FLUORESCENCE,),)
    assert aligned.quantities["self_absorption_damping"][0] == 1.0


def test_spectrum_impossible_for_a_thick_sample_is_refused():
    energy, mu = damped(0.4)
    refusal = align(Batch(energy, mu, fluorescence=True), GRID, EDGE, self_absorption(alpha=0.05)).refused[0]
    assert refusal is not None
    assert refusal.reason == Reason.NOT_WHAT_A_THICK_SAMPLE_SHOWS
    assert "α = 0.05" in refusal.detail
