"""Spectra that are processed together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Array


@dataclass(frozen=True, slots=True)
class Batch:
    """N spectra of M points, measured in the same way."""

    energy: Array
    """(1 or N, M) energies, eV, strictly rising; a shared axis may be passed as (M,)."""
    mu: Array
    """(N, M) absorption, dimensionless."""
    e0: Array | None = None
    """(N,) E0, eV, on the scale of ``energy``; None until it is determined."""
    reference: Array | None = None
    """(N, M) absorption of a foil of the same element, measured at the same time."""
    normalised: bool = False
    """Whether the pre-edge is already at 0 and the post-edge at 1, so that no lines are fitted."""
    fluorescence: bool = False
    """Whether ``mu`` was measured in fluorescence."""
    transmission: bool = False
    """Whether ``mu`` is ln(I0/It), with the same It as the reference, ln(It/Iref)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "energy", np.atleast_2d(self.energy))

    def __len__(self) -> int:
        return len(self.mu)

    @property
    def e0_column(self) -> Array:
        """E0 as (N, 1); it must be known."""
        assert self.e0 is not None
        return self.e0[:, None]

    def rows(self, rows: Sequence[int] | NDArray[np.bool_] | slice) -> "Batch":
        """Select some of the spectra."""
        return Batch(
            self.energy if len(self.energy) == 1 else self.energy[rows],
            self.mu[rows],
            None if self.e0 is None else self.e0[rows],
            None if self.reference is None else self.reference[rows],
            self.normalised,
            self.fluorescence,
            self.transmission,
        )
