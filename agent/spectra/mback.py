"""MBACK: μ(E) normalised by what tables say of the bare atom, where a post-edge polynomial would have to guess.

T.-C. Weng, G. S. Waldo, J. E. Penner-Hahn, J. Synchrotron Rad. 12, 506 (2005). Larch's ``mback`` is the reference
implementation; the tables themselves (f'' or μ of the absorber) are an argument.
"""

from dataclasses import replace

import numpy as np
from scipy.special import erfc

from ..types import Array
from .e0 import find_edge
from .normalisation import NormalisationSettings, Normalised, find_windows, flattened, span_of
from .polynomials import Curve, Orders, Span, polynomial

ERFC_WIDTH_EV = 50.0
MAX_ORDER = 5
LEAST_STEP = 1e-3  # of the table below the edge; an L₁ edge is a tenth


def mback(
    energy: Array,
    mu: Array,
    tabulated: Array,
    settings: NormalisationSettings | None = None,
    *,
    e0: Array | None = None,
    order: int = 2,
    emission_ev: float | None = None,
) -> Normalised:
    """Normalise spectra on shared energies so that s·μ + background matches the tabulated absorption.

    The background is a polynomial of (E − E0) and, where ``emission_ev`` is given, an error function about the
    emission line, for elastic scatter left in fluorescence. Both windows count alike, however many points they have;
    linear in all unknowns, the problem is solved at once. The pre-edge line and the post-edge curve of the result are
    those of the table, continued through the edge as power laws, minus the background.

    Parameters
    ----------
    energy : (M,) eV, strictly rising
    mu : (N, M) or (M,)
    tabulated : (M,) f'' or μ of the absorber at these energies, in any unit, positive
    e0 : (N,) eV; None: as ``settings`` say, else the maximum of the derivative
    order : of the background's polynomial, 0…5
    emission_ev : energy of the emission line

    Raises
    ------
    ValueError
        The order is none that is known, or the table has no edge where μ has.
    """
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order {order}, expected 0…{MAX_ORDER}")
    settings = settings or NormalisationSettings()
    mu, axis = np.atleast_2d(mu), np.atleast_2d(energy)
    if settings.e0 is not None:
        e0 = np.full(len(mu), settings.e0)
    elif e0 is None:
        e0 = find_edge(axis, mu, settings.e0_smoothing_ev)
    at = np.where(np.isfinite(e0), e0, energy.mean())
    windows = find_windows(axis, at, settings)
    pre = span_of(axis, at, windows.pre1, windows.pre2, least=2)
    post = span_of(axis, at, windows.norm1, windows.norm2, least=3)
    orders = np.full(len(mu), order)
    found = match(axis, mu, at, np.atleast_2d(tabulated), (pre, post), orders, emission_ev, settings.flatten)
    if not (found.edge_step != 0).all():
        raise ValueError("the tabulated absorption has no edge between the pre-edge and the post-edge window")
    return replace(found, e0=e0, windows=windows)


@np.errstate(divide="ignore", invalid="ignore")
def match(
    energy: Array,
    mu: Array,
    e0: Array,
    tabulated: Array,
    spans: tuple[Span, Span],
    orders: Orders,
    emission_ev: float | None = None,
    flatten: bool = True,
) -> Normalised:
    """As :func:`mback`, in windows that are known; the edge step is 0 where a window has no points, or the table no
    edge between them.

    Parameters
    ----------
    energy, tabulated : (1 or N, M)
    mu : (N, M)
    e0 : (N,) eV, finite
    spans : of the pre-edge and of the post-edge, (1 or N,) each
    orders : (N,) of the background's polynomial
    """
    pre, post = spans
    scale, background, tilt = _matched(energy, mu, e0, tabulated, spans, orders, emission_ev)
    below, above = (_continued(energy, tabulated, e0, window) for window in spans)
    good = (above.level - below.level > LEAST_STEP * below.level) & (pre[1] > pre[0]) & (post[1] > post[0])
    good &= np.isfinite(scale[:, 0]) & (scale[:, 0] != 0)
    s = np.where(good, scale[:, 0], np.inf)[:, None]
    line = np.where(good[:, None], (below.values - background) / s, 0.0)
    rise, step, slope = (above.values - below.values) / s, (above.level - below.level) / s[:, 0], below.slope - tilt
    flat = flattened(energy, mu - line, e0[:, None], rise, step, flatten)
    post_slope, curvature = (above.slope - below.slope) / s[:, 0], (above.curvature - below.curvature) / s[:, 0]
    slopes = slope / s[:, 0], post_slope, curvature
    return Normalised(flat, line, rise, mu, e0, step, *slopes, orders, pre, post, mode="mback")


def _matched(
    energy: Array,
    mu: Array,
    e0: Array,
    tabulated: Array,
    spans: tuple[Span, Span],
    orders: Orders,
    emission: float | None,
) -> tuple[Array, Array, Array]:
    """The scale s (N, 1) and the background (N, M), with its polynomial's slope at E0 (N,), of s·μ + background =
    table, by least squares in both windows."""
    index = np.arange(energy.shape[1])
    inside = [(index >= first[:, None]) & (index < last[:, None]) for first, last in spans]
    weight = sum(w / np.maximum(w.sum(axis=1, keepdims=True), 1) for w in inside) + np.zeros(mu.shape)
    unit = np.ptp(energy, axis=1) / 2
    x = (energy - e0[:, None]) / unit[:, None]
    smooth = [x**k * (orders >= k)[:, None] for k in range(int(orders.max(initial=1)) + 1)]
    if emission is not None:
        smooth.append(np.broadcast_to(erfc((energy - emission) / ERFC_WIDTH_EV), mu.shape))
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
    law = polynomial(np.log(energy), table, window, np.array([1]), np.log(e0)[:, None])
    level, power = np.exp(law.level), law.slope
    return Curve(np.exp(law.values), level, level * power / e0, level * power * (power - 1) / (2 * e0**2))
