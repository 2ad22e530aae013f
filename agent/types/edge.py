"""The absorber's edge, and the differences between measured and FEFF spectra."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from .array import Array
from .grid import Grid
from .slope import SeriesSlope

STEP_WIDTH_EV = 5.0
"""Half-width of the arctangent that describes an edge without structure, eV."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The absorber's edge and the differences between measured and FEFF spectra.

    The values come from standards and are stored in the model card. Energies are in eV relative to ``edge_ev``.
    """

    edge_ev: float
    """Tabulated absorption edge, eV."""
    feff_minus_experiment_ev: float = 0.0
    """Offset from calibrated, scaled energies to FEFF's scale, eV."""
    offset_sd_ev: float = 0.0
    """Standard deviation of the offset, eV."""
    scale: float = 1.0
    """Divisor of calibrated energies, applied before the offset is added."""
    scale_sd: float = 0.0
    amplitude: float = 1.0
    """Ratio of the structure about a smooth step in measured spectra to that in FEFF's."""
    amplitude_sd: float = 0.0
    step_ev: float = 0.0
    """Position of the smooth step on FEFF's scale, eV."""
    misfit_sd: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Standard deviation, by descriptor in its unit, of estimates of measured standards beyond all other causes."""
    series_slopes: Mapping[str, SeriesSlope] = field(default_factory=dict, hash=False)
    """Relation of the estimates to the true values along a series, by descriptor."""

    def to_feff_scale(self, measured: Array) -> Array:
        """Convert calibrated energies of any shape to FEFF's scale; both are in eV relative to ``edge_ev``."""
        return measured / self.scale + self.feff_minus_experiment_ev

    def to_measured_scale(self, feff: Array) -> Array:
        """Convert FEFF's energies to the calibrated scale: the inverse of :meth:`to_feff_scale`."""
        return (feff - self.feff_minus_experiment_ev) * self.scale

    def scale_structure(self, spectra: Array, grid: Grid, factor: float) -> Array:
        """Multiply the structure of spectra about the smooth step.

        The step has one position, found from standards. A step that followed the edge of each spectrum would jump
        with it, whereas a shift of the edge by 1 eV changes the added structure by only 0.06 of its size.

        Parameters
        ----------
        spectra : (N, G) spectra on the footing of ``grid``
        grid : grid of the spectra
        factor : factor that multiplies the structure

        Returns
        -------
        (N, G) spectra
        """
        step = _smooth_step(grid, self.step_ev)
        return step + factor * (spectra - step)


@lru_cache
def _smooth_step(grid: Grid, step_ev: float) -> Array:
    """Return an arctangent on the footing, (G,)."""
    return grid.footing((0.5 + np.arctan((grid.energy - step_ev) / STEP_WIDTH_EV) / np.pi)[None])[0]
