"""How errors of the energies (their zero and scale) and of the amplitude propagate to estimates."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..types import Array, Estimator, Memory, continued

_SLOPE_INTERVAL_FRAMES = 50  # slopes change slowly along a series
_MAX_SERIES = 1000  # remembered at a time
_RELATIVE_STEP = 0.01  # of scale and amplitude: large compared with rounding and small compared with a white line

Slopes = Mapping[str, tuple[float, float, float]]
"""Change of each descriptor's mean per eV, per unit of the energy scale, and per unit of the amplitude."""


def slopes(model: Estimator, spectra: NDArray[np.float32]) -> list[Slopes]:
    """Derivatives of the estimated means by central differences.

    A spectrum that ends before the grid ends there after each change, as a measured one would.

    Parameters
    ----------
    spectra : (n, G) aligned, NaN beyond their ends

    Returns
    -------
    n, the slopes of each spectrum
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
    estimates = model.estimate(np.concatenate([np.where(unknown, np.nan, s) for s in changed]))
    first = {k: 2 * n * pair for pair, k in enumerate(steps)}

    def per_unit(i: int, name: str, k: int) -> float:
        if k not in steps:
            return 0.0
        above, below = (estimates[first[k] + side * n + i].descriptors[name].mean for side in (0, 1))
        return (above - below) / steps[k]

    return [
        {
            name: (per_unit(i, name, 0), per_unit(i, name, 1), per_unit(i, name, 2))
            for name in estimates[i].descriptors
        }
        for i in range(n)
    ]


def _finite(slopes: Slopes) -> bool:
    return all(map(math.isfinite, itertools.chain.from_iterable(slopes.values())))


def _strengthened(spectra: NDArray[np.float32], model: Estimator, factor: float) -> NDArray[np.float32]:
    return model.edge.scale_structure(spectra.astype(float), model.grid, factor).astype(np.float32)


def _stretched(spectra: NDArray[np.float32], model: Estimator, scale: float) -> NDArray[np.float32]:
    """Spectra (n, G) whose energies from the measured edge are multiplied by ``scale``."""
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
    slopes: Slopes = field(default_factory=dict)


class EnergyUncertainty:
    """The part of each estimate's standard deviation that the uncertainty of the frame's energies causes.

    The result does not depend on how frames are batched, except under overload.

    Parameters
    ----------
    every : frames of a series after which its slopes are computed again
    max_series : number of series remembered; the one longest without a frame is dropped first
    """

    def __init__(self, every: int = _SLOPE_INTERVAL_FRAMES, max_series: int = _MAX_SERIES) -> None:
        self._every, self._max_series = every, max_series
        self._series: OrderedDict[tuple[str, Hashable], _Series] = OrderedDict()
        self._latest: dict[str, Slopes] = {}
        """The newest slopes of each model, of any series."""
        self.reused: list[int] = []
        """Spectra of the latest call with the slopes of an earlier one: theirs were due, or were no numbers."""

    def __call__(
        self,
        series: Sequence[Hashable],
        model: Estimator,
        spectra: NDArray[np.float32],
        sd_ev: Array,
        *,
        hurried: bool = False,
    ) -> dict[str, Array]:
        """Standard deviations that the energies cause.

        Parameters
        ----------
        series : n, the series of each spectrum, in the order of time
        spectra : (n, G) aligned
        sd_ev : (n,) standard deviation of the measured energies, eV; those of FEFF's offset, scale and amplitude are
            the model's
        hurried : whether to compute no slopes, under overload; a series keeps its slopes, or takes the model's newest

        Returns
        -------
        (n,) by descriptor, in its unit
        """
        self.reused = []
        total = np.hypot(sd_ev, model.edge.offset_sd_ev)
        computed: list[int] = []
        source = np.empty(len(series), int)
        kept: list[Slopes] = []
        latest: dict[tuple[str, Hashable], int] = {}
        for i, name in enumerate(series):
            key = model.name, name
            known = self._series.setdefault(key, _Series())
            self._series.move_to_end(key)
            old = known.slopes or self._latest.get(model.name, {})
            unknown = key not in latest and not known.slopes  # a new series, or the model failed the last time
            due = known.left <= 0 or unknown
            if due and hurried and old:
                self.reused.append(i)
                known.slopes, due = old, False
            if due:
                known.left = self._every
                latest[key] = len(kept)
                computed.append(i)
                kept.append({})
            elif key not in latest:
                latest[key] = len(kept)
                kept.append(known.slopes)
            source[i] = latest[key]
            known.left -= 1
        failed: set[int] = set()
        if computed:
            for i, new in zip(computed, slopes(model, spectra[computed]), strict=True):
                if _finite(new):
                    kept[source[i]] = self._latest[model.name] = new
                else:
                    kept[source[i]] = self._latest.get(model.name, new)
                    if kept[source[i]] is new:
                        failed.add(source[i])
                    self.reused += np.flatnonzero(source == source[i]).tolist()
        for key, number in latest.items():
            self._series[key].slopes = kept[number] if number not in failed else {}
        while len(self._series) > self._max_series:
            self._series.popitem(last=False)
        names = list(kept[0]) if kept else []
        per_ev, per_scale, per_amplitude = np.moveaxis(
            np.array([[k[name] for name in names] for k in kept]).reshape(len(kept), len(names), 3)[source], 2, 0
        )
        domain_sd = np.hypot(model.edge.scale_sd * per_scale, model.edge.amplitude_sd * per_amplitude)
        return dict(zip(names, np.hypot(total[:, None] * per_ev, domain_sd).T, strict=True))

    def memory(self, series: str, model: Estimator) -> Memory:
        """Return the state of a series."""
        known = self._series.get((model.name, series))
        return {} if known is None else {(series, "slopes", model.name): [known.left, dict(known.slopes)]}

    def restore(self, memory: Memory) -> None:
        """Continue with the states of :meth:`memory`."""
        for (series, owner, *model), state in memory.items():
            if owner == "slopes":
                left, named = state
                slopes = {
                    name: (per_ev, per_scale, per_amplitude)
                    for name, (per_ev, per_scale, per_amplitude) in named.items()
                }
                self._series[(model[0] or "", series)] = _Series(left, slopes)
                self._latest[model[0] or ""] = slopes
