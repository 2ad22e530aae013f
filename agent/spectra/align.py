"""Aligns measured spectra: puts them on the grid of a model, in a normalisation that computed spectra share.

A measured spectrum loses its pre-edge line, is flattened by its post-edge curve and shifted onto FEFF's energy scale.
A FEFF row (:mod:`.theory`) needs none of these steps. Both are then averaged over the bins of the grid and put on its
footing (:meth:`Grid.footing`). Training and serving share this procedure. The steps are those of Athena (B. Ravel,
M. Newville, J. Synchrotron Rad. 12, 537 (2005)) and Larch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..types import NO_TABLES, Array, Edge, Flag, Grid, Measured, Reason, Refusal, Tabulated, bin_means
from .background import measure_background
from .baseline import Coverage, fit_baseline
from .batch import Batch
from .e0 import find_e0
from .foil import EnergyCalibration
from .foil_edge import find_exchanged, read_foils
from .glitches import Glitches, find_glitches
from .gross_glitches import find_gross_glitches
from .noise import estimate_noise
from .normalisation import Normalised
from .refusals import Quality, find_refusals, widest_gaps
from .self_absorption import SelfAbsorptionSettings, treat_self_absorption
from .settings import AlignmentSettings

_MAX_ABSORPTION_STEPS = 100.0  # largest normalised absorption: a white line reaches 5 edge steps, a glitch some tens


@dataclass(frozen=True)
class Aligned:
    """N aligned spectra, and quantities that the alignment determined."""

    mu: NDArray[np.float32]
    """(N, G) absorption on the grid and its footing, NaN beyond the end of a short scan; meaningless for refused
    spectra."""
    quantities: Mapping[str, Array]
    """Quantities by name, (N,) each.

    - ``e0_ev``: E0 after calibration, on the experimental scale, eV
    - ``edge_step``: edge step of the measured μ, in the unit of μ
    - ``noise``: standard deviation per point, in edge steps
    - ``energy_shift_ev``: shift added to the energies, eV; their scale is applied too
    - ``foil_shift_ev``: the part of that shift that the foil determined, eV
    - ``energy_sd_ev``: standard deviation of the measured energies, eV
    - ``energy_sd_frame_ev``: the part of it that differs from frame to frame, eV; 0 without a foil,
      and all of it if an earlier foil is forgotten
    - ``pre_edge_slope``: slope of the pre-edge line, in the unit of μ per eV
    - ``post_edge_order``: order of the post-edge polynomial
    - ``extrapolated_ev``: how far the grid, or its footing if the scan is short, extends beyond the data, eV
    - ``glitches``: number of repaired points
    - ``self_absorption_damping``: remaining fraction of small features; only if a compound is declared
    """
    refused: tuple[Refusal | None, ...]
    """Why each of the N spectra cannot be used; None if it can."""
    flags: tuple[tuple[Flag, ...], ...]
    """Flags of each of the N spectra."""
    background: Array
    """(N, 4) terms of :class:`Background` for later, shorter frames of the series; NaN for spectra that are too short
    or refused."""
    short: NDArray[np.bool_]
    """(N,) whether the pre- or post-edge is too short to determine a slope."""
    repaired: NDArray[np.bool_] | None = None
    """(N, M) whether points were repaired; None if no glitches were sought or found."""
    lines: Normalised | None = None
    """Pre- and post-edge of measured spectra, with energies relative to the tabulated edge; None for computed
    ones."""
    measured: Measured | None = None
    """The spectra before their repair; None if only the frames hold them."""

    @cached_property
    def numbers(self) -> dict[str, list[float]]:
        """``quantities`` as Python floats."""
        return {name: values.tolist() for name, values in self.quantities.items()}

    def with_rows(self, rows: Sequence[int], other: "Aligned") -> "Aligned":
        """Return a copy whose ``rows`` are replaced by the rows of ``other``, in their order."""
        mu, background = self.mu.copy(), self.background.copy()
        mu[rows], background[rows] = other.mu, other.background
        quantities = {k: v.copy() for k, v in self.quantities.items()}
        refused, flags = list(self.refused), list(self.flags)
        for name, values in quantities.items():
            values[rows] = other.quantities[name]
        for i, row in enumerate(rows):
            refused[row], flags[row] = other.refused[i], other.flags[i]
        lines = self.lines if self.lines is None or other.lines is None else self.lines.with_rows(rows, other.lines)
        refusals, all_flags = tuple(refused), tuple(flags)
        return replace(
            self,
            mu=mu,
            quantities=quantities,
            refused=refusals,
            flags=all_flags,
            background=background,
            lines=lines,
        )


def align(
    batch: Batch,
    grid: Grid,
    edge: Edge,
    settings: AlignmentSettings,
    *,
    calibrations: Sequence[EnergyCalibration] | None = None,
    series_background: Array | None = None,
    tabulated: Tabulated = NO_TABLES,
) -> Aligned:
    """Align measured spectra: repair, calibrate, normalise, resample, and put on the footing.

    A spectrum that cannot be aligned is refused with a reason; finite input never raises. The result for a spectrum
    does not depend on the others of the batch.

    Parameters
    ----------
    batch : N spectra of M points on the monochromator's energies; its E0 is ignored
    grid : grid of the model, G energies
    edge : tabulated edge, and FEFF's energy scale relative to the measured one
    settings : settings of the normalisation
    calibrations : N shifts that a series of foil scans determines; None: each spectrum's own foil
    series_background : (N, 4) terms of :class:`Background` from earlier frames, for spectra that are too short; NaN
        if unknown. Terms that ``settings`` declare take precedence
    tabulated : tables that ``settings`` require: f'' of the absorber for MBACK, α for self-absorption
    """
    flat = _flatten(batch, grid, edge, settings, calibrations, series_background, tabulated)
    # To move the grid instead of the energies leaves one energy axis for the whole batch.
    on_grid = grid.cut(bin_means(flat.energy, flat.mu, edge.to_measured_scale(grid.bounds) - flat.shift), flat.last)
    aligned, refused = put_on_footing(grid, on_grid, _refusals(flat, on_grid, grid, edge, settings), edge)
    flags = tuple(a + b for a, b in zip(flat.flags, flag_short(aligned, refused), strict=True))
    background = measure_background(flat.lines)
    background[flat.coverage.too_short | np.array([r is not None for r in refused])] = np.nan
    return Aligned(
        aligned, flat.quantities, refused, flags, background, flat.coverage.too_short, flat.repaired, flat.lines
    )


@dataclass(frozen=True)
class _Flattened:
    """N calibrated and normalised spectra on their own energies."""

    energy: Array
    """(1, M) or (N, M) measured energies, eV from the tabulated edge."""
    mu: Array
    """(N, M) flattened absorption, 1 above the edge."""
    largest: Array
    """(N,) largest absolute value of the measured μ without its glitches."""
    shift: Array
    """(N, 1) shift that calibrates ``energy``, eV."""
    first: Array
    """(N,) first calibrated energy, on FEFF's scale, eV from the tabulated edge."""
    last: Array
    """(N,) last calibrated energy, on the same scale as ``first``."""
    grid_range: Array
    """(N, 2) ends of the grid on the scale of ``energy``, eV."""
    lines: Normalised
    coverage: Coverage
    quantities: Mapping[str, Array]
    flags: tuple[tuple[Flag, ...], ...]
    impossible: Mapping[int, Refusal]
    """Refusals already known, by row."""
    repaired: NDArray[np.bool_] | None


