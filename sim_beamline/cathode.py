"""The sample: LixCoO2. The current sets its lithium content, and the lithium content sets its absorption."""

import threading
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from ..agent.types import Array, Settings, edge_ev

CO_K_EDGE_EV = edge_ev("Co")
_STEP_WIDTH_EV = 5.0
"""Width of the arctangent step that replaces the damped part of the spectral structure, eV."""
_CAPACITY_MAH_PER_MG = 0.2738
"""Capacity of LiCoO2 for one Li per formula unit: F / M = 26801 mAh/mol / 97.87 g/mol."""
_INITIAL_X_SPREAD = 0.01
"""Largest deviation of the initial lithium content from 1."""
_MAX_X = 1.05
"""Largest lithium content: a discharge ends slightly above the stoichiometric composition."""
_EDGE_STEP_SPREAD = 0.15
"""Largest relative deviation of the edge step."""
_VICTOREEN_EXPONENT = -2.7
"""Exponent of the decay of one shell's absorption with energy."""

# Open-circuit voltage of LixCoO2 against lithium (V): the plateau, the order–disorder step at x = 1/2 and the
# steep end, read roughly from J. N. Reimers and J. R. Dahn, J. Electrochem. Soc. 139 (1992) 2091.
_OCV_X = np.array([0.0, 0.05, 0.12, 0.2, 0.3, 0.4, 0.47, 0.5, 0.53, 0.6, 0.75, 0.93, 0.97, 1.0])
_OCV_V = np.array([4.85, 4.7, 4.58, 4.52, 4.45, 4.32, 4.22, 4.17, 4.14, 4.06, 3.94, 3.91, 3.88, 3.75])


class CathodeSettings(Settings):
    """A cathode and how it is charged."""

    active_mass_mg: float = Field(default=10.0, gt=0)
    """Mass of LiCoO2 in the cell, mg."""
    charge_x: float = Field(default=0.875, gt=0, le=1)
    """Lithium per formula unit that the nominal current extracts over the planned scan."""
    charge_time_s: float = Field(default=14400.0, gt=0)
    """Duration of the planned scan, simulated s."""
    spread: float = Field(default=0.025, ge=0, lt=0.1)
    """Largest relative deviation of the capacity, and of the current, from nominal; the seed draws within it."""
    resistance_ohm: float = Field(default=60.0, ge=0)
    """Resistance of the whole cell, Ω; times the current it is the overpotential."""
    edge_step: float = Field(default=1.0, gt=0)
    """Edge step of the sample at the Co K edge, dimensionless; the seed changes it by up to 15 %."""
    background: float = Field(default=0.6, ge=0)
    """Absorption of foils, electrolyte and lower edges at the Co K edge, dimensionless; it decays as E^-2.7."""
    broadening_ev: float = Field(default=1.0, gt=0)
    """Gaussian σ of the instrumental and thermal broadening of the computed spectra, eV."""
    feff_offset_ev: float | None = None
    """FEFF − experiment energy, eV; None: the value stored with the reference spectra."""

    @property
    def nominal_current_ma(self) -> float:
        """Current that extracts ``charge_x`` over the planned scan, mA."""
        return self.charge_x * self.active_mass_mg * _CAPACITY_MAH_PER_MG / (self.charge_time_s / 3600)


class Cell:
    """Charge, lithium content and voltage of the cell on a clock of simulated seconds, by coulomb counting.

    Several threads may use it: a control may cut the current while the plan measures a frame.
    """

    def __init__(self, settings: CathodeSettings, seed: int) -> None:
        draw = np.random.default_rng([seed, 0]).uniform
        self.x = 1.0 + draw(-_INITIAL_X_SPREAD, _INITIAL_X_SPREAD)
        self._current_error = 1 + settings.spread * draw(-1, 1)
        self._capacity_mah = settings.active_mass_mg * _CAPACITY_MAH_PER_MG * (1 + settings.spread * draw(-1, 1))
        self.edge_step = settings.edge_step * (1 + _EDGE_STEP_SPREAD * draw(-1, 1))
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
    return cell.advance(settings.charge_time_s)[1]


