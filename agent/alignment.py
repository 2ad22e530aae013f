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
from pydantic import Field

from .e0 import find_e0
from .foil import READ_EV, Course, FoilSettings
from .glitches import GlitchSettings, find_glitches
from .grid import Array, Grid, bin_means
from .noise import noise_of
from .normalisation import NormalisationSettings, Normalised, Span, lines, normalise, untouched, within
from .prior import TERMS, Background, background_of, held_lines
from .settings import Settings

FOIL_SEARCH_EV = (-15.0, 15.0)
FOIL_LEVELS_EV = np.array([-40.0, -8.0, 12.0, 40.0])  # below and above its E0: what a foil's edge rises between
MIN_LINE_EV = 40.0  # a pre-edge that is shorter gives a level and no slope
MIN_CURVE_EV = 150.0  # so does a post-edge

ROUNDING = 1e-9  # an edge step smaller than this part of the absorption is none

MAX_ABSORPTION = 100.0  # of the normalised absorption: a white line has 5, a glitch some tens

Refusal = tuple[str, str]
"""(reason, detail) why a spectrum must be set aside."""


class AlignmentSettings(Settings):
    """How a measured spectrum is normalised. Windows are in eV relative to the tabulated edge."""

    pre_edge_ev: tuple[float, float] = (-150.0, -18.0)
    """Window of the pre-edge line; what the scan does not reach is left out."""
    post_edge_ev: tuple[float, float] = (40.0, 600.0)
    """Window of the post-edge curve; what the scan does not reach is left out."""
    post_edge_clear_ev: float = 150.0
    """Where a long scan's post-edge window begins: it needs no help from the XANES oscillations, which would pull
    the curve. A shorter scan's begins at 0.3 of its reach above the edge, but not below the window."""
    e0_search_ev: tuple[float, float] = (-12.0, 28.0)
    """Where E0, the maximum of the smoothed derivative, is looked for."""
    e0_smoothing_ev: float = 1.0
    """σ of the Gaussian that smooths the derivative."""
    max_extrapolation_ev: float = 3.0
    """How far the grid may reach beyond the measured energies, at either end."""
    max_gap_ev: float = 8.0
    """The widest gap between measured energies inside the grid."""
    min_step_to_noise: float = 8.0
    """An edge step of fewer σ of the noise than this is no edge."""
    min_points: int = 4
    """Fewest points in the pre-edge and in the post-edge window."""
    calibrate_on_reference: bool = True
    """Move each frame so that its reference foil's E0 stands at the tabulated edge."""
    usual_foil_shift_ev: float = 5.0
    """A larger shift is applied too, but flagged."""
    foil: FoilSettings = FoilSettings()
    """How the foil is followed from frame to frame."""
    energy_shift_ev: float = 0.0
    """Added to the energies where no foil tells: the monochromator's calibration, as it was last measured."""
    energy_sd_ev: float = Field(default=1.0, ge=0)
    """Standard deviation of the energies there, which widens the intervals; with a foil it is the foil's own."""
    normalisation: NormalisationSettings = NormalisationSettings()
    """In the field's own names. Where one of pre1, pre2, norm1 and norm2 is given, relative to E0, it takes the place
    of the windows above, and what is not given is found as Larch finds it."""
    glitches: GlitchSettings | None = None
    """Repair glitches before anything is fitted; None: leave them."""
    background: Background | None = None
    """Declared for scans without enough pre- or post-edge; None: held from earlier frames of the series, if any."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The absorber's edge and where the training data's energy scale stands; both are in the model card."""

    edge_ev: float
    """Tabulated absorption edge."""
    feff_minus_experiment_ev: float = 0.0
    """Added to calibrated energies to reach FEFF's scale; found from standards."""
    offset_sd_ev: float = 0.0
    """Its standard deviation."""
    scale: float = 1.0
    """Before that, energies from the tabulated edge are divided by this; found from standards."""
    scale_sd: float = 0.0
    """Its standard deviation."""


@dataclass(frozen=True)
class Aligned:
    """N spectra on the grid, with every quantity that the alignment found."""

    mu: NDArray[np.float32]
    """(N, G) on the common footing; a refused row is not to be used."""
    quantities: Mapping[str, Array]
    """Each (N,).

    ``e0_ev`` calibrated, experimental scale; ``edge_step`` of the measured μ; ``noise`` σ per point relative
    to the edge step; ``energy_shift_ev`` all that was added to the energies; ``foil_shift_ev`` the foil's part
    of it; ``energy_sd_ev`` how uncertain the measured energies are; ``pre_edge_slope`` per eV; ``post_edge_order``
    of the polynomial; ``extrapolated_ev`` how far the grid reaches beyond the data.
    """
    refused: tuple[Refusal | None, ...]
    flags: tuple[tuple[str, ...], ...]
    """Per spectrum, what a reader must know: ``no foil edge``, ``foil held``, ``foil off its course``,
    ``large foil shift``, ``background held``, ``3 glitches repaired``, ``too many glitches``."""
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
        return Aligned(mu, quantities, tuple(refused), tuple(flags), background, self.short, self.repaired)


