"""The normalisation of XAFS by pre-edge line, post-edge curve and edge step, for a batch of spectra at once.

The procedure, the parameters ``e0, pre1, pre2, norm1, norm2, nnorm, nvict`` and their default values are those of
Larch's ``pre_edge`` (M. Newville, J. Phys.: Conf. Ser. 430, 012007 (2013)), the reference implementation, and of
Athena (B. Ravel, M. Newville, J. Synchrotron Rad. 12, 537 (2005)). ``benchmarks/against_larch.py`` compares this
module with Larch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..types import Array, Settings
from .batch import Batch
from .e0 import count_below, find_edge
from .polynomials import Curve, Orders, Segment, Span, fit_polynomial

_MIN_PRE_EDGE_SLOPE_POINTS = 3  # with fewer points below the edge, a level is fitted and no slope
_MAX_ORDER = 5
_MIN_DIVISOR = 1e-12
# Number of μ values processed at a time: more do not fit into a cache, and BLAS shares larger products among threads.
_BLOCK_VALUES = 2**16
_AREA_START_EV = -20.0  # relative to E0, below the pre-edge features
_MIN_WINDOW_POINTS = 2, 3  # for the pre-edge and the post-edge, as in Larch

Mode = Literal["edge_step", "mback", "area", "none"]


class NormalisationSettings(Settings):
    """The normalisation of μ(E), with Larch's parameter names. Windows are in eV relative to E0; the agent determines
    unset ones for each spectrum."""

    mode: Mode = "edge_step"
    """``edge_step``: the pre-edge becomes 0 and the post-edge curve 1. ``mback``: the same, but both curves come from
    the tabulated absorption of the bare atom on a smooth background; only for alignment, which knows the absorber.
    ``area``: the pre-edge is subtracted and the mean from −20 eV to norm2 becomes 1, for data without a post-edge to
    fit. ``none``: no normalisation."""
    e0: float | None = None
    """E0 on the scale of the energies, eV; unset: the maximum of the smoothed derivative."""
    e0_smoothing_ev: float | None = Field(default=None, ge=0.2, le=10)
    """σ of the Gaussian that smooths the derivative, eV; unset: 0.5 eV, or 1.3 steps between sparse points."""
    pre1: float | None = None
    """Start of the pre-edge window, eV; unset: the second point, rounded to 5 eV."""
    pre2: float | None = None
    """End of the pre-edge window, eV; unset: half of pre1."""
    norm1: float | None = None
    """Start of the post-edge window, eV; unset: a fifteenth of norm2, rounded to 5 eV, at most 25 eV."""
    norm2: float | None = None
    """End of the post-edge window, eV; unset: the last point, rounded to 5 eV."""
    nnorm: int | None = Field(default=None, ge=0, le=_MAX_ORDER)
    """Order of the post-edge polynomial; unset: 2 over 300 eV and more, 1 over 30 eV and more, otherwise 0. With
    ``mback``, the order of its background; unset: 2, or 1 on a short scan."""
    nvict: int | None = Field(default=None, ge=-4, le=4)
    """Victoreen exponent: the pre-edge line is fitted to μ·E^nvict; unset: 0, a plain line."""
    flatten: bool = True
    """Whether to subtract the slope and curvature of the post-edge curve above E0."""


DEFAULT = NormalisationSettings()


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of the fits, (1 or N,) each, eV relative to E0, and the order of the post-edge polynomial."""

    pre1: Array
    pre2: Array
    norm1: Array
    norm2: Array
    nnorm: Orders


