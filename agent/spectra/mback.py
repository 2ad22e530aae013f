"""MBACK: μ(E) normalised by what tables say of the bare atom, where a post-edge polynomial would have to guess.

T.-C. Weng, G. S. Waldo, J. E. Penner-Hahn, J. Synchrotron Rad. 12, 506 (2005). Larch's ``mback`` is the reference
implementation; the tables themselves (f'' or μ of the absorber) are an argument.
"""

import numpy as np

from ..types import Array
from .batch import Batch
from .normalisation import Normalised, flattened
from .polynomials import Curve, Orders, Segment, Span, polynomial

LEAST_STEP = 1e-3  # of the table below the edge; an L₁ edge is a tenth


@np.errstate(divide="ignore", invalid="ignore")
def match(
    batch: Batch, tabulated: Array, spans: tuple[Span, Span], orders: Orders, *, flatten: bool = True
) -> Normalised:
    """Normalise spectra so that s·μ + background matches the tabulated absorption in both windows.

    The background is a polynomial of E − E0. Both windows count alike, however many points they have; linear in all
    unknowns, the problem is solved at once. The pre-edge line and the post-edge curve of the result are those of the
    table, continued through the edge as power laws, minus the background. The edge step is 0 where a window has no
    points, or the table no edge between them.

    Parameters
    ----------
    batch : E0 finite
    tabulated : (1 or N, M) f'' or μ of the absorber at the energies, in any unit, positive
    spans : of the pre-edge and of the post-edge, (1 or N,) each
    orders : (N,) of the background's polynomial
    """
    energy, mu, e0 = batch.energy, batch.mu, batch.at[:, 0]
    pre, post = spans
    scale, background, tilt = _matched(batch, tabulated, spans, orders)
    below, above = (_continued(energy, tabulated, e0, window) for window in spans)
    good = (above.level - below.level > LEAST_STEP * below.level) & (pre[1] > pre[0]) & (post[1] > post[0])
    good &= np.isfinite(scale[:, 0]) & (scale[:, 0] != 0)
    s = np.where(good, scale[:, 0], np.inf)[:, None]
    line = np.where(good[:, None], (below.values - background) / s, 0.0)
    rise, step, slope = (above.values - below.values) / s, (above.level - below.level) / s[:, 0], below.slope - tilt
    flat = flattened(batch, mu - line, rise, step, flatten)
    post_slope, curvature = (above.slope - below.slope) / s[:, 0], (above.curvature - below.curvature) / s[:, 0]
    slopes = slope / s[:, 0], post_slope, curvature
    return Normalised(flat, line, rise, mu, e0, step, *slopes, orders, pre, post, mode="mback")


def _matched(batch: Batch, tabulated: Array, spans: tuple[Span, Span], orders: Orders) -> tuple[Array, Array, Array]:
    """The scale s (N, 1) and the background (N, M), with its polynomial's slope at E0 (N,), of s·μ + background =
    table, by least squares in both windows."""
    energy, mu = batch.energy, batch.mu
    index = np.arange(energy.shape[1])
    inside = [(index >= first[:, None]) & (index < last[:, None]) for first, last in spans]
    weight = sum(w / np.maximum(w.sum(axis=1, keepdims=True), 1) for w in inside) + np.zeros(mu.shape)
    unit = np.ptp(energy, axis=1) / 2
    x = (energy - batch.at) / unit[:, None]
    smooth = [x**k * (orders >= k)[:, None] for k in range(int(orders.max(initial=1)) + 1)]
    size = np.abs(mu).max(axis=1, keepdims=True) + np.finfo(float).tiny ** 0.5
    basis = np.stack([mu / size, *(-s for s in smooth)], axis=-1)
    weighted = (basis * weight[..., None]).swapaxes(1, 2)
    unknown = np.linalg.pinv(weighted @ basis, hermitian=True) @ (weighted @ tabulated[..., None])
    # s·μ − Σ c·basis = table, so that the background is −Σ c·basis
    background = (basis[..., 1:] @ unknown[:, 1:])[..., 0]
    tilt = -unknown[:, 2, 0] / unit
    return unknown[:, :1, 0] / size, background, tilt


def _continued(energy: Array, tabulated: Array, e0: Array, window: Span) -> Curve:
    """The table beyond a window as the power law that it follows inside: absorption goes as E^−2.7 or so."""
    table = np.broadcast_to(np.log(tabulated), (len(e0), energy.shape[1]))
    law = polynomial(np.log(energy), table, Segment(window, np.array([1])), np.log(e0)[:, None])
    level, power = np.exp(law.level), law.slope
    return Curve(np.exp(law.values), level, level * power / e0, level * power * (power - 1) / (2 * e0**2))
