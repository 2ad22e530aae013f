"""Measured spectra → the grid of a model, on the footing that they share with computed ones.

A measured spectrum loses a pre-edge line, is flattened by its post-edge curve and moved onto FEFF's energy scale; a
FEFF row (:mod:`.theory`) has none of these. Both are then averaged over the bins of the grid and put on the grid's
footing (:meth:`Grid.footing`): one procedure, used by training and by serving. Steps as in
Athena (Ravel & Newville, J. Synchrotron Rad. 12, 537, 2005) and Larch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..types import NOTHING, Array, Edge, Flag, Grid, Reason, Refusal, Tabulated, bin_means
from .background import background_of
from .baseline import Short, fit_baseline
from .batch import Batch
from .e0 import find_e0
from .foil import READ_EV, Course
from .glitches import Glitches, find_glitches
from .gross_glitches import find_gross_glitches
from .noise import noise_of
from .normalisation import Normalised
from .self_absorption import SelfAbsorptionSettings, undamped
from .settings import AlignmentSettings

FOIL_SEARCH_EV = (-35.0, 35.0)  # wider than is believed, so that an edge further off is seen, and no bump beside it
FOIL_FURTHEST_EV = 15.0  # from the table: windows are the table's, and a larger step is no drift
FOIL_BINS_EV = np.arange(-60.0, 61.0, 4.0)  # about its E0: where a foil is looked at as a whole
FOIL_STEEPEST_EV = (-8.0, 20.0)  # of which it rises the most there: metals have a second inflection 10 eV above E0
FOIL_SHARP = 0.45  # of its rise from −40…−12 to 12…40 eV lies between −12…−4 and 4…12 eV: foils 0.55, a slope 0.31
ROUNDING = 1e-9  # an edge step smaller than this part of the absorption is none

_FOIL_WINDOWS = tuple(slice(*np.searchsorted(FOIL_BINS_EV, w)) for w in ((-40, -12), (-12, -4), (4, 12), (12, 40)))

MAX_ABSORPTION = 100.0  # of the normalised absorption: a white line has 5, a glitch some tens


@dataclass(frozen=True)
class Aligned:
    """N spectra on the grid, with every quantity that the alignment found."""

    mu: NDArray[np.float32]
    """(N, G) on the common footing; a refused row is not to be used."""
    quantities: Mapping[str, Array]
    """Each (N,).

    ``e0_ev`` calibrated, experimental scale; ``edge_step`` of the measured μ; ``noise`` σ per point relative
    to the edge step; ``energy_shift_ev`` what was added to the energies beside their scale; ``foil_shift_ev`` the
    foil's part of it; ``energy_sd_ev`` how uncertain the measured energies are; ``pre_edge_slope`` per eV;
    ``post_edge_order`` of the polynomial; ``extrapolated_ev`` how far the grid reaches beyond the data; ``glitches``
    how many points were repaired; where a compound was declared, ``self_absorption_damping``, what it leaves of small
    features.
    """
    refused: tuple[Refusal | None, ...]
    flags: tuple[tuple[Flag, ...], ...]
    """Of each spectrum."""
    background: Array
    """(N, 4), see :class:`Background`: what a spectrum that is long enough says of the next ones; NaN where it is
    not long enough, or refused."""
    short: NDArray[np.bool_]
    """(N,) too short for a slope of its own below or above the edge."""
    repaired: NDArray[np.bool_] | None = None
    """(N, M) the points that were glitches, if they were looked for."""
    lines: Normalised | None = None
    """Pre- and post-edge of the measured spectra, their energies relative to the tabulated edge; None of theory."""

    def with_rows(self, rows: Sequence[int], other: "Aligned") -> "Aligned":
        """The same with some rows, in the order of those of ``other``, replaced by them."""
        mu, background = self.mu.copy(), self.background.copy()
        mu[rows], background[rows] = other.mu, other.background
        quantities = {k: v.copy() for k, v in self.quantities.items()}
        refused, flags = list(self.refused), list(self.flags)
        for name, values in quantities.items():
            values[rows] = other.quantities[name]
        for i, row in enumerate(rows):
            refused[row], flags[row] = other.refused[i], other.flags[i]
        lines = self.lines if self.lines is None or other.lines is None else self.lines.with_rows(rows, other.lines)
        return Aligned(mu, quantities, tuple(refused), tuple(flags), background, self.short, self.repaired, lines)


def align(
    batch: Batch,
    grid: Grid,
    edge: Edge,
    settings: AlignmentSettings,
    *,
    courses: Sequence[Course] | None = None,
    held: Array | None = None,
    tabulated: Tabulated = NOTHING,
) -> Aligned:
    """Align measured spectra.

    Parameters
    ----------
    batch : on the monochromator's energies; its E0 is not used
    courses : N, where the foil stood over time; None: each spectrum's own foil alone
    held : (N, 4) background of the series, for what is too short; NaN where none is known. Declared ones come first
    tabulated : of the absorber, as far as ``settings`` ask for it
    """
    mu = batch.mu
    relative = batch.energy - edge.edge_ev  # (1, M) where all share their energies
    flags, repaired, count = ((),) * len(mu), None, np.zeros(len(mu))
    if (glitches := find_all_glitches(batch, edge, settings)) is not None:
        mu, flags, repaired, count = glitches.mu, glitches.flags, glitches.found, glitches.count.astype(float)
    if courses is None:
        courses = [Course(s, READ_EV) for s in foil_shifts(batch, edge, settings).tolist()]
    asked = batch.reference is not None and settings.calibrate_on_reference
    calibration, energy_sd, of_foil = _calibration(courses, asked, settings)
    flags = tuple(a + b for a, b in zip(of_foil, flags, strict=True))
    e0 = find_e0(relative, mu, settings.e0_smoothing_ev, settings.e0_search_ev)
    ready = replace(batch, energy=relative, mu=mu, e0=e0)
    found, short = fit_baseline(ready, edge.edge_ev, settings, held=held, f2=tabulated.f2)
    flags = tuple((*f, Flag.BACKGROUND_HELD) if h else f for f, h in zip(flags, short.held.tolist(), strict=True))
    flat, step, impossible, damped = found.flat, found.edge_step, {}, {}
    reach = edge.on_measured_scale(grid.energy[[0, -1]]) - calibration
    if settings.self_absorption is not None:
        flat, impossible, left, flag = _undamped(ready, flat, reach, settings.self_absorption, tabulated)
        flags = tuple((*f, flag) for f in flags) if flag else flags
        damped = {"self_absorption_damping": np.full(len(mu), left)}
    noise = noise_of(relative, flat)

    # Moving the grid instead of the energies leaves one energy axis for the whole batch.
    on_grid = bin_means(relative, flat, edge.on_measured_scale(grid.bounds) - calibration)
    foot, anchor = grid.levels(on_grid)
    low, high = (edge.on_feff_scale(relative[:, at] + calibration[:, 0]) for at in (0, -1))
    quantities = {
        "e0_ev": e0 + calibration[:, 0] + edge.edge_ev,
        "edge_step": step,
        "noise": noise,
        "energy_shift_ev": calibration[:, 0] + edge.feff_minus_experiment_ev,
        "foil_shift_ev": np.nan_to_num([c.shift_ev for c in courses]),
        "energy_sd_ev": energy_sd,
        "pre_edge_slope": found.pre_slope,
        "post_edge_order": found.post_order.astype(float),
        "extrapolated_ev": np.maximum(np.maximum(low - grid.energy[0], grid.energy[-1] - high), 0.0),
        "glitches": count,
        **damped,
    }
    rounding = ROUNDING * np.abs(mu).max(axis=1)
    gap = _widest_gap(relative, reach, settings.max_gap_ev)
    judged = _Found(low, high, gap, step, noise, (anchor - foot) * step, rounding, short)
    why = [impossible.get(i) or refusal for i, refusal in enumerate(_refusals(judged, grid, settings))]
    aligned, refused = footed(grid, on_grid, why, edge)
    background = background_of(found)
    background[short.rows | np.array([r is not None for r in refused])] = np.nan
    return Aligned(aligned, quantities, refused, flags, background, short.rows, repaired, found)


def find_all_glitches(
    batch: Batch, edge: Edge, settings: AlignmentSettings, earlier: Array | None = None
) -> Glitches | None:
    """Those that ``settings`` ask for; None where there are none. ``earlier`` as :func:`find_glitches` takes it."""
    if settings.glitches is not None:
        return find_glitches(batch.energy, batch.mu, edge.edge_ev, settings.glitches, earlier=earlier)
    return find_gross_glitches(batch.energy, batch.mu, edge.edge_ev) if settings.gross_glitches else None


def _undamped(
    batch: Batch, own: Array, reach: Array, settings: SelfAbsorptionSettings, tabulated: Tabulated
) -> tuple[Array, dict[int, Refusal], float, Flag | None]:
    """Normalised spectra as :func:`undamped` has them, why one cannot be used, by its row, damping and flag.

    Points that no thick sample shows stay as measured where the grid, from and to ``reach`` (N, 2) on the measured
    scale, does not need them.
    """
    alpha = tabulated.alpha if settings.alpha is None else settings.alpha
    flat, left, flag = undamped(own, settings, alpha, batch.fluorescence)
    relative, beyond = batch.energy, ~np.isfinite(flat)
    if alpha is None or not beyond.any():
        return flat, {}, left, flag
    needed = beyond & (relative > reach[:, :1]) & (relative < reach[:, 1:])
    refused: dict[int, Refusal] = {}
    for i in np.flatnonzero(needed.any(axis=1)).tolist():
        detail = (
            f"μ of {own[i][needed[i]].max():.2f} edge steps, a thick sample of α = {alpha:.2f} shows less than "
            f"{1 + alpha:.2f}: its formula, angles or thickness are others than alignment.self_absorption says"
        )
        refused[i] = Refusal(Reason.NOT_WHAT_A_THICK_SAMPLE_SHOWS, detail)
    return np.where(beyond, own, flat), refused, left, flag


def foil_shifts(batch: Batch, edge: Edge, settings: AlignmentSettings) -> Array:
    """What moves each foil's E0 to the table, (N,) eV; NaN where there is none or it shows no edge near the table:
    one that is further off, or another element's, has bumps that would pass for its E0."""
    reference = batch.reference
    if reference is None or not settings.calibrate_on_reference:
        return np.full(len(batch), np.nan)
    relative = batch.energy - edge.edge_ev
    e0 = find_e0(relative, reference, settings.e0_smoothing_ev, FOIL_SEARCH_EV, first=True)
    near = np.abs(e0) < FOIL_FURTHEST_EV
    coarse = bin_means(relative, reference, np.where(near, e0, 0.0)[:, None] + FOIL_BINS_EV)
    low, below, above, high = (coarse[:, k].mean(axis=1) for k in _FOIL_WINDOWS)
    steepest = FOIL_BINS_EV[1:-1][np.diff(coarse).argmax(axis=1)]
    with np.errstate(over="ignore", invalid="ignore"):
        rise = high - low
        seen = near & (rise > settings.min_step_to_noise * noise_of(relative, reference))
        seen &= above - below > FOIL_SHARP * rise
    seen &= (steepest > FOIL_STEEPEST_EV[0]) & (steepest < FOIL_STEEPEST_EV[1])
    return np.where(seen, -e0, np.nan)


