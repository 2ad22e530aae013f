"""Spectra of LixCoO2 and of a Co foil, and the absorption of a sample."""

from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike

from ..agent.types import Array, edge_ev

_STEP_WIDTH_EV = 5.0
"""Width of the arctangent step that replaces the damped part of the spectral structure, eV."""
_VICTOREEN_EXPONENT = -2.7
"""Exponent of the decay of one shell's absorption with energy."""


class ReferenceSpectra:
    """Normalised absorption of LixCoO2 and of the Co foil on the true experimental energy scale.

    The spectra are FEFF calculations of one lithium ordering (see :mod:`xas_agent.models.datasets.cathode`). They
    are broadened, and their structure is damped and their energies are scaled to match measured standards.
    """

    def __init__(self, broadening_ev: float, feff_offset_ev: float | None = None) -> None:
        from scipy.ndimage import gaussian_filter1d  # late: every command imports the beamline's settings

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
        feff_energy = edge_ev("Co") + (energy - edge_ev("Co")) / self.feff_scale + self.feff_offset_ev
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
    return (np.atleast_1d(energy_ev) / edge_ev("Co")) ** _VICTOREEN_EXPONENT


def absorption(normalised: Array, energy_ev: ArrayLike, edge_step: float, background: float) -> Array:
    """Return the absorption μ·d of a sample, (E,): a sloping background and an edge that decays above its step."""
    decay = _victoreen_decay(energy_ev)
    return background * decay + edge_step * normalised * np.minimum(decay, 1)
