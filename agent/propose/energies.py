"""Proposes the energies of a scan: where the spectrum is least known.

A Gaussian process predicts the absorption between the measured energies, with its uncertainty. The next energy is
where the uncertainty is largest. The covariance does not know how much structure this spectrum has at each energy;
the residuals of left-out points therefore correct the uncertainty locally.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.linalg import cho_solve

from ..types import Array, Settings
from .kernel import GaussianProcessRegressor, XANESKernel, log_likelihood

_FIRST_LENGTHS = 3.0
"""Spacing of the first points, in correlation lengths of the covariance."""
_FIRST_E0_EV = 5.0
"""Distance of E0 from the tabulated edge, eV, in oxides; assumed until the scan shows E0."""
_TREND = 10.0
"""Standard deviation of the trend's coefficients, relative to the range of the values."""
_STRUCTURES = np.geomspace(0.01, 0.6, 9)
_NOISES = np.geomspace(1e-4, 3e-2, 9)
_DRIFTS = np.concatenate([[0.0], np.geomspace(1e-4, 1e-2, 5)])
"""Candidates for the standard deviation of structures, for the noise of a point and for the drift per √point,
relative to the range of the values."""
_CANDIDATES = (_STRUCTURES, _NOISES, _DRIFTS)
_NEAR_LENGTHS = 3.0
"""Standard deviation of the window in which residuals of left-out points are averaged, in correlation lengths."""
_LEAST_RATIO = 0.3
"""Smallest local ratio of the residuals of left-out points to their expectation."""
_LEAST_POINTS = 10
"""Smallest number of points that give a spectrum."""
_LEAST_RANGE_EV = (-20.0, 35.0)
_BESIDE_EDGE_EV, _E0_WINDOW_EV, _LEAST_LINE_EV = 20.0, 25.0, 10.0
"""Distances from the tabulated edge, eV, beyond which the straight lines are fitted and within which E0 is sought,
and the shortest length of a line."""
_DENSE_EV, _WIDEST_GAP_EV = (-24.0, 12.0), 1.6
"""Range of energies from E0, eV, in which neighbouring points are never farther apart than the gap, eV: pre-edge
peaks of 3d elements are 1.5 eV wide, and the spectrum beside them does not reveal them."""
_REPEAT_EVERY = 20
"""Number of points between repeated measurements of an energy; only these separate noise and drift from structure."""
_REPEAT_STRIDE = 5
"""Number of points between one repeated energy and the next, so that these lie apart."""
_DOUBT = 4.5
"""Number of standard deviations from the prediction of its neighbours at which a point is measured again, and at
which two values at one energy contradict each other. A glitch of one point then costs a point or two, not the
spectrum."""
_DRAWS = 16
"""Number of random spectra that give the uncertainty of descriptors."""