@dataclass(frozen=True)
class Normalised:
    """N normalised spectra and the lines that normalise them."""

    flat: Array
    """(N, M) normalised and flattened: pre-edge at 0, and post-edge at 1 without its slope and curvature above E0."""
    pre_edge: Array
    """(N, M) pre-edge line, in the unit of μ."""
    rise: Array
    """(N, M) post-edge curve − pre-edge line, in the unit of μ."""
    mu: Array
    """(N, M) absorption as measured."""
    e0: Array
    """(N,) E0, eV, on the scale of the energies; NaN where the absorption does not rise. The fits then use the middle
    of the scan or, in alignment, the tabulated edge."""
    edge_step: Array
    """(N,) edge step, in the unit of μ: post-edge curve − pre-edge line at E0."""
    pre_slope: Array
    """(N,) slope of the pre-edge line at E0, in the unit of μ per eV."""
    post_slope: Array
    """(N,) slope of post-edge curve − pre-edge line at E0, in the unit of μ per eV."""
    post_curvature: Array
    """(N,) half the second derivative of post-edge curve − pre-edge line at E0, in the unit of μ per eV²."""
    post_order: Orders
    """(N,) order of the post-edge polynomial."""
    pre: Span
    """The points of the pre-edge window."""
    post: Span
    """The points of the post-edge window."""
    windows: Windows | None = None
    """The windows by Larch's rules; None if they are not used."""
    mode: Mode = "edge_step"

    @cached_property
    def post_edge(self) -> Array:
        """(N, M) post-edge curve, in the unit of μ."""
        return self.pre_edge + self.rise

    @cached_property
    def norm(self) -> Array:
        """(N, M) normalised absorption, not flattened: the pre-edge is 0, and the post-edge is 1 at E0."""
        return (self.mu - self.pre_edge) / _divisor(self.edge_step)[:, None]

    def with_rows(self, rows: Sequence[int] | NDArray[np.bool_], other: "Normalised") -> "Normalised":
        """Return a copy with the curves and numbers of some rows replaced by those of ``other``."""
        names = ("flat", "pre_edge", "rise", "edge_step", "pre_slope", "post_slope", "post_curvature")
        merged = {name: np.array(getattr(self, name)) for name in names}
        for name, values in merged.items():
            values[rows] = getattr(other, name)
        return replace(self, **merged)


def normalise(
    energy: Array, mu: Array, settings: NormalisationSettings = DEFAULT, *, e0: Array | None = None
) -> Normalised:
    """Normalise spectra that have the same number of points.

    The result for a spectrum does not depend on the others.

    Parameters
    ----------
    energy : (M,) or (N, M) energies, eV, strictly rising
    mu : (N, M) or (M,) absorption, finite, dimensionless
    e0 : (N,) E0, eV; None: :func:`find_edge` determines it. ``settings.e0`` takes precedence

    Raises
    ------
    ValueError
        ``settings.mode`` is ``mback``, which needs the tabulated absorption.
    """
    energy, mu = np.atleast_2d(energy), np.atleast_2d(mu)
    if settings.mode == "mback":
        raise ValueError("mback needs the tabulated absorption: see agent/spectra/mback.py")
    if settings.mode == "none":
        return pass_through(mu)
    if settings.e0 is not None:
        e0 = np.full(len(mu), settings.e0)
    elif e0 is None:
        e0 = find_edge(energy, mu, settings.e0_smoothing_ev)
    finite_e0 = e0 if np.isfinite(e0).all() else np.where(np.isfinite(e0), e0, energy.mean(axis=1))
    batch = Batch(energy, mu, finite_e0)
    windows = find_windows(batch, settings)
    pre, post = larch_spans(batch, windows)
    below = Segment(pre, np.where(pre[1] - pre[0] >= _MIN_PRE_EDGE_SLOPE_POINTS, 1, 0))
    if settings.mode == "area":
        return replace(_normalise_area(batch, below, windows, settings), e0=e0)
    return replace(fit_lines(batch, below, Segment(post, windows.nnorm), settings, windows), e0=e0)


def find_windows(batch: Batch, settings: NormalisationSettings) -> Windows:
    """Return the windows and order that ``settings`` state, completed by Larch's rules."""
    energy, e0 = batch.energy, batch.e0_column[:, 0]
    first, last = energy[:, 0] - e0, energy[:, -1] - e0
    if settings.pre1 is None:
        unit = np.where(count_below(energy, e0) > 20, 5.0, 2.0)
        pre1 = unit * np.rint((energy[:, 1] - e0) / unit)  # the first point is often bad
    else:
        pre1 = settings.pre1
    pre1 = np.maximum(pre1, first)
    pre2 = 0.5 * pre1 if settings.pre2 is None else settings.pre2
    norm2 = np.minimum(5.0 * np.rint(last / 5.0) if settings.norm2 is None else settings.norm2, last)
    norm1 = np.minimum(25.0, 5.0 * np.rint(norm2 / 15.0)) if settings.norm1 is None else settings.norm1
    pre1, pre2 = np.minimum(pre1, pre2), np.maximum(pre1, pre2)
    lower, norm2 = np.minimum(norm1, norm2), np.maximum(norm1, norm2)
    norm1 = np.minimum(lower, norm2 - 2.0)
    if settings.nnorm is None:
        range_ev = norm2 - norm1
        nnorm = (range_ev >= 30).astype(int) + (range_ev >= 300)
    else:
        nnorm = np.full(len(e0), settings.nnorm)
    return Windows(pre1, pre2, norm1, norm2, nnorm)


