"""Converts the position of a monochromator (an angle, an encoder, a slit) to energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ..types import HC_EV_ANGSTROM, Array, Settings
from .run_start import read_number


class Bragg(Settings):
    """Bragg's law for a crystal on an angle: E = hc / (2 d |sin θ|), θ = position / counts_per_degree + offset.

    The sign of θ has no effect; beamlines with negative angles use the same relation.
    """

    kind: Literal["bragg"] = "bragg"
    """Name of this relation."""
    d_spacing_ang: float = Field(gt=0)
    """Spacing of the reflecting planes at the crystal's temperature, Å; Si(111) 3.1356, Si(311) 1.6375."""
    counts_per_degree: float = 1.0
    """Counts of the encoder per degree; 1 if the position is the angle in degrees."""
    offset_deg: float = 0.0
    """Offset added to the angle, degrees."""
    offset_from: str | None = None
    """RunStart key of a further offset, degrees, if the calibration differs between runs."""

    def offset(self, start: Mapping[str, Any]) -> float | None:
        """Return the total offset, degrees; None if the RunStart lacks ``offset_from``."""
        run_offset = 0.0 if self.offset_from is None else read_number(start, self.offset_from)
        return None if run_offset is None else self.offset_deg + run_offset

    def energy(self, position: ArrayLike, offset_deg: float) -> Array:
        """Convert positions of any shape to energies, eV; the energy is infinite at θ = 0."""
        angle = np.radians(np.asarray(position, dtype=np.float64) / self.counts_per_degree + offset_deg)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return HC_EV_ANGSTROM / (2.0 * self.d_spacing_ang * np.abs(np.sin(angle)))

    def position(self, energy_ev: ArrayLike, offset_deg: float) -> Array:
        """Convert energies, eV, to positions at positive θ: the inverse of :meth:`energy`.

        >>> si111 = Bragg(d_spacing_ang=3.1356)
        >>> float(np.round(si111.energy(si111.position(8333.0, 0.0), 0.0), 9))
        8333.0
        """
        sine = HC_EV_ANGSTROM / (2.0 * self.d_spacing_ang * np.asarray(energy_ev, dtype=np.float64))
        return np.asarray(np.degrees(np.arcsin(sine)) - offset_deg, dtype=np.float64) * self.counts_per_degree


class Polynomial(Settings):
    """A calibrated axis: E = c0 + c1 p + c2 p² …, eV, of a position p, such as a slit before a polychromator."""

    kind: Literal["polynomial"]
    """Name of this relation."""
    coefficients_ev: tuple[float, ...] = Field(min_length=2)
    """Coefficients c0, c1, … in eV, eV per unit of the position, and so on."""

    def offset(self, start: Mapping[str, Any]) -> float | None:
        """Return 0, since the calibration does not differ between runs."""
        return 0.0

    def energy(self, position: ArrayLike, offset_deg: float) -> Array:
        """Convert positions of any shape to energies, eV."""
        x = np.asarray(position, dtype=np.float64)
        return np.asarray(np.polynomial.polynomial.polyval(x, self.coefficients_ev), dtype=np.float64)


Relation = Annotated[Bragg | Polynomial, Field(discriminator="kind")]
RELATION_EXAMPLE = (
    "fields.relation: {kind: bragg, d_spacing_ang: 3.1356} or {kind: polynomial, coefficients_ev: [c0, c1]}"
)


@dataclass(frozen=True, slots=True)
class EnergyAxis:
    """The relation between position and energy, with the offset of one run."""

    relation: Bragg | Polynomial
    offset_deg: float

    def __call__(self, position: ArrayLike) -> Array:
        """Convert positions of any shape to energies, eV."""
        return self.relation.energy(position, self.offset_deg)
