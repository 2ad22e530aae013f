"""Glitches: single points that no spectrum can have, found against their neighbours in energy and in time.

A point is predicted from its neighbours by kriging. The covariance is that of lines broadened by a Lorentzian (core
hole and instrument), Lorentzian too, of a length that grows with the photoelectron's wave number above the edge, as
no distance in the sample makes EXAFS faster than that. It says how wrong a prediction may be where points are few and
the spectrum steep, so that a sharp white line or a pre-edge peak is no glitch; noise does the rest. Where frames were
measured before on the same energies, the change since then is looked at likewise: it has no edge in it.

Kriging: J.-P. Chilès, P. Delfiner, Geostatistics (Wiley 2012), ch. 3; good points keep their values to the last bit.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..types import MAD_TO_SD, Array, Flag, Settings, nan_median

Mask = NDArray[np.bool_]

NEIGHBOURS = np.array([-4, -3, -2, -1, 1, 2, 3, 4])
CLOSE = (2, 3, 4, 5)  # of these, the ones within two points
STENCILS = ((), *((k,) for k in CLOSE), *combinations(CLOSE, 2), CLOSE)
"""Neighbours left out: a good point next to a glitch is predicted well by those that leave it out."""
NUGGETS = np.array([1e-5, 1e-3, 1e-1])  # noise variance over the structure's, for which weights are at hand
SMOOTH = (
    0.35  # of the broadest structure that the covariance allows: what 22 measured standards have (maximum: 4 × this)
)
ERROR = 1e-4  # least variance of a prediction's error, per variance of the structure
LEAST = 2e-4  # of what a spectrum spans: noise counts as this at least, for less does not matter
EDGE_EV = (-20.0, 20.0)  # where features are narrow; E0 may be that of a pre-edge peak
WIDEST = 1.2  # times the narrowest feature: what a run of glitches spans there, at most
LONGEST_NARROW, LONGEST = 2, 3  # points of a run, there and elsewhere
IN_TIME = 0.5  # σ that the threshold is higher against earlier frames: what is looked at twice may fail twice
NOISE_FROM_EV = 15.0  # above E0 the noise is followed along the spectrum, below it is one
NOISE_POINTS = 41
PASSES = 8
EV_PER_K2 = 3.81  # ħ²/2m, eV Å²
LATTICE_EV = 2.0  # E0 is rounded so, that a series shares its weights


class GlitchSettings(Settings):
    """What counts as a glitch."""

    threshold: float = Field(default=3.5, ge=3.0)
    """Deviation of a point from the value that its neighbours predict, in σ, the prediction's own uncertainty
    included; 0.5 more against earlier frames."""
    narrowest_ev: float = Field(default=1.5, gt=0)
    """FWHM of the narrowest real feature, eV: core hole and instrument. Use less for high-energy-resolution
    fluorescence."""
    max_fraction: float = Field(default=0.15, gt=0, le=0.5)
    """If more of its points deviate, a spectrum is left as it is, since glitches do not explain that."""
    earlier_frames: int = Field(default=5, ge=3)
    """Number of earlier frames whose median is the reference."""


@dataclass(frozen=True)
class Glitches:
    """What was found in N spectra."""

    found: Mask
    """(N, M)"""
    size: Array
    """(N, M) how far each stands off, in the unit of μ; 0 for good points."""
    sigma: Array
    """(N, M) noise per point, in the unit of μ."""
    mu: Array
    """(N, M) repaired; good points as they were."""
    too_many: Mask
    """(N,) so many points stand off that none was touched."""

    @cached_property
    def count(self) -> NDArray[np.intp]:
        """(N,)"""
        return self.found.sum(axis=1)

    @property
    def flags(self) -> tuple[tuple[Flag, ...], ...]:
        """Of each spectrum."""
        return tuple(
            (Flag.TOO_MANY_GLITCHES,) if many else (Flag.GLITCHES_REPAIRED,) if count else ()
            for count, many in zip(self.count.tolist(), self.too_many.tolist(), strict=True)
        )


def find_glitches(
    energy: Array, mu: Array, e0: float, settings: GlitchSettings, *, earlier: Array | None = None
) -> Glitches:
    """Find and repair the glitches of spectra, each for itself or against those before it.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising. Each axis has weights of its own, which take longer to find than
        glitches do: spectra had better share theirs
    mu : (N, M) in any unit
    e0 : eV, on the same scale, to some eV
    earlier : (K, M) frames on the same energies just before the first of ``mu``, whose rows then are frames in the
        order of time; None, or energies that are not shared: each spectrum for itself
    """
    if energy.ndim == 2 and (energy != energy[0]).any():
        return _together([find_glitches(e, y[None], e0, settings) for e, y in zip(energy, mu, strict=True)])
    energy = energy.reshape(-1, mu.shape[1])[0]
    if mu.shape[1] < len(NEIGHBOURS) + 1:
        return Glitches(np.zeros(mu.shape, bool), np.zeros(mu.shape), np.zeros(mu.shape), mu, np.zeros(len(mu), bool))
    energy, mu = np.ascontiguousarray(energy, np.float64), np.asarray(mu, np.float64)
    floor = LEAST * np.ptp(mu, axis=1, keepdims=True) + np.finfo(float).tiny ** 0.5
    weights = _weights(energy.tobytes(), LATTICE_EV * round(e0 / LATTICE_EV), settings.narrowest_ev)
    found, predicted, sigma = _search(mu, weights, settings.threshold, floor, NOISE_FROM_EV)
    if earlier is not None:
        frames = np.concatenate([earlier, mu])
        rows = np.flatnonzero(np.arange(len(mu)) + len(earlier) >= settings.earlier_frames)
        if len(rows):
            change, before = _change(frames, rows + len(earlier), settings.earlier_frames, energy)
            late, expected, _ = _search(change, weights, settings.threshold + IN_TIME, floor[rows], -np.inf)
            predicted[rows] = np.where(late, before + expected, predicted[rows])
            found[rows] |= late
    too_many = found.sum(axis=1) > settings.max_fraction * mu.shape[1]
    found[too_many] = False
    return Glitches(found, np.where(found, mu - predicted, 0.0), sigma, np.where(found, predicted, mu), too_many)


def _together(parts: list[Glitches]) -> Glitches:
    names = ("found", "size", "sigma", "mu", "too_many")
    return Glitches(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _change(frames: Array, rows: NDArray[np.intp], depth: int, energy: Array) -> tuple[Array, Array]:
    """Each frame minus the median of those before it, brought to its thickness and slope; and what was taken off."""
    windows = np.lib.stride_tricks.sliding_window_view(frames, depth, axis=0)
    before = np.median(windows[rows - depth], axis=-1)
    mu, line = frames[rows], np.broadcast_to((energy - energy.mean()) / np.ptp(energy), before.shape)
    own = before / (np.abs(before).max(axis=1, keepdims=True) + np.finfo(float).tiny)  # whatever the unit of μ
    basis = np.stack([np.ones_like(before), line, own], axis=-1)
    weight = np.ones_like(mu)
    expected = before
    for _ in range(3):  # iteratively reweighted, since glitches are not to count
        weighted = basis * weight[..., None]
        normal = weighted.swapaxes(1, 2) @ basis + 1e-12 * np.eye(3)
        expected = (basis @ np.linalg.solve(normal, weighted.swapaxes(1, 2) @ mu[..., None]))[..., 0]
        off = np.abs(mu - expected)
        scale = 3 * MAD_TO_SD * np.median(off, axis=1, keepdims=True)
        weight = np.where(off <= scale, 1.0, 1e-6)
    return mu - expected, expected


@dataclass(frozen=True)
class _Weights:
    """Predictions from neighbours, for one energy axis; S stencils, L nuggets."""

    relative: Array
    """(M,) eV from E0."""
    position: Array
    """(M,) in lengths of the covariance."""
    index: NDArray[np.intp]
    """(M, 8) of the neighbours."""
    inside: Mask
    """(M, 8) whether there is one."""
    weight: Array
    """(M, 8, L·S)"""
    spread: Array
    """(L, S, M) variance of a prediction error per variance of the noise."""
    error: Array
    """(L, S, M) and per variance of the structure."""
    narrow: Mask
    """(M,) where features are narrow."""
    widest_ev: float
    least: float
    """Median of the least of the predictions' errors in units of σ, for noise alone."""


