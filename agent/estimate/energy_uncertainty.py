"""Propagates errors of the energies (zero and scale), of the amplitude and of the noise to the estimates."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import Array, Estimator, Memory, continued, means_of

_SLOPE_INTERVAL_FRAMES = 50  # slopes change slowly along a series
_MAX_SERIES = 1000  # number of series to remember
_RELATIVE_STEP = 0.01  # relative step of scale and amplitude: far above rounding and far below a white line

_NOISE_INTERVAL_FRAMES, _COPIES = 400, 16  # frames between noise responses, which take longer than slopes
_MIN_NOISE = 1e-3  # least noise of the copies, edge steps: far above the rounding of float32

Slopes = Mapping[str, tuple[float, float, float, float]]
"""Derivatives of a descriptor's mean: per eV, per unit of the energy scale and per unit of the amplitude; and the
mean's standard deviation per unit of the noise."""


@dataclass(frozen=True, slots=True)
class FrameErrors:
    """Errors that differ between repeated measurements of one sample, for n spectra."""

    noise: Array
    """(n,) standard deviations per measured point, edge steps."""
    sd_ev: Array
    """(n,) standard deviations of the energies from frame to frame, eV."""
    noisy: Callable[[int, float, int], NDArray[np.float32]]
    """Maps a spectrum's index, the noise in edge steps and a number of copies to noisy copies, (copies, G)."""


class Deviations(NamedTuple):
    """Standard deviations of the estimated means, (n,) by descriptor, in the descriptor's unit."""

    energies: dict[str, Array]
    """From all errors of the energies and of the amplitude, and from other differences between FEFF and measurement;
    they widen the intervals."""
    frames: dict[str, Array]
    """From errors that differ between frames: the noise, and the energies if a foil measures them. May be empty."""


def slopes(
    model: Estimator, spectra: NDArray[np.float32], noisy: Sequence[tuple[float, NDArray[np.float32]]] = ()
) -> list[Slopes]:
    """Compute the derivatives of the estimated means by central differences, and their response to noise.

    A spectrum that ends before the grid ends at the same place after each change, as a measured one would.

    Parameters
    ----------
    spectra : (n, G) aligned spectra, NaN beyond their ends
    noisy : for each of the n spectra: noise in edge steps and noisy copies, (copies, G); without copies the response
        is 0

    Returns
    -------
    The slopes of the n spectra
    """
    unknown, spectra = np.isnan(spectra), continued(spectra)
    up = np.concatenate([spectra[:, :1], spectra[:, :-1]], axis=1)
    down = np.concatenate([spectra[:, 1:], spectra[:, -1:]], axis=1)
    edge, n = model.edge, len(spectra)
    changed, steps = [up, down], {0: 2 * model.grid.step_ev}
    for k, (sd, change) in enumerate(((edge.scale_sd, _stretched), (edge.amplitude_sd, _strengthened)), start=1):
        if sd > 0:
            changed += [change(spectra, model, 1 + step) for step in (_RELATIVE_STEP, -_RELATIVE_STEP)]
            steps[k] = 2 * _RELATIVE_STEP
    changed = [np.where(unknown, np.nan, s) for s in changed]
    names, means = means_of(model.estimate(np.concatenate([*changed, *(copies for _, copies in noisy)])))
    first = {k: 2 * n * pair for pair, k in enumerate(steps)}
    ends = list(itertools.accumulate((len(copies) for _, copies in noisy), initial=2 * n * len(steps)))

    def per_unit(k: int) -> Array:
        if k not in steps:
            return np.zeros((n, len(names)))
        above, below = (means[first[k] + side * n :][:n] for side in (0, 1))
        return (above - below) / steps[k]

    def per_noise(i: int) -> Array:
        if not noisy or not len(noisy[i][1]):
            return np.zeros(len(names))
        return means[ends[i] : ends[i + 1]].std(axis=0, ddof=1) / noisy[i][0]

    columns = np.stack([*map(per_unit, range(3)), np.stack([*map(per_noise, range(n))])], axis=2)
    return [dict(zip(names, map(tuple, row), strict=True)) for row in columns.tolist()]


def _with_response(new: Slopes, known: Slopes) -> Slopes:
    """Return ``new`` with the response to noise of ``known``."""
    return {
        name: (per_ev, per_scale, per_amplitude, known[name][3])
        for name, (per_ev, per_scale, per_amplitude, _) in new.items()
    }


