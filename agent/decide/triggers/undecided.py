"""A level that the scatter of a frame leaves open, and that counting longer would decide."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...types import Array, Settings
from ..observed import Observed
from .base import Evidence, Watch, probability_positive, probability_within
from .level import Band, LevelWatch, Threshold

_QUANTILES = (np.arange(200) + 0.5) / 200
"""Cumulative probabilities of the values that a repeated frame may have."""


class Undecided(Settings):
    """A frame scatters too much to tell on which side of a level its sample is, and counting longer would tell.

    The scatter is ``sd_frame``, by which repeats differ. A frame that is counted f times longer scatters by
    ``sd_frame`` / √f. With the action ``repeat_frame`` the decision asks for the f that is needed, as
    ``count_factor``. Nothing is asked for if the part of the interval that all frames share leaves the level open,
    since it stays the same. Each frame that is undecided counts anew towards ``max_times``.
    """

    kind: Literal["undecided"] = "undecided"
    """Name of this trigger."""
    of: Annotated[Threshold | Band, Field(discriminator="kind")]
    """The condition that waits: a ``threshold`` or ``band`` on a descriptor, judged by single frames."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """Probability of one side of the level, by the scatter alone, from which on a frame is decided; the condition's
    own ``min_confidence`` and ``uncertainty`` must be met too."""
    max_factor: float = Field(default=10.0, gt=1, le=100)
    """Largest counting time that is asked for, as a multiple of that of the frame."""
    min_gain: float = Field(default=0.5, ge=0, le=1)
    """Smallest probability that the repeated frame is decided."""

    @model_validator(mode="after")
    def _judges_single_frames(self) -> Self:
        if self.of.window_frames > 1:
            raise ValueError(
                f"found window_frames {self.of.window_frames} in of, expected 1: for a line through several frames, "
                "one frame that is counted longer changes little"
            )
        return self

    def decided(self, value: float, sd_frame: float, shared: float) -> bool:
        """Return whether a frame tells on which side of the level its sample is.

        Parameters
        ----------
        sd_frame, shared : standard deviations of the frame alone and of what all frames share
        """
        if self._side(value, sd_frame) < self.confidence:
            return False
        all_sd = math.hypot(sd_frame, self._counted(shared))
        return self.of.min_confidence <= 0.5 or self._side(value, all_sd) >= self.of.min_confidence

    def needed(self, value: float, shared: float) -> float | None:
        """Return the largest ``sd_frame`` with which such a value would be decided; None if none is small enough."""
        needed = self._largest(value, self.confidence)
        if self.of.min_confidence <= 0.5:
            return needed
        left, shared = self._largest(value, self.of.min_confidence), self._counted(shared)
        return None if 0 < shared >= left else min(needed, math.sqrt(left**2 - shared**2))

    def gain(self, value: float, sd_frame: float, shared: float, factor: float) -> float:
        """Return the probability that a frame counted ``factor`` times longer is decided."""
        from scipy.special import ndtri

        repeated = sd_frame / math.sqrt(factor)
        values: Array = value + math.hypot(sd_frame, repeated) * ndtri(_QUANTILES)
        return float(np.mean([self.decided(v, repeated, shared) for v in values.tolist()]))

    def _counted(self, shared: float) -> float:
        """Return what of the shared part of the interval the condition allows for."""
        return shared if self.of.uncertainty == "all" else 0.0

    def _side(self, value: float, sigma: float) -> float:
        """Return the probability that the true value is on the side of the level where the value is."""
        if (half := self._half_width(value)) is not None:
            assert isinstance(self.of, Band)
            return probability_within(value - self.of.low - half, sigma, half)
        return probability_positive(abs(self.of.beyond(value)), sigma)

    def _largest(self, value: float, probability: float) -> float:
        """Return the largest standard deviation with which a value is on its side with a probability."""
        from scipy.special import ndtri  # late: it takes long to import, and few rules need it

        largest = abs(self.of.beyond(value)) / float(ndtri(probability)) if probability < 1 else 0.0
        if largest == 0 or self._half_width(value) is None:
            return largest
        from scipy.optimize import brentq

        found: Any = brentq(lambda sigma: self._side(value, sigma) - probability, largest * 1e-6, largest)
        return float(found)

    def _half_width(self, value: float) -> float | None:
        """Return the half width of the band in which a value lies, both of whose ends matter; None outside."""
        of = self.of
        return (of.high - of.low) / 2 if isinstance(of, Band) and of.low < value < of.high else None


class UndecidedWatch(Watch):
    """Follows one series for :class:`Undecided`."""

    def __init__(self, settings: Undecided, unit: str = "") -> None:
        self._settings, self._unit = settings, f" {unit}" if unit else ""
        self.judged = False
        self._waiting = LevelWatch(settings.of, unit)
        self._uid = ""
        self._value = self._sd_frame = self._needed = self._factor = self._gain = 0.0

    def frame(self, observed: Observed) -> None:
        """Judge the next frame, if its quantity is known and its spectrum familiar; a late one is passed over."""
        self._waiting.frame(observed)
        self.current = self.holds = False
        of = self._settings.of
        whole, alone = observed.point(of.quantity), observed.point(of.quantity, "frame")
        if self._waiting.current and whole is not None and alone is not None:
            self.judged = self.current = True
            self._uid, self._value, self._sd_frame = whole.uid, whole.value, alone.sigma
            shared = math.sqrt(max(whole.sigma**2 - alone.sigma**2, 0.0))
            if not self._settings.decided(self._value, self._sd_frame, shared):
                self._ask(shared)
        self.confidence = float(self.holds)  # that a frame does not decide is certain

    def _ask(self, shared: float) -> None:
        settings = self._settings
        if (needed := settings.needed(self._value, shared)) is None:
            return
        self._needed = needed
        self._factor = min(_rounded_up((self._sd_frame / needed) ** 2 if needed else math.inf), settings.max_factor)
        self._gain = settings.gain(self._value, self._sd_frame, shared, self._factor)
        self.holds = self._gain >= settings.min_gain

    @property
    def args(self) -> dict[str, Any]:
        """The counting time that is needed."""
        return {"count_factor": self._factor}

    @property
    def reason(self) -> str:
        """The value, the level, the present and the needed scatter, and what counting longer is expected to gain."""
        of, unit = self._settings.of, self._unit
        return (
            f"{of.quantity} {self._value:.3g}{unit} is not decided against {of.bar(unit)}: it scatters by "
            f"{self._sd_frame:.2g}{unit}, and {self._needed:.2g}{unit} is needed; counted {self._factor:g} times "
            f"longer, it is decided with a probability of {self._gain:.2f}"
        )

    @property
    def evidence(self) -> Evidence:
        """The frame that is undecided."""
        return ((self._uid, self._value),)

    def parts(self) -> Iterator[Watch]:
        """Yield this watch and that of the condition that waits."""
        yield self
        yield self._waiting

    def _kept(self) -> list[Any]:
        of_frame = self._uid, self._value, self._sd_frame
        return [self._waiting.state(), *of_frame, self._needed, self._factor, self._gain]

    def _keep_again(self, kept: list[Any]) -> None:
        waiting, self._uid, self._value, self._sd_frame, self._needed, self._factor, self._gain = kept
        self._waiting.restore(waiting)


def _rounded_up(factor: float) -> float:
    """Round a factor from 1 on up to two digits.

    >>> _rounded_up(2.56), _rounded_up(31.2), _rounded_up(1.0)
    (2.6, 32.0, 1.0)
    """
    if not math.isfinite(factor):
        return factor
    unit = 10.0 ** (math.floor(math.log10(factor)) - 1)
    return round(math.ceil(factor / unit - 1e-9) * unit, 6)
