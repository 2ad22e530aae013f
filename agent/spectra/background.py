"""Background of short scans: earlier frames or the settings supply the shape of the pre- and post-edge lines."""

from collections import deque

import numpy as np

from ..types import Array, Settings, mad_sd
from .batch import Batch
from .normalisation import Normalised, flatten_and_scale
from .polynomials import Orders, Span

_HISTORY_FRAMES = 31  # number of frames in the medians
_MAX_EDGE_STEP_SCATTER = 0.1  # relative; if it is larger, earlier frames do not predict the edge step
TERMS = 4
"""Number of background terms: pre_slope, post_slope, post_curvature, edge_step."""


class Background(Settings):
    """Terms that a short scan cannot determine. Slopes are in edge steps, independent of the thickness."""

    pre_slope: float = 0.0
    """Slope of the pre-edge line, edge steps per eV."""
    post_slope: float = 0.0
    """Slope of the post-edge curve relative to the pre-edge line at E0, edge steps per eV."""
    post_curvature: float = 0.0
    """Coefficient of (E − E0)² of the post-edge curve, edge steps per eV²."""
    edge_step: float | None = None
    """Edge step in the unit of μ; required only if the scan has no pre-edge or no post-edge at all."""

    def terms(self) -> Array:
        """Return the terms, (4,), as :func:`fit_held_lines` takes them."""
        step = np.nan if self.edge_step is None else self.edge_step
        return np.array([self.pre_slope, self.post_slope, self.post_curvature, step])


class SeriesBackground:
    """The background of one series: medians, which resist outliers, over its last frames that were long enough."""

    def __init__(self, max_frames: int = _HISTORY_FRAMES) -> None:
        self._frames: deque[Array] = deque(maxlen=max_frames)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, background: Array) -> None:
        """Add the terms of one frame, (4,); terms that are not finite are skipped."""
        if np.isfinite(background).all():
            self._frames.append(background)

    def add_all(self, backgrounds: Array) -> None:
        """Add the terms of N frames, (N, 4), as :meth:`add` does."""
        finite = backgrounds[np.isfinite(backgrounds).all(axis=1)]
        self._frames.extend(finite[-(self._frames.maxlen or 0) :].copy())

    def state(self) -> list[list[float]]:
        """Return the terms of the frames, oldest first, for :meth:`add`."""
        return [terms.tolist() for terms in self._frames]

    def background(self) -> Array:
        """Return the terms, (4,); NaN before the first frame. The edge step is NaN if it varies between frames."""
        if not self._frames:
            return np.full(TERMS, np.nan)
        frames = np.stack(self._frames)
        middle = np.median(frames, axis=0)
        if mad_sd(frames[:, 3], middle[3]) > _MAX_EDGE_STEP_SCATTER * abs(middle[3]):
            middle[3] = np.nan
        return middle


def measure_background(normalised: Normalised) -> Array:
    """Return the terms, (N, 4), of spectra that are long enough; NaN without an edge step."""
    step = np.where(normalised.edge_step > 0, normalised.edge_step, np.nan)
    slopes = (normalised.pre_slope / step, normalised.post_slope / step, normalised.post_curvature / step)
    return np.stack((*slopes, step), axis=1)


def fit_held_lines(
    batch: Batch, spans: tuple[Span, Span], background: Array, post_order: Orders, *, flatten: bool = True
) -> Normalised:
    """Fit level and edge step by least squares; all other terms of the lines are held.

    With h(E) = p·x + [x > 0]·(1 + b·x + c·x²) and x = E − E0, μ is a + s·h(E) in both windows, which have equal
    weight. If a window has no points, s is held too; the result is NaN if s is unknown.

    Parameters
    ----------
    batch : N spectra; an E0 of NaN, where none was found, is replaced by 0
    spans : points of the pre-edge and of the post-edge window
    background : (N, 4) p, b, c in edge steps, and s in the unit of μ
    post_order : (N,) order to report in the result
    flatten : whether the slope and curvature of the post-edge are subtracted above E0
    """
    energy, mu, e0 = batch.energy, batch.mu, batch.e0_column[:, 0]
    batch = Batch(energy, mu, np.where(np.isnan(e0), 0.0, e0))
    x = energy - batch.e0_column
    p, b, c, held_step = (background[:, k, None] for k in range(TERMS))
    rise = 1 + x * (b + c * x)
    shape = p * x + np.where(x > 0, rise, 0.0)
    index = np.arange(energy.shape[1])
    inside = [(index >= first[:, None]) & (index < last[:, None]) for first, last in spans]
    weight = sum(w / np.maximum(w.sum(axis=1, keepdims=True), 1) for w in inside) + np.zeros(mu.shape)
    total = np.maximum(weight.sum(axis=1), 1e-300)
    mean_shape, mean_mu = (weight * shape).sum(axis=1) / total, (weight * mu).sum(axis=1) / total
    h, y = shape - mean_shape[:, None], mu - mean_mu[:, None]
    both = inside[0].any(axis=1) & inside[1].any(axis=1)
    fitted = (weight * h * y).sum(axis=1) / np.maximum((weight * h * h).sum(axis=1), 1e-300)
    step = np.where(both, fitted, held_step[:, 0])
    line = (mean_mu - step * mean_shape)[:, None] + step[:, None] * p * x
    curve = step[:, None] * rise
    flat = flatten_and_scale(batch, mu - line, curve, step, flatten)
    slopes = step * background[:, 0], step * background[:, 1], step * background[:, 2]
    return Normalised(flat, line, curve, mu, e0, step, *slopes, post_order, *spans)
