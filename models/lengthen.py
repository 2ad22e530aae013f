"""Lengthens spectra to a common number of points, for one array."""

import numpy as np

from ..agent.types import Array


def lengthen(energy: Array, mu: Array, points: int) -> tuple[Array, Array]:
    """Add points to a spectrum (M,) in the middle of its widest segments until it has ``points`` ≥ M.

    The spectrum and its range do not change as a piecewise linear function, the form in which rows are read
    (:func:`xas_agent.agent.types.grid.bin_means`).
    """
    while len(energy) < points:
        gaps = np.diff(energy)
        widest = np.sort(np.argsort(gaps)[-(points - len(energy)) :])
        energy = np.insert(energy, widest + 1, energy[widest] + gaps[widest] / 2)
        mu = np.insert(mu, widest + 1, (mu[widest] + mu[widest + 1]) / 2)
    return energy, mu
