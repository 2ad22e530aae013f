"""The curves that normalise a spectrum as it was measured."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .array import Array

_NODES = 17
"""Number of points at which the curves are given: they are polynomials of low order."""


class Measured(NamedTuple):
    """N spectra as measured."""

    energy: Array
    """(1 or N, M) eV; one row if all share it."""
    mu: Array
    """(N, M) dimensionless."""
    reference: Array | None
    """(N, M) absorption of the foil; None without one."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Pre-edge and post-edge curve at the energies of the frame with the numbers :func:`nodes`, and E0.

    Of N frames with equal numbers of points, each field has N rows.
    """

    pre_edge: Array
    """(K,) or (N, K) in the unit of μ."""
    post_edge: Array
    """(K,) or (N, K) in the unit of μ."""
    e0_ev: float | Array
    """E0 on the monochromator's energies, before their calibration; a number or (N,)."""
    foil_e0_ev: float | Array
    """E0 of the foil on the same energies, as its calibration has it; NaN without one."""
    measured: Measured | None = None
    """The spectra of the N frames in arrays, if they are at hand."""


@lru_cache(maxsize=64)
def nodes(points: int) -> NDArray[np.intp]:
    """Return the numbers of the energies, among ``points``, at which :class:`Lines` are given; with both ends.

    >>> nodes(5).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.unique(np.linspace(0, points - 1, _NODES).round().astype(np.intp))
