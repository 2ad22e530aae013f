"""Fits polynomials in windows of a batch of spectra; each spectrum has its own window and order."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..types import Array

Orders = NDArray[np.int_]
Span = tuple[NDArray[np.intp], NDArray[np.intp]]
"""First index of a window and the index after its last point, (1 or N,) each."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The points that a polynomial is fitted to, and its order."""

    span: Span
    order: Orders
    """(1 or N,) orders."""

    def rows(self, rows: slice) -> "Segment":
        """Return the segments of some spectra."""
        first, last, order = (k if len(k) == 1 else k[rows] for k in (*self.span, self.order))
        return Segment((first, last), order)


_MIN_HALF_WIDTH_EV = 1e-12  # half-width of a window with a single point


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve with its value and derivatives at E0."""

    values: Array
    """(N, M) values of the curve."""
    level: Array
    """(N,) values at E0."""
    slope: Array
    """(N,) derivatives at E0."""
    curvature: Array
    """(N,) halves of the second derivatives at E0."""


def fit_polynomial(x: Array, y: Array, segment: Segment, e0: Array, out: Array | None = None) -> Curve:
    """Fit a polynomial to each spectrum; it is 0 for a segment without points.

    Parameters
    ----------
    x : (1 or N, M) energies, eV
    y : (N, M) values
    segment : points and order of the fit
    e0 : (N, 1) energies at which to return value and derivatives
    out : (N, M) array for the values; None: a new one
    """
    window, order = segment.span, segment.order
    out = np.empty(y.shape) if out is None else out
    if len(x) > 1:
        return _fit_each(x, y, segment, e0, out)
    if all(len(k) == 1 or (k == k[0]).all() for k in (*window, order)):
        return _fit_shared(x[0], y, int(window[0][0]), int(window[1][0]), int(order[0]), e0, out)
    keys, rest = np.stack(np.broadcast_arrays(*window, order)), np.empty((3, len(y)))
    for first, last, k in np.unique(keys, axis=1).T.tolist():  # few: the E0 of a series lie between a few points
        rows = np.flatnonzero((keys == np.array([[first], [last], [k]])).all(axis=0))
        curve = _fit_shared(x[0], y[rows], first, last, k, e0[rows], np.empty((len(rows), y.shape[1])))
        out[rows], rest[:, rows] = curve.values, (curve.level, curve.slope, curve.curvature)
    return Curve(out, *rest)


def _fit_shared(x: Array, y: Array, first: int, last: int, order: int, e0: Array, out: Array) -> Curve:
    """Fit one window and order to all spectra; x (M,)."""
    if last <= first:
        out[:] = 0.0
        return Curve(out, *np.zeros((3, len(y))))
    powers, inverse, middle, half = _powers(
        x.astype(np.float64, copy=False).tobytes(), first, last, min(order, last - first - 1)
    )
    basis = powers[:, first:last]
    c = inverse @ (basis @ y[:, first:last].T)
    return _evaluate(np.matmul(c.T, powers, out=out), c, (e0[:, 0] - middle) / half, half)


@lru_cache(maxsize=16)
def _powers(energies: bytes, first: int, last: int, order: int) -> tuple[Array, Array, float, float]:
    """Return powers of the scaled energies (order + 1, M), the inverse of the normal equations, and middle and half
    width, eV, cached because the frames of a series have the same energies.

    Points of a window with equal energies raise LinAlgError.
    """
    x = np.frombuffer(energies)
    middle, half = (x[first] + x[last - 1]) / 2, max((x[last - 1] - x[first]) / 2, _MIN_HALF_WIDTH_EV)
    u = (x - middle) / half  # within ±1 in the window, which conditions the normal equations well
    powers = np.ones((order + 1, len(x)))
    for k in range(order):
        np.multiply(powers[k], u, out=powers[k + 1])
    basis = powers[:, first:last]
    try:
        inverse = np.asarray(np.linalg.inv(basis @ basis.T), np.float64)
    except np.linalg.LinAlgError:
        raise np.linalg.LinAlgError("the points of a window have the same energy") from None
    powers.flags.writeable = inverse.flags.writeable = False
    return powers, inverse, middle, half


def _fit_each(x: Array, y: Array, segment: Segment, e0: Array, out: Array) -> Curve:
    """Fit spectra on different energies; x (N, M)."""
    window, order = segment.span, segment.order
    index = np.arange(x.shape[1])
    weight = ((index >= window[0][:, None]) & (index < window[1][:, None])).astype(float)
    points = weight.sum(axis=1)
    last = np.minimum(np.maximum(window[1] - 1, 0), x.shape[1] - 1)
    low = np.take_along_axis(x, np.minimum(window[0], last)[:, None], 1)
    high = np.take_along_axis(x, last[:, None], 1)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, _MIN_HALF_WIDTH_EV)
    u = (x - middle) / half
    terms = np.arange(int(order.max()) + 1)
    moments, right = np.empty((2 * len(terms) - 1, len(x))), np.empty((len(terms), len(x)))
    for k in range(len(moments)):
        moments[k] = weight.sum(axis=1)
        if k < len(terms):
            np.einsum("nm,nm->n", weight, y, out=right[k])
        weight *= u
    left_out = (terms > np.minimum(order, points - 1)[:, None]) | (points == 0)[:, None]
    normal = np.moveaxis(moments[terms[:, None] + terms], -1, 0)
    normal = np.where(left_out[:, :, None] | left_out[:, None, :], np.eye(len(terms)), normal)
    c = np.linalg.solve(normal, np.where(left_out, 0.0, right.T)[..., None])[..., 0]
    out[:] = c[:, -1:]
    for k in terms[-2::-1]:
        out *= u
        out += c[:, k, None]
    return _evaluate(out, c.T, (e0 - middle)[:, 0] / half[:, 0], half[:, 0])


def _evaluate(values: Array, c: Array, v: Array, half: Array | float) -> Curve:
    """Return value, slope and half second derivative at v (N,) of polynomials with coefficients c (K, N)."""
    level, (slope, curvature) = c[-1], np.zeros((2, len(v)))
    for k in range(len(c) - 2, -1, -1):  # Horner's rule for a polynomial and its derivatives
        curvature = curvature * v + slope
        slope = slope * v + level
        level = level * v + c[k]
    return Curve(values, level, slope / half, curvature / half**2)
