"""The absorber's edge, and how a measurement of it differs from FEFF."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .array import Array
from .grid import Grid

STEP_WIDTH_EV = 5.0
"""Of the arctangent that stands in for structure that is not there."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The absorber's edge and where the training data stand; all in the model card, found from standards."""

    edge_ev: float
    """Tabulated absorption edge."""
    feff_minus_experiment_ev: float = 0.0
    """Added to calibrated energies to reach FEFF's scale."""
    offset_sd_ev: float = 0.0
    """Its standard deviation."""
    scale: float = 1.0
    """Before that, energies from the tabulated edge are divided by this."""
    scale_sd: float = 0.0
    amplitude: float = 1.0
    """Of a measurement's structure about a smooth step, over FEFF's."""
    amplitude_sd: float = 0.0
    step_ev: float = 0.0
    """Where that step stands, from the tabulated edge on FEFF's scale."""

    def to_feff_scale(self, measured: Array) -> Array:
        """Calibrated energies, like the result relative to ``edge_ev``, on FEFF's scale."""
        return measured / self.scale + self.feff_minus_experiment_ev

    def to_measured_scale(self, feff: Array) -> Array:
        """The inverse."""
        return (feff - self.feff_minus_experiment_ev) * self.scale

    def scale_structure(self, spectra: Array, grid: Grid, by: float) -> Array:
        """Spectra (N, G) on the footing, their structure about the smooth step multiplied by ``by``.

        The step stays where standards have it: one that followed each edge would jump with it, and 1 eV of edge
        shift makes it wrong by 0.06 of what is added.
        """
        step = _step(grid, self.step_ev)
        return step + by * (spectra - step)


@lru_cache
def _step(grid: Grid, step_ev: float) -> Array:
    """(G,) an arctangent on the footing."""
    return grid.footing((0.5 + np.arctan((grid.energy - step_ev) / STEP_WIDTH_EV) / np.pi)[None])[0]