def _calibration(
    courses: Sequence[Course], asked: bool, settings: AlignmentSettings
) -> tuple[Array, Array, tuple[tuple[Flag, ...], ...]]:
    """Shift (N, 1) and standard deviation (N,) of the measured energies, eV, and what to know of them.

    ``asked`` is whether a foil should tell. One that is held is told of even where a frame has no foil at all.
    """
    shift, sd = np.array([(c.shift_ev, c.sd_ev) for c in courses]).reshape(-1, 2).T
    known = ~np.isnan(shift)
    shift = np.where(known, shift, settings.energy_shift_ev)
    flags: list[tuple[Flag, ...]] = []
    for course, k, s in zip(courses, known.tolist(), shift.tolist(), strict=True):
        off = course.flag if k else Flag.NO_FOIL_EDGE if asked else None
        far = Flag.LARGE_FOIL_SHIFT if k and abs(s) > settings.usual_foil_shift_ev else None
        flags.append(tuple(flag for flag in (off, far) if flag))
    return shift[:, None], np.where(known, sd, settings.energy_sd_ev), tuple(flags)


def footed(
    grid: Grid, on_grid: Array, refused: list[Refusal | None], edge: Edge | None = None
) -> tuple[NDArray[np.float32], tuple[Refusal | None, ...]]:
    """The common footing, and of a measurement at ``edge`` FEFF's amplitude.

    What has no edge to divide by, or a point that no absorption has, is refused and 0.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        footed = grid.footing(on_grid)
        if edge is not None and edge.amplitude != 1:
            footed = edge.strengthened(footed, grid, 1 / edge.amplitude)
        absurd = ~(np.abs(footed) < MAX_ABSORPTION).all(axis=1)
    for i in np.flatnonzero(absurd):
        absurdity = f"a point beyond {MAX_ABSORPTION:g} edge steps"
        refused[i] = refused[i] or Refusal(Reason.NOT_AN_ABSORPTION_SPECTRUM, absurdity)
    footed[absurd] = 0.0
    return footed.astype(np.float32), tuple(refused)


def _lacking(points: int, window: tuple[float, float], settings: AlignmentSettings) -> str:
    declare = "edge_step too" if settings.background is not None else "pre_slope, post_slope, and edge_step if none"
    return (
        f"{points} points in {window} eV, needed {settings.min_points}; measure a longer frame first in the series, "
        f"or declare alignment.background ({declare})"
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """(N,) each."""

    low: Array
    high: Array
    """First and last measured energy on FEFF's scale."""
    gap: Array
    """How much of the grid the widest gap between two points leaves without any, measured eV."""
    step: Array
    noise: Array
    rise: Array
    """Anchor minus foot on the grid, in the unit of μ."""
    rounding: Array
    """What numbers of this size may differ by without having been measured to, in the unit of μ."""
    short: Short


