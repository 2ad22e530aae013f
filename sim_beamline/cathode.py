"""The cell: its current sets the lithium content of LixCoO2, and with it the voltage."""

import threading

import numpy as np
from pydantic import Field

from .sample import EDGE_STEP_SPREAD, SampleSettings

_CAPACITY_MAH_PER_MG = 0.2738
"""Capacity of LiCoO2 for one Li per formula unit: F / M = 26801 mAh/mol / 97.87 g/mol."""
_INITIAL_X_SPREAD = 0.01
"""Largest deviation of the initial lithium content from 1."""
_MAX_X = 1.05
"""Largest lithium content: a discharge ends slightly above the stoichiometric composition."""

# Open-circuit voltage of LixCoO2 against lithium (V): the plateau, the order–disorder step at x = 1/2 and the
# steep end, read roughly from J. N. Reimers and J. R. Dahn, J. Electrochem. Soc. 139 (1992) 2091.
_OCV_X = np.array([0.0, 0.05, 0.12, 0.2, 0.3, 0.4, 0.47, 0.5, 0.53, 0.6, 0.75, 0.93, 0.97, 1.0])
_OCV_V = np.array([4.85, 4.7, 4.58, 4.52, 4.45, 4.32, 4.22, 4.17, 4.14, 4.06, 3.94, 3.91, 3.88, 3.75])


class CathodeSettings(SampleSettings):
    """A cathode and its charge."""

    active_mass_mg: float = Field(default=10.0, gt=0)
    """Mass of LiCoO2 in the cell, mg."""
    charge_x: float = Field(default=0.875, gt=0, le=1)
    """Lithium per formula unit that the nominal current extracts over the planned scan."""
    spread: float = Field(default=0.025, ge=0, lt=0.1)
    """Largest relative deviation of the capacity, and of the current, from nominal; the seed draws within it."""
    resistance_ohm: float = Field(default=60.0, ge=0)
    """Resistance of the whole cell, Ω; multiplied by the current, it gives the overpotential."""

    @property
    def nominal_current_ma(self) -> float:
        """Current that extracts ``charge_x`` over the planned scan, mA."""
        return self.charge_x * self.active_mass_mg * _CAPACITY_MAH_PER_MG / (self.duration_s / 3600)


class Cell:
    """Charge, lithium content and voltage of the cell on a clock of simulated seconds, by coulomb counting.

    Several threads may use it: a control may cut the current while the plan measures a frame.
    """

    def __init__(self, settings: CathodeSettings, seed: int) -> None:
        draw = np.random.default_rng([seed, 0]).uniform
        self.x = 1.0 + draw(-_INITIAL_X_SPREAD, _INITIAL_X_SPREAD)
        self._current_error = 1 + settings.spread * draw(-1, 1)
        self._capacity_mah = settings.active_mass_mg * _CAPACITY_MAH_PER_MG * (1 + settings.spread * draw(-1, 1))
        self.edge_step = settings.edge_step * (1 + EDGE_STEP_SPREAD * draw(-1, 1))
        self._resistance_ohm = settings.resistance_ohm
        self._lock = threading.Lock()
        self._current_ma = 0.0
        self.charge_mah = 0.0
        self.time_s = 0.0

    @property
    def current_ma(self) -> float:
        """True current, mA; positive while the cell charges."""
        return self._current_ma

    def apply(self, current_ma: float) -> None:
        """Set the current, mA; the seed determines the potentiostat's regulation error."""
        with self._lock:
            self._current_ma = current_ma * self._current_error

    def advance(self, seconds: float) -> tuple[float, float]:
        """Advance the simulated time and return the lithium content before and after."""
        with self._lock:
            before, charge_mah = self.x, self._current_ma * seconds / 3600
            self.charge_mah += charge_mah
            self.x = min(max(before - charge_mah / self._capacity_mah, 0.0), _MAX_X)
            self.time_s += seconds
            return before, self.x

    @property
    def voltage(self) -> float:
        """Cell voltage, V: open-circuit voltage at the current x plus the overpotential."""
        return float(np.interp(self.x, _OCV_X, _OCV_V)) + self._current_ma * 1e-3 * self._resistance_ohm


def x_open_loop_end(settings: CathodeSettings, seed: int) -> float:
    """Return the lithium content at the end of the planned scan if no control stops the charge."""
    cell = Cell(settings, seed)
    cell.apply(settings.nominal_current_ma)
    return cell.advance(settings.duration_s)[1]