def _flatten(
    batch: Batch,
    grid: Grid,
    edge: Edge,
    settings: AlignmentSettings,
    calibrations: Sequence[EnergyCalibration] | None,
    series_background: Array | None,
    tabulated: Tabulated,
) -> _Flattened:
    """Repair, calibrate and normalise spectra; parameters as in :func:`align`."""
    mu = batch.mu
    relative = batch.energy - edge.edge_ev  # (1, M) if all share their energies
    flags, repaired, count = ((),) * len(mu), None, np.zeros(len(mu))
    if (glitches := find_configured_glitches(batch, edge, settings)) is not None:
        mu, flags, repaired, count = glitches.mu, glitches.flags, glitches.found, glitches.count.astype(float)
    if calibrations is None:
        calibrations = read_foils(batch, edge, settings)
    foil_expected = batch.reference is not None and settings.calibrate_on_reference
    shift, energy_sd, frame_sd, foil_flags = _calibrate(calibrations, foil_expected, settings)
    flags = tuple(a + b for a, b in zip(foil_flags, flags, strict=True))
    e0 = find_e0(relative, mu, settings.e0_smoothing_ev, settings.e0_search_ev)
    repaired_batch = replace(batch, energy=relative, mu=mu, e0=e0)
    normalised, coverage = fit_baseline(
        repaired_batch,
        edge.edge_ev,
        settings,
        series_background=series_background,
        f2=tabulated.f2,
        level_ev=None if grid.short_stop_ev is None else float(edge.to_measured_scale(np.array(grid.anchor_ev[0]))),
    )
    flags = tuple(
        (*own, Flag.BACKGROUND_HELD) if held else own
        for own, held in zip(flags, coverage.background_held.tolist(), strict=True)
    )
    flat, impossible, damping = normalised.flat, {}, {}
    grid_range = edge.to_measured_scale(grid.energy[[0, -1]]) - shift
    if settings.self_absorption is not None:
        flat, impossible, left, flag = _correct_self_absorption(
            repaired_batch, flat, grid_range, settings.self_absorption, tabulated
        )
        flags = tuple((*own, flag) for own in flags) if flag else flags
        damping = {"self_absorption_damping": np.full(len(mu), left)}
    if any(c.flag == Flag.REFERENCE_UPSIDE_DOWN for c in calibrations):
        impossible = find_exchanged(batch, edge, settings) | impossible
    first, last = (edge.to_feff_scale(relative[:, end] + shift[:, 0]) for end in (0, -1))
    quantities = {
        "e0_ev": e0 + shift[:, 0] + edge.edge_ev,
        "edge_step": normalised.edge_step,
        "noise": estimate_noise(relative, flat),
        "energy_shift_ev": shift[:, 0] + edge.feff_minus_experiment_ev,
        "foil_shift_ev": np.array([0.0 if math.isnan(c.shift_ev) else c.shift_ev for c in calibrations]),
        "energy_sd_ev": energy_sd,
        "energy_sd_frame_ev": frame_sd,
        "pre_edge_slope": normalised.pre_slope,
        "post_edge_order": normalised.post_order.astype(float),
        "extrapolated_ev": np.maximum(np.maximum(first - grid.energy[0], grid.filled_to_ev - last), 0.0),
        "glitches": count,
        **damping,
    }
    largest = np.abs(mu).max(axis=1)
    return _Flattened(
        relative,
        flat,
        largest,
        shift,
        first,
        last,
        grid_range,
        normalised,
        coverage,
        quantities,
        flags,
        impossible,
        repaired,
    )