def align(
    energy: Array,
    mu: Array,
    grid: Grid,
    edge: Edge,
    settings: AlignmentSettings,
    *,
    normalised: bool = False,
    reference: Array | None = None,
    courses: Sequence[Course] | None = None,
    held: Array | None = None,
) -> Aligned:
    """Align measured spectra that share their number of points.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising, the monochromator's scale
    mu : (N, M) dimensionless
    normalised : pre-edge already at 0 and post-edge at 1, so that no line is fitted
    reference : (N, M) absorption of a foil of the same element measured at the same time, or None
    courses : N, where the foil stood over time; None: each spectrum's own foil alone
    held : (N, 4) background of the series, for what is too short; NaN where none is known. Declared ones come first
    """
    relative = np.atleast_2d(energy) - edge.edge_ev  # (1, M) where all share their energies
    flags, repaired = ((),) * len(mu), None
    if settings.glitches is not None:
        glitches = find_glitches(energy, mu, edge.edge_ev, settings.glitches)
        mu, flags, repaired = glitches.mu, glitches.flags, glitches.found
    if courses is None:
        read = foil_shifts(energy, reference, edge, settings, len(mu))
        courses = [Course(s, READ_EV) for s in read.tolist()]
    asked = reference is not None and settings.calibrate_on_reference
    calibration, energy_sd, of_foil = _calibration(courses, asked, settings)
    flags = tuple(a + b for a, b in zip(of_foil, flags, strict=True))
    e0 = find_e0(relative, mu, settings.e0_smoothing_ev, settings.e0_search_ev)
    found, short = _normalise(relative, mu, e0, edge, settings, held, normalised)
    flags = tuple(f + ("background held",) if h else f for f, h in zip(flags, short.held.tolist(), strict=True))
    flat, step = found.flat, found.edge_step
    noise = noise_of(relative, flat)

    # Moving the grid instead of the energies leaves one energy axis for the whole batch.
    offset = edge.feff_minus_experiment_ev
    on_grid = bin_means(relative, flat, (grid.bounds - offset) * edge.scale - calibration)
    foot, anchor = grid.levels(on_grid)
    low, high = ((relative[:, at] + calibration[:, 0]) / edge.scale + offset for at in (0, -1))
    quantities = {
        "e0_ev": e0 + calibration[:, 0] + edge.edge_ev,
        "edge_step": step,
        "noise": noise,
        "energy_shift_ev": calibration[:, 0] + offset,
        "foil_shift_ev": np.nan_to_num([c.shift_ev for c in courses]),
        "energy_sd_ev": energy_sd,
        "pre_edge_slope": found.pre_slope,
        "post_edge_order": found.post_order.astype(float),
        "extrapolated_ev": np.maximum(np.maximum(low - grid.energy[0], grid.energy[-1] - high), 0.0),
    }
    rounding = ROUNDING * np.abs(mu).max(axis=1)
    judged = _Found(relative, low, high, step, noise, (anchor - foot) * step, rounding, short)
    aligned, refused = footed(grid, on_grid, list(_refusals(judged, grid, settings)))
    background = background_of(found)
    background[short.rows | np.array([r is not None for r in refused])] = np.nan
    return Aligned(aligned, quantities, refused, flags, background, short.rows, repaired, found)


