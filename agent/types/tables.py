"""What tables say of a model's absorber, as far as settings ask for it; which tables is no matter here."""

from dataclasses import dataclass

import numpy as np

from .array import Array


@dataclass(frozen=True, slots=True)
class AbsorptionTable:
    """f'' or μ of an absorber."""

    energy: Array
    """(K,) eV, rising."""
    values: Array
    """(K,) in any unit, positive."""

    def at(self, energy: Array) -> Array:
        """Interpolated at energies of any shape, eV."""
        return np.interp(energy, self.energy, self.values)


@dataclass(frozen=True, slots=True)
class Tabulated:
    """None: not asked for, or not known."""

    f2: AbsorptionTable | None = None
    """For MBACK."""
    alpha: float | None = None
    """Of :func:`~.selfabsorption.corrected`; None too where the declared compound does not hold the absorber."""


NO_TABLES = Tabulated()
