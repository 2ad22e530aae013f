"""The covariance of XANES: dense structure at the edge and ever smoother structure above it."""

from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from ..types import Array, InputError

try:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Kernel
except ModuleNotFoundError:
    raise InputError("choosing energies and samples needs scikit-learn: pip install 'xas-agent[adaptive]'") from None

__all__ = ["GaussianProcessRegressor", "XANESKernel", "lengths", "log_likelihood"]

_PRE_EDGE_EV = (-45.0, -20.0, -14.0)
"""Energies from E0, eV, between which the length falls to that of the edge; pre-edge peaks begin above the last."""
_PRE_EDGE_LENGTH_EV = (15.0, 6.0)
"""Lengths at the first two of these energies, eV."""
_EDGE_LENGTH_EV = 1.6
"""Length of structures at the edge, eV: the width of the core hole of 3d elements and of the monochromator."""
_LENGTH_PER_ROOT_EV = 0.85
"""Growth of the length with √(E − E0), √eV. EXAFS oscillates as sin(2kR) with k = √(0.2625 (E − E0)). A first
shell at R = 2.3 Å, of length 1/2R in k, thus has a length of 0.85 √(E − E0) in energy."""
_STEP_EV = 2.0
"""Half-width of the arctangent that represents the edge in the trend, eV."""
_FAR_EV = 100.0
"""Energy scale of the slopes in the trend, eV."""


def lengths(from_e0: Array) -> Array:
    """Return the distances (N,), eV, over which a spectrum changes at energies (N,) from E0, eV."""
    below = np.interp(from_e0, _PRE_EDGE_EV, (*_PRE_EDGE_LENGTH_EV, _EDGE_LENGTH_EV))
    above = np.maximum(_EDGE_LENGTH_EV, _LENGTH_PER_ROOT_EV * np.sqrt(np.maximum(from_e0, 0.0)))
    return np.where(from_e0 < 0, below, above)


def warped(grid: Array, e0_ev: float) -> Array:
    """Return the distances (N,) of rising energies ``grid`` (N,) from the first one, in correlation lengths."""
    density = 1 / lengths(grid - e0_ev)
    return np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])


def log_likelihood(kernel: Any, X: Array, values: Array, variance: Array | float) -> float:
    """Return the logarithm of the marginal likelihood of values (N,) at ``X`` (N, F) with a covariance function.

    The value is that of scikit-learn's regressor (Rasmussen and Williams 2006, algorithm 2.1). The regressor's fit
    takes several times as long: it computes the covariance twice, and checks and copies its input.

    Parameters
    ----------
    kernel : kernel of scikit-learn
    variance : variances of the values about the function, (N,), or one for all

    Raises
    ------
    numpy.linalg.LinAlgError
        The covariance is not positive definite.
    """
    covariance = kernel(X)
    covariance[np.diag_indices_from(covariance)] += variance
    root = cholesky(covariance, lower=True, check_finite=False)
    white = solve_triangular(root, values, lower=True, check_finite=False)
    return float(-(white @ white) / 2 - np.log(np.diag(root)).sum() - len(values) / 2 * np.log(2 * np.pi))


class XANESKernel(Kernel):
    """Covariance of the absorption at two (energy, time) pairs, for scikit-learn.

    It is the sum of three parts: a trend of vague size (level and slope before and behind an edge), structures with
    the Matérn covariance of order 7/2 whose length follows :func:`lengths`, and a drift, a random walk in time.

    Parameters
    ----------
    grid : ndarray, (N,)
            Rising energies that cover all requested energies, eV.
    e0_ev : float
        Energy of the edge, eV.
    structure, trend : float
        Standard deviations of the structures and of the trend's coefficients, in the unit of the absorption.
    drift : float
        Standard deviation of the drift per √point, in the same unit.
    """

    def __init__(self, grid: Array, e0_ev: float, structure: float, trend: float, drift: float = 0.0) -> None:
        self.grid, self.e0_ev, self.structure, self.trend, self.drift = grid, e0_ev, structure, trend, drift
        self._warped = warped(grid, e0_ev)

    def positions(self, energy: Array) -> Array:
        """Return the positions (M,) of energies (M,) on the axis of lengths."""
        return np.interp(energy, self.grid, self._warped)

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        Y = X if Y is None else Y
        distance = np.sqrt(7) * np.abs(self.positions(X[:, 0])[:, None] - self.positions(Y[:, 0]))
        covariance = self.structure**2 * (1 + distance + 0.4 * distance**2 + distance**3 / 15) * np.exp(-distance)
        covariance += self.trend**2 * self._trend(X[:, 0]) @ self._trend(Y[:, 0]).T
        if self.drift:
            covariance += self.drift**2 * np.minimum(X[:, 1:], Y[:, 1])
        return (covariance, np.empty((*covariance.shape, 0))) if eval_gradient else covariance

    def diag(self, X: Array) -> Any:
        """Return the variances (M,) at ``X`` (M, 2)."""
        trend = self.trend**2 * (self._trend(X[:, 0]) ** 2).sum(1)
        return self.structure**2 + trend + self.drift**2 * X[:, 1]

    def is_stationary(self) -> Any:
        """Return False: the length depends on the energy."""
        return False

    def _trend(self, energy: Array) -> Array:
        far = (energy - self.e0_ev) / _FAR_EV
        step = 0.5 + np.arctan((energy - self.e0_ev) / _STEP_EV) / np.pi
        return np.stack([np.ones_like(far), far, step, step * far], axis=1)
