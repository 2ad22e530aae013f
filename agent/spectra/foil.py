"""The calibration of the monochromator's energies, followed over time on the reference foil of each frame."""

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ..types import Array, Flag, Settings, mad_sd, median, theil_sen

FOIL_READING_SD_EV = 0.02
"""Smallest standard deviation of E0 read from one foil scan, eV: the scatter of repeated scans."""

_MIN_SLOPE_FRAMES = 5  # fewer frames determine a level and no slope
_JUMP_SD = 3  # a jump also exceeds this many standard deviations of the trend


class FoilSettings(Settings):
    """How the foil's shift is followed."""

    frames: int = Field(default=21, ge=1)
    """Number of recent frames used. A straight line through them follows a drift; more frames are quieter and
    slower."""
    jump_ev: float = Field(default=0.3, gt=0)
    """A foil edge farther than this from its trend, eV, is not followed until ``confirmed`` frames in a row agree:
    then the monochromator has moved, and a new trend begins."""
    confirmed: int = Field(default=3, ge=1)
    """Number of frames in a row that confirm a jump."""
    forget_s: float = Field(default=3600.0, gt=0)
    """A new trend begins after a pause this long, s."""


@dataclass(frozen=True, slots=True)
class EnergyCalibration:
    """The calibration of one frame's energies."""

    shift_ev: float
    """Added to the frame's energies, eV; NaN if no foil has been measured yet."""
    sd_ev: float
    """Standard deviation of the shift, eV."""
    flag: Flag | None = None
    """``FOIL_HELD`` if the frame has no foil, ``FOIL_OFF_ITS_COURSE`` if its foil deviates from the trend,
    ``REFERENCE_UPSIDE_DOWN`` if its reference falls at the edge."""
    jitter_ev: float = 0.0
    """Standard deviation of the frames about the trend beyond that of their readings, eV: a jitter of the energies,
    which the trend does not follow."""


class FoilTrack:
    """The trend of a foil's shift: a robust line (Theil, 1950; Sen, 1968) through the last frames, at the newest.

    Later frames are unknown when a frame is served, so the line is evaluated at its end.

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
        """The frames since then that deviate from the trend and agree with each other."""
        self._line: _Line | None = None
        """Line through ``_trend``; None until it is needed."""

    def follow(self, time: float, shift_ev: float, sd_ev: float = FOIL_READING_SD_EV) -> EnergyCalibration:
        """Add a frame's foil and return the calibration of the frame.

        Parameters
        ----------
        time : of the frame, s
        shift_ev : shift that the frame's own foil determines, eV; NaN without a foil
        sd_ev : standard deviation of that shift, eV
        """
        last = max((t for t, *_ in (*self._trend, *self._off_trend)), default=time)
        if abs(time - last) > self._settings.forget_s:
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
                # Later frames show whether this reading or the trend is wrong.
                doubt_ev = max(expected.sd_ev, abs(deviation))
                return EnergyCalibration(expected.shift_ev, doubt_ev, Flag.FOIL_OFF_ITS_COURSE)
            self._trend.clear()
            self._trend.extend(self._off_trend)
        else:
            self._trend.append((time, shift_ev, sd_ev))
        self._off_trend.clear()
        self._line = None
        return self._at(time)

    def state(self) -> list[list[tuple[float, float, float]]]:
        """Return what :meth:`restore` needs."""
        return [list(self._trend), self._off_trend]

    def restore(self, state: list[list[tuple[float, float, float]]]) -> None:
        """Continue where another track had this state."""
        self._trend.extend(state[0])
        self._off_trend = list(state[1])
        self._line = None

    def _at(self, time: float, flag: Flag | None = None) -> EnergyCalibration:
        if not self._trend:
            return EnergyCalibration(np.nan, np.nan)
        if self._line is None:
            self._line = _fit_line(*np.array(self._trend).T.copy())
        line = self._line
        leverage = (time - line.mean_s) ** 2 / line.spread_s2 if line.spread_s2 else 0.0
        level = line.level_ev + line.slope * (time - line.mean_s)
        sd = line.scatter_ev * (1 / len(self._trend) + leverage) ** 0.5
        return EnergyCalibration(level, sd, flag, line.jitter_ev)


class _Line(NamedTuple):
    slope: float
    """eV/s; 0 for a few frames."""
    level_ev: float
    """Value at the mean time."""
    scatter_ev: float
    """Standard deviation of the frames about the line, at least that of their readings."""
    jitter_ev: float
    """The part of the scatter that the readings do not explain."""
    mean_s: float
    spread_s2: float
    """Sum of the squared distances from the mean time; 0 if no slope was fitted."""


def _fit_line(t: Array, s: Array, sd: Array) -> _Line:
    first = float(t[0])
    t -= first  # times since 1970 would lose digits
    mean = float(t.sum()) / len(t)
    t -= mean
    spread = float(t @ t) if len(t) >= _MIN_SLOPE_FRAMES else 0.0
    slope = theil_sen(t, s) if spread > 0 else 0.0
    s -= slope * t
    level = median(s)
    reading_sd = float(sd @ sd / len(sd)) ** 0.5
    scatter = max(mad_sd(s, level), reading_sd)
    return _Line(slope, level, scatter, (scatter**2 - reading_sd**2) ** 0.5, first + mean, spread)
