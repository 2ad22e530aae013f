"""Predicts each point of a spectrum from its neighbours in energy by ordinary kriging.

The covariance function is a Lorentzian of the energy difference, the shape of lines broadened by core hole and
instrument. Its length grows with the photoelectron's wave number above the edge, because interatomic distances limit
how fast EXAFS oscillates. The covariance gives the error of a prediction for sparse points on a steep spectrum, so
that a sharp white line or a pre-edge peak is not taken for a glitch.

Kriging: J.-P. Chilès, P. Delfiner, Geostatistics (Wiley 2012), ch. 3.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..types import Array

Mask = NDArray[np.bool_]

NEIGHBOUR_OFFSETS = np.array([-4, -3, -2, -1, 1, 2, 3, 4])
_WITHIN_TWO_POINTS = (2, 3, 4, 5)  # indices in NEIGHBOUR_OFFSETS of the offsets −2, −1, 1 and 2
# Neighbours that a stencil leaves out: without the glitch beside it, a good point is predicted well.
_LEFT_OUT_BY_STENCIL = (
    (),
    *((k,) for k in _WITHIN_TWO_POINTS),
    *combinations(_WITHIN_TWO_POINTS, 2),
    _WITHIN_TWO_POINTS,
)
# Ratios of the variance of the noise to that of the structure. Weights are computed for these values only.
NUGGETS = np.array([1e-5, 1e-3, 1e-1])
MAX_NUGGET = 1e3
_LEFT_OUT_NUGGET = 1e6  # removes a neighbour from the system of equations
_MIN_ERROR_VARIANCE = 1e-4  # error variance of a prediction, relative to the variance of the structure
_MIN_WEIGHT_SUM = 0.5  # the weights add up to 1 unless there are no neighbours
_NARROW_FEATURES_EV = (-20.0, 20.0)  # relative to E0, which may be that of a pre-edge peak
_NO_FEATURES_BELOW_EV = -15.0  # relative to E0; below it the covariance length grows by 0.5 eV per eV
_EXAFS_FROM_EV = 10.0  # relative to E0; above it the covariance length grows with the wave number
_EV_PER_K2 = 3.81  # ħ²/2m, eV Å²
_NOISE_ROWS = 32  # number of simulated spectra of pure noise, enough for a median over their points


@dataclass(frozen=True)
class Predictor:
    """Weights that predict each point from its neighbours on one energy axis, for S stencils and L nuggets."""

    relative: Array
    """(M,) energies relative to E0, eV."""
    position: Array
    """(M,) energies in units of the covariance length."""
    index: NDArray[np.intp]
    """(M, 8) indices of the neighbours."""
    inside: Mask
    """(M, 8) whether the neighbour lies inside the scan."""
    weight: Array
    """(L, S, M, 8) weights of the neighbours."""
    spread: Array
    """(L, S, M) variance of the prediction error per variance of the noise."""
    error: Array
    """(L, S, M) variance of the prediction error per variance of the structure."""
    narrow: Mask
    """(M,) whether features may be as narrow as core hole and instrument allow."""
    least_noise_residual: float
    """Median, for pure noise, of the smallest residual over all stencils, in σ."""

    def residuals(self, mu: Array, weight: Array) -> Array:
        """Return the differences, (K, N, M), of spectra (N, M) from their predictions by K ``weight``, (K, M, 8)."""
        return _residuals(mu, self.index, weight)


@lru_cache(maxsize=8)
def predictor(energy_bytes: bytes, e0: float, narrowest_ev: float) -> Predictor:
    """Return the weights for one energy axis; they are cached for the next frames on it.

    Parameters
    ----------
    energy_bytes : the float64 energies, eV, as hashable bytes
    e0 : E0, eV, on the same scale
    narrowest_ev : FWHM of the narrowest real feature, eV
    """
    energy = np.frombuffer(energy_bytes)
    relative = energy - e0
    length = _covariance_length(relative, narrowest_ev)
    position = np.concatenate([[0.0], np.cumsum(np.diff(energy) * 2 / (length[1:] + length[:-1]))])
    index = np.arange(len(energy))[:, None] + NEIGHBOUR_OFFSETS
    inside = (index >= 0) & (index < len(energy))
    index = np.clip(index, 0, len(energy) - 1)
    used = np.repeat(inside[None], len(_LEFT_OUT_BY_STENCIL), axis=0)
    for stencil, left_out in enumerate(_LEFT_OUT_BY_STENCIL):
        used[stencil][:, list(left_out)] = False
    by_nugget = [krige(position[index], position, used, np.full(used.shape[:2], nugget)) for nugget in NUGGETS]
    weight, error, spread = (np.stack(part) for part in zip(*by_nugget, strict=True))
    weight = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # for _residuals
    noise = np.random.default_rng(0).normal(size=(_NOISE_ROWS, len(energy)))
    residuals = _residuals(noise, index, weight[0]) / np.sqrt(spread[0])[:, None]
    least = float(np.median(np.abs(residuals).min(axis=0)))
    narrow = (relative > _NARROW_FEATURES_EV[0]) & (relative < _NARROW_FEATURES_EV[1])
    return Predictor(relative, position, index, inside, weight, spread, error, narrow, least)


def krige(neighbours: Array, point: Array, used: Mask, nugget: Array) -> tuple[Array, Array, Array]:
    """Return the weights and error variances of ordinary kriging.

    Parameters
    ----------
    neighbours : (..., 8) positions in units of the covariance length
    point : (...,) positions of the points to predict
    used : (..., 8) whether each neighbour takes part
    nugget : (...,) variance of the noise over that of the structure

    Returns
    -------
    weights : (..., 8)
    error : (...,) variance of the prediction error per variance of the structure
    spread : (...,) variance of the prediction error, including the point's own noise, per variance of the noise
    """
    n = neighbours.shape[-1]
    between = 1 / (1 + (neighbours[..., :, None] - neighbours[..., None, :]) ** 2)
    to_point = 1 / (1 + (neighbours - point[..., None]) ** 2)
    system = np.ones((*used.shape[:-1], n + 1, n + 1))
    system[..., :n, :n] = between
    diagonal = np.arange(n)
    system[..., diagonal, diagonal] += np.where(used, nugget[..., None], _LEFT_OUT_NUGGET)
    system[..., n, n] = 0.0
    right = np.concatenate([np.broadcast_to(to_point, used.shape), np.ones((*used.shape[:-1], 1))], axis=-1)
    w = np.linalg.solve(system, right[..., None])[..., :n, 0] * used
    total = w.sum(axis=-1, keepdims=True)
    w = np.divide(w, total, out=np.zeros_like(w), where=np.abs(total) > _MIN_WEIGHT_SUM)  # 0 without neighbours
    error = 1 - 2 * (w * to_point).sum(-1) + (w * (between @ w[..., None])[..., 0]).sum(-1)
    one_sided = ~(used[..., : n // 2].any(axis=-1) & used[..., n // 2 :].any(axis=-1))
    return w, np.where(one_sided, 1.0, np.maximum(error, _MIN_ERROR_VARIANCE)), 1 + (w * w).sum(-1)


def _covariance_length(relative: Array, narrowest_ev: float) -> Array:
    """Return lengths, (M,), eV: ``narrowest_ev`` at the edge, a quarter of 1/Å far above, and growing below."""
    k = np.sqrt(np.maximum(relative, 0) / _EV_PER_K2)
    exafs_from_k = np.sqrt(_EXAFS_FROM_EV / _EV_PER_K2)
    above = narrowest_ev + 2 * _EV_PER_K2 * np.maximum(k - exafs_from_k, 0) / 4
    below = narrowest_ev + (_NO_FEATURES_BELOW_EV - relative) / 2
    return np.where(relative < _NO_FEATURES_BELOW_EV, below, above)


def _residuals(mu: Array, index: NDArray[np.intp], weight: Array) -> Array:
    predicted = mu[:, index].transpose(1, 0, 2) @ weight.transpose(1, 2, 0)  # (M, N, K)
    return mu - predicted.transpose(2, 1, 0)
