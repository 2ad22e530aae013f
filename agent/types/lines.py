"""The curves that normalise a measured spectrum."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .array import Array

_NODES = 17
"""Number of points that represent a curve, since the curves are polynomials of low order."""


class Measured(NamedTuple):
    """N spectra as measured."""

    energy: Array
    """(1 or N, M) energies, eV; one row if all spectra share it."""
    mu: Array
    """(N, M) absorption, dimensionless."""
    reference: Array | None
    """(N, M) absorption of the foil; None without a foil."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Pre-edge and post-edge curves at the points :func:`nodes` of the frame's energies, and E0.

    For N frames with equal numbers of points, each field has N rows.
    """

    pre_edge: Array
    """(K,) or (N, K) values in the unit of μ."""
    post_edge: Array
    """(K,) or (N, K) values in the unit of μ."""
    e0_ev: float | Array
    """E0 on the monochromator's energies, before calibration, eV; a number or (N,)."""
    foil_e0_ev: float | Array
    """E0 of the foil on the same energies, according to its calibration, eV; NaN without a foil."""
    measured: Measured | None = None
    """The spectra of the N frames, if available as arrays."""


@lru_cache(maxsize=64)
def nodes(points: int) -> NDArray[np.intp]:
    """Return the indices of the energies, among ``points``, at which :class:`Lines` are given, including both ends.

    >>> nodes(5).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.unique(np.linspace(0, points - 1, _NODES).round().astype(np.intp))
