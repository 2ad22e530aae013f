"""Reads the E0 of a reference foil from a single scan."""

import numpy as np

from ..types import Array, Edge, Flag, Reason, Refusal, bin_means
from .batch import Batch
from .e0 import count_below, find_inflection
from .foil import FOIL_READING_SD_EV, EnergyCalibration
from .noise import estimate_noise
from .settings import AlignmentSettings

_SEARCH_EV = (-35.0, 35.0)  # wider than the accepted shift, so that a distant edge is found, not a bump
_MAX_SHIFT_EV = 15.0  # largest distance from the tabulated edge: a monochromator does not drift further
_BIN_BOUNDS_EV = np.arange(-60.0, 61.0, 4.0)  # relative to E0: coarse bins that average over the EXAFS
_LARGEST_RISE_EV = (-8.0, 20.0)  # relative to E0: metals have a second inflection 10 eV above it
# Share of the rise from −40…−12 to 12…40 eV that lies between −12…−4 and 4…12 eV: 0.55 for foils, 0.31 for a slope.
_MIN_SHARPNESS = 0.45
_WINDOWS_EV = ((-40, -12), (-12, -4), (4, 12), (12, 40))
_WINDOWS = tuple(slice(*np.searchsorted(_BIN_BOUNDS_EV, window)) for window in _WINDOWS_EV)
_SPACING_EV = 3.0  # half-width of the window about E0 in which the spacing of points is measured
_LEVELS_EV = np.array([-40.0, -12.0, 12.0, 40.0])  # relative to E0: limits of the means below and above the edge
_ROUNDING = 1e-12  # rounding of a mean over a bin, relative to the values
_MAX_FALL_BEHIND_SAMPLE = 0.1  # ln(I0/Iref), per fall of the reference; if Iref is fluorescence, both fall alike
_MIN_FOIL_IN_MU = 0.1  # per rise of μ; a dark current that was not subtracted leaves less in the reference


def read_foils(batch: Batch, edge: Edge, settings: AlignmentSettings) -> list[EnergyCalibration]:
    """Read each frame's own foil.

    Returns
    -------
    N calibrations, whose shift moves the foil's E0 to the tabulated edge. The shift is NaN without a foil, or if the
    foil shows no edge near the tabulated one: a foil of another element, or one further off, has bumps there that
    could be taken for its E0. The standard deviation is the scatter of repeated scans, or larger if the noise of the
    points makes E0 more uncertain.
    """
    if batch.reference is None or not settings.calibrate_on_reference:
        return [EnergyCalibration(np.nan, np.nan)] * len(batch)
    e0, sd, _ = _find_edges(batch.energy - edge.edge_ev, batch.reference, settings)
    upside_down = np.isnan(e0)
    if upside_down.any():
        upside_down[upside_down] = np.isfinite(_find_falls(batch.rows(upside_down), edge, settings)[0])
    flags = [Flag.REFERENCE_UPSIDE_DOWN if falls else None for falls in upside_down.tolist()]
    return [*map(EnergyCalibration, (-e0).tolist(), sd.tolist(), flags)]


def find_exchanged(batch: Batch, edge: Edge, settings: AlignmentSettings) -> dict[int, Refusal]:
    """Return refusals, by row, of transmission spectra that contain the foil because It and Iref are exchanged."""
    if batch.reference is None or not batch.transmission:
        return {}
    fall, rise = _find_falls(batch, edge, settings)
    return {
        i: Refusal(
            Reason.REFERENCE_UPSIDE_DOWN,
            f"ln(It/Iref) falls by {fall[i]:.3g} at the edge, where μ rises by {rise[i]:.3g}, as if μ contained the "
            "foil: It and Iref are exchanged",
        )
        for i in np.flatnonzero(fall > _MIN_FOIL_IN_MU * rise).tolist()
    }


def _find_falls(batch: Batch, edge: Edge, settings: AlignmentSettings) -> tuple[Array, Array]:
    """Return the falls of references that are inverted foils, NaN for others, and the rises of μ there; (N,) each.

    If It and Iref are exchanged, μ + reference = ln(I0/Iref) is the sample's own μ. It falls if Iref is fluorescence.
    """
    assert batch.reference is not None
    relative = batch.energy - edge.edge_ev
    e0, _, fall = _find_edges(relative, -batch.reference, settings)
    low, _, high = bin_means(relative, batch.mu, np.nan_to_num(e0)[:, None] + _LEVELS_EV).T
    rise = high - low
    transmitted = rise - fall > -_MAX_FALL_BEHIND_SAMPLE * fall
    return np.where(transmitted, fall, np.nan) if batch.transmission else fall, rise


def _find_edges(relative: Array, foils: Array, settings: AlignmentSettings) -> tuple[Array, Array, Array]:
    """Return E0 of foils, its standard deviation, eV, and the rise of μ over the edge; (N,), NaN without an edge."""
    e0, slope, curvature = find_inflection(
        relative, foils, settings.e0_smoothing_ev, _SEARCH_EV, first_inflection=True
    )
    near = np.abs(e0) < _MAX_SHIFT_EV
    coarse = bin_means(relative, foils, np.where(near, e0, 0.0)[:, None] + _BIN_BOUNDS_EV)
    low, below, above, high = (coarse[:, k].sum(axis=1) / (k.stop - k.start) for k in _WINDOWS)
    steepest = _BIN_BOUNDS_EV[1:-1][np.diff(coarse).argmax(axis=1)]
    rounding = _ROUNDING * np.maximum(foils.max(axis=1), -foils.min(axis=1))  # a constant channel shows no more
    noise = np.maximum(estimate_noise(relative, foils), rounding)
    with np.errstate(over="ignore", invalid="ignore"):
        rise = high - low
        valid = near & (rise > settings.min_step_to_noise * noise)
        valid &= above - below > _MIN_SHARPNESS * rise
        valid &= (steepest > _LARGEST_RISE_EV[0]) & (steepest < _LARGEST_RISE_EV[1])
        slope_sd, tilt_sd = _noise_of_derivative(relative, e0, noise, settings.e0_smoothing_ev)
        valid &= slope > settings.min_step_to_noise * slope_sd  # otherwise some bump of the noise is as steep
        sd = tilt_sd / curvature
    e0, sd, rise = (np.where(valid, values, np.nan) for values in (e0, np.maximum(sd, FOIL_READING_SD_EV), rise))
    return e0, sd, rise


def _noise_of_derivative(relative: Array, e0: Array, noise: Array, smoothing_ev: float) -> tuple[Array, Array]:
    """Return the standard deviations, (N,) each, of the smoothed derivatives at E0, per eV and per eV².

    White noise of points Δ apart gives variances of noise²·Δ·∫G'² and noise²·Δ·∫G''² for a Gaussian G of standard
    deviation σ: ∫G'² = 1/(4·√π·σ³), ∫G''² = 3/(8·√π·σ⁵). Linear interpolation between neighbouring points smooths
    like a Gaussian of variance Δ²/6.
    """
    points = count_below(relative, e0 + _SPACING_EV) - count_below(relative, e0 - _SPACING_EV)
    spacing = 2 * _SPACING_EV / np.maximum(points, 1)
    sigma = np.sqrt(smoothing_ev**2 + spacing**2 / 6)
    first = noise * np.sqrt(spacing / (4 * np.sqrt(np.pi) * sigma**3))
    return first, first * np.sqrt(1.5) / sigma