class EnergySettings(Settings):
    """An adaptive scan."""

    start_ev: float = -60.0
    """First energy, eV from the tabulated edge."""
    stop_ev: float = 110.0
    """Last energy, eV from the tabulated edge."""
    step_ev: float = Field(default=0.3, gt=0, le=1)
    """Spacing of the allowed energies and of the resulting spectrum, eV."""
    max_points: int = Field(default=113, ge=10)
    """Largest number of measured points."""
    error: float = Field(default=0.002, gt=0)
    """Expected root-mean-square error of the spectrum, in edge steps, at which the scan may end."""
    descriptor_errors: dict[str, float] = Field(default_factory=dict)
    """Standard deviations of descriptors, due to the incomplete spectrum, at which the scan may end."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.start_ev > _LEAST_RANGE_EV[0] or self.stop_ev < _LEAST_RANGE_EV[1]:
            least, most = _LEAST_RANGE_EV
            raise ValueError(f"a range from {-least:g} eV below the edge to {most:g} eV above it, or a wider one")
        return self


@dataclass(frozen=True)
class KnownSpectrum:
    """The spectrum inferred from the measured points, with its uncertainty."""

    energy: Array
    """(G,) energies, eV."""
    mu: Array
    """(G,) expected absorption, in the unit of the measured values."""
    sd: Array
    """(G,) standard deviation of the absorption, in the same unit."""
    e0_ev: float
    """Energy at half the edge step, eV."""
    edge_step: float
    """Height of the edge between straight lines before and behind it, in units of absorption; NaN without an edge."""

    @property
    def error(self) -> float:
        """Expected root-mean-square error, in edge steps; NaN without an edge."""
        return float(np.sqrt(np.mean(self.sd**2)) / self.edge_step)


class EnergyProposer:
    """Proposes energies, learns from the measurements there, and estimates how well the spectrum is known.

    Parameters
    ----------
    settings : EnergySettings
    edge_ev : float
        Tabulated energy of the edge, eV.
    describe : callable, optional
        Maps spectra (N, G) on energies (G,), eV, to the values (N,) of each descriptor; required by
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
        """Energies whose measurement gave no finite value."""
        self._tried = 0
        """Number of measured points, including those without an energy or a value."""
        self._e0_ev = edge_ev + _FIRST_E0_EV
        self._repeated = 0
        self._doubted: set[int] = set()
        """Points unlike their neighbours, whose energies are measured again."""
        self._good: list[bool] = []
        """Whether each point is used; it is not if a repeated measurement contradicts it."""
        self._unlike: dict[int, float] = {}
        """Distance of each good point from the prediction by the others, in standard deviations."""
        self._sizes: tuple[int, int, int] = (6, 3, 0)
        """Indices of the chosen structures, noise and drift among their candidates."""
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
        """Return up to ``count`` energies to measure next, (count,), rising, eV; the first ones span the range.

        Raises
        ------
        ValueError
            ``count`` is less than 1.
        """
        if count < 1:
            raise ValueError(f"found {count} energies at once, expected at least 1")
        left = self.settings.max_points - self._tried
        if self._known is None:
            return self._first(left)
        if (doubted := self._doubtful()) is not None:
            self._doubted.add(doubted)
            return np.array([self._energy[doubted]])
        if self.points // _REPEAT_EVERY > self._repeated:
            self._repeated += 1
            return np.array([self._energy[self._repeated * _REPEAT_STRIDE % self.points]])
        if self._known.error <= self.settings.error and len(gaps := self._gaps()):
            return gaps[:: -(-len(gaps) // min(count, left))]
        positions, wanted = self._positions(self.grid), self._known.sd.copy()
        measured = np.searchsorted(self.grid, np.array(self._energy) - self.settings.step_ev / 2)
        wanted[np.minimum(measured, len(wanted) - 1)] = 0.0

        def leave(position: float) -> None:
            """Reduce the wish for points near a position."""
            wanted[:] *= -np.expm1(-((positions - position) ** 2) / 2)

        for position in self._positions(np.array(self._failed)):
            leave(position)
        chosen: list[int] = []
        for _ in range(min(count, left)):
            chosen.append(int(np.argmax(wanted)))
            leave(positions[chosen[-1]])
        return np.sort(self.grid[chosen])

    def ingest(self, energy: Array, mu: Array) -> None:
        """Learn from measured points, given in the order of measurement.

        Parameters
        ----------
        energy : ndarray, (N,)
            Energies, eV.
        mu : ndarray, (N,)
            Absorption, ln(I0/It) or If/I0. Points whose energy or absorption is not finite count as measured but are
            not used.
        """
        for e, m in zip(energy, mu, strict=True):
            self._tried += 1
            if np.isfinite(e) and np.isfinite(m):
                self._energy.append(float(e))
                self._mu.append(float(m))
                self._good.append(True)
                self._settle_doubt(self.points - 1)
            elif np.isfinite(e):
                self._failed.append(float(e))
        if self.points >= _LEAST_POINTS:
            self._learn()

    def spectrum(self) -> KnownSpectrum:
        """Return the spectrum inferred so far.

        Raises
        ------
        ValueError
            Too few points were measured.
        """
        if self._known is None:
            raise ValueError(f"found {self.points} measured points, expected at least {_LEAST_POINTS}")
        return self._known

    def along(self, values: Array) -> Array | None:
        """Return another signal of the same points, such as the absorption of a foil, on the grid, (G,).

        Parameters
        ----------
        values : ndarray, (points,)
            Values in the order of measurement; those that are not finite are not used.

        Returns
        -------
        ndarray or None
            None if too few values are finite.
        """
        known = np.isfinite(values) & self._good
        if known.sum() < _LEAST_POINTS:
            return None
        return self._fit(self._sizes, values, known).predict(self._at(self.grid))

    def done(self) -> str:
        """Return why the scan may end; empty if it should continue."""
        if self._tried >= self.settings.max_points:
            lost = self._tried - self.points
            return f"{self._tried} points are measured" + (f", {lost} without a value" if lost else "")
        if self._known is None or len(self._gaps()) or not self._known.error <= self.settings.error:
            return ""
        found = self.descriptor_sd() if self.settings.descriptor_errors else {}
        if unknown := self.settings.descriptor_errors.keys() - found.keys():
            raise ValueError(f"found descriptor_errors of {', '.join(unknown)}, expected: {', '.join(found)}")
        if any(not found[name] <= limit for name, limit in self.settings.descriptor_errors.items()):
            return ""
        return f"the spectrum is known to {self._known.error:.4f} of the edge step after {self.points} points"

    def descriptor_sd(self) -> dict[str, float]:
        """Return the standard deviations of descriptors over random spectra from the posterior of the process."""
        known = self.spectrum()
        assert self._describe is not None
        process = self._process
        draws = process.sample_y(self._at(known.energy), _DRAWS, random_state=0).T
        ratio = known.sd / np.maximum(self._plain_sd, 1e-12)
        draws = known.mu + (draws - draws.mean(0)) * ratio
        values = self._describe(known.energy, draws)
        return {name: float(np.std(value, ddof=1)) for name, value in values.items()}

    def _first(self, most: int) -> Array:
        positions = self._positions(self.grid)
        count = min(round(positions[-1] / _FIRST_LENGTHS) + 1, most)
        return self.grid[np.unique(np.searchsorted(positions, np.linspace(0, positions[-1], count)))]

    def _gaps(self) -> Array:
        """Return energies that must be measured, (N,), so that no narrow peak before or at the edge is missed."""
        tried = np.sort(np.concatenate([self._energy, self._failed]))
        start, stop = self._e0_ev + _DENSE_EV[0], self._e0_ev + _DENSE_EV[1]
        inside = (tried[1:] > start) & (tried[:-1] < stop) & (np.diff(tried) > _WIDEST_GAP_EV)
        return ((tried[1:] + tried[:-1]) / 2)[inside]

    def _positions(self, energy: Array) -> Array:
        """Return energies on the axis on which the kernel's correlation length is constant."""
        return XANESKernel(self.grid, self._e0_ev, 1.0, 1.0).positions(energy)

    def _at(self, energy: Array) -> Array:
        """Return energies paired with the time of the newest point, (N, 2)."""
        return np.stack([energy, np.full(len(energy), float(self.points))], axis=1)

    def _doubtful(self) -> int | None:
        """Return the point most unlike its neighbours if its energy should be measured again; otherwise None."""
        unlike = {k: z for k, z in self._unlike.items() if z > _DOUBT and k not in self._doubted}
        return max(unlike, key=lambda k: unlike[k], default=None)

    def _settle_doubt(self, again: int) -> None:
        """If a repeated energy's two points contradict each other, discard the one unlike its neighbours."""
        near = [k for k in self._doubted if abs(self._energy[k] - self._energy[again]) < self.settings.step_ev / 2]
        noise = float(_NOISES[self._sizes[1]] * np.ptp(self._mu))
        for point in near:
            pair, others = [point, again], np.array(self._good)
            if not others[pair].all() or abs(self._mu[point] - self._mu[again]) < _DOUBT * np.sqrt(2) * noise:
                continue
            others[pair] = False
            X = np.stack([np.array(self._energy)[pair], np.array(pair) + 1.0], axis=1)
            told = self._fit(self._sizes, np.array(self._mu), others).predict(X)
            self._good[pair[int(np.argmax(np.abs(np.array(self._mu)[pair] - told)))]] = False

    def _fit(self, sizes: tuple[int, int, int], values: Array, known: NDArray[np.bool_]) -> Any:
        """Return a process fitted to the ``known`` ones of the values, (points,)."""
        kernel, variance = self._covariance(sizes, values[known])
        regressor: Any = GaussianProcessRegressor  # scikit-learn has no types
        return regressor(kernel, alpha=variance, optimizer=None).fit(self._points()[known], values[known])

    def _covariance(self, sizes: tuple[int, int, int], values: Array) -> tuple[XANESKernel, float]:
        """Return the covariance and the variance of the noise, scaled to the range of the values."""
        unit = float(np.ptp(values)) or 1.0
        structure, noise, drift = (float(c[k]) for c, k in zip(_CANDIDATES, sizes, strict=True))
        kernel = XANESKernel(self.grid, self._e0_ev, structure * unit, _TREND * unit, drift * unit)
        return kernel, (noise * unit) ** 2

    def _points(self) -> Array:
        """Return energies and times of the points, (points, 2)."""
        return np.stack([self._energy, np.arange(1.0, self.points + 1)], axis=1)

    def _learn(self) -> None:
        """Fit the process; each call tries one neighbouring candidate per size, which is quick."""
        step = 1 if self.points % 2 else -1
        tried = {self._sizes}
        for moved in np.eye(3, dtype=int) * step + self._sizes:
            structure, noise, drift = (min(max(k, 0), len(c) - 1) for k, c in zip(moved, _CANDIDATES, strict=True))
            tried.add((structure, noise, drift))
        values, known = np.array(self._mu), np.array(self._good)
        X, y = self._points()[known], values[known]

        def plausibility(sizes: tuple[int, int, int]) -> float:
            kernel, variance = self._covariance(sizes, y)
            return log_likelihood(kernel, X, y, variance)

        self._sizes = max(tried, key=plausibility)
        self._process = self._fit(self._sizes, values, known)
        mu, sd = self._process.predict(self._at(self.grid), return_std=True)
        self._plain_sd = sd
        self._e0_ev, step_height = self._edge(mu)
        self._known = KnownSpectrum(self.grid, mu, sd * self._surprise(), self._e0_ev, step_height)

    def _edge(self, mu: Array) -> tuple[float, float]:
        """Return E0, at half the height of the edge, and the edge step; without an edge, the last E0 and NaN."""
        from_edge = self.grid - self.edge_ev
        before = from_edge < max(-_BESIDE_EDGE_EV, from_edge[0] + _LEAST_LINE_EV)
        behind = from_edge > _BESIDE_EDGE_EV
        low, high = (np.polyval(np.polyfit(from_edge[part], mu[part], 1), from_edge) for part in (before, behind))
        step = high - low
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = (mu - low) / step > 0.5
        near = np.abs(from_edge) < _E0_WINDOW_EV
        risen = np.flatnonzero(crossed & near & (step > 0))
        rises = len(risen) > 0 and not crossed[near][0]
        return (float(self.grid[risen[0]]), float(step[risen[0]])) if rises else (self._e0_ev, np.nan)

    def _surprise(self) -> Array:
        """Return the ratio of actual to expected residuals of left-out points near each energy, (G,)."""
        process = self._process
        good = np.flatnonzero(self._good)
        inverse = cho_solve((process.L_, True), np.eye(len(good)))
        z2 = process.alpha_.ravel() ** 2 / np.diag(inverse)
        self._unlike = {int(k): float(z) for k, z in zip(good, np.sqrt(z2), strict=True)}
        distance = self._positions(self.grid)[:, None] - self._positions(np.array(self._energy)[good])
        weight = np.exp(-0.5 * (distance / _NEAR_LENGTHS) ** 2)
        ratio = np.sqrt(np.maximum((weight @ z2) / weight.sum(1), _LEAST_RATIO**2))
        # Far from any measured point, the others cannot show that the spectrum is smooth.
        return np.where(np.abs(distance).min(1) > 1, np.maximum(ratio, 1.0), ratio)