def _deviations(
    model: Estimator, kept: Sequence[Slopes], source: NDArray[np.intp], sd_ev: Array, errors: FrameErrors | None
) -> Deviations:
    """Return the deviations of n spectra; ``source``, (n,), holds the places of their slopes in ``kept``."""
    names = list(kept[0]) if kept else []
    of_kept = np.array([[k[name] for name in names] for k in kept]).reshape(len(kept), len(names), 4)
    per_ev, per_scale, per_amplitude, per_noise = np.moveaxis(of_kept[source], 2, 0)
    misfit_sd = np.array([model.edge.misfit_sd.get(name, 0.0) for name in names])
    domain_sd = np.hypot(model.edge.scale_sd * per_scale, model.edge.amplitude_sd * per_amplitude)
    domain_sd = np.hypot(domain_sd, misfit_sd)
    total = np.hypot(sd_ev, model.edge.offset_sd_ev)
    energies = dict(zip(names, np.hypot(total[:, None] * per_ev, domain_sd).T, strict=True))
    if errors is None:
        return Deviations(energies, {})
    scatter = np.hypot(errors.noise[:, None] * per_noise, errors.sd_ev[:, None] * per_ev)
    return Deviations(energies, dict(zip(names, scatter.T, strict=True)))


def _finite(slopes: Slopes) -> bool:
    return all(map(math.isfinite, itertools.chain.from_iterable(slopes.values())))


def _strengthened(spectra: NDArray[np.float32], model: Estimator, factor: float) -> NDArray[np.float32]:
    return model.edge.scale_structure(spectra.astype(float), model.grid, factor).astype(np.float32)


def _stretched(spectra: NDArray[np.float32], model: Estimator, scale: float) -> NDArray[np.float32]:
    """Return spectra (n, G) whose distances in energy from the measured edge are multiplied by ``scale``."""
    grid, pivot = model.grid, model.edge.feff_minus_experiment_ev
    at = (pivot + (grid.energy - pivot) / scale - grid.start_ev) / grid.step_ev
    at = at.clip(0, len(grid) - 1)
    left = np.minimum(at.astype(int), len(grid) - 2)
    weight = at - left
    return (spectra[:, left] * (1 - weight) + spectra[:, left + 1] * weight).astype(np.float32)


@dataclass
class _Series:
    left: int = 0
    """Number of frames until the slopes are due again."""
    noise_left: int = 0
    """Number of frames until the response to noise is due; it is computed together with the slopes."""
    slopes: Slopes = field(default_factory=dict)


@dataclass
class _Plan:
    """Assigns slopes to the spectra of one call, and lists the slopes to compute."""

    source: NDArray[np.intp]
    """(n,) places of the spectra's slopes in ``kept``."""
    kept: list[Slopes] = field(default_factory=list)
    latest: dict[tuple[str, Hashable], int] = field(default_factory=dict)
    """Place of the newest slopes of each series in ``kept``."""
    computed: list[int] = field(default_factory=list)
    """Spectra whose slopes are due."""
    noisy: list[tuple[float, NDArray[np.float32]]] = field(default_factory=list)
    """Noise and noisy copies of each computed spectrum, as in :func:`slopes`."""
    known_response: list[Slopes | int | None] = field(default_factory=list)
    """For each computed spectrum: slopes, or their place in ``kept``, whose response is reused; None if it is due."""

    def take(self, key: tuple[str, Hashable], slopes: Slopes) -> None:
        """Store slopes as the newest of a series."""
        self.latest[key] = len(self.kept)
        self.kept.append(slopes)