def _refusals(
    flat: _Flattened, on_grid: Array, grid: Grid, edge: Edge, settings: AlignmentSettings
) -> list[Refusal | None]:
    """Return why each spectrum cannot be used, or None; ``on_grid`` (N, G) holds its means over the grid's bins."""
    foot, anchor = grid.levels(on_grid)
    gap = widest_gaps(flat.energy, flat.grid_range, settings.max_gap_ev)
    step, noise = flat.lines.edge_step, flat.quantities["noise"]
    rise = (anchor - foot) * step
    quality = Quality(flat.first, flat.last, flat.shift[:, 0], gap, step, noise, rise, flat.largest, flat.coverage)
    found = find_refusals(quality, grid, edge, settings)
    return [flat.impossible.get(i) or refusal for i, refusal in enumerate(found)]


def find_configured_glitches(
    batch: Batch, edge: Edge, settings: AlignmentSettings, earlier: Array | None = None
) -> Glitches | None:
    """Find the glitches that ``settings`` request; ``earlier`` as in :func:`find_glitches`. None if off or absent."""
    if settings.glitches is not None:
        return find_glitches(batch.energy, batch.mu, edge.edge_ev, settings.glitches, earlier=earlier)
    return find_gross_glitches(batch.energy, batch.mu, edge.edge_ev) if settings.gross_glitches else None


