"""Pre- and post-edge of measured spectra: windows, orders, and the terms held for short scans."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import AbsorptionTable, Array
from .background import TERMS, fit_held_lines
from .batch import Batch
from .mback import normalise_by_mback
from .normalisation import (
    NormalisationSettings,
    Normalised,
    find_windows,
    fit_lines,
    larch_spans,
    normalise,
    pass_through,
    span_between,
)
from .polynomials import Segment, Span
from .settings import AlignmentSettings

Ranges = tuple[Array, Array]
"""Ranges of energy covered by the points of the pre-edge and of the post-edge window, (1 or N,) eV each."""

_MIN_PRE_EDGE_SLOPE_EV = 40.0  # a shorter pre-edge determines a level but no slope
_MIN_POST_EDGE_SLOPE_EV = 150.0  # a shorter post-edge, too; a curvature needs twice as much
_POST_EDGE_START_PART = 0.3  # start of a short scan's post-edge window, as a share of the range above the edge


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far N scans cover the pre- and post-edge windows; arrays (N,)."""

    too_short: NDArray[np.bool_]
    """Whether the pre- or post-edge is too short to determine a slope."""
    background_held: NDArray[np.bool_]
    """Whether the scan is too short and a known background was used instead."""
    no_pre_edge: NDArray[np.bool_]
    """Whether the pre-edge window has too few points and no background replaces them."""
    no_post_edge: NDArray[np.bool_]
    """Whether the post-edge window has too few points and no background replaces them."""
    points: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Number of points in the pre-edge and in the post-edge window."""


def fit_baseline(
    batch: Batch,
    edge_ev: float,
    settings: AlignmentSettings,
    *,
    series_background: Array | None = None,
    f2: AbsorptionTable | None = None,
    level_ev: float | None = None,
) -> tuple[Normalised, Coverage]:
    """Fit the pre- and post-edge of each spectrum.

    Parameters
    ----------
    batch : energies and E0 relative to ``edge_ev``; E0 is NaN if none was found, and ``normalisation.e0`` takes
        precedence
    edge_ev : tabulated edge, eV
    series_background : (N, 4) terms of earlier frames of the series; NaN if unknown
    f2 : f'' of the absorber, for MBACK
    level_ev : energy above which the mean of μ replaces the post-edge line, eV from the tabulated edge, if a scan
        ends before the post-edge window and no earlier frame gives its edge step; None: such a scan is refused

    Returns
    -------
    The normalised spectra, with E0 and energies relative to the tabulated edge, and the coverage of the windows
    """
    relative, mu, e0 = batch.energy, batch.mu, batch.e0_column[:, 0]
    normalisation, no_rows = settings.normalisation, np.zeros(len(mu), bool)
    if batch.normalised or normalisation.mode == "none":
        return pass_through(mu), Coverage(no_rows, no_rows, no_rows, no_rows, (no_rows + 0, no_rows + 0))
    if normalisation.e0 is not None:
        e0 = np.full(len(mu), normalisation.e0 - edge_ev)
    background = np.full((len(mu), TERMS), np.nan) if series_background is None else series_background
    if settings.background is not None:
        background = np.broadcast_to(settings.background.terms(), background.shape)
    levels = None if level_ev is None else np.where(np.isnan(background[:, 3]), level_ev, np.inf)
    # Victoreen's curve is a function of the absolute energy.
    absolute = Batch(relative + edge_ev, mu, np.where(np.isnan(e0), 0.0, e0) + edge_ev)
    larch_windows = (normalisation.pre1, normalisation.pre2, normalisation.norm1, normalisation.norm2)
    if normalisation.mode == "area":
        normalised, ranges = _normalise(absolute, normalisation), None
    elif any(bound is not None for bound in larch_windows):
        normalised, ranges = _fit_in_larch_windows(absolute, normalisation, f2)
    else:
        normalised, ranges = _fit_in_fixed_windows(relative, absolute, settings, f2, levels)
    normalised = replace(normalised, e0=e0)
    pre, post = (np.broadcast_to(last - first, len(mu)) for first, last in (normalised.pre, normalised.post))
    few_pre, few_post = pre < settings.min_points, post < settings.min_points
    if normalisation.mode == "area":
        return normalised, Coverage(no_rows, no_rows, few_pre, no_rows, (pre, post))
    too_short = few_pre | few_post
    if normalisation.mode == "mback":  # the table determines the slopes
        return normalised, Coverage(too_short, no_rows, few_pre, few_post, (pre, post))
    if ranges is not None:
        too_short = too_short | _is_short(ranges)
    fittable = (pre > 0) & (post > 0) | np.isfinite(background[:, 3]) & (pre + post > 0)
    held = too_short & np.isfinite(background[:, :3]).all(axis=1) & fittable
    if held.any():
        normalised = _hold_background(relative, normalised, held, background, normalisation.flatten)
    return normalised, Coverage(too_short, held, few_pre & ~held, few_post & ~held, (pre, post))


def _normalise(batch: Batch, settings: NormalisationSettings) -> Normalised:
    """Normalise as Larch does, with a known E0."""
    return normalise(batch.energy, batch.mu, settings.model_copy(update={"e0": None}), e0=batch.e0)


def _fit_in_fixed_windows(
    relative: Array, batch: Batch, settings: AlignmentSettings, f2: AbsorptionTable | None, level_ev: Array | None
) -> tuple[Normalised, Ranges]:
    """Fit in windows relative to the tabulated edge; windows relative to E0 would move with its noise."""
    normalisation = settings.normalisation
    limits = _Limits(
        *(settings.pre_edge_ev, settings.pre_edge_latest_ev),
        *(settings.post_edge_ev, settings.post_edge_clear_ev, settings.min_points),
    )
    if len(batch) == 1:
        pre, post, few, ranges = _windows_again(
            relative.astype(np.float64, copy=False).tobytes(), limits, None if level_ev is None else level_ev.item()
        )
    else:
        pre, post, few, ranges = _fixed_windows(relative, limits, level_ev)
    if normalisation.mode == "mback":
        return _fit_mback(batch, (pre, post), ranges, normalisation, f2), ranges
    pre_order = np.where(ranges[0] >= _MIN_PRE_EDGE_SLOPE_EV, 1, 0)
    # On a shorter scan, a higher order would follow the EXAFS instead of the background.
    post_order = (ranges[1] >= _MIN_POST_EDGE_SLOPE_EV).astype(int) + (ranges[1] >= 2 * _MIN_POST_EDGE_SLOPE_EV)
    if normalisation.nnorm is not None:
        post_order = np.where(few, 0, normalisation.nnorm)
    return fit_lines(batch, Segment(pre, pre_order), Segment(post, post_order), normalisation), ranges


class _Limits(NamedTuple):
    """Settings of the windows."""

    pre_edge_ev: tuple[float, float]
    pre_edge_latest_ev: float
    post_edge_ev: tuple[float, float]
    post_edge_clear_ev: float
    min_points: int


def _fixed_windows(
    relative: Array, limits: _Limits, level_ev: Array | None
) -> tuple[Span, Span, NDArray[np.bool_], Ranges]:
    """Return the points of the pre- and post-edge, whether a mean replaces the latter, and their ranges."""
    first, last = limits.post_edge_ev
    pre = _pre_edge(relative, limits)
    start = np.clip(_POST_EDGE_START_PART * relative[:, -1], first, max(first, limits.post_edge_clear_ev))
    post = span_between(relative, start, last)
    few = np.zeros(1, bool)
    if level_ev is not None:
        level = span_between(relative, level_ev, last)
        few = (post[1] - post[0] < limits.min_points) & (level[1] > level[0])
        post = np.where(few, level[0], post[0]), np.where(few, level[1], post[1])
    return pre, post, few, (_range_ev(relative, pre), _range_ev(relative, post))


@lru_cache(maxsize=16)
def _windows_again(
    energies: bytes, limits: _Limits, level_ev: float | None
) -> tuple[Span, Span, NDArray[np.bool_], Ranges]:
    """Return the windows of one spectrum, cached because the frames of a series have the same energies."""
    return _fixed_windows(np.frombuffer(energies)[None], limits, None if level_ev is None else np.array([level_ev]))


def _pre_edge(relative: Array, limits: _Limits) -> Span:
    """Return the points of the pre-edge; if a scan begins late, they lie closer to the edge."""
    first, last = limits.pre_edge_ev
    usual, late = span_between(relative, first, last), span_between(relative, first, limits.pre_edge_latest_ev)
    few, late_few = (span[1] - span[0] < limits.min_points for span in (usual, late))
    return usual[0], np.where(few & ~late_few, np.maximum(usual[1], late[1]), usual[1])


def _fit_in_larch_windows(
    batch: Batch, settings: NormalisationSettings, f2: AbsorptionTable | None
) -> tuple[Normalised, Ranges | None]:
    if settings.mode != "mback":
        return _normalise(batch, settings), None
    spans = larch_spans(batch, find_windows(batch, settings))
    ranges = _range_ev(batch.energy, spans[0]), _range_ev(batch.energy, spans[1])
    return _fit_mback(batch, spans, ranges, settings, f2), ranges


def _fit_mback(
    batch: Batch,
    spans: tuple[Span, Span],
    ranges: Ranges,
    settings: NormalisationSettings,
    f2: AbsorptionTable | None,
) -> Normalised:
    if f2 is None:
        raise ValueError("MBACK without the tabulated absorption of the absorber")
    # On a short scan a curved background would replace the edge step: see docs/explanations/normalisation.md.
    order = np.where(_is_short(ranges), 1, 2) if settings.nnorm is None else np.array([settings.nnorm])
    tabulated = f2.at(batch.energy)
    return normalise_by_mback(batch, tabulated, spans, np.broadcast_to(order, len(batch)), flatten=settings.flatten)


def _is_short(ranges: Ranges) -> NDArray[np.bool_]:
    return (ranges[0] < _MIN_PRE_EDGE_SLOPE_EV) | (ranges[1] < _MIN_POST_EDGE_SLOPE_EV)


def _hold_background(
    relative: Array, normalised: Normalised, rows: NDArray[np.bool_], background: Array, flatten: bool
) -> Normalised:
    """Fit some rows again with a known background."""

    def select(values: NDArray) -> NDArray:
        return values[rows] if len(values) == len(rows) else values

    pre, post = ((select(first), select(last)) for first, last in (normalised.pre, normalised.post))
    batch = Batch(select(relative), normalised.mu[rows], normalised.e0[rows])
    held = fit_held_lines(batch, (pre, post), background[rows], normalised.post_order[rows], flatten=flatten)
    return normalised.with_rows(rows, held)


def _range_ev(energy: Array, window: Span) -> Array:
    """Return the ranges from the first to the last point of a window, (1 or N,) eV."""
    row = np.arange(len(energy)) if len(energy) > 1 else 0
    first, last = (np.minimum(i, energy.shape[1] - 1) for i in (window[0], window[1] - 1))
    return np.where(window[1] > window[0], energy[row, last] - energy[row, first], 0.0)
