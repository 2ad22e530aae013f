"""The conditions of rules on a series of estimates: a threshold or a plateau."""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, assert_never

import numpy as np
from pydantic import Field, model_validator

from ..types import Z90, Array, Settings, median, robust_line

_MAX_LATE_FRAMES = 8
"""Number of frames in a row, older than the newest, that show that time went back (a replay)."""
_MAX_PLATEAU_FRAMES = 512
"""Largest number of frames of a plateau's series; longer ones are thinned."""
_MAX_STEP = 3.0
"""Longest time between two frames of a threshold's line, in units of the median. A pause or a clock that jumps would
extend the line far beyond what was measured: a drift of 0.01 e per frame to some e in a few hours."""
_TREND_BLOCKS = 50
"""Number of block medians to which a series at least twice as long is reduced, since the pairs grow as n²."""


class _Trigger(Settings):
    descriptor: str
    """Descriptor whose expectation ``mean`` is watched, in the descriptor's unit."""
    max_ood: float | None = Field(default=1.0, ge=0)
    """Frames with a higher ``ood_score`` (or without one) are left out of the series: they neither count towards a
    dwell nor interrupt it. ``null`` accepts every frame."""
    max_times: int = Field(default=1, ge=1)
    """Largest number of decisions per run."""


class Threshold(_Trigger):
    """The descriptor has been beyond a level for the dwell.

    After a decision, the value must return past the level by the hysteresis before the next decision.
    """

    kind: Literal["threshold"] = "threshold"
    """Name of this trigger."""
    above: float | None = None
    """Level, in the descriptor's unit; give this or ``below``."""
    below: float | None = None
    """Level, in the descriptor's unit; give this or ``above``."""
    hysteresis: float = Field(default=0.0, ge=0)
    """Distance past the level to which the value must return before the next decision, in the descriptor's unit."""
    dwell_frames: int = Field(default=1, ge=1, le=1000)
    """Frames in a row that must be beyond the level, including the deciding one."""
    dwell_s: float = Field(default=0.0, ge=0)
    """Time for which they must have been beyond it, s, by the frames' own times."""
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """Smallest probability that the true value is beyond the level; the ``uncertainty`` is read as a Gaussian.

    0.5 decides on the value only. A higher probability waits until the value is past the level by a part of the
    interval. This is safer, but later even without noise, since the model's own error does not average out.
    """
    uncertainty: Literal["all", "frame"] = "all"
    """What ``min_confidence`` allows for: ``all`` causes, as the 90 % interval does, for a level in absolute terms;
    or, with ``frame``, only the scatter of repeats (``sd_frame``), for a level that was read from the same sample."""
    window_frames: int = Field(default=1, ge=1, le=100)
    """Number of frames (7 or more) of a robust line, whose value at the newest frame is judged; 1: the bare value.

    The line follows a steady drift without lag and ignores up to 29 % of glitched frames. There is no decision before
    the window is full. The line is not extended over a pause or a clock that jumps forward. Of 1000 simulated charges
    (0.0112 e per frame, noise 0.03 e, 2 % glitches), 21 frames stopped all within 0.05 e of the level, 15 frames all
    but one.
    """

    @model_validator(mode="after")
    def _consistent(self) -> "Threshold":
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        if 1 < self.window_frames < 7:
            raise ValueError("window_frames must be 1 (off) or at least 7: fewer frames do not show their scatter")
        return self


