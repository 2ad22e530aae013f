"""MBACK: normalises μ(E) to the tabulated absorption of the bare atom instead of a post-edge polynomial.

Source: T.-C. Weng, G. S. Waldo, J. E. Penner-Hahn, J. Synchrotron Rad. 12, 506 (2005). Larch's ``mback`` is the
reference implementation; the caller supplies the tables (f'' or μ of the absorber).
"""

import numpy as np

from ..types import Array
from .batch import Batch
from .normalisation import Normalised, flatten_and_scale
from .polynomials import Curve, Orders, Segment, Span, fit_polynomial

_MIN_STEP_PER_PRE_EDGE = 1e-3  # edge step of the table relative to its value below the edge; 0.1 at an L₁ edge


@np.errstate(divide="ignore", invalid="ignore")
def normalise_by_mback(
    batch: Batch, tabulated: Array, spans: tuple[Span, Span], orders: Orders, *, flatten: bool = True
) -> Normalised:
    """Normalise spectra so that s·μ + background matches the tabulated absorption in both windows.

    The background is a polynomial of E − E0. Both windows have equal weight, whatever their number of points. The
    problem is linear in all unknowns and is solved in one step. The pre-edge line and the post-edge curve of the
    result are those of the table, continued through the edge as power laws, minus the background. The edge step is 0
    if a window has no points or the table has no edge between the windows.

    Parameters
    ----------
    batch : N spectra with finite E0
    tabulated : (1 or N, M) f'' or μ of the absorber at the energies, in any unit, positive
    spans : points of the pre-edge and of the post-edge window, (1 or N,) each
    orders : (N,) orders of the background's polynomial
    flatten : whether the slope and curvature of the post-edge are subtracted above E0
    """
    energy, mu, e0 = batch.energy, batch.mu, batch.e0_column[:, 0]
    pre, post = spans
    scale, background, tilt = _fit_background(batch, tabulated, spans, orders)
    below, above = (_extrapolate(energy, tabulated, e0, window) for window in spans)
    good = (
        (above.level - below.level > _MIN_STEP_PER_PRE_EDGE * below.level) & (pre[1] > pre[0]) & (post[1] > post[0])
    )
    good &= np.isfinite(scale[:, 0]) & (scale[:, 0] != 0)
    s = np.where(good, scale[:, 0], np.inf)[:, None]
    line = np.where(good[:, None], (below.values - background) / s, 0.0)
    rise, step, slope = (above.values - below.values) / s, (above.level - below.level) / s[:, 0], below.slope - tilt
    flat = flatten_and_scale(batch, mu - line, rise, step, flatten)
    post_slope, curvature = (above.slope - below.slope) / s[:, 0], (above.curvature - below.curvature) / s[:, 0]
    slopes = slope / s[:, 0], post_slope, curvature
    return Normalised(flat, line, rise, mu, e0, step, *slopes, orders, pre, post, mode="mback")


def _fit_background(
    batch: Batch, tabulated: Array, spans: tuple[Span, Span], orders: Orders
) -> tuple[Array, Array, Array]:
    """Fit s·μ + background = table in both windows by least squares; return the scale s (N, 1), the background (N, M)
    and its slope at E0 (N,)."""
    energy, mu = batch.energy, batch.mu
    index = np.arange(energy.shape[1])
    inside = [(index >= first[:, None]) & (index < last[:, None]) for first, last in spans]
    weight = sum(w / np.maximum(w.sum(axis=1, keepdims=True), 1) for w in inside) + np.zeros(mu.shape)
    unit = np.ptp(energy, axis=1) / 2
    x = (energy - batch.e0_column) / unit[:, None]
    smooth = [x**k * (orders >= k)[:, None] for k in range(int(orders.max(initial=1)) + 1)]
    size = np.abs(mu).max(axis=1, keepdims=True) + np.finfo(float).tiny ** 0.5
    basis = np.stack([mu / size, *(-s for s in smooth)], axis=-1)
    weighted = (basis * weight[..., None]).swapaxes(1, 2)
    unknown = np.linalg.pinv(weighted @ basis, hermitian=True) @ (weighted @ tabulated[..., None])
    # The basis holds negative powers, so that basis · unknowns is the background.
    background = (basis[..., 1:] @ unknown[:, 1:])[..., 0]
    tilt = -unknown[:, 2, 0] / unit
    return unknown[:, :1, 0] / size, background, tilt


def _extrapolate(energy: Array, tabulated: Array, e0: Array, window: Span) -> Curve:
    """Continue the table beyond a window as the power law that it follows inside, about E^−2.7."""
    table = np.broadcast_to(np.log(tabulated), (len(e0), energy.shape[1]))
    law = fit_polynomial(np.log(energy), table, Segment(window, np.array([1])), np.log(e0)[:, None])
    level, power = np.exp(law.level), law.slope
    return Curve(np.exp(law.values), level, level * power / e0, level * power * (power - 1) / (2 * e0**2))
