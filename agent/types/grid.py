"""The energies of a model, and conservative resampling onto them."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .array import Array

Floating = TypeVar("Floating", bound=np.floating)


@dataclass(frozen=True)
class Grid:
    """A uniform energy grid in eV relative to the element's tabulated edge, on FEFF's energy scale.

    Energies relative to a spectrum's own E0 would erase the chemical shift.
    """

    start_ev: float
    stop_ev: float
    """Last grid energy, eV; equal to the last energy of the shortest training spectrum."""
    step_ev: float
    foot_ev: tuple[float, float]
    """Window below the edge, eV, whose mean becomes 0."""
    anchor_ev: tuple[float, float]
    """Window above the edge, eV, whose mean becomes 1."""
    short_stop_ev: float | None = None
    """Energy, eV, up to which every spectrum must be known. A spectrum shorter than the grid is NaN beyond its end,
    and the footing continues its last value to the end of ``anchor_ev``. None: the whole grid must be known."""

    def __post_init__(self) -> None:
        for name, (lo, hi) in (("foot_ev", self.foot_ev), ("anchor_ev", self.anchor_ev)):
            if not self.start_ev <= lo < hi <= self.stop_ev:
                raise ValueError(f"{name} {lo:g}…{hi:g} eV is not inside {self.start_ev:g}…{self.stop_ev:g} eV")
        if self.short_stop_ev is not None and not self.anchor_ev[0] < self.short_stop_ev <= self.stop_ev:
            lowest, stop = self.anchor_ev[0], self.stop_ev
            raise ValueError(f"short_stop_ev {self.short_stop_ev:g} eV is not above {lowest:g} and up to {stop:g} eV")

    @cached_property
    def energy(self) -> Array:
        """(G,) energies relative to the tabulated edge, eV."""
        points = round((self.stop_ev - self.start_ev) / self.step_ev) + 1
        return self.start_ev + self.step_ev * np.arange(points, dtype=np.float64)

    @cached_property
    def bounds(self) -> Array:
        """(G + 1,) bin boundaries, eV; a spectrum on the grid holds its means over the bins."""
        return np.append(self.energy - self.step_ev / 2, self.energy[-1] + self.step_ev / 2)

    @cached_property
    def _foot_and_anchor(self) -> tuple[slice, slice]:
        return self.window(self.foot_ev), self.window(self.anchor_ev)

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def short_points(self) -> int | None:
        """Number of leading points that every spectrum must have; None if all are required."""
        return None if self.short_stop_ev is None else int(self.points_to(self.short_stop_ev))

    @property
    def filled_to_ev(self) -> float:
        """Energy up to which a shorter spectrum is continued, eV: that of the footing, or the end of the grid."""
        return self.stop_ev if self.short_stop_ev is None else self.anchor_ev[1]

    def points_to(self, stop_ev: float | Array) -> NDArray[np.intp]:
        """Return the number of points up to the energies ``stop_ev``, of any shape."""
        return np.searchsorted(self.energy, np.add(stop_ev, 1e-9), side="right")

    def cut(self, mu: Array, stop_ev: Array) -> Array:
        """Return spectra (N, G), with NaN beyond their ends ``stop_ev`` (N,) if the grid allows short spectra."""
        if self.short_stop_ev is None:
            return mu
        return np.where(np.arange(len(self)) < self.points_to(stop_ev)[:, None], mu, np.nan)

    def levels(self, mu: Array) -> tuple[Array, Array]:
        """Return the means of spectra, (..., G), over ``foot_ev`` and over ``anchor_ev``, each (...,)."""
        foot, anchor = self._foot_and_anchor
        return mu[..., foot].mean(-1), continued(mu[..., anchor]).mean(-1)

    def footing(self, mu: Array) -> Array:
        """Put spectra on the common footing of theory and measurement.

        The mean over ``foot_ev`` becomes 0 and the mean over ``anchor_ev`` becomes 1. FEFF divides by its atomic
        background, a beamline by a fitted post-edge curve. Both leave a scale error of a few per cent and a small
        level below the edge; the footing removes both in the same way.

        Parameters
        ----------
        mu : (..., G) absorption on this grid, dimensionless

        Returns
        -------
        (..., G) absorption on the common footing
        """
        foot, anchor = self.levels(mu)
        return (mu - foot[..., None]) / (anchor - foot)[..., None]

    def window(self, window: tuple[float, float]) -> slice:
        """Return the slice of the grid points inside a window, eV, ends included."""
        lo, hi = np.searchsorted(self.energy, [window[0] - 1e-9, window[1] + 1e-9])
        return slice(int(lo), int(hi))


def continued(mu: NDArray[Floating]) -> NDArray[Floating]:
    """Return spectra (..., G) whose unknown ends, NaN, are filled with the last known value."""
    known = ~np.isnan(mu)
    if known.all():
        return mu
    last = np.maximum(known.sum(-1, keepdims=True) - 1, 0)
    return np.where(known, mu, np.take_along_axis(mu, last, -1))


def bin_means(energy: Array, mu: Array, bounds: Array) -> Array:
    """Average piecewise-linear spectra over consecutive energy bins.

    The integral over each bin is exact. Bins coarser than the data therefore conserve area and do not alias. Outside
    the data, spectra continue with their first and last values.

    Parameters
    ----------
    energy : (M,), (1, M) or (N, M) energies, eV, strictly rising along the last axis
    mu : (N, M) absorption, dimensionless
    bounds : (G + 1,) or (N, G + 1) bin boundaries, eV, rising: the same bins for all spectra, or separate ones

    Returns
    -------
    (N, G) bin means
    """
    energy, bounds = np.atleast_2d(energy), np.atleast_2d(bounds)
    if len(energy) == len(bounds) == 1:
        return _bin_means_of_one_axis(energy[0], mu, bounds[0])
    if len(energy) == 1 and energy.shape[1] > 2:  # for speed, points that no bin touches are left out
        a, b = energy[0].searchsorted((bounds[:, 0].min(), bounds[:, -1].max()))
        touched = slice(max(min(a - 1, energy.shape[1] - 2), 0), max(b + 1, 2))
        energy, mu = energy[:, touched], mu[:, touched]
    left = right_index(energy, bounds) - 1
    at = left + mu.shape[1] * np.arange(len(mu))[:, None]  # in the flattened array, where ``take`` is fastest
    on_axis = left if len(energy) == 1 else at
    start = energy.take(on_axis)
    width = energy.take(on_axis + 1) - start
    first, last = energy[:, :1], energy[:, -1:]
    beyond = bounds[:, 0].min() < first.max() or bounds[:, -1].max() > last.min()
    d = (np.minimum(np.maximum(bounds, first), last) if beyond else bounds) - start
    width = np.divide(d, width, out=width)
    width *= 0.5
    area, mu = _area(energy, mu), np.ascontiguousarray(mu)
    low = mu.take(at)
    integral = mu.take(at + 1)
    integral -= low
    integral *= width
    integral += low
    integral *= d
    integral += area.take(at)
    if beyond:
        integral += mu[:, :1] * np.minimum(bounds - first, 0) + mu[:, -1:] * np.maximum(bounds - last, 0)
    return (integral[:, 1:] - integral[:, :-1]) / (bounds[:, 1:] - bounds[:, :-1])


def _bin_means_of_one_axis(energy: Array, mu: Array, bounds: Array) -> Array:
    """Return :func:`bin_means` for shared energies, (M,), and bounds, (G + 1,), in half the time."""
    right = energy.searchsorted(bounds)
    begin = max(min(int(right[0]) - 1, len(energy) - 2), 0)
    touched = slice(begin, max(int(right[-1]) + 1, 2))
    energy, mu = energy[touched], mu[:, touched]
    right = np.minimum(np.maximum(right - begin, 1), len(energy) - 1)
    left = right - 1
    start = energy.take(left)
    width = energy.take(right) - start
    first, last = energy[0], energy[-1]
    beyond = bounds[0] < first or bounds[-1] > last
    d = (np.minimum(np.maximum(bounds, first), last) if beyond else bounds) - start
    low = mu.take(left, axis=1)
    integral = _area(energy, mu).take(left, axis=1) + d * (low + (mu.take(right, axis=1) - low) * (d / width / 2))
    if beyond:
        integral += mu[:, :1] * np.minimum(bounds - first, 0) + mu[:, -1:] * np.maximum(bounds - last, 0)
    return (integral[:, 1:] - integral[:, :-1]) / (bounds[1:] - bounds[:-1])


def _area(energy: Array, mu: Array) -> Array:
    """Return the integrals of piecewise-linear spectra up to each point, (N, M)."""
    area = np.empty(mu.shape)
    area[:, 0] = 0.0
    sums = mu[:, 1:] + mu[:, :-1]
    sums *= (energy[..., 1:] - energy[..., :-1]) / 2
    np.cumsum(sums, axis=1, out=area[:, 1:])
    return area


def right_index(energy: Array, x: Array) -> NDArray[np.intp]:
    """Find the first data point at or above each position.

    Parameters
    ----------
    energy : (1, M) or (N, M) energies, eV, strictly rising along the last axis
    x : (1, K) or (N, K) positions, eV

    Returns
    -------
    (1, K) or (N, K) indices from 1 to M − 1: the right end of the data interval that holds the position; for
    positions outside the data, that of the first or last interval
    """
    points = energy.shape[1]
    if len(energy) == 1:
        right = energy[0].searchsorted(x.ravel()).reshape(x.shape)
        return np.minimum(np.maximum(right, 1), points - 1)  # faster than np.clip
    # One search serves all rows, since each row is shifted beyond the row before it.
    x = np.broadcast_to(x, (len(energy), x.shape[1]))
    base = min(energy.min(), x.min())
    shift = np.arange(len(energy))[:, None] * (max(energy.max(), x.max()) - base + 1)
    right = np.searchsorted((energy - base + shift).ravel(), (x - base + shift).ravel()).reshape(x.shape)
    return np.clip(right - np.arange(len(energy))[:, None] * points, 1, points - 1)
