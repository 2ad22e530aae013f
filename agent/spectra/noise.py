"""The noise of measured spectra, from the spectra themselves."""

import numpy as np

from ..types import MAD_TO_SD, Array

BELOW_EDGE_EV = -8.0
MIN_POINTS = 8


def noise_of(relative: Array, flat: Array) -> Array:
    """σ per point, (N,), from how far each point stands off the line between its neighbours (median).

    Taken below the edge where there are points enough, since structure above it would count as noise.

    Parameters
    ----------
    relative : (1 or N, M) eV relative to the edge
    flat : (N, M) in the unit in which σ is wanted
    """
    below = (relative[:, 1:-1] < BELOW_EDGE_EV).sum(axis=1)  # rising energies: the first ones
    counts = np.where(below >= MIN_POINTS, below, relative.shape[1] - 2)
    if len(counts) == 1:
        return _noise_of_first(int(counts[0]), relative, flat)
    found = np.empty(len(flat))
    for count in np.unique(counts).tolist():  # few: axes of one scan differ by their jitter
        rows = np.flatnonzero(counts == count)
        found[rows] = _noise_of_first(count, relative[rows], flat[rows])
    return found


def _noise_of_first(count: int, relative: Array, flat: Array) -> Array:
    """(N,) of so many points after the first."""
    left, mid, right = (relative[:, k : count + k] for k in range(3))
    w = (mid - left) / (right - left)
    off = flat[:, 1 : count + 1] - (1 - w) * flat[:, :count] - w * flat[:, 2 : count + 2]
    return np.median(np.abs(off) / np.sqrt(1 + w**2 + (1 - w) ** 2), axis=1) * MAD_TO_SD
