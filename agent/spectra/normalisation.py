"""Pre-edge line, post-edge curve, edge step: the normalisation of XAFS, over a batch of spectra at once.

The procedure, the meaning of ``e0, pre1, pre2, norm1, norm2, nnorm, nvict`` and what is taken where one of them is
not given are those of Larch's ``pre_edge`` (M. Newville, J. Phys.: Conf. Ser. 430, 012007 (2013)), the reference
implementation, and of Athena (B. Ravel, M. Newville, J. Synchrotron Rad. 12, 537 (2005)). The two are compared in
``benchmarks/against_larch.py``.
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
from .polynomials import Curve, Orders, Segment, Span, polynomial

FIRST_WINDOW_POINTS = 3  # fewer points below the edge give a level and no slope
LAST_ORDER = 5
TINY = 1e-12
BLOCK_VALUES = 2**16  # of μ at a time: more do not fit into a cache, and BLAS shares larger products among threads
AREA_FROM_EV = -20.0  # an area begins where the pre-edge features do

Mode = Literal["edge_step", "mback", "area", "none"]


class NormalisationSettings(Settings):
    """How μ(E) is normalised, in the field's names; windows in eV relative to E0. None: found for each spectrum."""

    mode: Mode = "edge_step"
    """``edge_step``: the pre-edge becomes 0 and the post-edge curve 1. ``mback``: the same, with both curves from the
    tabulated absorption of the bare atom on a smooth background; for alignment only, which knows the absorber.
    ``area``: the pre-edge is subtracted and the mean from −20 eV to norm2 becomes 1, for data without a post-edge to
    fit. ``none``: no normalisation."""
    e0: float | None = None
    """E0 on the energies' own scale, eV; unset: the maximum of the smoothed derivative."""
    e0_smoothing_ev: float | None = Field(default=None, ge=0.2, le=10)
    """σ of the Gaussian that smooths that derivative, eV; unset: 0.5 eV, or 1.3 steps between the points."""
    pre1: float | None = None
    """Start of the pre-edge window, eV; unset: the second point, rounded to 5 eV."""
    pre2: float | None = None
    """End of the pre-edge window, eV; unset: half of pre1."""
    norm1: float | None = None
    """Start of the post-edge window, eV; unset: a fifteenth of norm2, rounded to 5 eV, at most 25 eV."""
    norm2: float | None = None
    """End of the post-edge window, eV; unset: the last point, rounded to 5 eV."""
    nnorm: int | None = Field(default=None, ge=0, le=LAST_ORDER)
    """Order of the post-edge polynomial; unset: 2 over 300 eV and more, 1 over 30 eV and more, else 0. With ``mback``
    the order of its background; unset: 2, or 1 on a short scan."""
    nvict: int | None = Field(default=None, ge=-4, le=4)
    """Victoreen exponent: the pre-edge line is fitted to μ·E^nvict; unset: 0, a plain line."""
    flatten: bool = True
    """Whether to subtract the slope and curvature of the post-edge curve above E0."""


DEFAULT = NormalisationSettings()


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the lines are fitted, (N,) or (1,) each, eV relative to E0, and the polynomial's order."""

    pre1: Array
    pre2: Array
    norm1: Array
    norm2: Array
    nnorm: Orders


@dataclass(frozen=True)
class Normalised:
    """N spectra and the lines that normalise them."""

    flat: Array
    """(N, M) pre-edge at 0, post-edge at 1; above E0 without the post-edge curve's slope and curvature."""
    pre_edge: Array
    """(N, M) in the unit of μ."""
    rise: Array
    """(N, M) post-edge curve − pre-edge line, in the unit of μ."""
    mu: Array
    """(N, M) as measured."""
    e0: Array
    """(N,) on the energies' own scale; NaN where nothing rises: the middle of the scan stands in for it, in
    alignment the tabulated edge."""
    edge_step: Array
    """(N,) in the unit of μ: post-edge curve − pre-edge line at E0."""
    pre_slope: Array
    """(N,) per eV, of the pre-edge line at E0, in the unit of μ."""
    post_slope: Array
    """(N,) per eV, of post-edge curve − pre-edge line at E0, in the unit of μ."""
    post_curvature: Array
    """(N,) per eV², half its second derivative, in the unit of μ."""
    post_order: Orders
    """(N,) of the post-edge polynomial."""
    pre: Span
    """The points of the pre-edge window."""
    post: Span
    """The points of the post-edge window."""
    windows: Windows | None = None
    mode: Mode = "edge_step"

    @cached_property
    def post_edge(self) -> Array:
        """(N, M) in the unit of μ."""
        return self.pre_edge + self.rise

    @cached_property
    def norm(self) -> Array:
        """(N, M) pre-edge at 0 and post-edge at 1 at E0, not flattened."""
        return (self.mu - self.pre_edge) / _divisor(self.edge_step)[:, None]

    def with_rows(self, rows: Sequence[int] | NDArray[np.bool_], other: "Normalised") -> "Normalised":
        """The same with the curves and numbers of some rows replaced by those of ``other``."""
        names = ("flat", "pre_edge", "rise", "edge_step", "pre_slope", "post_slope", "post_curvature")
        merged = {name: np.array(getattr(self, name)) for name in names}
        for name, values in merged.items():
            values[rows] = getattr(other, name)
        return replace(self, **merged)


