"""Learns a smooth function of a few features from few values, with its uncertainty, and expected gains."""

from typing import Any

import numpy as np
from scipy.special import ndtr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from ..types import Array
from .kernel import log_likelihood

SHORTEST = 0.15
"""Shortest correlation length along a feature, relative to the range of that feature."""
_LENGTHS = np.geomspace(SHORTEST, 4.0, 8)
"""Candidates for the correlation length along a feature, relative to the range of that feature."""
_AMPLITUDES = np.geomspace(0.5, 4.0, 4)
"""Candidates for the standard deviation of the function, relative to that of the values."""
_SCATTERS = np.geomspace(0.01, 0.5, 6)
"""Candidates for the scatter of values about the function beyond their known errors, in the same unit."""
_EXPECTED_LENGTH, _LENGTH_LOG_SD = 0.7, 0.75
"""Log-normal prior of the lengths, which few values hardly determine."""
_PASSES = 2
"""Number of rounds in which each size is chosen while the others are held."""


class SmoothFunction:
    """A Gaussian process with a Matérn covariance of order 5/2, with one length per feature.

    Parameters
    ----------
    features : ndarray, (N, F)
        Features relative to their ranges.
    values : ndarray, (N,)
    errors : ndarray, (N,)
        Standard errors of the values.
    least : float
        Spread of the values, in their unit, below which they do not show how much the function varies; its standard
        deviation is then taken to be at least this.
    """

    def __init__(self, features: Array, values: Array, errors: Array, least: float = 0.0) -> None:
        self._features, self._level = features, float(np.mean(values))
        self._unit = max(float(np.std(values)), least) or 1.0
        self._values, self._errors = (values - self._level) / self._unit, errors / self._unit
        choices = [_AMPLITUDES, _SCATTERS, *[_LENGTHS] * features.shape[1]]
        self._sizes = [len(choice) // 2 for choice in choices]
        self._choices = choices
        self._choose_sizes()
        self._process = self._fit()

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return the expected values (M,) at features (M, F), and the standard deviations of new values there."""
        mean, sd = self._process.predict(features, return_std=True)
        return mean * self._unit + self._level, sd * self._unit

    def believing(self, features: Array) -> "SmoothFunction":
        """Return the function after its own expected values at features (M, F) were added as data."""
        mean = self._process.predict(features)
        other = object.__new__(SmoothFunction)
        other.__dict__.update(self.__dict__)
        other._features = np.concatenate([self._features, features])
        other._values = np.concatenate([self._values, mean])
        other._errors = np.concatenate([self._errors, np.zeros(len(mean))])
        other._process = other._fit()
        return other

    def _choose_sizes(self) -> None:
        """Choose one size after another by the marginal likelihood and the prior of the lengths."""
        best = self._plausibility(self._sizes)
        for _ in range(_PASSES):
            for k, choice in enumerate(self._choices):
                for index in range(len(choice)):
                    sizes = [*self._sizes[:k], index, *self._sizes[k + 1 :]]
                    if (found := self._plausibility(sizes)) > best:
                        best, self._sizes = found, sizes

    def _plausibility(self, sizes: list[int]) -> float:
        lengths = np.log(_LENGTHS[sizes[2:]] / _EXPECTED_LENGTH) / _LENGTH_LOG_SD
        told = log_likelihood(self._kernel(sizes), self._features, self._values, self._variance())
        return told - float(lengths @ lengths) / 2

    def _fit(self) -> Any:  # scikit-learn has no types
        regressor: Any = GaussianProcessRegressor
        process = regressor(self._kernel(self._sizes), alpha=self._variance(), optimizer=None)
        return process.fit(self._features, self._values)

    def _kernel(self, sizes: list[int]) -> Any:
        amplitude, scatter, *lengths = (choice[k] for choice, k in zip(self._choices, sizes, strict=True))
        matern: Any = Matern
        return ConstantKernel(amplitude**2) * matern(np.array(lengths), nu=2.5) + WhiteKernel(scatter**2)

    def _variance(self) -> Array:
        return self._errors**2 + 1e-10


def gain_nearer(mean: Array, sd: Array, target: float, best: float) -> Array:
    """Return the expected gain (N,) in the distance from a target, E[max(best − |y − target|, 0)].

    Parameters
    ----------
    mean, sd : ndarray, (N,)
            Mean and standard deviation of the Gaussian y.
    best : float
        Smallest distance so far.

    Examples
    --------
    >>> gain_nearer(np.array([3.4, 9.0]), np.array([0.0, 0.1]), 3.4, 0.2).round(3).tolist()
    [0.2, 0.0]
    """
    off = mean - target
    return gain_above(off, sd, -best) - 2 * gain_above(off, sd, 0.0) + gain_above(off, sd, best)


def gain_above(mean: Array, sd: Array, best: float) -> Array:
    """Return the expected gain (N,) above a level, E[max(y − best, 0)], of a Gaussian y."""
    off = mean - best
    z = off / np.maximum(sd, 1e-12)
    return off * ndtr(z) + sd * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def probability_between(mean: Array, sd: Array, low: float | None, high: float | None) -> Array:
    """Return the probability (N,) that a Gaussian y lies between two limits; None: no limit."""
    sd = np.maximum(sd, 1e-12)
    below = ndtr((low - mean) / sd) if low is not None else 0.0
    above = ndtr((mean - high) / sd) if high is not None else 0.0
    return np.maximum(1 - below - above + 0 * mean, 0.0)
