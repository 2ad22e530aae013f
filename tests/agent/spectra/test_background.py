"""Test backgrounds held from the series or declared in the settings."""

import numpy as np
import pytest

from xas_agent.agent.spectra.align import align
from xas_agent.agent.spectra.background import Background, SeriesBackground
from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.types import Array
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Flag, Reason

EDGE = Edge(8333.0)
GRID = Grid(-9, 60, 1, (-9, -6), (30, 60))
DEFAULT = AlignmentSettings()
TRUE = Background(pre_slope=-6e-4, post_slope=-4e-4, post_curvature=3e-7)


def spectrum(start: float, stop: float, step: float = 0.7):
    """Return energies and μ with the lines of ``TRUE``, an edge at 0 eV and some EXAFS."""
    x = np.arange(start, stop, 0.5)
    shape = 0.5 + np.tanh(x / 2.5) / 2
    above = 1 + TRUE.post_slope * x + TRUE.post_curvature * x**2
    exafs = 0.1 * np.sin(x / 7) * np.exp(-x / 60) * (x > 0)
    return EDGE.edge_ev + x, (0.4 + step * (TRUE.pre_slope * x + shape * above + exafs))[None]


def aligned(
    scan: tuple[Array, Array],
    settings: AlignmentSettings = DEFAULT,
    series_background: Array | None = None,
):
    energy, mu = scan
    return align(Batch(energy, mu), GRID, EDGE, settings, series_background=series_background)


def prior_of(*scans):
    prior = SeriesBackground()
    for scan in scans:
        prior.add(aligned(scan).background[0])
    return prior


LONG = spectrum(-150, 600)


def test_long_scan_gives_its_background():
    assert aligned(LONG).background[0] == pytest.approx([*TRUE.terms()[:3], 0.7], rel=0.1)


@pytest.mark.parametrize(
    ("start", "stop", "refused"),
    [
        (-30.0, 90.0, None),
        (-12.0, 90.0, Reason.NO_PRE_EDGE),
        (-60.0, 60.0, None),
        (-60.0, 40.0, Reason.DOES_NOT_COVER_THE_GRID),
    ],
)
def test_short_scan_with_series_background_equals_long_scan(start, stop, refused):
    scan = spectrum(start, stop)
    alone = aligned(scan)
    assert (alone.refused[0] and alone.refused[0].reason) == refused
    held = aligned(scan, series_background=prior_of(LONG).background()[None])
    if refused == Reason.DOES_NOT_COVER_THE_GRID:
        assert held.refused == alone.refused
        return
    assert held.refused == (None,)
    assert held.flags == ((Flag.BACKGROUND_HELD,),)
    long = aligned(LONG)
    assert held.quantities["edge_step"][0] == pytest.approx(long.quantities["edge_step"][0], rel=0.04)
    assert np.abs(held.mu - long.mu).max() < 0.015
    if refused is None:
        assert np.abs(held.mu - long.mu).max() < np.abs(alone.mu - long.mu).max()


def test_declared_background_serves_short_scan():
    scan = spectrum(-12.0, 90.0)
    undeclared = aligned(scan).refused[0]
    assert undeclared is not None
    assert "alignment.background" in undeclared[1]
    without_step = aligned(scan, AlignmentSettings(background=TRUE)).refused[0]
    assert without_step is not None
    assert "edge_step" in without_step[1]
    declared = TRUE.model_copy(update={"edge_step": 0.7})
    with_step = aligned(scan, AlignmentSettings(background=declared))
    assert with_step.refused == (None,)
    assert np.abs(with_step.mu - aligned(LONG).mu).max() < 0.02


def test_long_scan_ignores_series_background():
    wrong = np.array([[1.0, 1.0, 1.0, 100.0]])
    np.testing.assert_array_equal(aligned(LONG, series_background=wrong).mu, aligned(LONG).mu)


def test_series_background_is_robust_and_nan_where_unknown():
    prior = SeriesBackground()
    assert np.isnan(prior.background()).all()
    steady = prior_of(*[LONG] * 5)
    before = steady.background()
    steady.add(np.array([1.0, 1.0, 1.0, 50.0]))
    steady.add(np.full(4, np.nan))
    np.testing.assert_allclose(steady.background(), before)
    assert len(steady) == 6
    changing = prior_of(*(spectrum(-150, 600, step) for step in (0.2, 0.5, 0.9, 1.5)))
    assert np.isfinite(changing.background()[:3]).all()
    assert np.isnan(changing.background()[3])
