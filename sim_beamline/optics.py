"""The beam: incident photons, the energy error of the monochromator, and the counts of the ion chambers."""

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ..agent.types import Array, Settings
from .sample import Experiment
from .spectra import absorption

_REFILL_PERIOD_S = 7200.0
"""Time between two refills of the storage ring, s."""
_BEAM_LIFETIME_S = 28800.0
"""Time in which the ring current decays to 1/e, s."""
_RIPPLE_FRACTION, _RIPPLE_PERIOD_S = 0.003, 47.0
"""Relative amplitude and period of the flux oscillation."""
_GLITCH_LOG_RANGE = 0.5
"""Largest natural logarithm of the factor by which a glitch changes It."""


class BeamSettings(Settings):
    """Source, monochromator and ion chambers."""

    photons_per_s: float = Field(default=4.5e6, gt=0)
    """Photons per second that reach the first ion chamber."""
    mono_error_ev: float = Field(default=0.3, ge=0)
    """Largest constant error of the reported energy, eV; the seed draws within it."""
    mono_drift_ev: float = Field(default=0.2, ge=0)
    """Largest drift of that error over the planned scan, eV; the seed draws within it."""
    I0_efficiency: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of photons that the chamber in front of the sample absorbs and counts."""
    It_efficiency: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of photons that the chamber behind the sample absorbs and counts."""
    Iref_efficiency: float = Field(default=0.8, gt=0, le=1)
    """Fraction of photons that the chamber behind the reference foil absorbs and counts."""
    gain_v_per_mcps: float = Field(default=2.0, gt=0)
    """Amplifier gain, V per million counted photons per second."""
    foil_edge_step: float = Field(default=1.0, gt=0)
    """Edge step of the Co foil between It and Iref, dimensionless."""
    foil_background: float = Field(default=0.3, ge=0)
    """Background absorption of the foil at the edge, dimensionless."""
    glitch_probability: float = Field(default=0.02, ge=0, le=1)
    """Probability that a frame contains a glitch: one point with a wrong It."""


class Beam:
    """Counts photons behind the sample and the foil; the true energy differs from the reported one.

    Parameters
    ----------
    settings : BeamSettings
    experiment : Experiment
        The sample in the beam.
    seed : int
    points : int
        Number of energies in a frame; the glitch probability is spread over them.
    duration_s : float
        Duration of the planned scan, over which the monochromator drifts, simulated s.
    """

    def __init__(
        self, settings: BeamSettings, experiment: Experiment, seed: int, *, points: int, duration_s: float
    ) -> None:
        self._settings, self._experiment = settings, experiment
        draw = np.random.default_rng([seed, 1]).uniform
        self._error_ev = settings.mono_error_ev * draw(-1, 1)
        self._drift_ev_per_s = settings.mono_drift_ev * draw(-1, 1) / duration_s
        self._glitch = settings.glitch_probability / points
        self._noise = np.random.default_rng([seed, 2])
        self.open = False
        """Whether the shutter is open."""
        self.count_factor = 1.0
        """Counting time as a multiple of the planned one."""

    def mono_error_ev(self, time_s: ArrayLike) -> Array:
        """Return reported − true energy, eV, at simulated times, s."""
        return self._error_ev + self._drift_ev_per_s * np.atleast_1d(time_s)

    def flux(self, time_s: ArrayLike) -> Array:
        """Return photons per second, which decay between refills of the ring and oscillate."""
        t = np.atleast_1d(time_s)
        decay = np.exp(-(t % _REFILL_PERIOD_S) / _BEAM_LIFETIME_S)
        decay *= 1 + _RIPPLE_FRACTION * np.sin(2 * np.pi * t / _RIPPLE_PERIOD_S)
        return self._settings.photons_per_s * decay

    def rest(self, seconds: float) -> None:
        """Let simulated time pass without counting, while the experiment continues."""
        self._experiment.advance(seconds)

    def count(self, reported_ev: Array, seconds: float) -> tuple[Array, Array, Array]:
        """Measure at each reported energy for ``seconds`` of simulated time, while the sample changes.

        Parameters
        ----------
        reported_ev : ndarray, (E,)
            Energies that the monochromator reports, in the order of acquisition, eV.
        seconds : float
            Planned counting time per energy, s; ``count_factor`` multiplies it.

        Returns
        -------
        tuple of three ndarrays, (E,)
            I0, It and Iref, V.
        """
        s, sample, n = self._settings, self._experiment, len(reported_ev)
        seconds *= self.count_factor
        start_s = sample.time_s
        elapsed = (np.arange(n) + 0.5) / n  # fraction of the scan
        time_s = start_s + elapsed * n * seconds
        energy = reported_ev - self.mono_error_ev(time_s)
        mu = sample.expose(energy, n * seconds)
        mu_foil = absorption(sample.spectra.foil(energy), energy, s.foil_edge_step, s.foil_background)
        incoming = self.flux(time_s) * sample.transmission * seconds * self.open
        behind_sample = incoming * (1 - s.I0_efficiency) * np.exp(-mu)
        behind_foil = behind_sample * (1 - s.It_efficiency) * np.exp(-mu_foil)
        volts = s.gain_v_per_mcps * 1e-6 / seconds
        I0, It, Iref = (
            volts * self._noise.poisson(photons).astype(np.float64)
            for photons in (
                incoming * s.I0_efficiency,
                behind_sample * s.It_efficiency,
                behind_foil * s.Iref_efficiency,
            )
        )
        hit = self._noise.random(n) < self._glitch
        It[hit] *= np.exp(self._noise.uniform(-_GLITCH_LOG_RANGE, _GLITCH_LOG_RANGE, hit.sum()))
        return I0, It, Iref
