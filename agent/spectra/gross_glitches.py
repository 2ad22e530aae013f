"""Gross glitches: a quick test screens every frame, and only suspicious frames are searched.

A glitch of up to three points bends the spectrum at the glitch and not beside it. An edge, a white line or noise
bends it over a longer range.
"""

import numpy as np

from ..types import Array, medians
from .glitches import Glitches, GlitchSettings, find_glitches
from .kriging import Mask

_SEARCH = GlitchSettings(threshold=8.0)  # flags 2 of the 8900 points of 22 clean standards
_BESIDE_POINTS = (4, 5)  # two neighbouring distances beyond the reach of a glitch of three points
_MIN_BEND_RATIO = 3.0  # ratio of the bend at a glitch to the bends beside it
_MIN_BEND_PER_RANGE = (
    0.012  # relative to the range of the spectrum: points that are off by 2.4 % bend it by half of that
)
_MIN_BEND_MEDIANS = 8.0  # relative to the median bend, which measures the noise
# Number of μ values processed at a time: more do not fit into a processor's cache.
_BLOCK_VALUES = 2**15
_IGNORED_EXTREMES = 3  # number of highest and lowest points left out of the range of the spectrum


def may_have_gross_glitches(energy: Array, mu: Array) -> Mask:
    """Screen spectra for gross glitches.

    Parameters
    ----------
    energy : (1 or N, M) energies, eV, strictly rising
    mu : (N, M) absorption in any unit

    Returns
    -------
    (N,) whether the spectrum needs a search; False for spectra of too few points.
    """
    points = mu.shape[1]
    if points <= 2 * (max(_BESIDE_POINTS) + _IGNORED_EXTREMES):
        return np.zeros(len(mu), bool)
    block = max(_BLOCK_VALUES // points, 1)
    blocks = [slice(k, k + block) for k in range(0, len(mu), block)] or [slice(0)]
    return np.concatenate([_bends_sharply(energy if len(energy) == 1 else energy[rows], mu[rows]) for rows in blocks])


def _bends_sharply(energy: Array, mu: Array) -> Mask:
    steps, rises = np.diff(energy), np.diff(mu)
    part = steps[:, :-1] / (energy[:, 2:] - energy[:, :-2])
    bend = rises[:, :-1] * (1 - part)
    bend -= np.multiply(rises[:, 1:], part, out=rises[:, 1:])
    np.abs(bend, out=bend)
    near, far = _BESIDE_POINTS
    larger = np.maximum(bend[:, :-1], bend[:, 1:])  # the larger bend of two neighbours
    beside = np.zeros_like(bend)
    beside[:, far:] = larger[:, :-near]
    np.maximum(beside[:, :-far], larger[:, near:], out=beside[:, :-far])
    beside[:, near] = np.maximum(beside[:, near], bend[:, 0])  # the first has one neighbour only
    beside[:, -1 - near] = np.maximum(beside[:, -1 - near], bend[:, -1])
    beside *= _MIN_BEND_RATIO
    sharpest = np.where(bend > beside, bend, 0.0).max(axis=1)
    ordered = np.sort(mu, axis=1)
    span = ordered[:, -1 - _IGNORED_EXTREMES] - ordered[:, _IGNORED_EXTREMES]
    found = sharpest > _MIN_BEND_PER_RANGE * span
    found[found] = sharpest[found] > _MIN_BEND_MEDIANS * medians(bend[found])
    return found


def find_gross_glitches(energy: Array, mu: Array, e0: float) -> Glitches | None:
    """Find and repair the gross glitches of spectra, each alone.

    Parameters
    ----------
    energy : (M,) or (N, M) energies, eV, strictly rising
    mu : (N, M) absorption in any unit
    e0 : E0, eV, on the same scale, known to some eV

    Returns
    -------
    The glitches; None if no spectrum has any.
    """
    axes = np.atleast_2d(energy)
    rows = np.flatnonzero(may_have_gross_glitches(axes, mu))
    if not len(rows):
        return None
    part = find_glitches(axes[rows] if len(axes) > 1 else axes[0], mu[rows], e0, _SEARCH)
    if not (part.found.any() or part.too_many.any()):
        return None
    found, size, sigma = np.zeros(mu.shape, bool), np.zeros(mu.shape), np.zeros(mu.shape)
    repaired, many = np.array(mu, np.float64), np.zeros(len(mu), bool)
    found[rows], size[rows], sigma[rows] = part.found, part.size, part.sigma
    repaired[rows], many[rows] = part.mu, part.too_many
    return Glitches(found, size, sigma, repaired, many)