def normalise(
    energy: Array, mu: Array, settings: NormalisationSettings = DEFAULT, *, e0: Array | None = None
) -> Normalised:
    """Normalise spectra that share their number of points; a spectrum's result does not depend on the others.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising
    mu : (N, M) or (M,) finite, dimensionless
    e0 : (N,) eV, where it is known and ``settings`` do not say otherwise
    """
    energy, mu = np.atleast_2d(energy), np.atleast_2d(mu)
    if settings.mode == "mback":
        raise ValueError("mback needs the tabulated absorption: see agent/spectra/mback.py")
    if settings.mode == "none":
        return untouched(mu)
    if settings.e0 is not None:
        e0 = np.full(len(mu), settings.e0)
    elif e0 is None:
        e0 = find_edge(energy, mu, settings.e0_smoothing_ev)
    at = e0 if np.isfinite(e0).all() else np.where(np.isfinite(e0), e0, energy.mean(axis=1))
    batch = Batch(energy, mu, at)
    windows = find_windows(batch, settings)
    pre, post = spans_of(batch, windows)
    below = Segment(pre, np.where(pre[1] - pre[0] >= FIRST_WINDOW_POINTS, 1, 0))
    if settings.mode == "area":
        return replace(_area(batch, below, windows, settings), e0=e0)
    return replace(lines(batch, below, Segment(post, windows.nnorm), settings, windows), e0=e0)


def find_windows(batch: Batch, settings: NormalisationSettings) -> Windows:
    """The windows that ``settings`` names, and for those that it does not, what Larch would take."""
    energy, e0 = batch.energy, batch.at[:, 0]
    first, last = energy[:, 0] - e0, energy[:, -1] - e0
    if settings.pre1 is None:
        unit = np.where(count_below(energy, e0) > 20, 5.0, 2.0)
        pre1 = unit * np.rint((energy[:, 1] - e0) / unit)  # the first point often is bad
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