@lru_cache(maxsize=8)
def _weights(energy_bytes: bytes, e0: float, narrowest_ev: float) -> _Weights:
    energy = np.frombuffer(energy_bytes)
    relative = energy - e0
    length = _length(relative, narrowest_ev)
    position = np.concatenate([[0.0], np.cumsum(np.diff(energy) * 2 / (length[1:] + length[:-1]))])
    index = np.arange(len(energy))[:, None] + NEIGHBOURS
    inside = (index >= 0) & (index < len(energy))
    index = np.clip(index, 0, len(energy) - 1)
    used = np.repeat(inside[None], len(STENCILS), axis=0)
    for s, left_out in enumerate(STENCILS):
        used[s][:, list(left_out)] = False
    found = [_kriging(position[index], position, used, np.full(used.shape[:2], nugget)) for nugget in NUGGETS]
    weight, error, spread = (np.stack(part) for part in zip(*found, strict=True))
    flat = weight.reshape(-1, *weight.shape[2:]).transpose(1, 2, 0)
    noise = np.random.default_rng(0).normal(size=(32, len(energy)))
    off = _residuals(noise, index, flat, spread.shape)[0] / np.sqrt(spread[0])
    least = float(np.median(np.abs(off).min(axis=1)))
    narrow = (relative > EDGE_EV[0]) & (relative < EDGE_EV[1])
    return _Weights(relative, position, index, inside, flat, spread, error, narrow, WIDEST * narrowest_ev, least)