class ReferenceSpectra:
    """Normalised absorption of LixCoO2 and of the Co foil on the true experimental energy scale.

    The spectra are FEFF calculations of one lithium ordering (see :mod:`xas_agent.models.datasets.cathode`). They
    are broadened, and their structure is damped and their energies are scaled to match measured standards.
    """

    def __init__(self, broadening_ev: float, feff_offset_ev: float | None = None) -> None:
        resource = files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz")
        with resource.open("rb") as file, np.load(file) as archive:
            self._grid: Array = archive["energy"]
            self._x: Array = archive["x"]
            mu, foil = archive["mu"].astype(float), archive["foil"].astype(float)
            stored, self._foil_offset_ev, self.feff_scale, amplitude = (
                float(archive[name]) for name in ("feff_offset_ev", "foil_offset_ev", "feff_scale", "feff_amplitude")
            )
        self.feff_offset_ev = stored if feff_offset_ev is None else feff_offset_ev
        sigma = broadening_ev / (self._grid[1] - self._grid[0])
        self._foil = gaussian_filter1d(foil, sigma, mode="nearest")
        broad = gaussian_filter1d(mu, sigma, axis=-1, mode="nearest")
        self._mu = np.stack([_damp_structure(self._grid, broad[k], amplitude) for k in range(len(broad))])

    def cathode(self, energy_ev: ArrayLike, x: ArrayLike) -> Array:
        """Return the normalised absorption at lithium content ``x``, interpolated between compositions.

        Parameters
        ----------
        energy_ev : array_like, (E,)
            True photon energy, eV.
        x : array_like, scalar or (E,)
            Lithium content, one value for all energies or one per energy.

        Returns
        -------
        ndarray, (E,)
            Dimensionless.
        """
        energy, x = np.broadcast_arrays(np.atleast_1d(energy_ev), x)
        upper = np.clip(np.searchsorted(self._x, x), 1, len(self._x) - 1)
        weight = np.clip((x - self._x[upper - 1]) / (self._x[upper] - self._x[upper - 1]), 0, 1)
        feff_energy = CO_K_EDGE_EV + (energy - CO_K_EDGE_EV) / self.feff_scale + self.feff_offset_ev
        mu = np.zeros(energy.shape)
        for row, share in ((upper - 1, 1 - weight), (upper, weight)):
            for k in np.unique(row):
                here = row == k
                spectrum = np.interp(feff_energy[here], self._grid, self._mu[k])
                mu[here] += share[here] * spectrum
        return mu

    def foil(self, energy_ev: ArrayLike) -> Array:
        """Return the normalised absorption of the Co foil, (E,); its first inflection lies at the tabulated edge."""
        return np.interp(np.atleast_1d(energy_ev) + self._foil_offset_ev, self._grid, self._foil)


def _damp_structure(energy_ev: Array, mu: Array, amplitude: float) -> Array:
    """Return ``amplitude`` times ``mu`` plus 1 − ``amplitude`` times a smooth step at its half height, (E,)."""
    edge = energy_ev[np.argmax(mu >= 0.5)]
    step = 0.5 + np.arctan((energy_ev - edge) / _STEP_WIDTH_EV) / np.pi
    return amplitude * mu + (1 - amplitude) * step


def _victoreen_decay(energy_ev: ArrayLike) -> Array:
    """Return the decay E^-2.7 of one shell's absorption, (E,), relative to the Co K edge."""
    return (np.atleast_1d(energy_ev) / CO_K_EDGE_EV) ** _VICTOREEN_EXPONENT


def absorption(normalised: Array, energy_ev: ArrayLike, edge_step: float, background: float) -> Array:
    """Return the absorption μ·d of a sample, (E,): a sloping background and an edge that decays above its step."""
    decay = _victoreen_decay(energy_ev)
    return background * decay + edge_step * normalised * np.minimum(decay, 1)
