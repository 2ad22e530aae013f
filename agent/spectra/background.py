"""Short scans: the shape of the pre- and post-edge lines held from what is known of the series, or declared."""

from collections import deque

import numpy as np

from ..types import Array, Settings, mad_sd
from .batch import Batch
from .normalisation import Normalised, flattened
from .polynomials import Orders, Span

DEPTH = 31  # frames that a prior looks back on
STEADY = 0.1  # relative scatter of the edge step, beyond which a series says nothing of the next one's
TERMS = 4
"""pre_slope, post_slope, post_curvature, edge_step."""


class Background(Settings):
    """What a scan that is too short cannot tell; slopes in edge steps, so that they hold for any thickness."""

    pre_slope: float = 0.0
    """Slope of the pre-edge line, edge steps per eV."""
    post_slope: float = 0.0
    """Slope of the post-edge curve relative to the pre-edge line at E0, edge steps per eV."""
    post_curvature: float = 0.0
    """Coefficient of (E − E0)² of the post-edge curve, edge steps per eV²."""
    edge_step: float | None = None
    """Edge step in the unit of μ; needed only if the scan has no pre-edge or no post-edge at all."""

    def terms(self) -> Array:
        """(4,) as :func:`held_lines` takes it."""
        step = np.nan if self.edge_step is None else self.edge_step
        return np.array([self.pre_slope, self.post_slope, self.post_curvature, step])


class SeriesBackground:
    """The background of one series: medians over its last frames that were long enough, so that one that is wrong
    changes nothing."""

    def __init__(self, depth: int = DEPTH) -> None:
        self._frames: deque[Array] = deque(maxlen=depth)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, background: Array) -> None:
        """Take in one frame's own background, (4,); one that is not finite is passed over."""
        if np.isfinite(background).all():
            self._frames.append(background)

    def background(self) -> Array:
        """(4,); NaN before the first frame, the edge step NaN where it changes from frame to frame."""
        if not self._frames:
            return np.full(TERMS, np.nan)
        frames = np.stack(self._frames)
        middle = np.median(frames, axis=0)
        if mad_sd(frames[:, 3], middle[3]) > STEADY * abs(middle[3]):
            middle[3] = np.nan
        return middle


def background_of(found: Normalised) -> Array:
    """(N, 4) of spectra that were long enough; NaN where there is no edge step."""
    step = np.where(found.edge_step > 0, found.edge_step, np.nan)
    terms = (found.pre_slope / step, found.post_slope / step, found.post_curvature / step, step)
    return np.stack(terms, axis=1)


def held_lines(
    batch: Batch, spans: tuple[Span, Span], background: Array, post_order: Orders, *, flatten: bool = True
) -> Normalised:
    """Level and edge step by least squares, everything else of the lines held.

    With h(E) = p·x + [x > 0]·(1 + b·x + c·x²), x = E − E0, μ is a + s·h(E) in both windows, which count alike. Where
    one of them has no points, s is held too, and is NaN where it is not known.

    Parameters
    ----------
    batch : E0 NaN where there is none; 0 stands in for it
    spans : of the pre-edge and of the post-edge window
    background : (N, 4) p, b, c in edge steps, s in the unit of μ
    post_order : (N,) handed on
    """
    energy, mu, e0 = batch.energy, batch.mu, batch.at[:, 0]
    batch = Batch(energy, mu, np.where(np.isnan(e0), 0.0, e0))
    at = batch.at
    x = energy - at
    p, b, c, held = (background[:, k, None] for k in range(TERMS))
    rise = 1 + x * (b + c * x)
    shape = p * x + np.where(x > 0, rise, 0.0)
    index = np.arange(energy.shape[1])
    inside = [(index >= first[:, None]) & (index < last[:, None]) for first, last in spans]
    weight = sum(w / np.maximum(w.sum(axis=1, keepdims=True), 1) for w in inside) + np.zeros(mu.shape)
    total = np.maximum(weight.sum(axis=1), 1e-300)
    mean_h, mean_mu = (weight * shape).sum(axis=1) / total, (weight * mu).sum(axis=1) / total
    h, y = shape - mean_h[:, None], mu - mean_mu[:, None]
    both = inside[0].any(axis=1) & inside[1].any(axis=1)
    fitted = (weight * h * y).sum(axis=1) / np.maximum((weight * h * h).sum(axis=1), 1e-300)
    step = np.where(both, fitted, held[:, 0])
    line = (mean_mu - step * mean_h)[:, None] + step[:, None] * p * x
    curve = step[:, None] * rise
    flat = flattened(batch, mu - line, curve, step, flatten)
    slopes = step * background[:, 0], step * background[:, 1], step * background[:, 2]
    return Normalised(flat, line, curve, mu, e0, step, *slopes, post_order, *spans)
