"""The quantities of one frame that rules can watch, by name."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..types import Z90, DescriptorEstimate, Estimate, Flag, Frame

Uncertainty = Literal["all", "frame"]

READINGS = "readings."
"""Prefix of the names of quantities that are readings of the frame."""
PARTS = ("mean", "lo", "hi", "half_width", "sd_frame", "p")
"""Parts of a descriptor that rules can watch as quantities without uncertainty, for example ``OS_half_width``."""


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """A quantity in one frame, in its unit."""

    uid: str
    time: float
    """Unix seconds."""
    value: float
    sigma: float
    """Standard deviation; 0 if it is unknown."""
    foil_forgotten: bool = False
    """Whether the calibration of the energies by the foil of earlier frames has lapsed."""

    @classmethod
    def from_interval(
        cls, uid: str, time: float, mean: float, lo: float, hi: float, *, foil_forgotten: bool = False
    ) -> "SeriesPoint | None":
        """Read a 90 % interval as a Gaussian; return None if a number is not finite or ``hi < lo``."""
        if not (math.isfinite(time + mean + lo + hi) and lo <= hi):
            return None
        return cls(uid, time, mean, (hi - lo) / (2 * Z90), foil_forgotten)


@dataclass(frozen=True, slots=True)
class Observed:
    """A frame with its estimate and the quantities of its alignment.

    The quantities are, in this order: the descriptors with their uncertainty (``OS``); their parts (``OS_mean``,
    ``OS_lo``, ``OS_hi``, ``OS_half_width``, ``OS_sd_frame``, ``OS_p``); ``ood_score``; the quantities of the
    alignment (``noise``, ``edge_step``, ``e0_ev``); and the frame's readings, with the prefix ``readings.``
    (``readings.voltage``), so that a misspelt descriptor cannot name a reading.
    """

    frame: Frame
    estimate: Estimate
    quantities: Mapping[str, float] = field(default_factory=dict)

    def familiar(self, max_ood: float | None) -> bool:
        """Return whether the out-of-distribution score is known and at most ``max_ood``; None accepts every frame."""
        return max_ood is None or self.estimate.ood_score <= max_ood

    def is_estimated(self, name: str) -> bool:
        """Return whether a quantity comes from the model."""
        stems = {name, *(name.removesuffix(f"_{part}") for part in PARTS)}
        return not stems.isdisjoint(self.estimate.descriptors)

    def point(self, name: str, uncertainty: Uncertainty = "all") -> SeriesPoint | None:
        """Return a quantity; None if the frame lacks it or one of its numbers is not finite.

        Parameters
        ----------
        uncertainty : for a descriptor: ``all`` takes the 90 % interval, ``frame`` the scatter between repeats
        """
        uid, time = self.frame.uid, self.frame.time
        forgotten = Flag.FOIL_FORGOTTEN in self.estimate.flags and not name.startswith(READINGS)
        descriptor = self.estimate.descriptors.get(name)
        if descriptor is not None:
            lo, hi = descriptor.lo, descriptor.hi
            if uncertainty == "frame":
                half = Z90 * descriptor.sd_frame
                lo, hi = descriptor.mean - half, descriptor.mean + half
            return SeriesPoint.from_interval(uid, time, descriptor.mean, lo, hi, foil_forgotten=forgotten)
        value = self._plain(name)
        if value is None:
            return None
        return SeriesPoint.from_interval(uid, time, value, value, value, foil_forgotten=forgotten)

    def names(self) -> Iterator[str]:
        """Yield the names of all quantities."""
        yield from self.estimate.descriptors
        yield from (f"{d}_{part}" for d in self.estimate.descriptors for part in PARTS)
        yield "ood_score"
        yield from self.quantities
        yield from (f"{READINGS}{name}" for name in self.frame.readings)

    def _plain(self, name: str) -> float | None:
        for part in PARTS:
            descriptor = self.estimate.descriptors.get(name.removesuffix(f"_{part}"))
            if descriptor is not None and name.endswith(f"_{part}"):
                return _part(descriptor, part)
        if name == "ood_score":
            return self.estimate.ood_score
        if name.startswith(READINGS):
            return self.frame.readings.get(name.removeprefix(READINGS))
        return self.quantities.get(name)


def _part(descriptor: DescriptorEstimate, part: str) -> float | None:
    return (descriptor.hi - descriptor.lo) / 2 if part == "half_width" else getattr(descriptor, part)


def without_part(name: str) -> str:
    """Return the descriptor to which a quantity belongs as a part; any other name is returned unchanged.

    >>> without_part("OS_change_lo"), without_part("OS_change")
    ('OS_change', 'OS_change')
    """
    return next((name.removesuffix(f"_{part}") for part in PARTS if name.endswith(f"_{part}")), name)
