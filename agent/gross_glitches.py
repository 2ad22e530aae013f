"""Gross glitches: a look at every frame that costs next to nothing, and the search for the few that need it.

A point, or up to three, far off a smooth curve bends it there and nowhere near; an edge, a white line or noise bends
it for longer.
"""

import numpy as np
from numpy.typing import NDArray

from .spectra.glitches import Glitches, GlitchSettings, find_glitches
from .types.grid import Array

SEARCH = GlitchSettings(threshold=8.0)  # of 8900 points of 22 clean standards it takes 2
BESIDE = (4, 5)  # points away, where a glitch of three does not reach
RATIO = 3.0  # of the bend at a glitch to those beside it
LEAST = 0.012  # of what a spectrum spans: half a glitch of 2.4 %
NOISE = 8.0  # median bends
ENDS = 3  # points at either end of the sorted absorption that do not count for what it spans


def standing_out(energy: Array, mu: Array) -> NDArray[np.bool_]:
    """(N,) whether a spectrum may have a gross glitch; energy (1 or N, M), mu (N, M)."""
    points = mu.shape[1]
    if points <= 2 * (max(BESIDE) + ENDS):
        return np.zeros(len(mu), bool)
    part = (energy[:, 1:-1] - energy[:, :-2]) / (energy[:, 2:] - energy[:, :-2])
    bend = np.abs(mu[:, 1:-1] - mu[:, :-2] - part * (mu[:, 2:] - mu[:, :-2]))
    beside = np.zeros_like(bend)
    for k in BESIDE:
        np.maximum(beside[:, k:], bend[:, :-k], out=beside[:, k:])
        np.maximum(beside[:, :-k], bend[:, k:], out=beside[:, :-k])
    ordered = np.partition(mu, (ENDS, points - 1 - ENDS), axis=1)
    span = ordered[:, points - 1 - ENDS] - ordered[:, ENDS]
    least = np.maximum(LEAST * span, NOISE * np.median(bend, axis=1))
    return np.any(bend > np.maximum(RATIO * beside, least[:, None]), axis=1)


def gross_glitches(energy: Array, mu: Array, e0: float) -> Glitches | None:
    """The gross glitches of spectra, each for itself; None where no spectrum has any.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising
    mu : (N, M) in any unit
    e0 : eV, on the same scale, to some eV
    """
    axes = np.atleast_2d(energy)
    rows = np.flatnonzero(standing_out(axes, mu))
    if not len(rows):
        return None
    own = find_glitches(axes[rows] if len(axes) > 1 else axes[0], mu[rows], e0, SEARCH)
    if not (own.found.any() or own.too_many.any()):
        return None
    found, size, sigma = np.zeros(mu.shape, bool), np.zeros(mu.shape), np.zeros(mu.shape)
    repaired, many = np.array(mu, np.float64), np.zeros(len(mu), bool)
    found[rows], size[rows], sigma[rows] = own.found, own.size, own.sigma
    repaired[rows], many[rows] = own.mu, own.too_many
    return Glitches(found, size, sigma, repaired, many)
