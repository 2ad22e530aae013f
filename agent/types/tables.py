"""Tabulated quantities of a model's absorber, independent of the source of the tables."""

from dataclasses import dataclass

import numpy as np

from .array import Array


@dataclass(frozen=True, slots=True)
class AbsorptionTable:
    """Tabulated f'' or μ of an absorber."""

    energy: Array
    """(K,) energies, eV, rising."""
    values: Array
    """(K,) values in any unit, positive."""

    def at(self, energy: Array) -> Array:
        """Return the values interpolated at energies of any shape, eV."""
        return np.interp(energy, self.energy, self.values)


@dataclass(frozen=True, slots=True)
class Tabulated:
    """The tabulated quantities that the alignment settings need; None if not needed or unknown."""

    f2: AbsorptionTable | None = None
    """f'' for MBACK."""
    alpha: float | None = None
    """Self-absorption parameter α; None if the declared compound does not contain the absorber."""


NO_TABLES = Tabulated()
