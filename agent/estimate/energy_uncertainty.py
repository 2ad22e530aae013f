"""What errors of the energies, their zero and their scale, and of the amplitude do to estimates."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..types import Array, Estimator

EVERY = 50
"""Frames of a series between two looks at how its estimates move with the energy: they change slowly along it."""
REMEMBERED_SERIES = 1000

STEP = 0.01  # of scale and amplitude: a difference that is large against rounding and small against a white line

Slopes = Mapping[str, tuple[float, float, float]]
"""Change of each descriptor's mean per eV, per unit of the energies' scale, and of the structure's amplitude."""


def slopes(model: Estimator, spectra: NDArray[np.float32]) -> list[Slopes]:
    """How the means of aligned spectra (n, G) change when these are moved or stretched, by central differences."""
    up = np.concatenate([spectra[:, :1], spectra[:, :-1]], axis=1)
    down = np.concatenate([spectra[:, 1:], spectra[:, -1:]], axis=1)
    edge, n = model.edge, len(spectra)
    made, steps = [up, down], {0: 2 * model.grid.step_ev}
    for k, (sd, change) in enumerate(((edge.scale_sd, _stretched), (edge.amplitude_sd, _strengthened)), start=1):
        if sd > 0:
            made += [change(spectra, model, 1 + step) for step in (STEP, -STEP)]
            steps[k] = 2 * STEP
    said = model.estimate(np.concatenate(made))
    first = {k: 2 * n * pair for pair, k in enumerate(steps)}

    def per_unit(i: int, name: str, k: int) -> float:
        if k not in steps:
            return 0.0
        above, below = (said[first[k] + side * n + i].descriptors[name].mean for side in (0, 1))
        return (above - below) / steps[k]

    return [
        {name: (per_unit(i, name, 0), per_unit(i, name, 1), per_unit(i, name, 2)) for name in said[i].descriptors}
        for i in range(n)
    ]


def _strengthened(spectra: NDArray[np.float32], model: Estimator, by: float) -> NDArray[np.float32]:
    return model.edge.scale_structure(spectra.astype(float), model.grid, by).astype(np.float32)


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
    frames: int = 0
    slopes: Slopes = field(default_factory=dict)


class EnergyUncertainty:
    """The part of each estimate's spread that comes from the uncertainty of the frame's energies.

    Series by series, the slopes are looked at anew every ``every`` frames; how frames are batched changes nothing.
    """

    def __init__(self, every: int = EVERY, most: int = REMEMBERED_SERIES) -> None:
        self._every, self._most = every, most
        self._series: OrderedDict[tuple[str, Hashable], _Series] = OrderedDict()

    def __call__(
        self, series: Sequence[Hashable], model: Estimator, spectra: NDArray[np.float32], sd_ev: Array
    ) -> dict[str, Array]:
        """Standard deviations (n,) by descriptor, in its unit.

        Parameters
        ----------
        series : n, whose each spectrum is, in the order of time
        spectra : (n, G) aligned
        sd_ev : (n,) of their energies against the measured scale; FEFF's offset and scale have theirs in the model
        """
        total = np.hypot(sd_ev, model.edge.offset_sd_ev)
        looked: list[int] = []
        source = np.empty(len(series), int)
        kept: list[Slopes] = []
        latest: dict[tuple[str, Hashable], int] = {}
        for i, one in enumerate(series):
            key = model.name, one
            known = self._series.setdefault(key, _Series())
            self._series.move_to_end(key)
            unknown = key not in latest and not known.slopes  # the look failed, as the model may
            if known.frames % self._every == 0 or unknown:
                latest[key] = len(kept)
                looked.append(i)
                kept.append({})
            elif key not in latest:
                latest[key] = len(kept)
                kept.append(known.slopes)
            source[i] = latest[key]
            known.frames += 1
        if looked:
            for i, found in zip(looked, slopes(model, spectra[looked]), strict=True):
                kept[source[i]] = found
        for key, number in latest.items():
            self._series[key].slopes = kept[number]
        while len(self._series) > self._most:
            self._series.popitem(last=False)
        names = kept[0] if kept else ()
        widths: dict[str, Array] = {}
        for name in names:
            per_ev, per_scale, per_amplitude = np.array([kept[k][name] for k in source]).reshape(-1, 3).T
            of_domain = np.hypot(model.edge.scale_sd * per_scale, model.edge.amplitude_sd * per_amplitude)
            widths[name] = np.hypot(total * per_ev, of_domain)
        return widths
