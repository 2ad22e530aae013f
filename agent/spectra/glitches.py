"""The fine search for glitches: single points that no spectrum can have, and runs of two or three.

Each point is compared with the value that :mod:`.kriging` predicts from its neighbours. It is a glitch if the
difference exceeds the uncertainty of the prediction, whichever neighbours are left out. If earlier frames were
measured on the same energies, the change since then, which has no edge, is searched in the same way. Good points
keep their values exactly.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..types import MAD_TO_SD, Array, Flag, Settings, nan_median
from .kriging import MAX_NUGGET, NEIGHBOUR_OFFSETS, NUGGETS, Mask, Predictor, krige, predictor

# Standard deviation of the structure that neighbours cannot predict, over its local amplitude; from 22 measured
# standards, whose largest value is four times as high.
_STRUCTURE_PER_AMPLITUDE = 0.35
_MIN_NOISE_PER_RANGE = 2e-4  # relative to the range of the spectrum; smaller deviations do not matter
_MAX_RUN_WIDTHS = 1.2  # largest width of a run near the edge, in widths of the narrowest feature
_MAX_NARROW_RUN_POINTS, _MAX_RUN_POINTS = 2, 3  # largest runs near the edge, and elsewhere
_EARLIER_FRAMES_EXTRA_SD = 0.5  # added to the threshold, since a second test doubles the false alarms
_PRE_EDGE_NOISE_BELOW_EV = -8.0  # from E0: the noise is estimated below it if there are enough points
_MIN_PRE_EDGE_POINTS = 2 * len(NEIGHBOUR_OFFSETS)
_NOISE_PROFILE_FROM_EV = 15.0  # from E0: the noise varies along the spectrum above it and is constant below
_NOISE_WINDOW_POINTS = 41
_NOISE_STRIDE_POINTS = 4  # distance between two windows
_MAX_PASSES = 8
_E0_ROUNDING_EV = 2.0  # E0 is rounded to it, so that the frames of a series share their weights
_MAX_FIT_PASSES = 3  # largest number of passes of the reweighted fit of earlier frames
_FIT_OUTLIER_SD, _FIT_OUTLIER_WEIGHT = 3, 1e-6


class GlitchSettings(Settings):
    """The definition of a glitch."""

    threshold: float = Field(default=3.5, ge=3.0)
    """Deviation of a point from the prediction of its neighbours, in σ, which includes the uncertainty of the
    prediction; 0.5 more against earlier frames."""
    narrowest_ev: float = Field(default=1.5, gt=0)
    """FWHM of the narrowest real feature, eV, from core hole and instrument. Use less for high-energy-resolution
    fluorescence."""
    max_fraction: float = Field(default=0.15, gt=0, le=0.5)
    """Share of deviating points above which a spectrum is left unchanged, since glitches do not explain so many."""
    earlier_frames: int = Field(default=5, ge=3)
    """Number of earlier frames whose median is the reference."""


@dataclass(frozen=True)
class Glitches:
    """The glitches of N spectra, and the repaired spectra."""

    found: Mask
    """(N, M) whether points are glitches."""
    size: Array
    """(N, M) difference between measured and predicted μ, in the unit of μ; 0 for good points."""
    sigma: Array
    """(N, M) standard deviation of the noise per point, in the unit of μ."""
    mu: Array
    """(N, M) repaired absorption; good points are unchanged."""
    too_many: Mask
    """(N,) whether so many points deviate that the spectrum was left unchanged."""

    @cached_property
    def count(self) -> NDArray[np.intp]:
        """Number of glitches of each spectrum, (N,)."""
        return self.found.sum(axis=1)

    @property
    def flags(self) -> tuple[tuple[Flag, ...], ...]:
        """Flags of each spectrum."""
        return tuple(
            (Flag.TOO_MANY_GLITCHES,) if many else (Flag.GLITCHES_REPAIRED,) if count else ()
            for count, many in zip(self.count.tolist(), self.too_many.tolist(), strict=True)
        )


def find_glitches(
    energy: Array, mu: Array, e0: float, settings: GlitchSettings, *, earlier: Array | None = None
) -> Glitches:
    """Find and repair the glitches of spectra, each alone or against earlier frames.

    Parameters
    ----------
    energy : (M,) or (N, M) energies, eV, strictly rising. To compute the weights of an axis takes longer than the
        search, so that spectra should share their energies
    mu : (N, M) absorption in any unit
    e0 : E0, eV, on the same scale, known to some eV
    earlier : (K, M) the frames on the same energies just before the first of ``mu``, whose rows are then frames in
        the order of time. None: each spectrum is searched alone, as are spectra that do not share their energies
    """
    if energy.ndim == 2 and (energy != energy[0]).any():
        return _concatenated([find_glitches(e, y[None], e0, settings) for e, y in zip(energy, mu, strict=True)])
    energy = energy.reshape(-1, mu.shape[1])[0]
    if mu.shape[1] < len(NEIGHBOUR_OFFSETS) + 1:
        return Glitches(np.zeros(mu.shape, bool), np.zeros(mu.shape), np.zeros(mu.shape), mu, np.zeros(len(mu), bool))
    energy, mu = np.ascontiguousarray(energy, np.float64), np.asarray(mu, np.float64)
    min_sigma = _MIN_NOISE_PER_RANGE * np.ptp(mu, axis=1, keepdims=True) + np.finfo(float).tiny ** 0.5
    rounded_e0 = _E0_ROUNDING_EV * round(e0 / _E0_ROUNDING_EV)
    model = predictor(energy.tobytes(), rounded_e0, settings.narrowest_ev)
    max_run_ev = _MAX_RUN_WIDTHS * settings.narrowest_ev
    search = _Search(model, settings.threshold, max_run_ev, _NOISE_PROFILE_FROM_EV)
    found, predicted, sigma = search(mu, min_sigma)
    if earlier is not None:
        frames = np.concatenate([earlier, mu])
        rows = np.flatnonzero(np.arange(len(mu)) + len(earlier) >= settings.earlier_frames)
        if len(rows):
            change, expected = _change_from_earlier(frames, rows + len(earlier), settings.earlier_frames, energy)
            threshold = settings.threshold + _EARLIER_FRAMES_EXTRA_SD
            found_later, predicted_change, _ = _Search(model, threshold, max_run_ev, -np.inf)(change, min_sigma[rows])
            predicted[rows] = np.where(found_later, expected + predicted_change, predicted[rows])
            found[rows] |= found_later
    too_many = found.sum(axis=1) > settings.max_fraction * mu.shape[1]
    found[too_many] = False
    return Glitches(found, np.where(found, mu - predicted, 0.0), sigma, np.where(found, predicted, mu), too_many)


def _concatenated(parts: list[Glitches]) -> Glitches:
    names = ("found", "size", "sigma", "mu", "too_many")
    return Glitches(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _change_from_earlier(frames: Array, rows: NDArray[np.intp], depth: int, energy: Array) -> tuple[Array, Array]:
    """Return each frame minus the fitted median of the ``depth`` frames before it (height and line); and that fit."""
    windows = np.lib.stride_tricks.sliding_window_view(frames, depth, axis=0)
    before = np.median(windows[rows - depth], axis=-1)
    mu, line = frames[rows], np.broadcast_to((energy - energy.mean()) / np.ptp(energy), before.shape)
    scaled = before / (np.abs(before).max(axis=1, keepdims=True) + np.finfo(float).tiny)  # independent of the unit
    basis = np.stack([np.ones_like(before), line, scaled], axis=-1)
    weight = np.ones_like(mu)
    expected = before
    for _ in range(_MAX_FIT_PASSES):  # iteratively reweighted least squares, which resists glitches
        weighted = basis * weight[..., None]
        normal = weighted.swapaxes(1, 2) @ basis + 1e-12 * np.eye(3)
        expected = (basis @ np.linalg.solve(normal, weighted.swapaxes(1, 2) @ mu[..., None]))[..., 0]
        residual = np.abs(mu - expected)
        limit = _FIT_OUTLIER_SD * MAD_TO_SD * np.median(residual, axis=1, keepdims=True)
        weight = np.where(residual <= limit, 1.0, _FIT_OUTLIER_WEIGHT)
    return mu - expected, expected


@dataclass(frozen=True, slots=True)
class _Search:
    """The search on one energy axis."""

    model: Predictor
    threshold: float
    """Threshold in σ."""
    max_run_ev: float
    """Largest width of a run of glitches near the edge, eV."""
    noise_profile_from_ev: float
    """Energy from E0, eV, above which the noise varies along the spectrum."""

    def __call__(self, mu: Array, min_sigma: Array) -> tuple[Mask, Array, Array]:
        """Return the glitches, the values that good neighbours predict, and the noise, (N, M) each."""
        model = self.model
        spread, error = model.spread[:, 0], model.error[:, 0]
        stencils = np.abs(model.residuals(mu, model.weight[0])) / np.sqrt(model.spread[0])[:, None]  # (S, N, M)
        noise = self._noise(
            stencils.min(axis=0) * (1 / MAD_TO_SD / model.least_noise_residual), np.zeros(mu.shape, bool)
        )
        sigma = np.maximum(noise, min_sigma)
        structure = (_STRUCTURE_PER_AMPLITUDE * self._amplitude(mu)) ** 2
        residuals = model.residuals(mu, model.weight[:, 0])  # (L, N, M) from all neighbours
        residual, variance = _of_least_variance(sigma**2, structure, spread[:, None], error[:, None], residuals)
        found = residual**2 > self.threshold**2 * variance
        row, point = np.nonzero(found)  # few points, for which no stencil explains the difference
        predicted = (model.weight[:, :, point] * mu[row[:, None], model.index[point]]).sum(axis=-1)  # (L, S, points)
        at = np.s_[:, :, point]
        tested, variances = _of_least_variance(
            sigma[row, point] ** 2,
            structure[row, point],
            model.spread[at],
            model.error[at],
            mu[row, point] - predicted,
        )
        found[row, point] = (tested**2 > self.threshold**2 * variances).all(axis=0)
        return self._refine(mu, residuals, residual, found, sigma, min_sigma)

    def _refine(
        self, mu: Array, residuals: Array, residual: Array, found: Mask, sigma: Array, min_sigma: Array
    ) -> tuple[Mask, Array, Array]:
        """Repeat the predictions from good neighbours alone until the glitches no longer change.

        residuals (L, N, M) from all neighbours; residual (N, M) for the best nugget. ``residual``, ``found`` and
        ``sigma`` are changed in place.
        """
        rows = np.arange(len(mu))  # spectra whose glitches have changed
        for _ in range(_MAX_PASSES):
            y, before = mu[rows], found[rows]
            repaired = np.where(before, y - residual[rows], y)
            structure = (_STRUCTURE_PER_AMPLITUDE * self._amplitude(repaired)) ** 2
            residual[rows], variance, spread = self._from_good(
                y, residuals[:, rows], before, sigma[rows] ** 2, structure
            )
            size = np.abs(residual[rows])
            t = size / np.sqrt(variance)
            found[rows] = (t > self.threshold) & (before | _is_local_maximum(np.where(before, 0.0, t)))
            sigma[rows] = np.maximum(self._noise(size / np.sqrt(spread), found[rows]), min_sigma[rows])
            rows = rows[(found[rows] != before).any(axis=1)]
            if not len(rows):
                break
        return self._short_runs(found), mu - residual, sigma

    def _from_good(
        self, mu: Array, residuals: Array, found: Mask, noise: Array, structure: Array
    ) -> tuple[Array, Array, Array]:
        """Return the residuals from good neighbours, their variances, and these per noise variance, (N, M) each.

        residuals (L, N, M) from all neighbours; noise, structure: variances (N, M).
        """
        model = self.model
        spread, error = model.spread[:, None, 0], model.error[:, None, 0]
        residual, variance, spread = _of_least_variance(noise, structure, spread, error, residuals, spread)
        row, point = np.nonzero((found[:, model.index] & model.inside).any(axis=-1))
        neighbours = model.index[point]
        good = model.inside[point] & ~found[row[:, None], neighbours]
        noise, structure = noise[row, point], structure[row, point]
        nugget = np.clip(noise / np.maximum(structure, 1e-300), NUGGETS[0], MAX_NUGGET)
        w, error, spread_of_good = krige(model.position[neighbours], model.position[point], good, nugget)
        alone = ~good.any(axis=-1)  # points without any good neighbour
        predicted = (w * mu[row[:, None], neighbours]).sum(-1)
        residual[row, point] = np.where(alone, 0.0, mu[row, point] - predicted)
        variance[row, point] = noise * spread_of_good + structure * error
        spread[row, point] = spread_of_good
        return residual, variance, spread

    def _noise(self, residual: Array, left_out: Mask) -> Array:
        """Return the standard deviation per point, (N, M), from residuals in units of their spread."""
        relative, narrow = self.model.relative, self.model.narrow
        residual = np.where(left_out, np.nan, residual)
        points = relative < _PRE_EDGE_NOISE_BELOW_EV
        if points.sum() < _MIN_PRE_EDGE_POINTS:
            enough = (~narrow).sum() >= _MIN_PRE_EDGE_POINTS
            points = ~narrow if enough else np.ones(residual.shape[1], bool)
        sigma = np.repeat(MAD_TO_SD * nan_median(residual[:, points])[:, None], residual.shape[1], axis=1)
        above = np.flatnonzero(relative >= self.noise_profile_from_ev)
        if len(above) >= _NOISE_WINDOW_POINTS:
            windows = np.lib.stride_tricks.sliding_window_view(residual[:, above], _NOISE_WINDOW_POINTS, axis=1)
            windows = windows[:, ::_NOISE_STRIDE_POINTS]
            middle = relative[above][_NOISE_WINDOW_POINTS // 2 :: _NOISE_STRIDE_POINTS][: windows.shape[1]]
            profile = MAD_TO_SD * nan_median(windows)
            place = np.interp(relative[above], middle, np.arange(len(middle)))
            low = np.floor(place).astype(int)
            part = place - low
            high = np.minimum(low + 1, len(middle) - 1)
            sigma[:, above] = profile[:, low] * (1 - part) + profile[:, high] * part
        return sigma

    def _amplitude(self, mu: Array) -> Array:
        """Return the amplitude of the structure near each point, (N, M): the second largest deviation of it and its
        its neighbours from their median, since the largest may be a glitch."""
        nearby = np.sort(np.concatenate([mu[:, self.model.index], mu[..., None]], axis=-1), axis=-1)
        middle = nearby[..., nearby.shape[-1] // 2]
        highest, high = nearby[..., -1] - middle, nearby[..., -2] - middle
        lowest, low = middle - nearby[..., 0], middle - nearby[..., 1]
        return np.maximum(np.minimum(highest, lowest), np.where(highest >= lowest, high, low))

    def _short_runs(self, found: Mask) -> Mask:
        """Return the glitches without runs that are as wide as a real feature may be."""
        relative, narrow = self.model.relative, self.model.narrow
        points = found.shape[1]
        index = np.arange(points)
        good = ~found
        left = np.maximum.accumulate(np.where(good, index, -1), axis=1)
        right = np.minimum.accumulate(np.where(good, index, points)[:, ::-1], axis=1)[:, ::-1]
        inner = (left >= 0) & (right < points)
        width_ev = relative[np.minimum(right, points - 1)] - relative[np.maximum(left, 0)]
        max_points = np.where(narrow, _MAX_NARROW_RUN_POINTS, _MAX_RUN_POINTS)
        return found & (right - left - 1 <= max_points) & ~(narrow & inner & (width_ev > self.max_run_ev))


def _of_least_variance(
    noise: Array, structure: Array, spread: Array, error: Array, *values: Array
) -> tuple[Array, ...]:
    """Return the least variance of a prediction over the nuggets, and the corresponding ones of ``values``.

    noise, structure: variances (…); spread, error, values: (L, …).
    """
    least = noise * spread[0] + structure * error[0]
    chosen = [np.array(np.broadcast_to(value[0], least.shape)) for value in values]
    for k in range(1, len(spread)):
        variance = noise * spread[k] + structure * error[k]
        less = variance < least
        for kept, new in ((least, variance), *zip(chosen, (value[k] for value in values), strict=True)):
            np.copyto(kept, new, where=less)
    return *chosen[:1], least, *chosen[1:]


def _is_local_maximum(t: Array) -> Mask:
    """Return whether a point is the highest within two points on either side, (N, M)."""
    padded = np.pad(t, ((0, 0), (2, 2)))
    return t >= np.max([padded[:, k : k + t.shape[1]] for k in range(5)], axis=0)
