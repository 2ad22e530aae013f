"""E0, the absorption threshold: the maximum of the smoothed derivative of μ(E)."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from ..types import Array, bin_means, right_index

AROUND = np.array([[-1], [0], [1]])
KERNEL_SIGMAS = 4  # of the Gaussian, on either side
E0_STEP_EV = 0.2  # spacing on which the derivative is taken; the maximum is then refined by a parabola
FIRST_INFLECTION = 0.7  # of the largest: metals have two inflections of like height, and the table means the first

BLOCK = 64  # spectra at a time: more do not fit into a processor's cache
EDGE_SPAN_EV = 10.0  # the mean below an energy is compared with the mean above it
EDGE_LATTICE_EV = 4.0
EDGE_SEARCH_EV = (-16.0, 16.0)  # where E0 is then looked for
SHARPEST_EV = 0.5  # σ of the Gaussian that smooths the derivative, where points are dense
SMOOTHED_STEPS = 1.3  # σ where they are not, in steps between them
EDGE_PLACES = 200  # where it is looked for, at most about
ENDS = 0.02  # of the scan at either end, where the first and last points often are bad


def find_e0(
    energy: Array, mu: Array, smoothing_ev: float, search_ev: tuple[float, float], first: bool = False
) -> Array:
    """E0 of (N, M) spectra: the maximum of the smoothed derivative, (N,), on the scale of ``energy``.

    ``first`` takes the lowest local maximum that is nearly as high as the highest, as tables do for metals.
    NaN where there is no maximum inside the search window.
    """
    bounds, centres, kernel = _derivative(smoothing_ev, search_ev)
    reach = len(kernel) // 2
    # Not a product of matrices: BLAS would share it among threads, which wait for each other on a busy machine.
    d = correlate1d(bin_means(energy, mu, bounds), kernel, axis=1)[:, reach:-reach]
    row, i = np.arange(len(d)), d.argmax(axis=1)
    some = (i > 0) & (i < d.shape[1] - 1)
    if first or not some.all():  # else the highest is a maximum too
        peak = (d[:, 1:-1] >= d[:, :-2]) & (d[:, 1:-1] > d[:, 2:]) & (d[:, 1:-1] > 0)
        height = np.where(peak, d[:, 1:-1], -np.inf)
        least = FIRST_INFLECTION * height.max(axis=1, keepdims=True)
        i = ((height >= least) if first else height).argmax(axis=1) + 1
        some = peak.any(axis=1)
    left, mid, right = d[row, i + AROUND]
    some = some & (mid > 0)
    curve = left - 2 * mid + right
    shift = np.divide(left - right, 2 * curve, out=np.zeros(len(d)), where=curve < 0)
    return np.where(some, centres[i] + shift * E0_STEP_EV, np.nan)


def find_edge(energy: Array, mu: Array, smoothing_ev: float | None = None) -> Array:
    """E0 of (N, M) spectra of which no edge is known, energy (1 or N, M), (N,) eV; NaN where nothing rises.

    The largest rise between the means over 10 eV below and above says which edge is meant, so that a point that
    is wrong cannot; E0 is then looked for around it. That is done on an absolute lattice: a spectrum's E0 does not
    depend on what else is in the batch. Without ``smoothing_ev`` the derivative is smoothed by 0.5 eV, by more where
    the points are further apart.
    """
    if len(mu) > BLOCK:
        rows = [slice(k, k + BLOCK) for k in range(0, len(mu), BLOCK)]
        own = [energy if len(energy) == 1 else energy[r] for r in rows]
        return np.concatenate([find_edge(e, mu[r], smoothing_ev) for e, r in zip(own, rows, strict=True)])
    middle = np.rint(_steepest(energy, mu) / EDGE_LATTICE_EV) * EDGE_LATTICE_EV
    lattice = middle.tolist()
    if smoothing_ev is not None:
        kinds = [(m, smoothing_ev) for m in lattice]
    elif len(energy) == 1:
        of = {m: _smoothing(energy[0], m) for m in set(lattice)}
        kinds = [(m, of[m]) for m in lattice]
    else:
        kinds = [(m, _smoothing(e, m)) for e, m in zip(energy, lattice, strict=True)]
    if len(set(kinds)) == 1:
        return middle + find_e0(energy - lattice[0], mu, kinds[0][1], EDGE_SEARCH_EV)
    found = np.empty(len(mu))
    for edge, sigma in set(kinds):  # few in a series
        rows = [i for i, kind in enumerate(kinds) if kind == (edge, sigma)]
        own = energy if len(energy) == 1 else energy[rows]
        found[rows] = edge + find_e0(own - edge, mu[rows], sigma, EDGE_SEARCH_EV)
    return found


def _smoothing(energy: Array, edge: float) -> float:
    """σ of the Gaussian that smooths the derivative of a spectrum on energies (M,), eV."""
    low, high = energy.searchsorted((edge - EDGE_SPAN_EV, edge + EDGE_SPAN_EV)).tolist()
    step = 2 * EDGE_SPAN_EV / max(high - low, 1)
    return max(SHARPEST_EV, round(10 * SMOOTHED_STEPS * min(step, 3.0)) / 10)


def count_below(energy: Array, at: Array) -> NDArray[np.intp]:
    """How many points of (1 or N, M) lie below energies (N,)."""
    return energy[0].searchsorted(at) if len(energy) == 1 else (energy < at[:, None]).sum(axis=1)


def _steepest(energy: Array, mu: Array) -> Array:
    """The energy, (N,), above which μ is highest over what it is below, means over ``EDGE_SPAN_EV`` each."""
    points = energy.shape[1]
    skip = 1 + int(ENDS * points)
    places = slice(skip, points - skip, max(points // EDGE_PLACES, 1))
    at = energy[:, places]
    if len(energy) == 1:
        left = np.maximum(energy[0].searchsorted(at[0] - EDGE_SPAN_EV) - 1, 0)
        right = np.minimum(energy[0].searchsorted(at[0] + EDGE_SPAN_EV), points - 1)
    else:
        left, right = right_index(energy, at - EDGE_SPAN_EV) - 1, right_index(energy, at + EDGE_SPAN_EV)
    area = np.empty(mu.shape)
    area[:, 0] = 0.0
    np.cumsum((energy[:, 1:] - energy[:, :-1]) * (mu[:, 1:] + mu[:, :-1]), axis=1, out=area[:, 1:])
    if len(energy) == 1:
        low, high, before, after = energy[0, left], energy[0, right], area.take(left, 1), area.take(right, 1)
    else:
        row = np.arange(len(energy))[:, None]
        low, high, before, after = energy[row, left], energy[row, right], area[row, left], area[row, right]
    here = area[:, places]
    best = ((after - here) / (high - at) - (here - before) / (at - low)).argmax(axis=1)
    return at[np.arange(len(mu)) if len(at) > 1 else 0, best]


@lru_cache(maxsize=16)
def _derivative(smoothing_ev: float, search_ev: tuple[float, float]) -> tuple[Array, Array, Array]:
    """Bins around the search window; the energies, one beyond it at either end, where the derivative is taken; and
    the derivative of a Gaussian, which the bins reach beyond those energies by half of."""
    sigma = smoothing_ev / E0_STEP_EV
    reach = int(KERNEL_SIGMAS * sigma + 0.5)
    bounds = np.arange(search_ev[0] - 5 * smoothing_ev, search_ev[1] + 5 * smoothing_ev, E0_STEP_EV)
    centres = (bounds[1:] + bounds[:-1]) / 2
    inside = np.flatnonzero((centres >= search_ev[0]) & (centres <= search_ev[1]))
    first, last = inside[0] - 1, inside[-1] + 2
    bounds = bounds[first - reach : last + reach + 1]
    at = np.arange(-reach, reach + 1) / sigma
    gaussian = np.exp(-(at**2) / 2)
    return bounds, centres[first:last], at * gaussian / gaussian.sum() / sigma
