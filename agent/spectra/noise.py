"""The noise of measured spectra, estimated from the spectra themselves."""

import numpy as np

from ..types import MAD_TO_SD, Array, medians

_PRE_EDGE_BELOW_EV = -8.0  # from the edge
_MIN_PRE_EDGE_POINTS = 8


def estimate_noise(relative: Array, flat: Array) -> Array:
    """Standard deviation per point, from the median deviation of points from the line between their neighbours.

    Only points below the edge are used if there are enough, since structure above it would count as noise.

    Parameters
    ----------
    relative : (1 or N, M) eV relative to the edge
    flat : (N, M) in the unit of the result

    Returns
    -------
    (N,)
    """
    below = (relative[:, 1:-1] < _PRE_EDGE_BELOW_EV).sum(axis=1)  # energies rise: these are the first points
    counts = np.where(below >= _MIN_PRE_EDGE_POINTS, below, relative.shape[1] - 2)
    if len(counts) == 1:
        return _noise_of_points(int(counts[0]), relative, flat)
    noise = np.empty(len(flat))
    for count in np.unique(counts).tolist():  # few values: axes of one scan differ only by their jitter
        rows = np.flatnonzero(counts == count)
        noise[rows] = _noise_of_points(count, relative[rows], flat[rows])
    return noise


def _noise_of_points(count: int, relative: Array, flat: Array) -> Array:
    """(N,) from ``count`` points after the first."""
    left, mid, right = (relative[:, k : count + k] for k in range(3))
    w = (mid - left) / (right - left)
    residual = flat[:, 1 : count + 1] - (1 - w) * flat[:, :count] - w * flat[:, 2 : count + 2]
    return medians(np.abs(residual) / np.sqrt(1 + w**2 + (1 - w) ** 2)) * MAD_TO_SD
