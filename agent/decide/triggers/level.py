"""A quantity beyond a level, inside or outside a band, or a spectrum unfamiliar to the model."""

import math
from abc import abstractmethod
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ...types import Z90, Reach, Settings, robust_line
from ..observed import SeriesPoint, without_part
from .base import (
    TREND_BLOCKS,
    Compared,
    QuantityTrigger,
    QuantityWatch,
    apart,
    duration_in_words,
    probability_positive,
    probability_within,
    without_pauses,
)


class _Level(Settings):
    hysteresis: float = Field(default=0.0, ge=0)
    """Distance by which the value must return past the level to end the condition, in the quantity's unit; a rule
    decides again only after the condition has ended."""
    dwell_frames: int = Field(default=1, ge=1, le=1000)
    """Number of successive frames that must be beyond the level, including the deciding one."""
    dwell_s: float = Field(default=0.0, ge=0)
    """Time for which the frames must have been beyond the level, s, by the frames' own times."""
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """Smallest probability that the true value is beyond the level; the ``uncertainty`` is read as a Gaussian.

    With 0.5, the value alone decides. A higher probability waits until the value has passed the level by a part of
    the interval. This is safer, but later even without noise, since the model's own error does not average out.
    """
    uncertainty: Literal["all", "frame"] = "all"
    """Uncertainty in ``min_confidence``: ``all`` takes the 90 % interval, for a level in absolute terms; ``frame``
    takes only the scatter of repeats (``sd_frame``), for a level read from the same sample."""
    window_frames: int = Field(default=1, ge=1, le=100)
    """Number of frames (7 or more) of a robust line, whose value at the newest frame is judged; 1: the newest value.

    The line follows a steady drift without lag and ignores up to 29 % of glitched frames. No decision is made before
    the window is full. The line does not extend over a pause or a clock that jumps forward. In 1000 simulated charges
    (0.0112 e per frame, noise 0.03 e, 2 % glitches), 21 frames stopped all within 0.05 e of the level, and 15 frames
    all but one.
    """

    @model_validator(mode="after")
    def _line_has_points(self) -> "_Level":
        if 1 < self.window_frames < 7:
            raise ValueError("window_frames must be 1 (off) or at least 7: fewer frames do not show their scatter")
        return self

    @abstractmethod
    def beyond(self, value: float) -> float:
        """Return how far a value is beyond the level; negative before it."""

    def probability(self, value: float, sigma: float) -> float:
        """Return the probability that the true value is beyond the level."""
        return probability_positive(self.beyond(value), sigma)

    @abstractmethod
    def bar(self, unit: str) -> str:
        """Return the level in words."""

    @property
    @abstractmethod
    def bars(self) -> tuple[float, ...]:
        """The level, or the ends of the band."""


class Threshold(_Level, QuantityTrigger):
    """The quantity has been beyond a level for the required frames and time."""

    kind: Literal["threshold"] = "threshold"
    """Name of this trigger."""
    above: float | None = None
    """Level, in the quantity's unit; give this or ``below``."""
    below: float | None = None
    """Level, in the quantity's unit; give this or ``above``."""

    @model_validator(mode="after")
    def _one_level(self) -> "Threshold":
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        return self

    def beyond(self, value: float) -> float:
        """Return how far a value is beyond the level; negative before it."""
        if self.above is not None:
            return value - self.above
        assert self.below is not None  # the settings have exactly one of the two
        return self.below - value

    def bar(self, unit: str) -> str:
        """Return the level in words."""
        return f"above {self.above:g}{unit}" if self.above is not None else f"below {self.below:g}{unit}"

    @property
    def bars(self) -> tuple[float, ...]:
        """The level."""
        return tuple(level for level in (self.above, self.below) if level is not None)


class Band(_Level, QuantityTrigger):
    """The quantity has been inside, or outside, a band for the required frames and time."""

    kind: Literal["band"] = "band"
    """Name of this trigger."""
    low: float
    """Lower end of the band, in the quantity's unit."""
    high: float
    """Upper end of the band, in the quantity's unit."""
    outside: bool = False
    """Whether the quantity must be outside the band."""

    @model_validator(mode="after")
    def _has_width(self) -> "Band":
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be less than high {self.high:g}")
        return self

    def beyond(self, value: float) -> float:
        """Return how far a value is on the required side of the band's ends; negative if it is on the other side."""
        inside = min(value - self.low, self.high - value)
        return -inside if self.outside else inside

    def probability(self, value: float, sigma: float) -> float:
        """Return the probability that the true value is inside, or outside, the band."""
        half = (self.high - self.low) / 2
        inside = probability_within(value - self.low - half, sigma, half)
        return 1 - inside if self.outside else inside

    def bar(self, unit: str) -> str:
        """Return the band in words."""
        return f"{'outside' if self.outside else 'within'} {self.low:g}…{self.high:g}{unit}"

    @property
    def bars(self) -> tuple[float, ...]:
        """The ends of the band."""
        return self.low, self.high


class Unfamiliar(_Level):
    """The spectra are unlike those of the training set, for example of a metal in the beam or of a glitch."""

    kind: Literal["unfamiliar"] = "unfamiliar"
    """Name of this trigger."""
    above: float = Field(default=1.0, gt=0)
    """Score above which a spectrum is unfamiliar; 99 % of the training spectra have a lower one."""

    @property
    def quantity(self) -> str:
        """The out-of-distribution score."""
        return "ood_score"

    @property
    def max_ood(self) -> None:
        """None: no frame is left out."""

    def beyond(self, value: float) -> float:
        """Return how far a score is above the bar."""
        return value - self.above

    def bar(self, unit: str) -> str:
        """Return the bar in words."""
        return f"above {self.above:g}{unit}"

    @property
    def bars(self) -> tuple[float, ...]:
        """The bar."""
        return (self.above,)


