"""The energies a model reads, and conservative resampling onto them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .array import Array


@dataclass(frozen=True)
class Grid:
    """A uniform energy grid in eV relative to the element's tabulated edge, on FEFF's energy scale.

    Relative to the tabulated edge and never to a spectrum's own E0, which would erase the chemical shift.
    """

    start_ev: float
    stop_ev: float
    """Last grid energy; the grid ends where the shortest row of the training data does."""
    step_ev: float
    foot_ev: tuple[float, float]
    """Window below the edge whose mean becomes 0."""
    anchor_ev: tuple[float, float]
    """Window above the edge whose mean becomes 1."""

    def __post_init__(self) -> None:
        for name, (lo, hi) in (("foot_ev", self.foot_ev), ("anchor_ev", self.anchor_ev)):
            if not self.start_ev <= lo < hi <= self.stop_ev:
                raise ValueError(f"{name} {lo:g}…{hi:g} eV is not inside {self.start_ev:g}…{self.stop_ev:g} eV")

    @cached_property
    def energy(self) -> Array:
        """(G,) eV relative to the tabulated edge."""
        points = round((self.stop_ev - self.start_ev) / self.step_ev) + 1
        return self.start_ev + self.step_ev * np.arange(points, dtype=np.float64)

    @cached_property
    def bounds(self) -> Array:
        """(G + 1,) bin boundaries, eV: each grid energy stands for the mean over its bin."""
        return np.append(self.energy - self.step_ev / 2, self.energy[-1] + self.step_ev / 2)

    def __len__(self) -> int:
        return len(self.energy)

    def levels(self, mu: Array) -> tuple[Array, Array]:
        """Means of (..., G) spectra over ``foot_ev`` and over ``anchor_ev``, each (...,)."""
        return mu[..., self.window(self.foot_ev)].mean(-1), mu[..., self.window(self.anchor_ev)].mean(-1)

    def footing(self, mu: Array) -> Array:
        """Put spectra on the footing that theory and measurement share.

        The mean over ``foot_ev`` becomes 0 and the mean over ``anchor_ev`` becomes 1. FEFF divides by its
        atomic background, a beamline by a fitted post-edge line: both leave a scale of a few per cent and a
        small level below the edge, and both lose them here in the same way.

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
        """The grid points inside a window in eV, both ends included."""
        lo, hi = np.searchsorted(self.energy, [window[0] - 1e-9, window[1] + 1e-9])
        return slice(int(lo), int(hi))


def bin_means(energy: Array, mu: Array, bounds: Array) -> Array:
    """Mean of piecewise-linear spectra over consecutive energy bins.

    The integral over each bin is exact, so area is conserved where bins are coarser than the data, and
    nothing aliases. Outside the data the first and last values continue.

    Parameters
    ----------
    energy : (M,), (1, M) or (N, M) eV, strictly rising along the last axis
    mu : (N, M) dimensionless
    bounds : (G + 1,) or (N, G + 1) eV, rising: one set of bins for all spectra, or one each

    Returns
    -------
    (N, G) bin means
    """
    energy, bounds = np.atleast_2d(energy), np.atleast_2d(bounds)
    if len(energy) == len(bounds) == 1:
        return _of_one_axis(energy[0], mu, bounds[0])
    if len(energy) == 1 and energy.shape[1] > 2:  # what no bin touches costs nothing
        a, b = energy[0].searchsorted((bounds[:, 0].min(), bounds[:, -1].max()))
        touched = slice(max(min(a - 1, energy.shape[1] - 2), 0), max(b + 1, 2))
        energy, mu = energy[:, touched], mu[:, touched]
    right = right_index(energy, bounds)
    left = right - 1
    n = np.arange(len(mu))[:, None]
    row = n if len(energy) > 1 else 0
    first, last = energy[:, :1], energy[:, -1:]
    start = energy[row, left]
    width = energy[row, right] - start
    beyond = bounds[:, 0].min() < first.max() or bounds[:, -1].max() > last.min()
    d = (np.minimum(np.maximum(bounds, first), last) if beyond else bounds) - start
    area, low = _area(energy, mu), mu[n, left]
    integral = area[n, left] + d * (low + (mu[n, right] - low) * (d / width / 2))
    if beyond:
        integral += mu[:, :1] * np.minimum(bounds - first, 0) + mu[:, -1:] * np.maximum(bounds - last, 0)
    return (integral[:, 1:] - integral[:, :-1]) / (bounds[:, 1:] - bounds[:, :-1])


def _of_one_axis(energy: Array, mu: Array, bounds: Array) -> Array:
    """:func:`bin_means` of energies (M,) and bounds (G + 1,) that all share: numpy takes half the time."""
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
    """Integral of piecewise-linear spectra up to each point, (N, M)."""
    area = np.empty(mu.shape)
    area[:, 0] = 0.0
    np.cumsum((energy[..., 1:] - energy[..., :-1]) * (mu[:, 1:] + mu[:, :-1]) / 2, axis=1, out=area[:, 1:])
    return area


def right_index(energy: Array, x: Array) -> NDArray[np.intp]:
    """Index of the right end of the data interval that holds each x, kept inside the data; (1 or N, …) both."""
    points = energy.shape[1]
    if len(energy) == 1:
        found = energy[0].searchsorted(x.ravel()).reshape(x.shape)
        return np.minimum(np.maximum(found, 1), points - 1)  # np.clip takes its time
    # One search for all rows: each row is moved beyond the one before it.
    x = np.broadcast_to(x, (len(energy), x.shape[1]))
    base = min(energy.min(), x.min())
    apart = np.arange(len(energy))[:, None] * (max(energy.max(), x.max()) - base + 1)
    found = np.searchsorted((energy - base + apart).ravel(), (x - base + apart).ravel()).reshape(x.shape)
    return np.clip(found - np.arange(len(energy))[:, None] * points, 1, points - 1)
