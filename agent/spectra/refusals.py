"""Decides why a measured spectrum cannot be aligned."""

from dataclasses import dataclass

import numpy as np

from ..types import Array, Edge, Grid, Reason, Refusal
from .baseline import Coverage
from .settings import AlignmentSettings

# Edge steps that are smaller, relative to the absorption, are rounding errors: a stuck detector has no noise.
_MIN_STEP_PER_ABSORPTION = 1e-9


@dataclass(frozen=True, slots=True)
class Quality:
    """The quantities that decide whether N spectra can be used; arrays (N,)."""

    first_ev: Array
    """First measured energy on FEFF's scale, eV from the tabulated edge."""
    last_ev: Array
    """Last measured energy, on the same scale."""
    shift_ev: Array
    """Shift that calibrates the monochromator's energies, eV."""
    gap_ev: Array
    """Widest range of the grid without a measured point, on the measured scale, eV."""
    edge_step: Array
    """Edge step in the unit of μ."""
    noise: Array
    """Standard deviation per point, in edge steps."""
    rise: Array
    """Difference of the means over ``anchor_ev`` and ``foot_ev`` on the grid, in the unit of μ."""
    max_absorption: Array
    """Largest magnitude of μ."""
    coverage: Coverage


def widest_gaps(relative: Array, range_ev: Array, max_gap_ev: float) -> Array:
    """Return the widest gap between neighbouring energies inside a range.

    Parameters
    ----------
    relative : (1 or N, M) energies, eV
    range_ev : (N, 2) range on the same scale; only the part of a gap inside it counts
    max_gap_ev : gaps up to this width are skipped

    Returns
    -------
    (N,) widths, eV; 0 if no gap is wider than ``max_gap_ev``
    """
    wide = np.flatnonzero((np.diff(relative) > max_gap_ev).any(axis=0))
    left, right = relative[:, wide], relative[:, wide + 1]
    return (np.minimum(right, range_ev[:, 1:]) - np.maximum(left, range_ev[:, :1])).max(axis=1, initial=0.0)


def find_refusals(
    quality: Quality, grid: Grid, edge: Edge, settings: AlignmentSettings
) -> tuple[Refusal | None, ...]:
    """Return the first reason that applies to each spectrum, or None."""
    limit = settings.max_extrapolation_ev
    start, stop = grid.start_ev + limit, grid.short_stop_ev or grid.stop_ev - limit
    gap, coverage = quality.gap_ev, quality.coverage
    outside = (quality.first_ev > start) | (quality.last_ev < stop)
    sigma = quality.noise * np.abs(quality.edge_step)
    rounding = _MIN_STEP_PER_ABSORPTION * quality.max_absorption
    min_step = np.maximum(settings.min_step_to_noise * sigma, rounding)
    no_edge = ~(np.minimum(quality.rise, quality.edge_step) > min_step)
    uncovered = outside | (gap > settings.max_gap_ev) | coverage.no_pre_edge | coverage.no_post_edge
    refusals: list[Refusal | None] = [None] * len(sigma)
    for i in np.flatnonzero(uncovered | no_edge):
        if outside[i]:
            on_feff_scale = np.array([quality.first_ev[i], quality.last_ev[i], start, stop])
            read = edge.edge_ev + edge.to_measured_scale(on_feff_scale) - quality.shift_ev[i]
            detail = "measured {:.1f}…{:.1f} eV, needed at least {:.1f}…{:.1f} eV".format(*read)
            refusals[i] = Refusal(Reason.DOES_NOT_COVER_THE_GRID, detail)
        elif gap[i] > settings.max_gap_ev:
            refusals[i] = Refusal(
                Reason.GAP_IN_THE_ENERGIES,
                f"{gap[i]:.1f} eV between two points, at most {settings.max_gap_ev:g}",
            )
        elif coverage.no_pre_edge[i]:
            window = f"{settings.pre_edge_ev} eV and too few up to {settings.pre_edge_latest_ev:g}"
            detail = _too_few_points(coverage.points[0][i], window, settings)
            refusals[i] = Refusal(Reason.NO_PRE_EDGE, detail)
        elif coverage.no_post_edge[i]:
            detail = _too_few_points(coverage.points[1][i], f"{settings.post_edge_ev}", settings)
            refusals[i] = Refusal(Reason.NO_POST_EDGE, detail)
        elif max(quality.rise[i], quality.edge_step[i]) < -min_step[i]:
            refusals[i] = Refusal(
                Reason.NEGATIVE_EDGE_STEP,
                f"the absorption falls by {-quality.edge_step[i]:.3g} at the edge, noise σ {sigma[i]:.3g}: I0 and It "
                "may be exchanged",
            )
        else:
            refusals[i] = Refusal(
                Reason.EDGE_STEP_WITHIN_NOISE,
                f"edge step {quality.edge_step[i]:.3g} with noise σ {sigma[i]:.3g}, "
                f"needed {settings.min_step_to_noise:g} σ",
            )
    return tuple(refusals)


def _too_few_points(points: int, window: str, settings: AlignmentSettings) -> str:
    shape_keys = "pre_slope, post_slope, and edge_step if the window has no points"
    keys = "edge_step too" if settings.background is not None else shape_keys
    return (
        f"{points} points in {window} eV, needed {settings.min_points}; measure a longer frame first in the series, "
        f"or declare alignment.background ({keys})"
    )
