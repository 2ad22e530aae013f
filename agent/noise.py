"""The noise of measured spectra, from the spectra themselves."""

import numpy as np

from .grid import Array

BELOW_EDGE_EV = -8.0
MIN_POINTS = 8
MAD = 1.4826  # median of absolute values → σ of a Gaussian


def noise_of(relative: Array, flat: Array) -> Array:
    """σ per point, (N,), from how far each point stands off the line between its neighbours (median).

    Taken below the edge where there are points enough, since structure above it would count as noise.

    Parameters
    ----------
    relative : (1 or N, M) eV relative to the edge
    flat : (N, M) in the unit in which σ is wanted
    """
    use = np.flatnonzero((relative[:, 1:-1] < BELOW_EDGE_EV).all(axis=0))
    use = (use if len(use) >= MIN_POINTS else np.arange(relative.shape[1] - 2)) + 1
    left, mid, right = relative[:, use - 1], relative[:, use], relative[:, use + 1]
    w = (mid - left) / (right - left)
    off = flat[:, use] - (1 - w) * flat[:, use - 1] - w * flat[:, use + 1]
    return np.median(np.abs(off) / np.sqrt(1 + w**2 + (1 - w) ** 2), axis=1) * MAD