class EnergyUncertainty:
    """Computes the parts of each estimate's standard deviation that come from the frame's energies and noise.

    The result does not depend on how frames are batched, except under overload.

    Parameters
    ----------
    every : number of frames of a series between computations of its slopes
    noise_every : number of frames between computations of the response to noise
    max_series : number of series to remember; the one without a frame for longest is dropped first
    """

    def __init__(
        self,
        every: int = _SLOPE_INTERVAL_FRAMES,
        max_series: int = _MAX_SERIES,
        *,
        noise_every: int = _NOISE_INTERVAL_FRAMES,
    ) -> None:
        self._every, self._noise_every, self._max_series = every, noise_every, max_series
        self._series: OrderedDict[tuple[str, Hashable], _Series] = OrderedDict()
        self._latest: dict[str, Slopes] = {}
        """The newest slopes of each model, from any series."""
        self.reused: list[int] = []
        """Spectra of the latest call that reused earlier slopes, because their own were due or were not finite."""

    def __call__(
        self,
        series: Sequence[Hashable],
        model: Estimator,
        spectra: NDArray[np.float32],
        sd_ev: Array,
        errors: FrameErrors | None = None,
        *,
        hurried: bool = False,
    ) -> Deviations:
        """Return the standard deviations that the energies cause, and those between repeated measurements.

        Parameters
        ----------
        series : the series of each of the n spectra, in the order of time
        spectra : (n, G) aligned spectra
        sd_ev : (n,) standard deviations of the measured energies, eV; the model adds those of FEFF's offset, scale
            and amplitude
        errors : errors that differ from frame to frame
        hurried : whether to compute no slopes, under overload; a series then reuses its slopes or the model's newest
        """
        self.reused = []
        plan = self._plan(series, model, spectra, errors, hurried)
        failed = self._compute(plan, model, spectra)
        for key, number in plan.latest.items():
            self._series[key].slopes = plan.kept[number] if number not in failed else {}
        while len(self._series) > self._max_series:
            self._series.popitem(last=False)
        return _deviations(model, plan.kept, plan.source, sd_ev, errors)

    def _plan(
        self,
        series: Sequence[Hashable],
        model: Estimator,
        spectra: NDArray[np.float32],
        errors: FrameErrors | None,
        hurried: bool,
    ) -> _Plan:
        """Determine which slopes are due, and which slopes each spectrum uses."""
        plan, i = _Plan(np.empty(len(series), int)), 0
        for name, same in itertools.groupby(series):
            key, end = (model.name, name), i + sum(1 for _ in same)
            known = self._series.setdefault(key, _Series())
            self._series.move_to_end(key)
            while i < end:
                old = known.slopes or self._latest.get(model.name, {})
                unknown = key not in plan.latest and not known.slopes  # a new series, or the model failed last time
                due = known.left <= 0 or unknown
                if due and hurried and old:
                    self.reused.append(i)
                    known.slopes, due = old, False
                if due:
                    known.left = self._every
                    noise_due = errors is not None and (known.noise_left <= 0 or unknown)
                    plan.known_response.append(None if noise_due else plan.latest.get(key, known.slopes))
                    if errors is not None:
                        noise = max(float(np.nan_to_num(errors.noise[i])), _MIN_NOISE)
                        plan.noisy.append((noise, errors.noisy(i, noise, _COPIES) if noise_due else spectra[:0]))
                    if noise_due:
                        known.noise_left = self._noise_every
                    plan.computed.append(i)
                    plan.take(key, {})
                elif key not in plan.latest:
                    plan.take(key, known.slopes)
                frames = min(max(known.left, 1), end - i)  # number of frames that use these slopes
                plan.source[i : i + frames] = plan.latest[key]
                known.left -= frames
                known.noise_left -= frames
                i += frames
        return plan

    def _compute(self, plan: _Plan, model: Estimator, spectra: NDArray[np.float32]) -> set[int]:
        """Compute the slopes that are due; return the places in ``plan.kept`` of those that are not finite."""
        failed: set[int] = set()
        if not plan.computed:
            return failed
        kept, source = plan.kept, plan.source
        # One spectrum at a time: the network's rounding depends on its batch size, and slopes magnify it. An interval
        # thus does not depend on the other spectra of the call.
        noisy = [[n] for n in plan.noisy] or [[]] * len(plan.computed)
        news = [slopes(model, spectra[[i]], copies)[0] for i, copies in zip(plan.computed, noisy, strict=True)]
        for i, response, new in zip(plan.computed, plan.known_response, news, strict=True):
            known = kept[response] if isinstance(response, int) else response
            new = _with_response(new, known) if known else new
            if _finite(new):
                kept[source[i]] = self._latest[model.name] = new
            else:
                kept[source[i]] = self._latest.get(model.name, new)
                if kept[source[i]] is new:
                    failed.add(source[i])
                self.reused += np.flatnonzero(source == source[i]).tolist()
        return failed

    def memory(self, series: str, model: Estimator) -> Memory:
        """Return the state of a series."""
        known = self._series.get((model.name, series))
        if known is None:
            return {}
        return {(series, "slopes", model.name): [known.left, dict(known.slopes), known.noise_left]}

    def restore(self, memory: Memory) -> None:
        """Continue with the states that :meth:`memory` returned."""
        for (series, owner, *model), state in memory.items():
            if owner == "slopes":
                if len(state) != 3:
                    continue  # saved by a version without the response to noise: computed again
                left, named, noise_left = state
                slopes: Slopes = {name: tuple(values) for name, values in named.items()}
                self._series[(model[0] or "", series)] = _Series(left, noise_left, slopes)
                self._latest[model[0] or ""] = slopes
