"""What an error of the energies does to estimates."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .grid import Array
from .protocols import Estimator

EVERY = 50
"""Frames of a series between two looks at how its estimates move with the energy: they change slowly along it."""
REMEMBERED_SERIES = 1000

Slopes = Mapping[str, float]
"""Change of each descriptor's mean per eV."""


def slopes(model: Estimator, spectra: NDArray[np.float32]) -> list[Slopes]:
    """How the means of aligned spectra (n, G) change when these are moved, by a central difference of a grid step."""
    up = np.concatenate([spectra[:, :1], spectra[:, :-1]], axis=1)
    down = np.concatenate([spectra[:, 1:], spectra[:, -1:]], axis=1)
    said = model.estimate(np.concatenate([up, down]))
    return [
        {
            name: (d.mean - below.descriptors[name].mean) / (2 * model.grid.step_ev)
            for name, d in above.descriptors.items()
        }
        for above, below in zip(said[: len(spectra)], said[len(spectra) :], strict=True)
    ]


@dataclass
class _Series:
    frames: int = 0
    slopes: Slopes = field(default_factory=dict)


class EnergyWidths:
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
        sd_ev : (n,) of their energies against the measured scale; that of FEFF's comes from the model
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
            if known.frames % self._every == 0:
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
        return {name: total * np.abs([kept[k][name] for k in source]) for name in names}
