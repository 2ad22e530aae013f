"""Proposes the energies of a scan: where the spectrum is least known.

A Gaussian process gives the absorption between the measured energies, with its uncertainty. The next energy is that
of the largest uncertainty. How left-out points scatter corrects it locally, since the covariance does not know how
much structure this spectrum has here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator
from scipy.linalg import cho_solve

from ..types import Array, Settings
from .kernel import GaussianProcessRegressor, XANESKernel

_FIRST_LENGTHS = 3.0
"""Spacing of the first points, in lengths of the covariance."""
_FIRST_E0_EV = 5.0
"""E0 of oxides from the tabulated edge, eV, before the scan shows it."""
_TREND = 10.0
"""Standard deviation of the trend's coefficients, of the range of the values."""
_STRUCTURES = np.geomspace(0.01, 0.6, 9)
_NOISES = np.geomspace(1e-4, 3e-2, 9)
_DRIFTS = np.concatenate([[0.0], np.geomspace(1e-4, 1e-2, 5)])
"""Candidates for the standard deviation of structures, for the noise of a point and for the drift per √point, of the
range of the values."""
_CANDIDATES = (_STRUCTURES, _NOISES, _DRIFTS)
_NEAR_LENGTHS = 3.0
"""Standard deviation of the window in which left-out points are compared with their expectation, in lengths."""
_LEAST_RATIO = 0.3
"""Smallest local ratio of the scatter of left-out points to its expectation."""
_LEAST_POINTS = 10
"""Smallest number of points from which a spectrum is derived."""
_REPEAT_EVERY = 20
"""Number of points after which an energy is measured again: only repeats tell noise and drift from structure."""
_REPEAT_STRIDE = 5
"""Number of points from one repeated energy to the next, so that they lie apart."""
_DRAWS = 16
"""Number of spectra that are drawn for the uncertainty of descriptors."""


