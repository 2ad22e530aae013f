"""Where the monochromator's energies stand, followed over time on the reference foil of each frame."""

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ..types import Array, Flag, Settings, mad_sd, median, theil_sen

READ_EV = 0.02
"""What reading E0 off one foil scan errs by at the least: the scatter of repeated scans."""

LINE_FRAMES = 5
"""Fewer frames than this have a level, but no slope yet."""


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
class Course:
    """Where the energies of one frame stand."""

    shift_ev: float
    """To be added to the frame's energies; NaN where no foil has been seen."""
    sd_ev: float
    flag: Flag | None = None
    """``FOIL_HELD`` where the frame has no foil of its own, ``FOIL_OFF_ITS_COURSE`` where its own disagrees."""


class FoilTrack:
    """The shift of one foil over time: a robust line (Theil, 1950; Sen, 1968) through the last frames, at the newest.

    Only what came before a frame is known when it is served, so the line is read at its end.

    >>> track = FoilTrack(FoilSettings())
    >>> for k in range(30):
    ...     course = track.follow(60.0 * k, 0.4 + 0.005 * k)
    >>> round(course.shift_ev, 3)
    0.545
    >>> track.follow(1800.0, 3.0).flag.value, round(track.follow(1860.0, 0.555).shift_ev, 3)
    ('foil off its course', 0.555)
    """

    def __init__(self, settings: FoilSettings) -> None:
        self._settings = settings
        self._seen: deque[tuple[float, float]] = deque(maxlen=settings.frames)
        self._off: list[tuple[float, float]] = []
        """Frames since the last that agreed with the course, all off it on one side."""
        self._line: _Line | None = None
        """Through ``_seen``; None until it is asked for."""

    def follow(self, time: float, shift_ev: float) -> Course:
        """The course at the time (s) of a frame whose own foil asks for ``shift_ev``, NaN without a foil."""
        last = max((t for t, _ in (*self._seen, *self._off)), default=time)
        if abs(time - last) > self._settings.forget_s:
            self._seen.clear()
            self._off.clear()
            self._line = None
        if math.isnan(shift_ev):
            return self._at(time, Flag.FOIL_HELD)
        before = self._at(time)
        apart = shift_ev - before.shift_ev
        if abs(apart) > max(self._settings.jump_ev, 3 * before.sd_ev):
            self._off = [o for o in self._off if abs(o[1] - shift_ev) <= self._settings.jump_ev]
            self._off.append((time, shift_ev))
            if len(self._off) < self._settings.confirmed:
                # Which of the two is wrong is not known yet.
                return Course(before.shift_ev, max(before.sd_ev, abs(apart)), Flag.FOIL_OFF_ITS_COURSE)
            self._seen.clear()
            self._seen.extend(self._off)
        else:
            self._seen.append((time, shift_ev))
        self._off.clear()
        self._line = None
        return self._at(time)

    def _at(self, time: float, flag: Flag | None = None) -> Course:
        if not self._seen:
            return Course(np.nan, np.nan)
        if self._line is None:
            self._line = _line(*np.array(self._seen).T.copy())
        line = self._line
        leverage = (time - line.mean_s) ** 2 / line.spread_s2 if line.spread_s2 else 0.0
        level = line.level_ev + line.slope * (time - line.mean_s)
        return Course(level, line.scatter_ev * (1 / len(self._seen) + leverage) ** 0.5, flag)


class _Line(NamedTuple):
    slope: float
    """eV/s; 0 for a few frames."""
    level_ev: float
    """At the mean time."""
    scatter_ev: float
    mean_s: float
    spread_s2: float
    """Sum of the squared distances from the mean time; 0 where there is no slope."""


def _line(t: Array, s: Array) -> _Line:
    first = float(t[0])
    t -= first  # else times since 1970 would round
    mean = float(t.sum()) / len(t)
    t -= mean
    spread = float(t @ t) if len(t) >= LINE_FRAMES else 0.0
    slope = theil_sen(t, s) if spread > 0 else 0.0
    s -= slope * t
    level = median(s)
    return _Line(slope, level, max(mad_sd(s, level), READ_EV), first + mean, spread)