def _length(relative: Array, narrowest_ev: float) -> Array:
    """Of the covariance, (M,) eV: features are as narrow as ``narrowest_ev`` about the edge; above it they are as
    wide as a quarter of 1/Å makes them, below it there are none."""
    k = np.sqrt(np.maximum(relative, 0) / EV_PER_K2)
    begin = np.sqrt(10.0 / EV_PER_K2)
    above = narrowest_ev + 2 * EV_PER_K2 * np.maximum(k - begin, 0) / 4
    return np.where(relative < EDGE_EV[0] + 5, narrowest_ev + (EDGE_EV[0] + 5 - relative) / 2, above)


def _kriging(at: Array, here: Array, used: Mask, nugget: Array) -> tuple[Array, Array, Array]:
    """Ordinary kriging of points at ``here`` (...,) from neighbours ``at`` (..., 8); ``nugget`` (...,).

    Gives weights (..., 8), the error's variance per variance of the structure and, the point's own included, per
    variance of the noise, (...,) each.
    """
    n = at.shape[-1]
    between = 1 / (1 + (at[..., :, None] - at[..., None, :]) ** 2)
    to_here = 1 / (1 + (at - here[..., None]) ** 2)
    system = np.ones((*used.shape[:-1], n + 1, n + 1))
    system[..., :n, :n] = between
    diagonal = np.arange(n)
    system[..., diagonal, diagonal] += np.where(used, nugget[..., None], 1e6)
    system[..., n, n] = 0.0
    right = np.concatenate([np.broadcast_to(to_here, used.shape), np.ones((*used.shape[:-1], 1))], axis=-1)
    w = np.linalg.solve(system, right[..., None])[..., :n, 0] * used
    total = w.sum(axis=-1, keepdims=True)
    w = np.divide(w, total, out=np.zeros_like(w), where=np.abs(total) > 0.5)  # 0 without neighbours
    error = 1 - 2 * (w * to_here).sum(-1) + (w * (between @ w[..., None])[..., 0]).sum(-1)
    one_sided = ~(used[..., : n // 2].any(axis=-1) & used[..., n // 2 :].any(axis=-1))
    return w, np.where(one_sided, 1.0, np.maximum(error, ERROR)), 1 + (w * w).sum(-1)


def _residuals(y: Array, index: NDArray[np.intp], weight: Array, shape: tuple[int, ...]) -> Array:
    """(L, N, S, M) of spectra (N, M) off what each stencil predicts."""
    around = y[:, index].transpose(1, 0, 2)  # (M, N, 8)
    predicted = (around @ weight).transpose(2, 1, 0).reshape(*shape[:2], len(y), shape[2])
    return y[:, None] - predicted.swapaxes(1, 2)


def _search(
    mu: Array, weights: _Weights, threshold: float, floor: Array, follow_ev: float
) -> tuple[Mask, Array, Array]:
    """Glitches (N, M), what the good neighbours of every point predict, and the noise."""
    off = _residuals(mu, weights.index, weights.weight, weights.spread.shape)  # (L, N, S, M)
    spread, error = weights.spread[:, None], weights.error[:, None]
    least = np.abs(off[0] / np.sqrt(spread[0])).min(axis=1) * (1 / MAD_TO_SD / weights.least)
    sigma = np.maximum(_noise(least, weights, np.zeros(mu.shape, bool), follow_ev), floor)
    structure = (SMOOTH * _amplitude(mu, weights)) ** 2
    variance = sigma[None, :, None] ** 2 * spread + structure[None, :, None] * error
    level = variance.argmin(axis=0)[None]
    off_by, variance = np.take_along_axis(off, level, 0)[0], np.take_along_axis(variance, level, 0)[0]
    found = (off_by**2 > threshold**2 * variance).all(axis=1)  # no stencil explains it
    off, off_by = off[:, :, 0], off_by[:, 0]
    rows = np.arange(len(mu))  # that are not settled yet
    for _ in range(PASSES):
        y, before = mu[rows], found[rows]
        structure = (SMOOTH * _amplitude(np.where(before, y - off_by[rows], y), weights)) ** 2
        off_by[rows], variance, spread_by = _from_good(y, off[:, rows], weights, before, sigma[rows] ** 2, structure)
        size = np.abs(off_by[rows])
        t = size / np.sqrt(variance)
        found[rows] = (t > threshold) & (before | _highest(np.where(before, 0.0, t)))
        sigma[rows] = np.maximum(_noise(size / np.sqrt(spread_by), weights, found[rows], follow_ev), floor[rows])
        rows = rows[(found[rows] != before).any(axis=1)]
        if not len(rows):
            break
    return _short_runs(found, weights), mu - off_by, sigma


def _from_good(
    mu: Array, off: Array, weights: _Weights, found: Mask, noise: Array, structure: Array
) -> tuple[Array, Array, Array]:
    """How far each point is off what its good neighbours predict, that error's variance, and its part per noise.

    off (L, N, M) from all neighbours; noise, structure: variances (N, M).
    """
    spread, error = weights.spread[:, None, 0], weights.error[:, None, 0]
    variance = noise * spread + structure * error
    level = variance.argmin(axis=0)
    each = np.arange(mu.shape[1])
    off_by = np.take_along_axis(off, level[None], 0)[0]
    variance, spread_by = np.take_along_axis(variance, level[None], 0)[0], weights.spread[level, 0, each]
    row, point = np.nonzero((found[:, weights.index] & weights.inside).any(axis=-1))
    around = weights.index[point]
    good = weights.inside[point] & ~found[row[:, None], around]
    noise, structure = noise[row, point], structure[row, point]
    nugget = np.clip(noise / np.maximum(structure, 1e-300), NUGGETS[0], 1e3)
    w, e2, s2 = _kriging(weights.position[around], weights.position[point], good, nugget)
    alone = ~good.any(axis=-1)  # cannot be judged
    off_by[row, point] = np.where(alone, 0.0, mu[row, point] - (w * mu[row[:, None], around]).sum(-1))
    variance[row, point] = noise * s2 + structure * e2
    spread_by[row, point] = s2
    return off_by, variance, spread_by


def _highest(t: Array) -> Mask:
    """Whether a point is the highest within two points."""
    padded = np.pad(t, ((0, 0), (2, 2)))
    return t >= np.max([padded[:, k : k + t.shape[1]] for k in range(5)], axis=0)


def _noise(off: Array, weights: _Weights, left_out: Mask, follow_ev: float) -> Array:
    """σ per point, (N, M), from prediction errors in units of their spread; from ``follow_ev`` on followed along."""
    off = np.where(left_out, np.nan, off)
    below = weights.relative < -8.0
    above = np.flatnonzero(weights.relative >= follow_ev)
    if below.sum() < 2 * len(NEIGHBOURS):
        below = ~weights.narrow if (~weights.narrow).sum() >= 2 * len(NEIGHBOURS) else np.ones(off.shape[1], bool)
    sigma = np.repeat(MAD_TO_SD * nan_median(off[:, below])[:, None], off.shape[1], axis=1)
    if len(above) >= NOISE_POINTS:
        windows = np.lib.stride_tricks.sliding_window_view(off[:, above], NOISE_POINTS, axis=1)[:, ::4]
        middle = weights.relative[above][NOISE_POINTS // 2 :: 4][: windows.shape[1]]
        followed = MAD_TO_SD * nan_median(windows)
        at = np.interp(weights.relative[above], middle, np.arange(len(middle)))
        low = np.floor(at).astype(int)
        part = at - low
        high = np.minimum(low + 1, len(middle) - 1)
        sigma[:, above] = followed[:, low] * (1 - part) + followed[:, high] * part
    return sigma


def _amplitude(work: Array, weights: _Weights) -> Array:
    """How much there is of structure about each point, (N, M): the second largest deviation from the median of it and
    its neighbours, since the largest may be a glitch."""
    around = np.sort(np.concatenate([work[:, weights.index], work[..., None]], axis=-1), axis=-1)
    middle = around[..., around.shape[-1] // 2]
    highest, high = around[..., -1] - middle, around[..., -2] - middle
    lowest, low = middle - around[..., 0], middle - around[..., 1]
    return np.maximum(np.minimum(highest, lowest), np.where(highest >= lowest, high, low))


def _short_runs(found: Mask, weights: _Weights) -> Mask:
    """Without runs that are as wide as a feature could be."""
    points = found.shape[1]
    index = np.arange(points)
    good = ~found
    left = np.maximum.accumulate(np.where(good, index, -1), axis=1)
    right = np.minimum.accumulate(np.where(good, index, points)[:, ::-1], axis=1)[:, ::-1]
    inner = (left >= 0) & (right < points)
    gap = weights.relative[np.minimum(right, points - 1)] - weights.relative[np.maximum(left, 0)]
    longest = np.where(weights.narrow, LONGEST_NARROW, LONGEST)
    return found & (right - left - 1 <= longest) & ~(weights.narrow & inner & (gap > weights.widest_ev))


# Gross glitches: every frame gets a cheap look, and only those that fail it are searched. A point far off a smooth
# curve, or up to three, bend it there and nowhere near; an edge, a white line or noise bends it for longer.
GROSS_SEARCH = GlitchSettings(threshold=8.0)  # of 8900 points of 22 clean standards it takes 2
GROSS_BESIDE = (4, 5)  # points away, where a glitch of three does not reach
GROSS_RATIO = 3.0  # of the bend at a glitch to those beside it
GROSS_LEAST = 0.012  # of what a spectrum spans: half a glitch of 2.4 %
GROSS_NOISE = 8.0  # median bends
GROSS_ENDS = 3  # points at either end of the sorted absorption that do not count for what it spans


def standing_out(energy: Array, mu: Array) -> Mask:
    """(N,) whether a spectrum may have a gross glitch; energy (1 or N, M), mu (N, M)."""
    points = mu.shape[1]
    if points <= 2 * (max(GROSS_BESIDE) + GROSS_ENDS):
        return np.zeros(len(mu), bool)
    part = (energy[:, 1:-1] - energy[:, :-2]) / (energy[:, 2:] - energy[:, :-2])
    bend = np.abs(mu[:, 1:-1] - mu[:, :-2] - part * (mu[:, 2:] - mu[:, :-2]))
    beside = np.zeros_like(bend)
    for k in GROSS_BESIDE:
        np.maximum(beside[:, k:], bend[:, :-k], out=beside[:, k:])
        np.maximum(beside[:, :-k], bend[:, k:], out=beside[:, :-k])
    ordered = np.partition(mu, (GROSS_ENDS, points - 1 - GROSS_ENDS), axis=1)
    span = ordered[:, points - 1 - GROSS_ENDS] - ordered[:, GROSS_ENDS]
    least = np.maximum(GROSS_LEAST * span, GROSS_NOISE * np.median(bend, axis=1))
    return np.any(bend > np.maximum(GROSS_RATIO * beside, least[:, None]), axis=1)


def gross_glitches(energy: Array, mu: Array, e0: float) -> Glitches | None:
    """The gross glitches of spectra, each for itself; None where no spectrum has any.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising
    mu : (N, M) in any unit
    e0 : eV, on the same scale, to some eV
    """
    axes = np.atleast_2d(energy)
    rows = np.flatnonzero(standing_out(axes, mu))
    if not len(rows):
        return None
    own = find_glitches(axes[rows] if len(axes) > 1 else axes[0], mu[rows], e0, GROSS_SEARCH)
    if not (own.found.any() or own.too_many.any()):
        return None
    found, size, sigma = np.zeros(mu.shape, bool), np.zeros(mu.shape), np.zeros(mu.shape)
    repaired, many = np.array(mu, np.float64), np.zeros(len(mu), bool)
    found[rows], size[rows], sigma[rows] = own.found, own.size, own.sigma
    repaired[rows], many[rows] = own.mu, own.too_many
    return Glitches(found, size, sigma, repaired, many)