class EnergySettings(Settings):
    """An adaptive scan."""

    start_ev: float = -60.0
    """First energy, from the tabulated edge, eV."""
    stop_ev: float = 110.0
    """Last energy, from the tabulated edge, eV."""
    step_ev: float = Field(default=0.3, gt=0)
    """Step of the energies that may be measured, and of the resulting spectrum, eV."""
    max_points: int = Field(default=113, ge=10)
    """Largest number of measured points."""
    error: float = Field(default=0.002, gt=0)
    """Expected root-mean-square error of the spectrum, of the edge step, at which the scan may end."""
    descriptor_errors: dict[str, float] = Field(default_factory=dict)
    """Standard deviations of descriptors, from what is not known of the spectrum, at which the scan may end."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if not self.start_ev + 20 <= 0 <= self.stop_ev - 20:
            raise ValueError("start_ev at least 20 eV below the edge and stop_ev at least 20 eV above it")
        return self


@dataclass(frozen=True)
class KnownSpectrum:
    """What is known of a spectrum."""

    energy: Array
    """(G,) eV."""
    mu: Array
    """(G,) expected absorption, in the unit of the measured one."""
    sd: Array
    """(G,) its standard deviation."""
    e0_ev: float
    """Energy at half of the edge step, eV."""
    edge_step: float
    """In the unit of the absorption."""

    @property
    def error(self) -> float:
        """Expected root-mean-square error, of the edge step."""
        return float(np.sqrt(np.mean(self.sd**2)) / max(self.edge_step, 1e-12))


class EnergyProposer:
    """Proposes energies, learns what was measured there, and says how well the spectrum is known.

    Parameters
    ----------
    settings : EnergySettings
    edge_ev : float
        Tabulated energy of the edge, eV.
    describe : callable, optional
        Returns the values (N,) of descriptors of spectra (N, G) on energies (G,), eV; needed for
        ``descriptor_errors``.
    """

    def __init__(
        self,
        settings: EnergySettings,
        edge_ev: float,
        describe: Callable[[Array, Array], Mapping[str, Array]] | None = None,
    ) -> None:
        if settings.descriptor_errors and describe is None:
            raise ValueError("found descriptor_errors without a model that gives descriptors")
        self.settings, self.edge_ev = settings, edge_ev
        start, stop = edge_ev + settings.start_ev, edge_ev + settings.stop_ev
        self.grid = np.arange(start, stop + settings.step_ev / 2, settings.step_ev)
        self._describe = describe
        self._energy: list[float] = []
        self._mu: list[float] = []
        self._failed: list[float] = []
        """Energies at which no finite value came."""
        self._e0_ev = edge_ev + _FIRST_E0_EV
        self._repeated = 0
        self._sizes: tuple[int, int, int] = (6, 3, 0)
        """Indices of structures, noise and drift among their candidates."""
        self._known: KnownSpectrum | None = None

    @property
    def points(self) -> int:
        """Number of measured points."""
        return len(self._energy)

    @property
    def energies(self) -> list[float]:
        """Measured energies, eV, in the order of measurement."""
        return list(self._energy)

    def suggest(self, count: int = 1) -> Array:
        """Return up to ``count`` energies to measure next, (count,), rising, eV; the first ones cover the range."""
        left = self.settings.max_points - self.points - len(self._failed)
        if self._known is None:
            return self._first()[:left]
        if self.points // _REPEAT_EVERY > self._repeated:
            self._repeated += 1
            return np.array([self._energy[self._repeated * _REPEAT_STRIDE % self.points]])
        positions, wanted = self._positions(self.grid), self._known.sd.copy()
        measured = np.searchsorted(self.grid, np.array(self._energy) - self.settings.step_ev / 2)
        wanted[np.minimum(measured, len(wanted) - 1)] = 0.0

        def leave(position: float) -> None:
            """Want no point near a position."""
            wanted[:] *= -np.expm1(-((positions - position) ** 2) / 2)

        for position in self._positions(np.array(self._failed)):
            leave(position)
        chosen: list[int] = []
        for _ in range(min(count, left)):
            chosen.append(int(np.argmax(wanted)))
            leave(positions[chosen[-1]])
        return np.sort(self.grid[chosen])

    def ingest(self, energy: Array, mu: Array) -> None:
        """Learn what was measured, in the order of measurement.

        Parameters
        ----------
        energy : ndarray, (N,)
            eV.
        mu : ndarray, (N,)
            Absorption, ln(I0/It) or If/I0; values that are not finite are left out.
        """
        for e, m in zip(energy, mu, strict=True):
            if np.isfinite(e) and np.isfinite(m):
                self._energy.append(float(e))
                self._mu.append(float(m))
            else:
                self._failed.append(float(e))
        if self.points >= _LEAST_POINTS:
            self._learn()

    def spectrum(self) -> KnownSpectrum:
        """Return what is known by now.

        Raises
        ------
        ValueError
            Too little was measured.
        """
        if self._known is None:
            raise ValueError(f"found {self.points} measured points, expected at least {_LEAST_POINTS}")
        return self._known

    def along(self, values: Array) -> Array:
        """Return what else was measured at the same points, such as the absorption of a foil, on the grid, (G,).

        Parameters
        ----------
        values : ndarray, (points,)
            In the order of measurement, finite.
        """
        return self._fit(self._sizes, values).predict(self._at(self.grid))

    def done(self) -> str:
        """Return why the scan may end; empty if it should go on."""
        if (tried := self.points + len(self._failed)) >= self.settings.max_points:
            return f"{tried} points are measured" + (f", {len(self._failed)} without a value" if self._failed else "")
        if self._known is None or self._known.error > self.settings.error:
            return ""
        found = self.descriptor_sd() if self.settings.descriptor_errors else {}
        if any(not found.get(name, np.inf) <= limit for name, limit in self.settings.descriptor_errors.items()):
            return ""
        return f"the spectrum is known to {self._known.error:.4f} of the edge step after {self.points} points"

    def descriptor_sd(self) -> dict[str, float]:
        """Return the standard deviations of descriptors over spectra that are drawn from what is known."""
        known = self.spectrum()
        assert self._describe is not None
        process = self._process
        draws = process.sample_y(self._at(known.energy), _DRAWS, random_state=0).T
        ratio = known.sd / np.maximum(self._plain_sd, 1e-12)
        draws = known.mu + (draws - draws.mean(0)) * ratio
        values = self._describe(known.energy, draws)
        return {name: float(np.std(value, ddof=1)) for name, value in values.items()}

    def _first(self) -> Array:
        positions = self._positions(self.grid)
        count = round(positions[-1] / _FIRST_LENGTHS) + 1
        return self.grid[np.unique(np.searchsorted(positions, np.linspace(0, positions[-1], count)))]

    def _positions(self, energy: Array) -> Array:
        """Return energies on the axis of the kernel's lengths."""
        return XANESKernel(self.grid, self._e0_ev, 1.0, 1.0).positions(energy)

    def _at(self, energy: Array) -> Array:
        """Return energies with the time of the newest point, (N, 2)."""
        return np.stack([energy, np.full(len(energy), float(self.points))], axis=1)

    def _fit(self, sizes: tuple[int, int, int], values: Sequence[float] | Array) -> Any:  # scikit-learn has no types
        unit = float(np.ptp(values)) or 1.0
        structure, noise, drift = (float(c[k]) for c, k in zip(_CANDIDATES, sizes, strict=True))
        kernel = XANESKernel(self.grid, self._e0_ev, structure * unit, _TREND * unit, drift * unit)
        X = np.stack([self._energy, np.arange(1.0, self.points + 1)], axis=1)
        regressor: Any = GaussianProcessRegressor
        return regressor(kernel, alpha=(noise * unit) ** 2, optimizer=None).fit(X, np.asarray(values))

    def _learn(self) -> None:
        """Fit the process; of each size one neighbour is tried at a time, so that it stays quick."""
        step = 1 if self.points % 2 else -1
        tried = {self._sizes}
        for moved in np.eye(3, dtype=int) * step + self._sizes:
            structure, noise, drift = (min(max(k, 0), len(c) - 1) for k, c in zip(moved, _CANDIDATES, strict=True))
            tried.add((structure, noise, drift))
        fits = {sizes: self._fit(sizes, self._mu) for sizes in tried}
        self._sizes, self._process = max(fits.items(), key=lambda fit: fit[1].log_marginal_likelihood_value_)
        mu, sd = self._process.predict(self._at(self.grid), return_std=True)
        self._plain_sd = sd
        self._e0_ev, step_height = self._edge(mu)
        self._known = KnownSpectrum(self.grid, mu, sd * self._surprise(), self._e0_ev, step_height)

    def _edge(self, mu: Array) -> tuple[float, float]:
        """Return E0, where the absorption is halfway up its edge, and the edge step."""
        low = float(np.mean(mu[self.grid < self.edge_ev - 20]))
        high = float(np.mean(mu[self.grid > self.edge_ev + 20]))
        above = mu > (low + high) / 2
        near = np.abs(self.grid - self.edge_ev) < 25
        first = np.flatnonzero(above & near)
        return (float(self.grid[first[0]]) if len(first) else self._e0_ev), abs(high - low)

    def _surprise(self) -> Array:
        """Return by what factor left-out points scatter more or less than expected, near each energy, (G,)."""
        process = self._process
        inverse = cho_solve((process.L_, True), np.eye(self.points))
        z2 = process.alpha_.ravel() ** 2 / np.diag(inverse)
        distance = self._positions(self.grid)[:, None] - self._positions(np.array(self._energy))
        weight = np.exp(-0.5 * (distance / _NEAR_LENGTHS) ** 2)
        return np.sqrt(np.maximum((weight @ z2) / weight.sum(1), _LEAST_RATIO**2))