def lines(
    batch: Batch,
    pre: Segment,
    post: Segment,
    settings: NormalisationSettings = DEFAULT,
    windows: Windows | None = None,
) -> Normalised:
    """Fit the pre-edge line and, to what is left, the post-edge polynomial; one without points is 0.

    Parameters
    ----------
    batch : E0 finite
    windows : where the segments come from
    """
    mu = batch.mu
    first, last = post.span
    used = np.minimum(post.order, np.maximum(last - first - 1, 0)) + np.zeros(len(mu), int)
    # In one piece: given back in several, the memory goes to the system each time.
    spectra, terms = np.empty((3, *mu.shape)), np.empty((4, len(mu)))
    block = max(BLOCK_VALUES // mu.shape[1], 1)
    if len(mu) <= block:
        terms = _lines(batch, pre, post, settings, spectra)
    else:
        for rows in (slice(k, k + block) for k in range(0, len(mu), block)):
            terms[:, rows] = _lines(batch.rows(rows), pre.rows(rows), post.rows(rows), settings, spectra[:, rows])
    step, pre_slope, slope, curvature = terms
    flat, line, rise = spectra[0], spectra[1], spectra[2]
    slopes = step, pre_slope, slope, curvature
    return Normalised(flat, line, rise, mu, batch.at[:, 0], *slopes, used, pre.span, post.span, windows)


def _lines(
    batch: Batch, pre: Segment, post: Segment, settings: NormalisationSettings, out: Array
) -> tuple[Array, Array, Array, Array]:
    """``flat``, ``pre_edge`` and ``rise`` of :class:`Normalised` in ``out`` (3, N, M); ``edge_step`` to
    ``post_curvature``."""
    line = _pre_edge(batch, pre, settings.nvict or 0, out[1])
    above = np.subtract(batch.mu, out[1], out=out[0])
    curve = polynomial(batch.energy, above, post, batch.at, out[2])
    flattened(batch, above, curve.values, curve.level, settings.flatten)
    return curve.level, line.slope, curve.slope, curve.curvature


def flattened(batch: Batch, above: Array, curve: Array, step: Array, flatten: bool = True) -> Array:
    """Pre-edge at 0 and post-edge at 1, (N, M), written over ``above``.

    Parameters
    ----------
    above : (N, M) μ − pre-edge line, in the unit of μ
    curve : (N, M) post-edge curve − pre-edge line, in the unit of μ
    step : (N,) of the edge
    flatten : whether the slope and curvature of ``curve`` are taken off above E0
    """
    if flatten:
        excess = curve - step[:, None]
        excess *= batch.energy > batch.at
        above -= excess
    above /= _divisor(step)[:, None]
    return above


def untouched(mu: Array) -> Normalised:
    """Spectra, (N, M), that are normalised already, or that need none: pre-edge 0, edge step 1."""
    zero, n = np.zeros(mu.shape), np.zeros(len(mu))
    whole = np.zeros(1, np.intp), np.full(1, mu.shape[1])
    return Normalised(mu, zero, zero + 1.0, mu, n + np.nan, n + 1, n, n, n, n.astype(int), whole, whole, mode="none")


def within(relative: Array, first: float | Array, last: float | Array) -> Span:
    """The points of energies (1 or N, M) from ``first`` to ``last``, both included, (1 or N,) or floats."""
    low = (relative < np.asarray(first)[..., None]).sum(axis=1)
    return low, np.maximum((relative <= np.asarray(last)[..., None]).sum(axis=1), low)


def spans_of(batch: Batch, windows: Windows) -> tuple[Span, Span]:
    """The points of the pre-edge and of the post-edge window, at least 2 and 3."""
    if len(batch.energy) > 1:
        return span_of(batch, windows.pre1, windows.pre2, 2), span_of(batch, windows.norm1, windows.norm2, 3)
    firsts, lasts = np.array([windows.pre1, windows.norm1]), np.array([windows.pre2, windows.norm2])
    begin, end = span_of(batch, firsts, lasts, np.array([[2], [3]]))
    return (begin[0], end[0]), (begin[1], end[1])


def span_of(batch: Batch, first: Array, last: Array, least: int | NDArray[np.int_]) -> Span:
    """A window's points as Larch takes them: from the one at or below its begin to the one before the nearest to its
    end; at least so many. Several windows (…, N) at once where the energies are shared."""
    energy, e0 = batch.energy, batch.at[:, 0]
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
    begin = np.maximum(np.minimum(begin, points - least), 0)
    return begin, np.minimum(np.maximum(right - nearer, begin + least), points)


def _area(batch: Batch, pre: Segment, windows: Windows, settings: NormalisationSettings) -> Normalised:
    energy, mu = batch.energy, batch.mu
    line = _pre_edge(batch, pre, settings.nvict or 0, np.empty(mu.shape))
    above, relative = mu - line.values, energy - batch.at
    inside = (relative >= AREA_FROM_EV) & (relative <= windows.norm2[:, None] + 1e-6)
    width = np.where(inside[:, 1:] & inside[:, :-1], np.diff(energy), 0.0)
    mean = ((above[:, 1:] + above[:, :-1]) / 2 * width).sum(axis=1) / np.maximum(width.sum(axis=1), TINY)
    flat, zero = above / _divisor(mean)[:, None], np.zeros(len(mu))
    rise = np.broadcast_to(mean[:, None], mu.shape)
    slopes = mean, line.slope, zero, zero
    spans = pre.span, pre.span
    return Normalised(
        flat, line.values, rise, mu, batch.at[:, 0], *slopes, zero.astype(int), *spans, windows, mode="area"
    )


def _divisor(step: Array) -> Array:
    return np.where(np.abs(step) > TINY, step, TINY)


def _pre_edge(batch: Batch, pre: Segment, nvict: int, out: Array) -> Curve:
    """The pre-edge line, or the Victoreen curve (a + b·E)·E^−nvict; its values in ``out``."""
    energy, mu, at = batch.energy, batch.mu, batch.at
    if not nvict:
        return polynomial(energy, mu, pre, at, out)
    scale = energy.mean()
    weight = (energy / scale) ** nvict
    line = polynomial(energy, mu * weight, pre, at, out)
    out /= weight
    there = (at[:, 0] / scale) ** nvict
    slope = (line.slope - nvict * line.level / at[:, 0]) / there
    return Curve(out, line.level / there, slope, line.curvature)
