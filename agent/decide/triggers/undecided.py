"""A level that the scatter of a frame leaves undecided, and that a longer count would decide."""

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
    """A frame scatters too much to show on which side of a level its sample lies; a longer count would show it.

    The scatter is ``sd_frame``, the standard deviation between repeats. A frame counted f times longer scatters by
    ``sd_frame`` / √f. With the action ``repeat_frame`` the decision requests the required f as ``count_factor``. It
    requests nothing if the part of the interval that all frames share already leaves the level undecided, since
    longer counts do not reduce that part. Each undecided frame counts towards ``max_times``.
    """

    kind: Literal["undecided"] = "undecided"
    """Name of this trigger."""
    of: Annotated[Threshold | Band, Field(discriminator="kind")]
    """The condition to decide: a ``threshold`` or ``band`` on a descriptor, judged by single frames."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """Probability of one side of the level, given the scatter alone, at which a frame counts as decided; it must also
    meet the condition's own ``min_confidence`` and ``uncertainty``."""
    max_factor: float = Field(default=10.0, gt=1, le=100)
    """Largest counting time to request, as a multiple of that of the frame."""
    min_gain: float = Field(default=0.5, ge=0, le=1)
    """Smallest probability that the repeated frame will be decided."""

    @model_validator(mode="after")
    def _judges_single_frames(self) -> Self:
        if self.of.window_frames > 1:
            raise ValueError(
                f"found window_frames {self.of.window_frames} in of, expected 1: for a line through several frames, "
                "one frame that is counted longer changes little"
            )
        return self

    def decided(self, value: float, sd_frame: float, shared: float) -> bool:
        """Return whether a frame shows on which side of the level its sample lies.

        Parameters
        ----------
        sd_frame, shared : standard deviations of the frame alone, and of the errors that all frames share
        """
        if self._side(value, sd_frame) < self.confidence:
            return False
        all_sd = math.hypot(sd_frame, self._counted(shared))
        return self.of.min_confidence <= 0.5 or self._side(value, all_sd) >= self.of.min_confidence

    def needed(self, value: float, shared: float) -> float | None:
        """Return the largest ``sd_frame`` that would decide such a value; None if none is small enough."""
        needed = self._largest(value, self.confidence)
        if self.of.min_confidence <= 0.5:
            return needed
        left, shared = self._largest(value, self.of.min_confidence), self._counted(shared)
        return None if 0 < shared >= left else min(needed, math.sqrt(left**2 - shared**2))

    def gain(self, value: float, sd_frame: float, shared: float, factor: float) -> float:
        """Return the probability that a frame counted ``factor`` times longer will be decided."""
        from scipy.special import ndtri

        repeated = sd_frame / math.sqrt(factor)
        values: Array = value + math.hypot(sd_frame, repeated) * ndtri(_QUANTILES)
        return float(np.mean([self.decided(v, repeated, shared) for v in values.tolist()]))

    def _counted(self, shared: float) -> float:
        """Return the part of the shared error that the condition takes into account."""
        return shared if self.of.uncertainty == "all" else 0.0

    def _side(self, value: float, sigma: float) -> float:
        """Return the probability that the true value lies on the same side of the level as the value."""
        if (half := self._half_width(value)) is not None:
            assert isinstance(self.of, Band)
            return probability_within(value - self.of.low - half, sigma, half)
        return probability_positive(abs(self.of.beyond(value)), sigma)

    def _largest(self, value: float, probability: float) -> float:
        """Return the largest standard deviation at which a value lies on its side with a given probability."""
        from scipy.special import ndtri  # imported late: it takes long, and few rules need it

        largest = abs(self.of.beyond(value)) / float(ndtri(probability)) if probability < 1 else 0.0
        if largest == 0 or self._half_width(value) is None:
            return largest
        from scipy.optimize import brentq

        found: Any = brentq(lambda sigma: self._side(value, sigma) - probability, largest * 1e-6, largest)
        return float(found)

    def _half_width(self, value: float) -> float | None:
        """Return half the width of the band if the value lies inside it, where both ends matter; otherwise None."""
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
        """Judge the next frame if it has the quantity and its spectrum is familiar; skip a late frame."""
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
        self.confidence = float(self.holds)  # whether a frame decides is certain

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
        """The required counting time."""
        return {"count_factor": self._factor}

    @property
    def reason(self) -> str:
        """The value, the level, the present and the required scatter, and the expected gain of a longer count."""
        of, unit = self._settings.of, self._unit
        return (
            f"{of.quantity} {self._value:.3g}{unit} is not decided against {of.bar(unit)}: it scatters by "
            f"{self._sd_frame:.2g}{unit}, and {self._needed:.2g}{unit} is needed; counted {self._factor:g} times "
            f"longer, it is decided with a probability of {self._gain:.2f}"
        )

    @property
    def evidence(self) -> Evidence:
        """The undecided frame."""
        return ((self._uid, self._value),)

    def parts(self) -> Iterator[Watch]:
        """Yield this watch and the watch of the condition to decide."""
        yield self
        yield self._waiting

    def _kept(self) -> list[Any]:
        of_frame = self._uid, self._value, self._sd_frame
        return [self._waiting.state(), *of_frame, self._needed, self._factor, self._gain]

    def _keep_again(self, kept: list[Any]) -> None:
        waiting, self._uid, self._value, self._sd_frame, self._needed, self._factor, self._gain = kept
        self._waiting.restore(waiting)


def _rounded_up(factor: float) -> float:
    """Round a factor of at least 1 up to two digits.

    >>> _rounded_up(2.56), _rounded_up(31.2), _rounded_up(1.0)
    (2.6, 32.0, 1.0)
    """
    if not math.isfinite(factor):
        return factor
    unit = 10.0 ** (math.floor(math.log10(factor)) - 1)
    return round(math.ceil(factor / unit - 1e-9) * unit, 6)
