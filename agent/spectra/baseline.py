"""Pre- and post-edge of measured spectra: which windows and orders are taken, what is held where a scan is short."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..types import AbsorptionTable, Array
from .background import TERMS, held_lines
from .batch import Batch
from .mback import match
from .normalisation import (
    NormalisationSettings,
    Normalised,
    find_windows,
    lines,
    normalise,
    spans_of,
    untouched,
    within,
)
from .polynomials import Segment, Span
from .settings import AlignmentSettings

Reach = tuple[Array, Array]
"""How far the pre-edge and the post-edge window reach, (1 or N,) eV each."""

MIN_LINE_EV = 40.0  # a pre-edge that is shorter gives a level and no slope
MIN_CURVE_EV = 150.0  # so does a post-edge


@dataclass(frozen=True, slots=True)
class Short:
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


def fit_baseline(
    batch: Batch,
    edge_ev: float,
    settings: AlignmentSettings,
    *,
    held: Array | None = None,
    f2: AbsorptionTable | None = None,
) -> tuple[Normalised, Short]:
    """The pre- and post-edge of each spectrum, its E0 and energies relative to the tabulated edge.

    Parameters
    ----------
    batch : energies and E0 relative to ``edge_ev``, E0 NaN where none was found; ``normalisation.e0`` comes first
    held : (N, 4) background of the series; NaN where none is known
    f2 : of the absorber, for MBACK
    """
    relative, mu, e0 = batch.energy, batch.mu, batch.at[:, 0]
    how, none = settings.normalisation, np.zeros(len(mu), bool)
    if batch.normalised or how.mode == "none":
        return untouched(mu), Short(none, none, none, none, (none + 0, none + 0))
    if how.e0 is not None:
        e0 = np.full(len(mu), how.e0 - edge_ev)
    # Victoreen's curve knows absolute energies only.
    absolute = Batch(relative + edge_ev, mu, np.nan_to_num(e0) + edge_ev)
    if how.mode == "area":
        found, reach = _normalise(absolute, how), None
    elif any(w is not None for w in (how.pre1, how.pre2, how.norm1, how.norm2)):
        found, reach = _as_larch(absolute, how, f2)
    else:
        found, reach = _by_table(relative, absolute, settings, f2)
    found = replace(found, e0=e0)
    pre, post = (np.broadcast_to(last - first, len(mu)) for first, last in (found.pre, found.post))
    lacks_pre, lacks_post = pre < settings.min_points, post < settings.min_points
    if how.mode == "area":
        return found, Short(none, none, lacks_pre, none, (pre, post))
    rows = lacks_pre | lacks_post
    if how.mode == "mback":  # its slopes come from the table
        return found, Short(rows, none, lacks_pre, lacks_post, (pre, post))
    if reach is not None:
        rows = rows | _is_short(reach)
    background = np.full((len(mu), TERMS), np.nan) if held is None else held
    if settings.background is not None:
        background = np.broadcast_to(settings.background.terms(), background.shape)
    some = (pre > 0) & (post > 0) | np.isfinite(background[:, 3]) & (pre + post > 0)
    kept = rows & np.isfinite(background[:, :3]).all(axis=1) & some
    if kept.any():
        found = _with_held(relative, found, kept, background, how.flatten)
    return found, Short(rows, kept, lacks_pre & ~kept, lacks_post & ~kept, (pre, post))


def _normalise(batch: Batch, how: NormalisationSettings) -> Normalised:
    """As Larch does it, with an E0 that is known."""
    return normalise(batch.energy, batch.mu, how.model_copy(update={"e0": None}), e0=batch.e0)


def _by_table(
    relative: Array, batch: Batch, settings: AlignmentSettings, f2: AbsorptionTable | None
) -> tuple[Normalised, Reach]:
    """Windows by the table and not by each spectrum's E0, whose noise would move them from frame to frame."""
    how, (first, last) = settings.normalisation, settings.post_edge_ev
    pre = within(relative, *settings.pre_edge_ev)
    clear = np.clip(0.3 * relative[:, -1], first, max(first, settings.post_edge_clear_ev))
    post = within(relative, clear, last)
    reach = _reach(relative, pre), _reach(relative, post)
    if how.mode == "mback":
        return _matched(batch, (pre, post), reach, how, f2), reach
    pre_order = np.where(reach[0] >= MIN_LINE_EV, 1, 0)
    # A higher order on a shorter scan would follow the EXAFS instead of the background.
    post_order = (reach[1] >= MIN_CURVE_EV).astype(int) + (reach[1] >= 2 * MIN_CURVE_EV)
    if how.nnorm is not None:
        post_order = np.full_like(post_order, how.nnorm)
    return lines(batch, Segment(pre, pre_order), Segment(post, post_order), how), reach


def _as_larch(
    batch: Batch, how: NormalisationSettings, f2: AbsorptionTable | None
) -> tuple[Normalised, Reach | None]:
    if how.mode != "mback":
        return _normalise(batch, how), None
    spans = spans_of(batch, find_windows(batch, how))
    reach = _reach(batch.energy, spans[0]), _reach(batch.energy, spans[1])
    return _matched(batch, spans, reach, how, f2), reach


def _matched(
    batch: Batch, spans: tuple[Span, Span], reach: Reach, how: NormalisationSettings, f2: AbsorptionTable | None
) -> Normalised:
    if f2 is None:
        raise ValueError("MBACK without the tabulated absorption of the absorber")
    # On a short scan a curved background takes the place of the edge step: see docs/explanations/normalisation.md.
    order = np.where(_is_short(reach), 1, 2) if how.nnorm is None else np.array([how.nnorm])
    tabulated = f2.at(batch.energy)
    return match(batch, tabulated, spans, np.broadcast_to(order, len(batch)), flatten=how.flatten)


def _is_short(reach: Reach) -> NDArray[np.bool_]:
    return (reach[0] < MIN_LINE_EV) | (reach[1] < MIN_CURVE_EV)


def _with_held(
    relative: Array, found: Normalised, rows: NDArray[np.bool_], background: Array, flatten: bool
) -> Normalised:
    """Replace rows by what a held background makes of them."""

    def of(values: NDArray) -> NDArray:
        return values[rows] if len(values) == len(rows) else values

    pre, post = ((of(first), of(last)) for first, last in (found.pre, found.post))
    own = Batch(of(relative), found.mu[rows], found.e0[rows])
    held = held_lines(own, (pre, post), background[rows], found.post_order[rows], flatten=flatten)
    return found.with_rows(rows, held)


def _reach(energy: Array, window: Span) -> Array:
    """From the first to the last of a window's points, eV."""
    row = np.arange(len(energy)) if len(energy) > 1 else 0
    first, last = (np.minimum(i, energy.shape[1] - 1) for i in (window[0], window[1] - 1))
    return np.where(window[1] > window[0], energy[row, last] - energy[row, first], 0.0)
