"""A quantity that no longer changes, that changes fast, or that has passed an extremum."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from ...types import Array, TrendLine, robust_line
from ..observed import SeriesPoint
from .base import (
    Compared,
    QuantityTrigger,
    QuantityWatch,
    apart,
    duration_in_words,
    probability_positive,
    probability_within,
    without_pauses,
)

_MAX_PLATEAU_FRAMES = 512
"""Largest number of frames in the series of a plateau; longer ones are thinned."""
_HOUR_S = 3600.0


class Plateau(QuantityTrigger):
    """The quantity no longer changes: its drift over the window stays within the tolerance."""

    kind: Literal["plateau"] = "plateau"
    """Name of this trigger."""
    tolerance: float = Field(gt=0)
    """Largest change over the window that still counts as constant, in the quantity's unit."""
    duration_s: float | None = Field(default=None, gt=0)
    """Length of the window in seconds, by the frames' own times; give this or ``frames``."""
    frames: int | None = Field(default=None, ge=7, le=_MAX_PLATEAU_FRAMES)
    """Length of the window in frames; give this or ``duration_s``."""
    min_frames: int = Field(default=7, ge=7, le=_MAX_PLATEAU_FRAMES // 2)
    """Smallest number of frames in the window before a decision."""
    min_confidence: float = Field(default=0.9, ge=0, le=1)
    """Smallest probability that the true drift is within the tolerance, from the scatter of the frames."""

    @model_validator(mode="after")
    def _consistent(self) -> "Plateau":
        if (self.duration_s is None) == (self.frames is None):
            raise ValueError("give either duration_s or frames")
        if self.frames is not None and self.frames < self.min_frames:
            raise ValueError(f"frames is {self.frames}, less than min_frames {self.min_frames}: never true")
        return self


class Rate(QuantityTrigger):
    """The quantity changes faster, or slower, than a rate."""

    kind: Literal["rate"] = "rate"
    """Name of this trigger."""
    above_per_hour: float | None = None
    """Signed rate, in the quantity's unit per hour; give this or ``below_per_hour``."""
    below_per_hour: float | None = None
    """Signed rate, in the quantity's unit per hour; give this or ``above_per_hour``."""
    window_frames: int = Field(default=15, ge=7, le=100)
    """Number of frames of the robust line whose slope is judged; no decision is made before the window is full."""
    min_confidence: float = Field(default=0.9, ge=0.5, le=1)
    """Smallest probability that the true rate is beyond the stated one, given the scatter of the frames. The
    condition ends when the probability falls below 0.5."""

    @model_validator(mode="after")
    def _one_rate(self) -> "Rate":
        if (self.above_per_hour is None) == (self.below_per_hour is None):
            raise ValueError("give either above_per_hour or below_per_hour")
        return self


class Extremum(QuantityTrigger):
    """The quantity has passed a maximum or a minimum by a stated amount.

    The condition ends when the quantity has returned by the same amount. The values are those of a robust line
    through the window, so that a glitch does not count as an extremum.
    """

    kind: Literal["extremum"] = "extremum"
    """Name of this trigger."""
    of: Literal["maximum", "minimum"]
    """Kind of extremum that must have been passed."""
    drop: float = Field(gt=0)
    """Distance from the extremum at which it counts as passed, in the quantity's unit."""
    window_frames: int = Field(default=9, ge=7, le=100)
    """Number of frames of the robust line whose value at the newest frame is judged."""
    min_confidence: float = Field(default=0.9, ge=0, le=1)
    """Smallest probability that the true distance exceeds ``drop``, given the scatter of the frames."""


class PlateauWatch(QuantityWatch):
    """Follows one series for a :class:`Plateau`; the condition ends when the quantity changes."""

    def __init__(self, settings: Plateau, unit: str = "") -> None:
        super().__init__(settings.quantity, settings.max_ood, unit, limits_all=settings.limits_all)
        self._settings = settings
        self._judged = (0.0, 0.0, 0.0)
        """Value, drift, and length of the window in s."""

    def add(self, point: SeriesPoint) -> None:
        """Judge the drift over the window."""
        settings = self._settings
        newest = self._insert(point)
        points = self._trim()
        span = points[-1].time - points[0].time
        # Unix seconds are rounded to 2e-7 s; a window of exactly the duration must count as full.
        full = span >= (settings.duration_s or 0.0) - 1e-6 and len(points) >= (settings.frames or 0)
        if newest is False or not full or len(points) < settings.min_frames or span <= 0:
            return
        self._judge()
        line = robust_line(*self.series.arrays())
        duration = settings.duration_s or span
        drift = line.slope * duration
        self._judged = line.value, drift, duration
        self.confidence = probability_within(drift, line.slope_error * duration, settings.tolerance)
        self.holds = (self.holds and abs(drift) <= settings.tolerance) or self.confidence >= settings.min_confidence

    @property
    def reason(self) -> str:
        """The value, its drift and the tolerance."""
        value, drift, duration = self._judged
        tolerance = self._settings.tolerance
        change = apart(drift, -tolerance, tolerance, digits=2, sign="+")
        return (
            f"{self.quantity} {value:.3g}{self.unit} changes by {change}{self.unit} "
            f"in {duration_in_words(duration)}, within ± {tolerance:g}{self.unit}, "
            f"over {len(self.series.points)} frames"
        )

    @property
    def compared(self) -> Compared:
        """The drift over the window, and the tolerance."""
        _, drift, duration = self._judged
        tolerance = self._settings.tolerance
        return Compared(
            drift,
            (-tolerance, tolerance),
            f"change in {duration_in_words(duration)}{self.unit and f' ({self.unit.strip()})'}",
        )

    def _kept(self) -> list[Any]:
        return [self.series.state(), *self._judged]

    def _keep_again(self, kept: list[Any]) -> None:
        series, *judged = kept
        self._judged = (judged[0], judged[1], judged[2])
        self.series.restore(series)

    def _trim(self) -> list[SeriesPoint]:
        points, settings = self.series.points, self._settings
        if settings.frames is not None:
            del points[: -settings.frames]
        else:
            start = points[-1].time - (settings.duration_s or 0.0)
            # The last point at or before the start is kept, so that the window spans the duration.
            before = sum(1 for p in points if p.time <= start)
            del points[: max(before - 1, 0)]
            if len(points) > _MAX_PLATEAU_FRAMES:
                points[:] = points[::-2][::-1]
        return points


class _LineWatch(QuantityWatch):
    """Judges the robust line through the last frames of a series."""

    def __init__(self, settings: Rate | Extremum, unit: str) -> None:
        super().__init__(settings.quantity, settings.max_ood, unit, limits_all=settings.limits_all)
        self._window = settings.window_frames

    def _line(self, point: SeriesPoint) -> TrendLine | None:
        """Add a point; return the line, or None if the point is late or the window is not full."""
        newest = self._insert(point)
        del self.series.points[: -self._window]
        if newest is None:
            self._restart()
        if newest is False or len(self.series.points) < self._window:
            return None
        time, value = self.series.arrays(self._window)
        line = robust_line(self._clock(time), value)
        if not math.isfinite(line.value + line.value_error + line.slope):
            return None
        self._judge()
        return line

    @staticmethod
    def _clock(time: Array) -> Array:
        """Return the frames' times, s, unchanged: the slope over a pause is a slope too."""
        return time - time[0]

    def _restart(self) -> None:
        self.holds, self.confidence = False, 0.0


class RateWatch(_LineWatch):
    """Follows one series for a :class:`Rate`."""

    def __init__(self, settings: Rate, unit: str = "") -> None:
        super().__init__(settings, unit)
        self._settings = settings
        self._rate = self._error = 0.0

    def add(self, point: SeriesPoint) -> None:
        """Judge the slope of the line."""
        if (line := self._line(point)) is None:
            return
        settings = self._settings
        self._rate, self._error = line.slope * _HOUR_S, line.slope_error * _HOUR_S
        above, below = settings.above_per_hour, settings.below_per_hour
        beyond = self._rate - above if above is not None else (below or 0.0) - self._rate
        self.confidence = probability_positive(beyond, self._error)
        self.holds = self.confidence >= (0.5 if self.holds else settings.min_confidence)

    @property
    def reason(self) -> str:
        """The rate with its error, the bar and the window."""
        above, below = self._settings.above_per_hour, self._settings.below_per_hour
        bar = f"above {above:g}" if above is not None else f"below {below:g}"
        rate = apart(self._rate, *self.compared.bars, sign="+")
        return (
            f"{self.quantity} changes by {rate} ± {self._error:.2g}{self.unit}/h, "
            f"{bar}{self.unit}/h, by a line through {self._window} frames"
        )

    @property
    def compared(self) -> Compared:
        """The rate, and the bar."""
        rates = self._settings.above_per_hour, self._settings.below_per_hour
        return Compared(self._rate, tuple(r for r in rates if r is not None), f"rate ({self.unit.strip() or '1'}/h)")

    def _kept(self) -> list[Any]:
        return [self.series.state(), self._rate, self._error]

    def _keep_again(self, kept: list[Any]) -> None:
        series, self._rate, self._error = kept
        self.series.restore(series)


class ExtremumWatch(_LineWatch):
    """Follows one series for an :class:`Extremum`: the turning points of the quantity are at least ``drop`` apart."""

    def __init__(self, settings: Extremum, unit: str = "") -> None:
        super().__init__(settings, unit)
        self._settings = settings
        self._sign = 1.0 if settings.of == "maximum" else -1.0
        self._turn: tuple[float, float] | None = None
        """Turning point: signed value (negated for a minimum) and error; it follows the line while that goes
        further."""
        self._value = 0.0

    def add(self, point: SeriesPoint) -> None:
        """Compare the line with the last turning point."""
        if (line := self._line(point)) is None:
            return
        self._value = line.value
        value = self._sign * line.value
        turn = self._turn
        # While the condition holds, the next turning point is the opposite extremum.
        if turn is None or (value < turn[0] if self.holds else value > turn[0]):
            self._turn = turn = value, line.value_error
        away = value - turn[0] if self.holds else turn[0] - value
        passed = probability_positive(away - self._settings.drop, math.hypot(line.value_error, turn[1]))
        if passed >= self._settings.min_confidence:
            self.holds = not self.holds
            self.confidence = passed if self.holds else 1 - passed
            if not self.holds:
                self._turn = value, line.value_error

    @property
    def reason(self) -> str:
        """The value, the extremum and the bar."""
        settings, turn = self._settings, self._sign * self._turn[0] if self._turn else math.nan
        return (
            f"{self.quantity} {self._value:.3g}{self.unit} has passed its {settings.of} of {turn:.3g}{self.unit} by "
            f"more than {settings.drop:g}{self.unit}, by a line through {self._window} frames"
        )

    @property
    def compared(self) -> Compared:
        """The value, and the value that it must reach after the last turning point."""
        turn = self._turn[0] if self._turn else math.nan
        way = -self._settings.drop if not self.holds else self._settings.drop
        return Compared(self._value, (self._sign * (turn + way),))

    def _kept(self) -> list[Any]:
        return [self.series.state(), self._turn, self._value]

    def _keep_again(self, kept: list[Any]) -> None:
        series, turn, self._value = kept
        self._turn = None if turn is None else (turn[0], turn[1])
        self.series.restore(series)

    def _restart(self) -> None:
        super()._restart()
        self._turn = None

    @staticmethod
    def _clock(time: Array) -> Array:
        """Return the frames' times, s, with pauses cut, since the value at the newest frame is judged."""
        return without_pauses(time)