def fit_lines(
    batch: Batch,
    pre: Segment,
    post: Segment,
    settings: NormalisationSettings = DEFAULT,
    windows: Windows | None = None,
) -> Normalised:
    """Fit the pre-edge line and, to the difference from it, the post-edge polynomial; a fit without points is 0.

    Parameters
    ----------
    batch : N spectra with finite E0
    pre, post : points and order of the fits
    windows : windows by Larch's rules, to report in the result
    """
    mu = batch.mu
    first, last = post.span
    post_order = np.minimum(post.order, np.maximum(last - first - 1, 0)) + np.zeros(len(mu), int)
    # One array, since the memory of several smaller ones would return to the operating system each time.
    spectra, terms = np.empty((3, *mu.shape)), np.empty((4, len(mu)))
    block = max(_BLOCK_VALUES // mu.shape[1], 1)
    if len(mu) <= block:
        terms = _fit_block(batch, pre, post, settings, spectra)
    else:
        for rows in (slice(k, k + block) for k in range(0, len(mu), block)):
            terms[:, rows] = _fit_block(batch.rows(rows), pre.rows(rows), post.rows(rows), settings, spectra[:, rows])
    step, pre_slope, slope, curvature = terms
    flat, line, rise = spectra[0], spectra[1], spectra[2]
    slopes = step, pre_slope, slope, curvature
    return Normalised(flat, line, rise, mu, batch.e0_column[:, 0], *slopes, post_order, pre.span, post.span, windows)


def _fit_block(
    batch: Batch, pre: Segment, post: Segment, settings: NormalisationSettings, out: Array
) -> tuple[Array, Array, Array, Array]:
    """Write ``flat``, ``pre_edge`` and ``rise`` of :class:`Normalised` to ``out`` (3, N, M), and return
    ``edge_step``, ``pre_slope``, ``post_slope`` and ``post_curvature``."""
    line = _fit_pre_edge(batch, pre, settings.nvict or 0, out[1])
    above = np.subtract(batch.mu, out[1], out=out[0])
    curve = fit_polynomial(batch.energy, above, post, batch.e0_column, out[2])
    flatten_and_scale(batch, above, curve.values, curve.level, settings.flatten)
    return curve.level, line.slope, curve.slope, curve.curvature


def flatten_and_scale(batch: Batch, above: Array, curve: Array, step: Array, flatten: bool = True) -> Array:
    """Divide spectra by their edge step, in place.

    Parameters
    ----------
    above : (N, M) μ − pre-edge line, in the unit of μ; overwritten
    curve : (N, M) post-edge curve − pre-edge line, in the unit of μ
    step : (N,) edge step, in the unit of μ
    flatten : whether the slope and curvature of ``curve`` are subtracted above E0

    Returns
    -------
    ``above``, with the pre-edge at 0 and the post-edge at 1
    """
    if flatten:
        excess = curve - step[:, None]
        excess *= batch.energy > batch.e0_column
        above -= excess
    above /= _divisor(step)[:, None]
    return above


def pass_through(mu: Array) -> Normalised:
    """Return spectra (N, M) that need no normalisation; the pre-edge line is 0 and the edge step 1."""
    zeros, zero = np.zeros(mu.shape), np.zeros(len(mu))
    whole = np.zeros(1, np.intp), np.full(1, mu.shape[1])
    slopes, post_order = (zero, zero, zero), zero.astype(int)
    return Normalised(
        mu, zeros, zeros + 1.0, mu, zero + np.nan, zero + 1, *slopes, post_order, whole, whole, mode="none"
    )


def span_between(relative: Array, first: float | Array, last: float | Array) -> Span:
    """Return the points of axes (1 or N, M) from ``first`` to ``last`` inclusive; both (1 or N,) or floats."""
    low = (relative < np.asarray(first)[..., None]).sum(axis=1)
    return low, np.maximum((relative <= np.asarray(last)[..., None]).sum(axis=1), low)


def larch_spans(batch: Batch, windows: Windows) -> tuple[Span, Span]:
    """Return the points of the pre-edge and of the post-edge window by Larch's rules."""
    if len(batch.energy) > 1:
        pre_points, post_points = _MIN_WINDOW_POINTS
        pre = _larch_span(batch, windows.pre1, windows.pre2, pre_points)
        return pre, _larch_span(batch, windows.norm1, windows.norm2, post_points)
    firsts, lasts = np.array([windows.pre1, windows.norm1]), np.array([windows.pre2, windows.norm2])
    begin, end = _larch_span(batch, firsts, lasts, np.array(_MIN_WINDOW_POINTS)[:, None])
    return (begin[0], end[0]), (begin[1], end[1])


def _larch_span(batch: Batch, first: Array, last: Array, min_points: int | NDArray[np.int_]) -> Span:
    """Return a window's points by Larch's rule: from the point at or below its start to the one before the point
    nearest to its end, at least ``min_points``. With shared energies, several windows (…, N) are found at once."""
    energy, e0 = batch.energy, batch.e0_column[:, 0]
    points = energy.shape[1]
    if len(energy) == 1:
        begin = energy[0].searchsorted(e0 + first, side="right") - 1
        right = np.minimum(np.maximum(energy[0].searchsorted(e0 + last), 1), points - 1)
        nearer = e0 + last - energy[0, right - 1] <= energy[0, right] - (e0 + last)
    else:
        begin = (energy <= (e0 + first)[:, None]).sum(axis=1) - 1
        right = np.clip((energy < (e0 + last)[:, None]).sum(axis=1), 1, points - 1)
        row = np.arange(len(energy))
        nearer = e0 + last - energy[row, right - 1] <= energy[row, right] - (e0 + last)
    begin = np.maximum(np.minimum(begin, points - min_points), 0)
    return begin, np.minimum(np.maximum(right - nearer, begin + min_points), points)


def _normalise_area(batch: Batch, pre: Segment, windows: Windows, settings: NormalisationSettings) -> Normalised:
    energy, mu = batch.energy, batch.mu
    line = _fit_pre_edge(batch, pre, settings.nvict or 0, np.empty(mu.shape))
    above, relative = mu - line.values, energy - batch.e0_column
    inside = (relative >= _AREA_START_EV) & (relative <= windows.norm2[:, None] + 1e-6)
    width = np.where(inside[:, 1:] & inside[:, :-1], np.diff(energy), 0.0)
    mean = ((above[:, 1:] + above[:, :-1]) / 2 * width).sum(axis=1) / np.maximum(width.sum(axis=1), _MIN_DIVISOR)
    flat, zero = above / _divisor(mean)[:, None], np.zeros(len(mu))
    rise = np.broadcast_to(mean[:, None], mu.shape)
    slopes = mean, line.slope, zero, zero
    spans = pre.span, pre.span
    return Normalised(
        flat, line.values, rise, mu, batch.e0_column[:, 0], *slopes, zero.astype(int), *spans, windows, mode="area"
    )


def _divisor(step: Array) -> Array:
    return np.where(np.abs(step) > _MIN_DIVISOR, step, _MIN_DIVISOR)


def _fit_pre_edge(batch: Batch, pre: Segment, nvict: int, out: Array) -> Curve:
    """Fit the pre-edge line, or the Victoreen curve (a + b·E)·E^−nvict; write its values to ``out``."""
    energy, mu, e0 = batch.energy, batch.mu, batch.e0_column
    if not nvict:
        return fit_polynomial(energy, mu, pre, e0, out)
    scale = energy.mean()
    weight = (energy / scale) ** nvict
    line = fit_polynomial(energy, mu * weight, pre, e0, out)
    out /= weight
    e0_weight = (e0[:, 0] / scale) ** nvict
    slope = (line.slope - nvict * line.level / e0[:, 0]) / e0_weight
    return Curve(out, line.level / e0_weight, slope, line.curvature)
