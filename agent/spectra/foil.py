"""Follows the calibration of the monochromator's energies over time, by the reference foil of each frame."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from ..types import MAD_TO_SD, Array, Flag, Settings, medians, theil_sen_slopes

FOIL_READING_SD_EV = 0.02
"""Smallest standard deviation of E0 read from one foil scan, eV: the scatter of repeated scans."""

_MIN_SLOPE_FRAMES = 5  # fewer frames determine a level but no slope
_JUMP_SD = 3  # a jump must also exceed this many standard deviations of the trend
_FEWEST_TOGETHER, _MOST_TOGETHER = 8, 256  # numbers of frames whose lines are fitted at once


class FoilSettings(Settings):
    """The settings for following the foil's shift."""

    frames: int = Field(default=21, ge=1)
    """Number of recent frames in the trend. A straight line through them follows a drift; more frames reduce noise
    but respond more slowly."""
    jump_ev: float = Field(default=0.3, gt=0)
    """Distance of a foil edge from its trend, eV, above which the trend ignores it until ``confirmed`` successive
    frames agree; then the monochromator has moved, and a new trend begins."""
    confirmed: int = Field(default=3, ge=1)
    """Number of successive frames that confirm a jump."""
    forget_s: float = Field(default=3600.0, gt=0)
    """A new trend begins after a pause of this length, s. If the next frame has a foil, a pause as long as the
    duration of the trend's frames is enough."""


class EnergyCalibration(NamedTuple):
    """The calibration of one frame's energies."""

    shift_ev: float
    """Shift to add to the frame's energies, eV; NaN if no foil has been measured yet, or the last one is too old."""
    sd_ev: float
    """Standard deviation of the shift, eV."""
    flag: Flag | None = None
    """``FOIL_HELD`` if the frame has no foil, ``FOIL_FORGOTTEN`` if a foil calibrated its series before but is too
    old, ``FOIL_OFF_ITS_COURSE`` if the frame's foil deviates from the trend, ``REFERENCE_UPSIDE_DOWN`` if its
    reference falls at the edge."""
    jitter_ev: float = 0.0
    """Scatter of the frames about the trend beyond that of their readings, eV (standard deviation): a jitter of the
    energies that the trend does not follow."""


