"""The sample: LixCoO2, whose lithium follows the current and whose absorption follows its lithium."""

import threading
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from ..agent.types import Settings, edge_ev

Array = NDArray[np.float64]

CO_K_EDGE_EV = edge_ev("Co")
STEP_WIDTH_EV = 5.0
"""Of the arctangent that takes the place of lost structure."""
CAPACITY_MAH_PER_MG = 0.2738
"""Of LiCoO2 for one Li per formula unit: F / M = 26801 mAh/mol / 97.87 g/mol."""

# Open-circuit voltage of LixCoO2 against lithium (V): the plateau, the order–disorder step at x = 1/2 and the
# steep end, read roughly from J. N. Reimers and J. R. Dahn, J. Electrochem. Soc. 139 (1992) 2091.
_OCV_X = np.array([0.0, 0.05, 0.12, 0.2, 0.3, 0.4, 0.47, 0.5, 0.53, 0.6, 0.75, 0.93, 0.97, 1.0])
_OCV_V = np.array([4.85, 4.7, 4.58, 4.52, 4.45, 4.32, 4.22, 4.17, 4.14, 4.06, 3.94, 3.91, 3.88, 3.75])


class CathodeSettings(Settings):
    """A cathode and how it is charged."""

    active_mass_mg: float = Field(default=10.0, gt=0)
    """LiCoO2 in the beam's cell, mg, as weighed."""
    charge_x: float = Field(default=0.875, gt=0, le=1)
    """Lithium per formula unit that the nominal current takes out over the planned scan."""
    charge_time_s: float = Field(default=14400.0, gt=0)
    """Length of the planned scan in simulated seconds."""
    spread: float = Field(default=0.025, ge=0, lt=0.1)
    """Largest relative deviation, by seed, of the capacity and of the current from nominal (each)."""
    resistance_ohm: float = Field(default=60.0, ge=0)
    """Of the whole cell: the overpotential is the current times this."""
    edge_step: float = Field(default=1.0, gt=0)
    """Of the sample's absorption at the Co K edge, dimensionless; by seed up to 15 % off."""
    background: float = Field(default=0.6, ge=0)
    """Absorption of everything else (foils, electrolyte, lower edges) at the edge; falls as E^-2.7."""
    broadening_ev: float = Field(default=1.0, gt=0)
    """Gaussian σ, eV, of what instrument and temperature add to the computed spectra."""
    feff_offset_ev: float | None = None
    """FEFF − experiment energy, eV; None takes the value stored with the reference spectra."""

    @property
    def nominal_current_ma(self) -> float:
        """The current (mA) that takes ``charge_x`` out over the planned scan."""
        return self.charge_x * self.active_mass_mg * CAPACITY_MAH_PER_MG / (self.charge_time_s / 3600)


class Cell:
    """Charge, lithium and voltage on a clock of simulated seconds; coulomb counting is its whole chemistry.

    Safe to use from several threads: a control may cut the current while a frame is being measured.
    """

    def __init__(self, settings: CathodeSettings, seed: int) -> None:
        draw = np.random.default_rng([seed, 0]).uniform
        self.x = 1.0 + draw(-0.01, 0.01)
        self._current_error = 1 + settings.spread * draw(-1, 1)
        self._capacity_mah = settings.active_mass_mg * CAPACITY_MAH_PER_MG * (1 + settings.spread * draw(-1, 1))
        self.edge_step = settings.edge_step * (1 + 0.15 * draw(-1, 1))
        self._resistance_ohm = settings.resistance_ohm
        self._lock = threading.Lock()
        self._current_ma = 0.0
        self.charge_mah = 0.0
        self.time_s = 0.0

    @property
    def current_ma(self) -> float:
        """What truly flows, mA; positive while charging."""
        return self._current_ma

    def apply(self, current_ma: float) -> None:
        """Set the current; the potentiostat's regulation error is the seed's."""
        with self._lock:
            self._current_ma = current_ma * self._current_error

    def advance(self, seconds: float) -> tuple[float, float]:
        """Let simulated time pass; returns x before and after."""
        with self._lock:
            before, charge_mah = self.x, self._current_ma * seconds / 3600
            self.charge_mah += charge_mah
            self.x = min(max(before - charge_mah / self._capacity_mah, 0.0), 1.05)
            self.time_s += seconds
            return before, self.x

    @property
    def voltage(self) -> float:
        """Cell voltage, V: open circuit at the present x plus the overpotential."""
        return float(np.interp(self.x, _OCV_X, _OCV_V)) + self._current_ma * 1e-3 * self._resistance_ohm


def x_open_loop_end(settings: CathodeSettings, seed: int) -> float:
    """Lithium content at the end of the planned scan when nothing stops the charge, by the same chemistry."""
    cell = Cell(settings, seed)
    cell.apply(settings.nominal_current_ma)
    return cell.advance(settings.charge_time_s)[1]


class ReferenceSpectra:
    """Normalised absorption of LixCoO2 and of the Co foil on the true experimental energy scale.

    From FEFF spectra of one lithium ordering (see :mod:`xas_agent.models.datasets.cathode`), broadened, their
    structure damped and their energies scaled as far as those of measured standards are.
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
        self._mu = np.stack([damped(self._grid, broad[k], amplitude) for k in range(len(broad))])

    def cathode(self, energy_ev: ArrayLike, x: ArrayLike) -> Array:
        """Normalised absorption at lithium content ``x``, linear between the neighbouring compositions.

        Args:
            energy_ev: (E,) true photon energy, eV.
            x: lithium content, one for all or (E,) one per energy.

        Returns:
            (E,), dimensionless.
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
        """(E,) normalised absorption of the Co foil; its first inflection stands at the tabulated edge."""
        return np.interp(np.atleast_1d(energy_ev) + self._foil_offset_ev, self._grid, self._foil)


def damped(energy_ev: Array, mu: Array, amplitude: float) -> Array:
    """(E,) normalised absorption of which ``amplitude`` stays, the rest a smooth step at its half height."""
    edge = energy_ev[np.argmax(mu >= 0.5)]
    step = 0.5 + np.arctan((energy_ev - edge) / STEP_WIDTH_EV) / np.pi
    return amplitude * mu + (1 - amplitude) * step


def victoreen(energy_ev: ArrayLike) -> Array:
    """(E,) how absorption of one shell falls with energy, E^-2.7, relative to the Co K edge."""
    return (np.atleast_1d(energy_ev) / CO_K_EDGE_EV) ** -2.7


def absorption(normalised: Array, energy_ev: ArrayLike, edge_step: float, background: float) -> Array:
    """(E,) absorption μ·d of a sample: sloping background, and the edge with its atomic decay above it."""
    decay = victoreen(energy_ev)
    return background * decay + edge_step * normalised * np.minimum(decay, 1)