class Plateau(_Trigger):
    """The descriptor no longer changes: its drift over the window stays within the tolerance."""

    kind: Literal["plateau"] = "plateau"
    """Name of this trigger."""
    tolerance: float = Field(gt=0)
    """Largest change over the window that counts as no change, in the descriptor's unit."""
    duration_s: float | None = Field(default=None, gt=0)
    """Length of the window in seconds, by the frames' own times; give this or ``frames``."""
    frames: int | None = Field(default=None, ge=7, le=_MAX_PLATEAU_FRAMES)
    """Length of the window in frames; give this or ``duration_s``."""
    min_frames: int = Field(default=7, ge=7, le=_MAX_PLATEAU_FRAMES // 2)
    """Smallest number of frames in the window for a decision."""
    min_confidence: float = Field(default=0.9, ge=0, le=1)
    """Smallest probability that the true drift is within the tolerance, from the scatter of the frames."""

    @model_validator(mode="after")
    def _consistent(self) -> "Plateau":
        if (self.duration_s is None) == (self.frames is None):
            raise ValueError("give either duration_s or frames")
        if self.frames is not None and self.frames < self.min_frames:
            raise ValueError(f"frames is {self.frames}, less than min_frames {self.min_frames}: never true")
        return self


Trigger = Annotated[Threshold | Plateau, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """The watched descriptor in one frame, in the descriptor's unit."""

    uid: str
    time: float
    """Unix seconds."""
    value: float
    sigma: float
    """Standard deviation."""

    @classmethod
    def from_interval(cls, uid: str, time: float, mean: float, lo: float, hi: float) -> "SeriesPoint | None":
        """Read a 90 % interval as a Gaussian; return None if a number is not finite or ``hi < lo``."""
        if not (math.isfinite(time + mean + lo + hi) and lo <= hi):
            return None
        return cls(uid, time, mean, (hi - lo) / (2 * Z90))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The evidence of a trigger whose condition is met."""

    confidence: float
    reason: str
    evidence: tuple[tuple[str, float], ...]
    """(frame uid, value) pairs in time order; evenly selected from a long window."""


class _PointSeries:
    """Points of one sample in time order."""

    def __init__(self) -> None:
        self.points: list[SeriesPoint] = []
        self._late: list[SeriesPoint] = []
        """The late points since the newest one."""

    def add(self, point: SeriesPoint) -> bool | None:
        """Insert a point: return True if it is the newest, False if it is late, None if time went back.

        If time went back, the series restarts with the points since then.
        """
        if not self.points or point.time >= self.points[-1].time:
            self.points.append(point)
            self._late.clear()
            return True
        self._late.append(point)
        if len(self._late) < _MAX_LATE_FRAMES:
            insort(self.points, point, key=lambda p: p.time)
            return False
        self.points[:] = sorted(self._late, key=lambda p: p.time)
        self._late.clear()
        return None

    def state(self) -> list[Any]:
        """Return what :meth:`restore` needs."""
        return [[(p.uid, p.time, p.value, p.sigma) for p in points] for points in (self.points, self._late)]

    def restore(self, state: list[Any]) -> None:
        """Continue where another series had this state."""
        for points, saved in zip((self.points, self._late), state, strict=True):
            points[:] = [SeriesPoint(*point) for point in saved]

    def arrays(self) -> tuple[Array, Array]:
        """Return times and values, (n,) each; a series of 100 points or more is reduced to 50 block medians."""
        time = np.array([p.time for p in self.points])
        value = np.array([p.value for p in self.points])
        if (size := len(time) // _TREND_BLOCKS) > 1:
            time = np.median(time[-size * _TREND_BLOCKS :].reshape(_TREND_BLOCKS, size), axis=1)
            value = np.median(value[-size * _TREND_BLOCKS :].reshape(_TREND_BLOCKS, size), axis=1)
        return time, value


def _evidence(points: Sequence[SeriesPoint]) -> tuple[tuple[str, float], ...]:
    step = -(-len(points) // _TREND_BLOCKS)
    return tuple((p.uid, p.value) for p in points[::-step][::-1])


class ThresholdWatch:
    """Follows one series for a :class:`Threshold`.

    A late frame, older than the newest one, enters the window but does not cause a decision, since decisions concern
    the present.
    """

    def __init__(self, settings: Threshold, unit: str = "") -> None:
        self._settings = settings
        self._unit = f" {unit}" if unit else ""
        self._keep = max(settings.window_frames, min(settings.dwell_frames, _TREND_BLOCKS))
        self._series = _PointSeries()
        self._restart()

    def _restart(self) -> None:
        self._armed = True
        self._dwell_frames = 0
        self._dwell_start = 0.0

    def __call__(self, point: SeriesPoint) -> Verdict | None:
        newest = self._series.add(point)
        del self._series.points[: -self._keep]
        if newest is None:
            self._restart()
        if newest is False or len(self._series.points) < self._settings.window_frames:
            return None
        value, sigma = self._now()
        beyond = self._beyond(value)
        if not self._armed:
            self._armed = beyond < -self._settings.hysteresis
        confidence = _probability_positive(beyond, sigma)
        # In this form, NaN from values too large to square never leads to a decision.
        if not (self._armed and confidence >= self._settings.min_confidence):
            self._dwell_frames = 0
            return None
        self._dwell_frames += 1
        if self._dwell_frames == 1:
            self._dwell_start = point.time
        dwell_s = point.time - self._dwell_start
        if self._dwell_frames < self._settings.dwell_frames or dwell_s < self._settings.dwell_s:
            return None
        verdict = Verdict(confidence, self._reason(value, sigma, dwell_s), _evidence(self._series.points))
        self._armed, self._dwell_frames = False, 0
        return verdict

    def state(self) -> list[Any]:
        """Return what :meth:`restore` needs."""
        return [self._series.state(), self._armed, self._dwell_frames, self._dwell_start]

    def restore(self, state: list[Any]) -> None:
        """Continue where another watch had this state."""
        series, self._armed, self._dwell_frames, self._dwell_start = state
        self._series.restore(series)

    def _beyond(self, value: float) -> float:
        above, below = self._settings.above, self._settings.below
        if above is not None:
            return value - above
        assert below is not None  # the settings hold one of the two
        return below - value

    def _now(self) -> tuple[float, float]:
        """Return value and standard deviation at the newest frame.

        A frame's σ has two parts: its own noise, which shows as scatter in the window and averages out, and an error
        that all frames of the sample share. They add in squares. The part of σ² above the scatter² is therefore added
        to the squared error of the line.
        """
        points = self._series.points
        if self._settings.window_frames == 1:
            return points[-1].value, points[-1].sigma
        window = points[-self._settings.window_frames :]
        time = _without_pauses(np.array([p.time for p in window]))
        line = robust_line(time, np.array([p.value for p in window]))
        sigma = sorted(p.sigma for p in window)[len(window) // 2]
        shared = max(sigma * sigma - line.scatter * line.scatter, 0.0)
        return line.value, math.hypot(line.value_error, math.sqrt(shared))

    def _reason(self, value: float, sigma: float, dwell_s: float) -> str:
        settings, unit = self._settings, self._unit
        side, level = ("above", settings.above) if settings.above is not None else ("below", settings.below)
        half = Z90 * sigma
        frames = f"{self._dwell_frames} frame{'s' if self._dwell_frames > 1 else ''}"
        parts = [
            f"{settings.descriptor} {value:.3g}{unit} ({value - half:.3g}…{value + half:.3g})",
            f"{side} {level:.3g}{unit} for {frames}",
        ]
        if dwell_s > 0:
            parts.append(f"over {dwell_s:.3g} s")
        if settings.window_frames > 1:
            parts.append(f"by a line through {settings.window_frames} frames")
        return " ".join(parts)


class PlateauWatch:
    """Follows one series for a :class:`Plateau`; its condition is met again only after the descriptor has changed."""

    def __init__(self, settings: Plateau, unit: str = "") -> None:
        self._settings = settings
        self._unit = f" {unit}" if unit else ""
        self._series = _PointSeries()
        self._armed = True

    def __call__(self, point: SeriesPoint) -> Verdict | None:
        settings = self._settings
        newest = self._series.add(point)
        points = self._trim()
        if newest is None:
            self._armed = True
        span = points[-1].time - points[0].time
        # Unix seconds are rounded to 2e-7 s; a window of exactly the duration must count as full.
        full = span >= (settings.duration_s or 0.0) - 1e-6 and len(points) >= (settings.frames or 0)
        if newest is False or not full or len(points) < settings.min_frames or span <= 0:
            return None
        time, value = self._series.arrays()
        line = robust_line(time, value)
        duration = settings.duration_s or span
        drift = line.slope * duration
        confidence = _probability_within(drift, line.slope_error * duration, settings.tolerance)
        if not self._armed:
            self._armed = abs(drift) > settings.tolerance
        if not (self._armed and confidence >= settings.min_confidence):
            return None
        self._armed = False
        reason = (
            f"{settings.descriptor} {line.value:.3g}{self._unit} changes by {drift:+.2g}{self._unit} "
            f"in {duration:.3g} s, within ± {settings.tolerance:.3g}{self._unit}, over {len(points)} frames"
        )
        return Verdict(confidence, reason, _evidence(points))

    def state(self) -> list[Any]:
        """Return what :meth:`restore` needs."""
        return [self._series.state(), self._armed]

    def restore(self, state: list[Any]) -> None:
        """Continue where another watch had this state."""
        series, self._armed = state
        self._series.restore(series)

    def _trim(self) -> list[SeriesPoint]:
        points, settings = self._series.points, self._settings
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


def _without_pauses(time: Array) -> Array:
    """Return rising times, s, from the first one, with no step longer than ``_MAX_STEP`` median ones.

    >>> _without_pauses(np.array([0.0, 1.0, 2.0, 1000.0, 1001.0])).tolist()
    [0.0, 1.0, 2.0, 5.0, 6.0]
    """
    steps = np.diff(time)
    longest = _MAX_STEP * median(steps[steps > 0]) if (steps > 0).any() else 0.0
    return np.concatenate([[0.0], np.minimum(steps, longest).cumsum()])


Watch = ThresholdWatch | PlateauWatch
"""A trigger that follows one series and keeps the necessary points of its past."""


def _probability_positive(mean: float, sigma: float) -> float:
    if sigma == 0:
        return float(mean >= 0)
    return 0.5 * math.erfc(-mean / (sigma * math.sqrt(2)))


def _probability_within(mean: float, sigma: float, bound: float) -> float:
    return _probability_positive(bound - mean, sigma) - _probability_positive(-bound - mean, sigma)


def start_watch(trigger: Trigger, unit: str = "") -> Watch:
    """Return a watch for a new series, with the unit of the descriptor for its reasons."""
    match trigger:
        case Threshold():
            return ThresholdWatch(trigger, unit)
        case Plateau():
            return PlateauWatch(trigger, unit)
        case _:
            assert_never(trigger)