def put_on_footing(
    grid: Grid, on_grid: Array, refusals: list[Refusal | None], edge: Edge | None = None
) -> tuple[NDArray[np.float32], tuple[Refusal | None, ...]]:
    """Put spectra on the footing, and give measured ones FEFF's amplitude.

    A spectrum without an edge to divide by, or with an impossible value, is refused and set to 0.

    Parameters
    ----------
    on_grid : (N, G) absorption, NaN beyond the end of a short scan
    refusals : refusals of the N spectra; further ones are added in place
    edge : edge of measured spectra; None for computed ones

    Returns
    -------
    (N, G) spectra and the N refusals
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        footed = grid.footing(on_grid)
        if edge is not None and edge.amplitude != 1:
            footed = edge.scale_structure(footed, grid, 1 / edge.amplitude)
        impossible = (~(np.abs(footed) < _MAX_ABSORPTION_STEPS) & ~np.isnan(on_grid)).any(axis=1)
    for i in np.flatnonzero(impossible):
        detail = f"a point beyond {_MAX_ABSORPTION_STEPS:g} edge steps"
        refusals[i] = refusals[i] or Refusal(Reason.NOT_AN_ABSORPTION_SPECTRUM, detail)
    footed[impossible] = 0.0
    return footed.astype(np.float32), tuple(refusals)


def flag_short(aligned: NDArray[np.float32], refused: Sequence[Refusal | None]) -> tuple[tuple[Flag, ...], ...]:
    """Return the N flags of aligned spectra (N, G), which may end before the grid does."""
    short = np.isnan(aligned[:, -1]).tolist()
    return tuple((Flag.SHORT_SCAN,) if s and r is None else () for s, r in zip(short, refused, strict=True))


def _calibrate(
    calibrations: Sequence[EnergyCalibration], foil_expected: bool, settings: AlignmentSettings
) -> tuple[Array, Array, Array, tuple[tuple[Flag, ...], ...]]:
    """Return the shift (N, 1) of the measured energies, eV; their standard deviation and the part of it that differs
    from frame to frame, (N,) each, eV; and flags.

    ``foil_expected``: whether the frames have a foil for calibration. A held calibration is flagged without one too.
    """
    shift, sd, jitter = (np.array([c[k] for c in calibrations], float) for k in (0, 1, 3))
    known = ~np.isnan(shift)
    # If the foil is forgotten, the whole error separates the frames from the earlier, calibrated ones.
    forgotten = np.array([c.flag == Flag.FOIL_FORGOTTEN for c in calibrations], bool)
    frame_sd = np.where(known, np.hypot(sd, jitter), np.where(forgotten, settings.energy_sd_ev, 0.0))
    shift = np.where(known, shift, settings.energy_shift_ev)
    flags: list[tuple[Flag, ...]] = [() if c.flag is None else (c.flag,) for c in calibrations]
    for i in np.flatnonzero(~known).tolist() if foil_expected else ():
        flags[i] = flags[i] or (Flag.NO_FOIL_EDGE,)
    for i in np.flatnonzero(known & (np.abs(shift) > settings.usual_foil_shift_ev)).tolist():
        flags[i] += (Flag.LARGE_FOIL_SHIFT,)
    return shift[:, None], np.where(known, sd, settings.energy_sd_ev), frame_sd, tuple(flags)


def _correct_self_absorption(
    batch: Batch, flat: Array, range_ev: Array, settings: SelfAbsorptionSettings, tabulated: Tabulated
) -> tuple[Array, dict[int, Refusal], float, Flag | None]:
    """Return corrected spectra, refusals by row, the damping and a flag.

    A point higher than a thick sample can show refuses the spectrum if the grid, which spans ``range_ev`` (N, 2) on
    the measured scale, needs it; elsewhere the point stays as measured.
    """
    alpha = tabulated.alpha if settings.alpha is None else settings.alpha
    corrected, damping, flag = treat_self_absorption(flat, settings, alpha, batch.fluorescence)
    relative, too_high = batch.energy, ~np.isfinite(corrected)
    if alpha is None or not too_high.any():
        return corrected, {}, damping, flag
    needed = too_high & (relative > range_ev[:, :1]) & (relative < range_ev[:, 1:])
    refusals: dict[int, Refusal] = {}
    for i in np.flatnonzero(needed.any(axis=1)).tolist():
        detail = (
            f"μ of {flat[i][needed[i]].max():.2f} edge steps, but a thick sample of α = {alpha:.2f} shows less than "
            f"{1 + alpha:.2f}: its formula, angles or thickness differ from alignment.self_absorption"
        )
        refusals[i] = Refusal(Reason.NOT_WHAT_A_THICK_SAMPLE_SHOWS, detail)
    return np.where(too_high, flat, corrected), refusals, damping, flag
