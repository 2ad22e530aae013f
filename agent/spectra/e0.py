"""E0, the absorption threshold: the maximum of the smoothed derivative of μ(E)."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..types import Array, bin_means, right_index
from .banded import Banded

_NEIGHBOUR_OFFSETS = np.array([[-1], [0], [1]])
_KERNEL_REACH_SD = 4  # half width of the Gaussian kernel, in its standard deviations
E0_STEP_EV = 0.2
"""Spacing of the energies at which the derivative is computed; a parabola then refines the maximum."""
# Relative to the largest maximum. Metals have two inflections of similar height, and tables list the first.
_MIN_FIRST_INFLECTION = 0.7

# For this many spectra on one axis a matrix of derivatives pays off, unless they have more points.
_MANY_SPECTRA, _MAX_OPERATOR_POINTS = 64, 2000
_BLOCK_SPECTRA = 64  # number of spectra processed at a time: more do not fit into a processor's cache
_EDGE_MEAN_EV = 10.0  # range of each of the two means, below and above an energy, whose difference marks the edge
_EDGE_LATTICE_EV = 4.0
_EDGE_SEARCH_EV = (-16.0, 16.0)  # window of E0 about the steepest energy
_MIN_SMOOTHING_EV = 0.5  # σ of the Gaussian that smooths the derivative, where points are dense
_SMOOTHING_STEPS = 1.3  # σ for sparse points, in steps between them
_MAX_SMOOTHED_STEP_EV = 3.0  # wider steps do not increase σ further
_MAX_EDGE_CANDIDATES = 200  # number of energies compared in the search for the edge
_IGNORED_END_PART = 0.02  # share of the scan at either end that is ignored, since its points are often bad


def find_e0(
    energy: Array, mu: Array, smoothing_ev: float, search_ev: tuple[float, float], first_inflection: bool = False
) -> Array:
    """Return the E0 of spectra: the maximum of the smoothed derivative.

    Parameters
    ----------
    energy : (1 or N, M) energies, eV, strictly rising
    mu : (N, M) absorption in any unit
    smoothing_ev : σ of the Gaussian that smooths the derivative, eV
    search_ev : window in which E0 is sought, on the scale of ``energy``
    first_inflection : whether to take the first local maximum of at least 0.7 of the highest, as tables do for metals

    Returns
    -------
    (N,) E0, eV; NaN if there is no maximum inside the window
    """
    return find_inflection(energy, mu, smoothing_ev, search_ev, first_inflection)[0]


def find_inflection(
    energy: Array, mu: Array, smoothing_ev: float, search_ev: tuple[float, float], first_inflection: bool = False
) -> tuple[Array, Array, Array]:
    """Return E0 as :func:`find_e0` does, with the height and curvature of the smoothed derivative there.

    Returns
    -------
    (N,) eV; (N,) in the unit of μ per eV; and (N,) in the unit of μ per eV³, positive for a maximum; NaN if the
    window has no maximum
    """
    if len(energy) == 1 and len(mu) >= _MANY_SPECTRA and energy.shape[1] <= _MAX_OPERATOR_POINTS:
        d = _derivative_on_axis(energy.astype(np.float64, copy=False).tobytes(), smoothing_ev, search_ev)(mu)
    else:
        d = _derivative(energy, mu, smoothing_ev, search_ev)
    centres = _kernel(smoothing_ev, search_ev)[1]
    row, i = np.arange(len(d)), d.argmax(axis=1)
    found = (i > 0) & (i < d.shape[1] - 1)
    if first_inflection or not found.all():  # otherwise the highest value is a local maximum
        peak = (d[:, 1:-1] >= d[:, :-2]) & (d[:, 1:-1] > d[:, 2:]) & (d[:, 1:-1] > 0)
        height = np.where(peak, d[:, 1:-1], -np.inf)
        min_height = _MIN_FIRST_INFLECTION * height.max(axis=1, keepdims=True)
        i = ((height >= min_height) if first_inflection else height).argmax(axis=1) + 1
        found = peak.any(axis=1)
    left, mid, right = d[row, i + _NEIGHBOUR_OFFSETS]
    found = found & (mid > 0)
    curve = left - 2 * mid + right
    shift = np.divide(left - right, 2 * curve, out=np.zeros(len(d)), where=curve < 0)
    e0 = np.where(found, centres[i] + shift * E0_STEP_EV, np.nan)
    return e0, np.where(found, mid / E0_STEP_EV, np.nan), np.where(found, -curve / E0_STEP_EV**3, np.nan)


def find_edge(energy: Array, mu: Array, smoothing_ev: float | None = None) -> Array:
    """Return the E0 of spectra whose edge is unknown.

    The edge is where the mean over the 10 eV above most exceeds the mean over the 10 eV below, which a single bad
    point cannot change; E0 is then sought around it. The search uses an absolute lattice of energies, so that a
    spectrum's E0 does not depend on the others of the batch.

    Parameters
    ----------
    energy : (1 or N, M) energies, eV, strictly rising
    mu : (N, M) absorption in any unit
    smoothing_ev : σ of the Gaussian that smooths the derivative, eV; None: 0.5 eV, or more for sparse points

    Returns
    -------
    (N,) E0, eV; NaN if the absorption does not rise
    """
    if len(mu) > _BLOCK_SPECTRA:
        rows = [slice(k, k + _BLOCK_SPECTRA) for k in range(0, len(mu), _BLOCK_SPECTRA)]
        axes = [energy if len(energy) == 1 else energy[r] for r in rows]
        return np.concatenate([find_edge(e, mu[r], smoothing_ev) for e, r in zip(axes, rows, strict=True)])
    middle = np.rint(_steepest_energy(energy, mu) / _EDGE_LATTICE_EV) * _EDGE_LATTICE_EV
    lattice = middle.tolist()
    if smoothing_ev is not None:
        kinds = [(m, smoothing_ev) for m in lattice]
    elif len(energy) == 1:
        sigmas = {m: _smoothing_ev(energy[0], m) for m in set(lattice)}
        kinds = [(m, sigmas[m]) for m in lattice]
    else:
        kinds = [(m, _smoothing_ev(e, m)) for e, m in zip(energy, lattice, strict=True)]
    if len(set(kinds)) == 1:
        return middle + find_e0(energy - lattice[0], mu, kinds[0][1], _EDGE_SEARCH_EV)
    e0 = np.empty(len(mu))
    for edge, sigma in set(kinds):  # a series has few of them
        rows = [i for i, kind in enumerate(kinds) if kind == (edge, sigma)]
        axes = energy if len(energy) == 1 else energy[rows]
        e0[rows] = edge + find_e0(axes - edge, mu[rows], sigma, _EDGE_SEARCH_EV)
    return e0


def _smoothing_ev(energy: Array, edge: float) -> float:
    """Return the σ of the Gaussian that smooths the derivative of a spectrum on energies (M,), eV."""
    low, high = energy.searchsorted((edge - _EDGE_MEAN_EV, edge + _EDGE_MEAN_EV)).tolist()
    step = 2 * _EDGE_MEAN_EV / max(high - low, 1)
    return max(_MIN_SMOOTHING_EV, round(10 * _SMOOTHING_STEPS * min(step, _MAX_SMOOTHED_STEP_EV)) / 10)


def count_below(energy: Array, limits: Array) -> NDArray[np.intp]:
    """Return the number of points of axes (1 or N, M) below energies (N,)."""
    return energy[0].searchsorted(limits) if len(energy) == 1 else (energy < limits[:, None]).sum(axis=1)


def _steepest_energy(energy: Array, mu: Array) -> Array:
    """Return the energies, (N,), at which the mean of μ above most exceeds the mean below."""
    points = energy.shape[1]
    skip = 1 + int(_IGNORED_END_PART * points)
    places = slice(skip, points - skip, max(points // _MAX_EDGE_CANDIDATES, 1))
    candidates = energy[:, places]
    if len(energy) == 1:
        left = np.maximum(energy[0].searchsorted(candidates[0] - _EDGE_MEAN_EV) - 1, 0)
        right = np.minimum(energy[0].searchsorted(candidates[0] + _EDGE_MEAN_EV), points - 1)
    else:
        left, right = (
            right_index(energy, candidates - _EDGE_MEAN_EV) - 1,
            right_index(energy, candidates + _EDGE_MEAN_EV),
        )
    area = np.empty(mu.shape)
    area[:, 0] = 0.0
    np.cumsum((energy[:, 1:] - energy[:, :-1]) * (mu[:, 1:] + mu[:, :-1]), axis=1, out=area[:, 1:])
    if len(energy) == 1:
        low, high, before, after = energy[0, left], energy[0, right], area.take(left, 1), area.take(right, 1)
    else:
        row = np.arange(len(energy))[:, None]
        low, high, before, after = energy[row, left], energy[row, right], area[row, left], area[row, right]
    middle = area[:, places]
    rise = (after - middle) / (high - candidates) - (middle - before) / (candidates - low)
    return candidates[np.arange(len(mu)) if len(candidates) > 1 else 0, rise.argmax(axis=1)]


def _derivative(energy: Array, mu: Array, smoothing_ev: float, search_ev: tuple[float, float]) -> Array:
    """Return the smoothed derivative, (N, K), per step."""
    bounds, _, kernel = _kernel(smoothing_ev, search_ev)
    # Differences of neighbours make the derivative of a constant exactly 0.
    steps = np.diff(bin_means(energy, mu, bounds), axis=1)
    derivative = np.empty((len(steps), steps.shape[1] - len(kernel) + 1))
    for row, of_row in zip(derivative, steps, strict=True):
        row[:] = np.correlate(of_row, kernel, "valid")
    return derivative


@lru_cache(maxsize=16)
def _derivative_on_axis(energy: bytes, smoothing_ev: float, search_ev: tuple[float, float]) -> Banded:
    """Return :func:`_derivative` for one axis of float64 energies; a search then needs a fifth of the time."""
    axis = np.frombuffer(energy)
    return Banded(_derivative(axis[None], np.eye(len(axis)), smoothing_ev, search_ev))


@lru_cache(maxsize=16)
def _kernel(smoothing_ev: float, search_ev: tuple[float, float]) -> tuple[Array, Array, Array]:
    """Return bin boundaries, the energies of the derivative, and its kernel for steps between bins, (2 · reach,).

    To apply the derivative of a Gaussian to values is to apply its running sum to their steps. The energies extend
    one step beyond the search window at either end, and the bins half a kernel beyond the energies.
    """
    sigma = smoothing_ev / E0_STEP_EV
    reach = int(_KERNEL_REACH_SD * sigma + 0.5)
    bounds = np.arange(search_ev[0] - 5 * smoothing_ev, search_ev[1] + 5 * smoothing_ev, E0_STEP_EV)
    centres = (bounds[1:] + bounds[:-1]) / 2
    inside = np.flatnonzero((centres >= search_ev[0]) & (centres <= search_ev[1]))
    first, last = inside[0] - 1, inside[-1] + 2
    bounds = bounds[first - reach : last + reach + 1]
    x = np.arange(-reach, reach + 1) / sigma
    gaussian = np.exp(-(x**2) / 2)
    return bounds, centres[first:last], -np.cumsum(x * gaussian)[:-1] / gaussian.sum() / sigma
