"""From what a monochromator's drive says (an angle, an encoder, a slit's position) to energy."""

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

    The sign of θ makes no difference, so that a beamline whose angles are negative needs no other relation.
    """

    kind: Literal["bragg"] = "bragg"
    """Names this relation."""
    d_spacing_ang: float = Field(gt=0)
    """Spacing of the reflecting planes, Å; Si(111) 3.1356, Si(311) 1.6375, at the crystal's temperature."""
    counts_per_degree: float = 1.0
    """Counts of the encoder per degree; 1 where the position is the angle in degrees."""
    offset_deg: float = 0.0
    """Added to the angle, degrees."""
    offset_from: str | None = None
    """Key of the RunStart that holds a further offset in degrees, for a calibration that each run carries."""

    def offset(self, start: Mapping[str, Any]) -> float | None:
        """Return the whole offset, degrees; None where the RunStart lacks its part of it."""
        more = 0.0 if self.offset_from is None else read_number(start, self.offset_from)
        return None if more is None else self.offset_deg + more

    def energy(self, position: ArrayLike, offset_deg: float) -> Array:
        """Return energies, eV, of positions, of any shape; infinite at θ = 0."""
        angle = np.radians(np.asarray(position, dtype=np.float64) / self.counts_per_degree + offset_deg)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return HC_EV_ANGSTROM / (2.0 * self.d_spacing_ang * np.abs(np.sin(angle)))

    def position(self, energy_ev: ArrayLike, offset_deg: float) -> Array:
        """Return the positions, at positive θ, of energies in eV: the inverse of :meth:`energy`.

        >>> si111 = Bragg(d_spacing_ang=3.1356)
        >>> float(np.round(si111.energy(si111.position(8333.0, 0.0), 0.0), 9))
        8333.0
        """
        sine = HC_EV_ANGSTROM / (2.0 * self.d_spacing_ang * np.asarray(energy_ev, dtype=np.float64))
        return np.asarray(np.degrees(np.arcsin(sine)) - offset_deg, dtype=np.float64) * self.counts_per_degree


class Polynomial(Settings):
    """A calibrated axis: E = c0 + c1 p + c2 p² …, eV, of a position p, as for a slit before a polychromator."""

    kind: Literal["polynomial"]
    """Names this relation."""
    coefficients_ev: tuple[float, ...] = Field(min_length=2)
    """c0, c1, …: eV, eV per unit of the position, and so on."""

    def offset(self, start: Mapping[str, Any]) -> float | None:
        """Return 0: nothing of it goes with a run."""
        return 0.0

    def energy(self, position: ArrayLike, offset_deg: float) -> Array:
        """Return energies, eV, of positions, of any shape."""
        x = np.asarray(position, dtype=np.float64)
        return np.asarray(np.polynomial.polynomial.polyval(x, self.coefficients_ev), dtype=np.float64)


Relation = Annotated[Bragg | Polynomial, Field(discriminator="kind")]
RELATION_EXAMPLE = (
    "fields.relation: {kind: bragg, d_spacing_ang: 3.1356} or {kind: polynomial, coefficients_ev: [c0, c1]}"
)


@dataclass(frozen=True, slots=True)
class EnergyAxis:
    """A relation as it holds for one run."""

    relation: Bragg | Polynomial
    offset_deg: float

    def __call__(self, position: ArrayLike) -> Array:
        """Return energies, eV."""
        return self.relation.energy(position, self.offset_deg)
