"""Gross glitches: every frame is screened at low cost, and only suspicious ones are searched.

A glitch of up to three points bends the spectrum there and not beside it. An edge, a white line or noise bends it
over a longer range.
"""

import numpy as np

from ..types import Array, medians
from .glitches import Glitches, GlitchSettings, find_glitches
from .kriging import Mask

_SEARCH = GlitchSettings(threshold=8.0)  # takes 2 of the 8900 points of 22 clean standards for glitches
_BESIDE_POINTS = (4, 5)  # distances that a glitch of three points does not reach
_MIN_BEND_RATIO = 3.0  # of the bend at a glitch to those beside it
_MIN_BEND_PER_RANGE = (
    0.012  # over the range of the spectrum: a run of points that is off by 2.4 % bends it by half of that
)
_MIN_BEND_MEDIANS = 8.0  # in median bends, which measure the noise
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
    part = (energy[:, 1:-1] - energy[:, :-2]) / (energy[:, 2:] - energy[:, :-2])
    bend = np.abs(mu[:, 1:-1] - mu[:, :-2] - part * (mu[:, 2:] - mu[:, :-2]))
    beside = np.zeros_like(bend)
    for k in _BESIDE_POINTS:
        np.maximum(beside[:, k:], bend[:, :-k], out=beside[:, k:])
        np.maximum(beside[:, :-k], bend[:, k:], out=beside[:, :-k])
    ordered = np.partition(mu, (_IGNORED_EXTREMES, points - 1 - _IGNORED_EXTREMES), axis=1)
    span = ordered[:, points - 1 - _IGNORED_EXTREMES] - ordered[:, _IGNORED_EXTREMES]
    min_bend = np.maximum(_MIN_BEND_PER_RANGE * span, _MIN_BEND_MEDIANS * medians(bend))
    return np.any(bend > np.maximum(_MIN_BEND_RATIO * beside, min_bend[:, None]), axis=1)


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
