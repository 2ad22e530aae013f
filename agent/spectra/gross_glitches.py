"""Gross glitches: every frame is screened at low cost, and only suspicious ones are searched.

A glitch of up to three points bends the spectrum there and not beside it. An edge, a white line or noise bends it
over a longer range.
"""

import numpy as np

from ..types import Array, medians
from .glitches import Glitches, GlitchSettings, find_glitches
from .kriging import Mask

_SEARCH = GlitchSettings(threshold=8.0)  # takes 2 of the 8900 points of 22 clean standards for glitches
_BESIDE_POINTS = (4, 5)  # two neighbouring distances that a glitch of three points does not reach
_MIN_BEND_RATIO = 3.0  # of the bend at a glitch to those beside it
_MIN_BEND_PER_RANGE = (
    0.012  # over the range of the spectrum: a run of points that is off by 2.4 % bends it by half of that
)
_MIN_BEND_MEDIANS = 8.0  # in median bends, which measure the noise
# Values of μ processed at a time: more do not fit into a processor's cache.
_BLOCK_VALUES = 2**15
_IGNORED_EXTREMES = 3  # highest and lowest points that do not count for the range of the spectrum


def may_have_gross_glitches(energy: Array, mu: Array) -> Mask:
    """Screen spectra for gross glitches.

    Parameters
    ----------
    energy : (1 or N, M) eV, strictly rising
    mu : (N, M) in any unit

    Returns
    -------
    (N,) whether the spectrum is worth a search; False for spectra of too few points.
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
    larger = np.maximum(bend[:, :-1], bend[:, 1:])  # of the bends of two neighbours
    beside = np.zeros_like(bend)
    beside[:, far:] = larger[:, :-near]
    np.maximum(beside[:, :-far], larger[:, near:], out=beside[:, :-far])
    beside[:, near] = np.maximum(beside[:, near], bend[:, 0])  # which has one neighbour only
    beside[:, -1 - near] = np.maximum(beside[:, -1 - near], bend[:, -1])
    beside *= _MIN_BEND_RATIO
    sharpest = np.where(bend > beside, bend, 0.0).max(axis=1)
    ordered = np.sort(mu, axis=1)
    span = ordered[:, -1 - _IGNORED_EXTREMES] - ordered[:, _IGNORED_EXTREMES]
    found = sharpest > _MIN_BEND_PER_RANGE * span
    found[found] = sharpest[found] > _MIN_BEND_MEDIANS * medians(bend[found])
    return found


def find_gross_glitches(energy: Array, mu: Array, e0: float) -> Glitches | None:
    """Find and repair the gross glitches of spectra, each by itself.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising
    mu : (N, M) in any unit
    e0 : eV, on the same scale, known to some eV

    Returns
    -------
    None if no spectrum has any.
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