def out_of_reach(trigger: Threshold | Band, reach: Reach | None) -> str:
    """Return in words why no estimate of a model can pass the level; empty if one can, or if nothing is known.

    Anchored values exceed the limits of the model by at most the range between these.

    Parameters
    ----------
    reach : limits of the descriptor; None if they are unknown
    """
    if reach is None:
        return ""
    exact = trigger.quantity == without_part(trigger.quantity).removesuffix("_anchored")
    if isinstance(trigger, Band) or not exact:
        far = reach.highest - reach.lowest if "_anchored" in trigger.quantity else 0.0
        low, high = reach.lowest - far, reach.highest + far
        nearest = min(max(sum(trigger.bars) / len(trigger.bars), low), high)  # the middle of a band
        if max(map(trigger.beyond, (low, nearest, high))) >= 0:
            return ""
        return f"{trigger.quantity} {trigger.bar('')}: the model's values span {reach.lowest:.3g}…{reach.highest:.3g}"
    end = reach.highest if trigger.above is not None else reach.lowest
    sigma = reach.least_half_width / Z90 if trigger.uncertainty == "all" and trigger.window_frames == 1 else 0.0
    room = trigger.beyond(end)
    if trigger.probability(end, sigma) >= trigger.min_confidence and room >= 0:
        return ""
    bar = f"{trigger.quantity} {trigger.bar('')}"
    if room < 0:
        return f"{bar}: the model's {trigger.quantity} ends at {end:.3g}"
    needed = (
        f"with min_confidence {trigger.min_confidence:g} and an interval of at least ± {reach.least_half_width:.2g}"
    )
    return f"{bar}: {needed}, the model's {trigger.quantity} would have to go beyond its end, {end:.3g}"


class LevelWatch(QuantityWatch):
    """Follows one series for a :class:`Threshold`, a :class:`Band` or :class:`Unfamiliar`."""

    def __init__(self, settings: Threshold | Band | Unfamiliar, unit: str = "") -> None:
        limits_all = not isinstance(settings, Unfamiliar) and settings.limits_all
        super().__init__(settings.quantity, settings.max_ood, unit, settings.uncertainty, limits_all=limits_all)
        self._settings = settings
        self._keep = max(settings.window_frames, min(settings.dwell_frames, TREND_BLOCKS))
        self._value = self._sigma = 0.0
        self._restart()

    def _restart(self) -> None:
        self.holds, self.confidence = False, 0.0
        self._dwell_frames, self._dwell_start, self._dwell_s = 0, 0.0, 0.0

    def add(self, point: SeriesPoint) -> None:
        """Judge the newest point, or the value of the line through the window at its time."""
        settings = self._settings
        newest = self._insert(point)
        del self.series.points[: -self._keep]
        if newest is None:
            self._restart()
        if newest is False or len(self.series.points) < settings.window_frames:
            return
        self._judge()
        self._value, self._sigma = self._now()
        if self.holds and settings.beyond(self._value) < -settings.hysteresis:
            self._restart()
        self.confidence = settings.probability(self._value, self._sigma)
        # Values too large to square give NaN; written this way, the test then never leads to a decision.
        if not (self.holds or self.confidence >= settings.min_confidence):
            self._dwell_frames = 0
            return
        self._dwell_frames += 1
        if self._dwell_frames == 1:
            self._dwell_start = point.time
        self._dwell_s = point.time - self._dwell_start
        self.holds |= self._dwell_frames >= settings.dwell_frames and self._dwell_s >= settings.dwell_s
        if not self.holds:  # the dwell is not over, however certain the values are
            self.confidence = 0.0

    @property
    def reason(self) -> str:
        """The judged value, the level and the dwell."""
        half = Z90 * self._sigma
        frames = f"{self._dwell_frames} frame{'s' if self._dwell_frames != 1 else ''}"
        interval = f" ({self._value - half:.3g}…{self._value + half:.3g})" if self._sigma else ""
        parts = [
            f"{self.quantity} {apart(self._value, *self._settings.bars)}{self.unit}{interval}",
            f"{self._settings.bar(self.unit)} for {frames}",
        ]
        if self._dwell_s > 0:
            parts.append(f"over {duration_in_words(self._dwell_s)}")
        if self._settings.window_frames > 1:
            parts.append(f"by a line through {self._settings.window_frames} frames")
        return " ".join(parts)

    @property
    def compared(self) -> Compared:
        """The value, and the level."""
        return Compared(self._value, self._settings.bars)

    def _kept(self) -> list[Any]:
        dwell = self._dwell_frames, self._dwell_start, self._dwell_s
        return [self.series.state(), self._value, self._sigma, *dwell]

    def _keep_again(self, kept: list[Any]) -> None:
        series, self._value, self._sigma, *dwell = kept
        self._dwell_frames, self._dwell_start, self._dwell_s = dwell
        self.series.restore(series)

    def _now(self) -> tuple[float, float]:
        """Return value and standard deviation at the newest frame.

        A frame's σ has two parts, which add in squares: its own noise, which appears as scatter in the window and
        averages out, and an error that all frames of the sample share. The part of σ² above the scatter² is therefore
        added to the squared error of the line.
        """
        points = self.series.points
        if self._settings.window_frames == 1:
            return points[-1].value, points[-1].sigma
        window = points[-self._settings.window_frames :]
        time = without_pauses(np.array([p.time for p in window]))
        line = robust_line(time, np.array([p.value for p in window]))
        sigma = sorted(p.sigma for p in window)[len(window) // 2]
        shared = max(sigma * sigma - line.scatter * line.scatter, 0.0)
        return line.value, math.hypot(line.value_error, math.sqrt(shared))