class FoilTrack:
    """The trend of a foil's shift: a robust line (Theil, 1950; Sen, 1968) through the last frames.

    Later frames are unknown when a frame is served, so that the line is evaluated at its end.

    >>> track = FoilTrack(FoilSettings())
    >>> for k in range(30):
    ...     calibration = track.follow(60.0 * k, 0.4 + 0.005 * k)
    >>> round(calibration.shift_ev, 3)
    0.545
    >>> track.follow(1800.0, 3.0).flag.value, round(track.follow(1860.0, 0.555).shift_ev, 3)
    ('foil off its course', 0.555)
    """

    def __init__(self, settings: FoilSettings) -> None:
        self._settings = settings
        self._trend: deque[tuple[float, float, float]] = deque(maxlen=settings.frames)
        """Time (s), shift and its standard deviation (eV) of the frames on the trend."""
        self._off_trend: list[tuple[float, float, float]] = []
        """The later frames, which deviate from the trend and agree with each other."""
        self._line: tuple[float, ...] | None = None
        """Values of the line through ``_trend``, in the order of :class:`_Lines`; None until they are needed."""

    def follow_all(
        self, times: Sequence[float], shifts_ev: Sequence[float], sds_ev: Sequence[float]
    ) -> list[EnergyCalibration]:
        """Return the calibrations of frames in the order of time, equal to those of single :meth:`follow` calls."""
        if len(times) == 1:
            return [self.follow(times[0], shifts_ev[0], sds_ev[0])]
        found: list[EnergyCalibration] = []
        together, columns = _MOST_TOGETHER, [np.array(v, float) for v in (times, shifts_ev, sds_ev)]
        while (done := len(found)) < len(times):
            steady = self._follow_steady(*(column[done : done + together] for column in columns))
            found += steady
            together = min(2 * together, _MOST_TOGETHER) if len(steady) == together else _FEWEST_TOGETHER
            if not steady:
                found.append(self.follow(times[done], shifts_ev[done], sds_ev[done]))
        return found

    def _follow_steady(self, times: Array, shifts: Array, sds: Array) -> list[EnergyCalibration]:
        """Follow the first frames as long as each lies on a full trend."""
        length = self._settings.frames
        if len(self._trend) < length or self._off_trend:
            return []
        windows = [
            sliding_window_view(np.concatenate((known, new)), length)
            for known, new in zip(np.array(self._trend).T, (times, shifts, sds), strict=True)
        ]
        with np.errstate(invalid="ignore"):  # frames without a foil are NaN
            lines = _fit_lines(*windows)
            level, sd = lines.at(np.concatenate((times[:1], times)))
            expected, expected_sd = lines.before_last().at(times)
            limit = np.maximum(self._settings.jump_ev, _JUMP_SD * np.hypot(expected_sd, sds))
            steady = np.abs(shifts - expected) <= limit
            first, last = windows[0][:-1].min(axis=1), windows[0][:-1].max(axis=1)
            steady &= np.abs(times - last) <= np.minimum(self._settings.forget_s, last - first)
        count = len(times) if steady.all() else int(steady.argmin())
        if not count:
            return []
        self._trend.extend(zip(*(v[:count].tolist() for v in (times, shifts, sds)), strict=True))
        self._line = None
        found = zip(*(v[1 : count + 1].tolist() for v in (level, sd, lines.jitter_ev)), strict=True)
        return [EnergyCalibration(shift_ev, sd_ev, None, jitter_ev) for shift_ev, sd_ev, jitter_ev in found]

    def follow(self, time: float, shift_ev: float, sd_ev: float = FOIL_READING_SD_EV) -> EnergyCalibration:
        """Add a frame's foil and return the calibration of the frame.

        Parameters
        ----------
        time : time of the frame, s
        shift_ev : shift that the frame's own foil determines, eV; NaN without a foil
        sd_ev : standard deviation of that shift, eV
        """
        if self._is_over(time, has_foil=not math.isnan(shift_ev)):
            self._trend.clear()
            self._off_trend.clear()
            self._line = None
        if math.isnan(shift_ev):
            return self._at(time, Flag.FOIL_HELD)
        expected = self._at(time)
        deviation = shift_ev - expected.shift_ev
        if abs(deviation) > max(self._settings.jump_ev, _JUMP_SD * math.hypot(expected.sd_ev, sd_ev)):
            self._off_trend = [f for f in self._off_trend if abs(f[1] - shift_ev) <= self._settings.jump_ev]
            self._off_trend.append((time, shift_ev, sd_ev))
            if len(self._off_trend) < self._settings.confirmed:
                # Only later frames show whether this reading or the trend is wrong.
                doubt_ev = max(expected.sd_ev, abs(deviation))
                return EnergyCalibration(expected.shift_ev, doubt_ev, Flag.FOIL_OFF_ITS_COURSE)
            self._trend.clear()
            self._trend.extend(self._off_trend)
        else:
            self._trend.append((time, shift_ev, sd_ev))
        self._off_trend.clear()
        self._line = None
        return self._at(time)

    def _is_over(self, time: float, *, has_foil: bool) -> bool:
        """Return whether the trend no longer applies to a frame after a pause.

        The error of a slope grows with the distance: beyond the time in which the slope was measured, it soon exceeds
        the error of the frame's own foil, if there is one.
        """
        times = [t for t, *_ in (*self._trend, *self._off_trend)]
        if not times:
            return False
        has_slope = len(self._trend) >= _MIN_SLOPE_FRAMES
        longest = max(times) - min(times) if has_slope and has_foil else math.inf
        return abs(time - max(times)) > min(self._settings.forget_s, longest)

    def state(self) -> list[Any]:
        """Return the state for :meth:`restore`."""
        return [list(self._trend), self._off_trend]

    def restore(self, state: list[Any]) -> None:
        """Continue with the state of another track."""
        trend, off_trend = state[:2]
        self._trend.extend(trend)
        self._off_trend = list(off_trend)
        self._line = None

    def _at(self, time: float, flag: Flag | None = None) -> EnergyCalibration:
        if not self._trend:
            return EnergyCalibration(np.nan, np.nan)
        if self._line is None:
            *numbers, frames = _fit_lines(*np.array(self._trend).T[:, None].copy())
            self._line = (*(values.item() for values in numbers), frames)
        slope, level_ev, scatter_ev, jitter_ev, mean_s, spread_s2, frames = self._line
        x = time - mean_s  # as in _Lines.at, for one time, without numpy's overhead
        leverage = x * x / spread_s2 if spread_s2 > 0 else 0.0
        return EnergyCalibration(level_ev + slope * x, scatter_ev * math.sqrt(1 / frames + leverage), flag, jitter_ev)


class _Lines(NamedTuple):
    """N lines through ``frames`` frames each; all other fields are (N,)."""

    slope: Array
    """Slope, eV/s; 0 if the frames are few."""
    level_ev: Array
    """Value at the mean time."""
    scatter_ev: Array
    """Standard deviation of the frames about the line, at least that of their readings."""
    jitter_ev: Array
    """The part of the scatter beyond that of the readings."""
    mean_s: Array
    spread_s2: Array
    """Sum of the squared distances from the mean time; 0 if no slope was fitted."""
    frames: int

    def before_last(self) -> "_Lines":
        """Return all lines but the last."""
        return self._replace(**{name: values[:-1] for name, values in self._asdict().items() if name != "frames"})

    def at(self, times: Array) -> tuple[Array, Array]:
        """Return the lines at one time each, (N,), and their standard deviations there, eV."""
        x = times - self.mean_s
        leverage = np.divide(x**2, self.spread_s2, out=np.zeros(len(x)), where=self.spread_s2 > 0)
        return self.level_ev + self.slope * x, self.scatter_ev * np.sqrt(1 / self.frames + leverage)


def _fit_lines(t: Array, s: Array, sd: Array) -> _Lines:
    """Fit a line to each row of times, shifts and standard deviations, (N, n)."""
    n = t.shape[1]
    first = t[:, :1]
    t = t - first  # times since 1970 would lose digits
    mean = t.sum(axis=1, keepdims=True) / n
    t -= mean
    spread = (t * t).sum(axis=1) if n >= _MIN_SLOPE_FRAMES else np.zeros(len(t))
    slope = np.where(spread > 0, theil_sen_slopes(t, s), 0.0) if spread.any() else np.zeros(len(t))
    s = s - slope[:, None] * t
    level = medians(s)
    reading_sd = np.sqrt((sd * sd).sum(axis=1) / n)
    scatter = np.maximum(MAD_TO_SD * medians(np.abs(s - level[:, None])), reading_sd)
    jitter = np.sqrt(scatter**2 - reading_sd**2)
    return _Lines(slope, level, scatter, jitter, (first + mean)[:, 0], spread, n)