def _widest_gap(relative: Array, ends: Array, least: float) -> Array:
    """The longest part without a point, (N,) eV, of what lies between ``ends`` (N, 2) of energies (1 or N, M); 0
    where no two neighbours are more than ``least`` apart."""
    wide = np.flatnonzero((np.diff(relative) > least).any(axis=0))
    left, right = relative[:, wide], relative[:, wide + 1]
    return (np.minimum(right, ends[:, 1:]) - np.maximum(left, ends[:, :1])).max(axis=1, initial=0.0)


def _refusals(found: _Found, grid: Grid, settings: AlignmentSettings) -> tuple[Refusal | None, ...]:
    """The first reason that applies to each spectrum, or None."""
    limit, lo, hi = settings.max_extrapolation_ev, grid.energy[0], grid.energy[-1]
    low, high, gap, short = found.low, found.high, found.gap, found.short
    sigma = found.noise * np.abs(found.step)
    least = np.maximum(settings.min_step_to_noise * sigma, found.rounding)  # a detector that is stuck has no noise
    no_edge = ~(np.minimum(found.rise, found.step) > least)
    bad = (low - lo > limit) | (hi - high > limit) | (gap > settings.max_gap_ev)
    bad |= short.no_pre | short.no_post
    refused: list[Refusal | None] = [None] * len(sigma)
    for i in np.flatnonzero(bad | no_edge):
        if low[i] - lo > limit or hi - high[i] > limit:
            refused[i] = Refusal(
                Reason.DOES_NOT_COVER_THE_GRID,
                f"measured {low[i]:.1f}…{high[i]:.1f} eV from the tabulated edge on FEFF's scale, "
                f"needed {lo:.1f}…{hi:.1f} eV within {limit:g} eV",
            )
        elif gap[i] > settings.max_gap_ev:
            refused[i] = Refusal(
                Reason.GAP_IN_THE_ENERGIES,
                f"{gap[i]:.1f} eV between two points, at most {settings.max_gap_ev:g}",
            )
        elif short.no_pre[i]:
            lacking = _lacking(short.points[0][i], settings.pre_edge_ev, settings)
            refused[i] = Refusal(Reason.NO_PRE_EDGE, lacking)
        elif short.no_post[i]:
            lacking = _lacking(short.points[1][i], settings.post_edge_ev, settings)
            refused[i] = Refusal(Reason.NO_POST_EDGE, lacking)
        elif max(found.rise[i], found.step[i]) < -least[i]:
            refused[i] = Refusal(
                Reason.NEGATIVE_EDGE_STEP,
                f"the absorption falls by {-found.step[i]:.3g} at the edge, noise σ {sigma[i]:.3g}: I0 and It may "
                "be exchanged",
            )
        else:
            refused[i] = Refusal(
                Reason.EDGE_STEP_WITHIN_NOISE,
                f"edge step {found.step[i]:.3g} with noise σ {sigma[i]:.3g}, needed {settings.min_step_to_noise:g} σ",
            )
    return tuple(refused)