def foil_shifts(energy: Array, reference: Array | None, edge: Edge, settings: AlignmentSettings, count: int) -> Array:
    """What moves each foil's E0 to the table, (N,) eV; NaN where there is none or it shows no edge.

    Parameters
    ----------
    energy, reference : as :func:`align` takes them
    count : N
    """
    if reference is None or not settings.calibrate_on_reference:
        return np.full(count, np.nan)
    relative = np.atleast_2d(energy) - edge.edge_ev
    e0 = find_e0(relative, reference, settings.e0_smoothing_ev, FOIL_SEARCH_EV, first=True)
    levels = bin_means(relative, reference, np.where(np.isnan(e0), 0.0, e0)[:, None] + FOIL_LEVELS_EV)
    rise = levels[:, 2] - levels[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        seen = ~np.isnan(e0) & (rise > settings.min_step_to_noise * noise_of(relative, reference))
    return np.where(seen, -e0, np.nan)


def _calibration(
    courses: Sequence[Course], asked: bool, settings: AlignmentSettings
) -> tuple[Array, Array, tuple[tuple[str, ...], ...]]:
    """Shift (N, 1) and standard deviation (N,) of the measured energies, eV, and what to know of them.

    ``asked`` is whether a foil should tell.
    """
    shift, sd = np.array([(c.shift_ev, c.sd_ev) for c in courses]).reshape(-1, 2).T
    known = ~np.isnan(shift)
    shift = np.where(known, shift, settings.energy_shift_ev)
    flags: list[tuple[str, ...]] = []
    for course, k, s in zip(courses, known.tolist(), shift.tolist(), strict=True):
        off = (course.flag,) if k and course.flag else () if k else ("no foil edge",)
        far = ("large foil shift",) if k and abs(s) > settings.usual_foil_shift_ev else ()
        flags.append(off + far if asked else far)
    return shift[:, None], np.where(known, sd, settings.energy_sd_ev), tuple(flags)


def footed(
    grid: Grid, on_grid: Array, refused: list[Refusal | None]
) -> tuple[NDArray[np.float32], tuple[Refusal | None, ...]]:
    """The common footing. What has no edge to divide by, or a point that no absorption has, is refused and 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        footed = grid.footing(on_grid)
        absurd = ~(np.abs(footed) < MAX_ABSORPTION).all(axis=1)
    for i in np.flatnonzero(absurd):
        refused[i] = refused[i] or ("not an absorption spectrum", f"a point beyond {MAX_ABSORPTION:g} edge steps")
    footed[absurd] = 0.0
    return footed.astype(np.float32), tuple(refused)


@dataclass(frozen=True, slots=True)
class _Short:
    """Which spectra lack what, (N,) each."""

    rows: NDArray[np.bool_]
    """Too short for a slope below or above the edge."""
    held: NDArray[np.bool_]
    """Of those, the ones whose background was held."""
    no_pre: NDArray[np.bool_]
    """Too few points, and no background that makes up for them; so for ``no_post``."""
    no_post: NDArray[np.bool_]
    points: tuple[NDArray[np.intp], NDArray[np.intp]]
    """In the pre-edge and in the post-edge window."""


def _normalise(
    relative: Array,
    mu: Array,
    e0: Array,
    edge: Edge,
    settings: AlignmentSettings,
    held: Array | None,
    normalised: bool,
) -> tuple[Normalised, _Short]:
    how, none = settings.normalisation, np.zeros(len(mu), bool)
    if normalised or how.mode == "none":
        return untouched(mu), _Short(none, none, none, none, (none + 0, none + 0))
    if how.e0 is not None:
        e0 = np.full(len(mu), how.e0 - edge.edge_ev)
    if how.mode == "area" or any(w is not None for w in (how.pre1, how.pre2, how.norm1, how.norm2)):
        found = normalise(relative, mu, how.model_copy(update={"e0": None}), e0=e0)
        reach = np.full(len(mu), np.inf), np.full(len(mu), np.inf)
    else:
        found, reach = _by_table(relative, mu, e0, settings)
    pre, post = (np.broadcast_to(last - first, len(mu)) for first, last in (found.pre, found.post))
    lacks_pre, lacks_post = pre < settings.min_points, post < settings.min_points
    rows = lacks_pre | lacks_post | (reach[0] < MIN_LINE_EV) | (reach[1] < MIN_CURVE_EV)
    if how.mode == "area":
        return found, _Short(none, none, lacks_pre, none, (pre, post))
    background = np.full((len(mu), TERMS), np.nan) if held is None else held
    if settings.background is not None:
        background = np.broadcast_to(settings.background.terms(), background.shape)
    some = (pre > 0) & (post > 0) | np.isfinite(background[:, 3]) & (pre + post > 0)
    kept = rows & np.isfinite(background[:, :3]).all(axis=1) & some
    if kept.any():
        found = _with_held(relative, found, kept, background)
    return found, _Short(rows, kept, lacks_pre & ~kept, lacks_post & ~kept, (pre, post))


def _by_table(
    relative: Array, mu: Array, e0: Array, settings: AlignmentSettings
) -> tuple[Normalised, tuple[Array, Array]]:
    """Windows by the table and not by each spectrum's E0, whose noise would move them from frame to frame."""
    first, last = settings.post_edge_ev
    pre = within(relative, *settings.pre_edge_ev)
    clear = np.clip(0.3 * relative[:, -1], first, max(first, settings.post_edge_clear_ev))
    post = within(relative, clear, last)
    reach = _reach(relative, pre), _reach(relative, post)
    pre_order = np.where(reach[0] >= MIN_LINE_EV, 1, 0)
    # A higher order on a shorter scan would follow the EXAFS instead of the background.
    post_order = (reach[1] >= MIN_CURVE_EV).astype(int) + (reach[1] >= 2 * MIN_CURVE_EV)
    if settings.normalisation.nnorm is not None:
        post_order = np.full_like(post_order, settings.normalisation.nnorm)
    return lines(relative, mu, e0, pre, pre_order, post, post_order, settings.normalisation), reach


def _with_held(relative: Array, found: Normalised, rows: NDArray[np.bool_], background: Array) -> Normalised:
    """Replace rows by what a held background makes of them."""

    def of(values: NDArray) -> NDArray:
        return values[rows] if len(values) == len(rows) else values

    pre, post = ((of(first), of(last)) for first, last in (found.pre, found.post))
    held = held_lines(
        of(relative), found.mu[rows], found.e0[rows], pre, post, background[rows], found.post_order[rows]
    )
    names = ("flat", "pre_edge", "rise", "edge_step", "pre_slope", "post_slope", "post_curvature")
    merged = {name: np.array(getattr(found, name)) for name in names}
    for name, values in merged.items():
        values[rows] = getattr(held, name)
    return replace(found, **merged)


def _reach(relative: Array, window: Span) -> Array:
    """From the first to the last of a window's points, eV."""
    row = np.arange(len(relative))
    first, last = (np.minimum(i, relative.shape[1] - 1) for i in (window[0], window[1] - 1))
    return np.where(window[1] > window[0], relative[row, last] - relative[row, first], 0.0)


def _lacking(points: int, window: tuple[float, float], settings: AlignmentSettings) -> str:
    declare = "edge_step too" if settings.background is not None else "pre_slope, post_slope, and edge_step if none"
    return (
        f"{points} points in {window} eV, needed {settings.min_points}; measure a longer frame first in the series, "
        f"or declare alignment.background ({declare})"
    )


@dataclass(frozen=True, slots=True)
class _Found:
    relative: Array
    """(1 or N, M)"""
    low: Array
    high: Array
    """First and last measured energy on FEFF's scale; one for all, or one each."""
    step: Array
    noise: Array
    rise: Array
    """Anchor minus foot on the grid, in the unit of μ."""
    rounding: Array
    """What numbers of this size may differ by without having been measured to, in the unit of μ."""
    short: _Short


def _refusals(found: _Found, grid: Grid, settings: AlignmentSettings) -> tuple[Refusal | None, ...]:
    """The first reason that applies to each spectrum, or None."""
    limit, lo, hi = settings.max_extrapolation_ev, grid.energy[0], grid.energy[-1]
    inside = (found.relative[:, 1:] >= lo) & (found.relative[:, 1:] <= hi)
    short = found.short
    low, high, gap = np.broadcast_arrays(
        found.low,
        found.high,
        np.where(inside, np.diff(found.relative), 0).max(axis=1),
        found.step,
    )[:3]
    sigma = found.noise * np.abs(found.step)
    least = np.maximum(settings.min_step_to_noise * sigma, found.rounding)  # a detector that is stuck has no noise
    no_edge = ~(np.minimum(found.rise, found.step) > least)
    bad = (low - lo > limit) | (hi - high > limit) | (gap > settings.max_gap_ev)
    bad |= short.no_pre | short.no_post
    refused: list[Refusal | None] = [None] * len(sigma)
    for i in np.flatnonzero(bad | no_edge):
        if low[i] - lo > limit or hi - high[i] > limit:
            refused[i] = (
                "does not cover the grid",
                f"measured {low[i]:.1f}…{high[i]:.1f} eV from the tabulated edge on FEFF's scale, "
                f"needed {lo:.1f}…{hi:.1f} eV within {limit:g} eV",
            )
        elif gap[i] > settings.max_gap_ev:
            refused[i] = (
                "gap in the energies",
                f"{gap[i]:.1f} eV between two points, at most {settings.max_gap_ev:g}",
            )
        elif short.no_pre[i]:
            refused[i] = "no pre-edge", _lacking(short.points[0][i], settings.pre_edge_ev, settings)
        elif short.no_post[i]:
            refused[i] = "no post-edge", _lacking(short.points[1][i], settings.post_edge_ev, settings)
        else:
            refused[i] = (
                "edge step within noise",
                f"edge step {found.step[i]:.3g} with noise σ {sigma[i]:.3g}, needed {settings.min_step_to_noise:g} σ",
            )
    return tuple(refused)
