"""The noise of measured spectra, estimated from the spectra themselves."""

import numpy as np
from numpy.typing import NDArray

from ..types import MAD_TO_SD, Array, Edge, Grid, bin_means, medians

_PRE_EDGE_BELOW_EV = -8.0  # relative to the edge
_MIN_PRE_EDGE_POINTS = 8


def estimate_noise(relative: Array, flat: Array) -> Array:
    """Return the standard deviation per point, from the median deviation of points from the line of their neighbours.

    Only points below the edge are used if there are enough, since structure above it would count as noise.

    Parameters
    ----------
    relative : (1 or N, M) energies relative to the edge, eV
    flat : (N, M) absorption

    Returns
    -------
    (N,) standard deviations, in the unit of ``flat``
    """
    below = (relative[:, 1:-1] < _PRE_EDGE_BELOW_EV).sum(axis=1)  # the first points, since energies rise
    counts = np.where(below >= _MIN_PRE_EDGE_POINTS, below, relative.shape[1] - 2)
    if len(counts) == 1:
        return _noise_of_points(int(counts[0]), relative, flat)
    noise = np.empty(len(flat))
    for count in np.unique(counts).tolist():  # few values: axes of one scan differ only by their jitter
        rows = np.flatnonzero(counts == count)
        noise[rows] = _noise_of_points(count, relative[rows], flat[rows])
    return noise


def add_noise(
    mu: NDArray[np.float32],
    noise: float,
    energy: Array,
    shift_ev: float,
    grid: Grid,
    edge: Edge,
    copies: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return copies of an aligned spectrum with new white noise added to its measured points.

    The noise is averaged over the bins as :func:`align` averages μ: the more points a bin has, the less it scatters,
    and bins narrower than the spacing of points scatter together. The footing includes the noise of its windows. The
    noise of the pre- and post-edge fits is neglected, since the footing removes most of it. A model responds most to
    waves that are long compared with the spacing of points; these are drawn with an exact variance over the copies.

    Parameters
    ----------
    mu : (G,) aligned spectrum
    noise : standard deviation per point, edge steps
    energy : (M,) measured energies, eV
    shift_ev : quantity ``energy_shift_ev``, the difference between FEFF's and the measured energies, eV

    Returns
    -------
    (copies, G) spectra
    """
    bounds = edge.edge_ev + edge.to_measured_scale(grid.bounds) - (shift_ev - edge.feff_minus_experiment_ev)
    first, last = energy.searchsorted(bounds[[0, -1]])
    energy = energy[max(min(first - 1, len(energy) - 2), 0) : max(last + 1, 2)]  # points that overlap bins
    points = noise * inverse_dct(_white(copies, len(energy), rng))
    footed = edge.scale_structure(mu[None].astype(float), grid, edge.amplitude)
    noisy = grid.footing(footed + bin_means(energy, points, bounds))
    return edge.scale_structure(noisy, grid, 1 / edge.amplitude).astype(np.float32)


def _white(copies: int, points: int, rng: np.random.Generator) -> Array:
    """Return white noise, (copies, points), whose first copies − 1 columns are uncorrelated and have a variance of
    exactly 1, so that any linear function of these columns has its true variance over the copies."""
    white = rng.standard_normal((copies, points))
    exact = white[:, : copies - 1]
    white[:, : copies - 1] = np.linalg.qr(exact - exact.mean(axis=0))[0] * np.sqrt(copies - 1)
    return white


def inverse_dct(coefficients: Array) -> Array:
    """Return rows (N, M) with these coefficients of the orthonormal cosine transform (DCT-II).

    Source: J. Makhoul, IEEE Trans. Acoust. Speech Signal Process. 28, 27 (1980). The import of scipy.fft takes long.
    """
    count = coefficients.shape[1]
    terms = np.pad(coefficients * np.sqrt(count / 2), ((0, 0), (0, 1)))
    terms[:, 0] *= np.sqrt(2)
    k = np.arange(count // 2 + 1)
    folded = np.fft.irfft(np.exp(0.5j * np.pi * k / count) * (terms[:, k] - 1j * terms[:, count - k]), count)
    rows = np.empty(coefficients.shape)
    rows[:, ::2], rows[:, 1::2] = folded[:, : (count + 1) // 2], folded[:, : (count - 1) // 2 : -1]
    return rows


def _noise_of_points(count: int, relative: Array, flat: Array) -> Array:
    """Return standard deviations, (N,), from ``count`` points after the first."""
    left, mid, right = (relative[:, k : count + k] for k in range(3))
    w = (mid - left) / (right - left)
    residual = flat[:, 1 : count + 1] - (1 - w) * flat[:, :count] - w * flat[:, 2 : count + 2]
    return medians(np.abs(residual) / np.sqrt(1 + w**2 + (1 - w) ** 2)) * MAD_TO_SD
