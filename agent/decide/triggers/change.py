"""A sudden change of a quantity, with a stated rate of false alarms.

Each point is compared with those before it. Its residual from their mean, or from the line through them, divided by
their scatter, follows Student's distribution and is transformed to a Gaussian number (self-starting charts:
Quesenberry, J. Quality Technology 23, 213 (1991); recursive residuals: Brown, Durbin & Evans, J. R. Stat. Soc. B 37,
149 (1975)). As long as nothing changes, these numbers are independent and of unit variance, for any level and scatter
of the series. The Shiryaev–Roberts statistic sums, over all frames at which a change could have begun, the likelihood
ratio of a shift of unknown size (Gaussian prior) to no shift. Without a change, the statistic minus the number of
frames is a martingale; the mean number of frames to a false alarm is therefore at least the bar (e-detectors: Shin,
Ramdas & Rinaldo, New England J. Stat. Data Sci. 2, 229 (2024)).
"""

import math
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ...types import Array, robust_line
from ..observed import SeriesPoint
from .base import Compared, QuantityTrigger, QuantityWatch

_BASELINE = {"level": 1, "line": 2}
"""Number of fitted parameters, by baseline."""
_LEAST_FRAMES = 8
"""Frames of the baseline before the first comparison; with fewer, the Gaussian numbers hardly respond to a change."""
_MOST_FRAMES = 400
"""Largest number of frames of the baseline, and of frames at which a change may have begun."""
_SHIFT_SD = 3.0
"""Standard deviation of the prior of a shift, in units of the scatter of the frames."""
_MOST = 7.0
"""Largest Gaussian number; the distribution function rounds to 1 beyond it."""
_NO_ALARM = ("", 0.0, 0.0, 0)


class Change(QuantityTrigger):
    """The quantity has left its level, or the line that it followed."""

    kind: Literal["change"] = "change"
    """Name of this trigger."""
    false_alarm_frames: float = Field(default=10_000.0, ge=20)
    """Least mean number of frames between false alarms, while nothing changes and the scatter is Gaussian."""
    least: float = Field(default=0.0, ge=0)
    """Smallest change that counts, in the quantity's unit; smaller ones only begin a new baseline."""
    baseline: Literal["level", "line"] = "level"
    """Course of the quantity as long as nothing changes: a constant ``level``, or a ``line`` in time, as in a charge
    at constant current."""


class ChangeWatch(QuantityWatch):
    """Follows one series for a :class:`Change`; after an alarm, a new baseline begins at the change."""

    def __init__(self, settings: Change, unit: str = "") -> None:
        super().__init__(settings.quantity, settings.max_ood, unit, limits_all=settings.limits_all)
        self._settings = settings
        self._shifts: list[float] = []
        """Gaussian number of each point of the series; 0 for points before the first comparison."""
        self._statistic = 0.0
        self._alarm = _NO_ALARM
        """Alarm at the newest frame: uid of the first changed frame, levels before and after, frames since then."""

    def add(self, point: SeriesPoint) -> None:
        """Compare the point with those before it."""
        self.holds, self.confidence, self._alarm = False, 0.0, _NO_ALARM
        newest = self._insert(point)
        points = self.series.points
        if newest is None:
            self._shifts = [0.0] * len(points)
        elif newest:
            self._shifts.append(self._shift(len(points) - 1))
        else:  # a late frame only enters the baseline
            self._shifts.insert(points.index(point), 0.0)
        del points[:-_MOST_FRAMES], self._shifts[:-_MOST_FRAMES]
        if not newest or len(points) <= _LEAST_FRAMES:
            return
        self._judge()
        log_ratios = self._log_ratios()
        self._statistic = statistic = float(np.exp(log_ratios).sum())
        if statistic < self._settings.false_alarm_frames:
            return
        begin = int(log_ratios.argmax())
        before, after = self._levels(begin)
        self._alarm = points[begin].uid, before, after, len(points) - begin
        self.holds = abs(after - before) >= self._settings.least
        self.confidence = 1 - 1 / self._settings.false_alarm_frames if self.holds else 0.0
        del points[:begin], self._shifts[:begin]
        self._shifts = [0.0] * len(points)

    @property
    def reason(self) -> str:
        """The change, when it began, and the rate of false alarms."""
        _, before, after, frames = self._alarm
        if not frames:
            return f"{self.quantity} has left its {self._settings.baseline}"
        since = f"{frames} frame{'s' if frames > 1 else ''}"
        course = f"changed from {before:.3g} to {after:.3g}{self.unit}"
        if self._settings.baseline == "line":
            course = f"left its line by {after - before:+.2g}{self.unit}, to {after:.3g}{self.unit},"
        return (
            f"{self.quantity} {course} {since} ago, "
            f"at most one false alarm in {self._settings.false_alarm_frames:g} frames"
        )

    @property
    def compared(self) -> Compared:
        """The Shiryaev–Roberts statistic, and the bar."""
        bar = self._settings.false_alarm_frames
        return Compared(self._statistic, (bar,), "evidence of a change")

    def _kept(self) -> list[Any]:
        return [self.series.state(), self._shifts, self._alarm]

    def _keep_again(self, kept: list[Any]) -> None:
        series, self._shifts, alarm = kept
        self._alarm = (alarm[0], alarm[1], alarm[2], alarm[3])
        self.series.restore(series)

    def _levels(self, begin: int) -> tuple[float, float]:
        """Return the level of the baseline, extrapolated if needed, and the level since the change at ``begin``."""
        time = np.array([p.time for p in self.series.points])
        value = np.array([p.value for p in self.series.points])
        after = float(np.median(value[begin:]))
        if self._settings.baseline == "level":
            return float(np.median(value[:begin])), after
        line = robust_line(time[:begin] - time[begin - 1], value[:begin])
        ahead = float(np.median(time[begin:])) - float(time[begin - 1])
        return line.value + line.slope * ahead, after

    def _shift(self, n: int) -> float:
        """Return the Gaussian number of point n: its deviation from the baseline through the points before it."""
        parameters = _BASELINE[self._settings.baseline]
        if n < _LEAST_FRAMES:
            return 0.0
        points = self.series.points
        time = np.array([p.time - points[n].time for p in points[: n + 1]])
        value = np.array([p.value for p in points[: n + 1]])
        terms = np.ones((n + 1, 1)) if parameters == 1 else np.stack([np.ones(n + 1), time], axis=1)
        return _gaussian(terms, value, n - parameters)

    def _log_ratios(self) -> Array:
        """Return, for each frame, the log likelihood ratio of a shift that begins there to no shift."""
        shifts = np.array(self._shifts)
        total = np.cumsum(shifts[::-1])[::-1]
        frames = np.arange(len(shifts), 0, -1)
        gain = 1 + frames * _SHIFT_SD**2
        ratios = _SHIFT_SD**2 * total**2 / (2 * gain) - np.log(gain) / 2
        return np.where(np.arange(len(shifts)) < _LEAST_FRAMES, -math.inf, ratios)


def _gaussian(terms: Array, value: Array, freedom: int) -> float:
    """Return the Gaussian number of the last value: its residual from a fit to the others, by Student's distribution.

    Parameters
    ----------
    terms : (n + 1, parameters) terms of the linear fit
    value : (n + 1,) values
    freedom : degrees of freedom, n minus the number of parameters
    """
    coefficients, _, rank, _ = np.linalg.lstsq(terms[:-1], value[:-1], rcond=None)
    residual = value[:-1] - terms[:-1] @ coefficients
    scatter = math.sqrt(float(residual @ residual) / freedom)
    deviation = float(value[-1] - terms[-1] @ coefficients)
    if rank < terms.shape[1] or not math.isfinite(scatter + deviation):
        return 0.0
    leverage = float(terms[-1] @ np.linalg.pinv(terms[:-1].T @ terms[:-1]) @ terms[-1])
    if scatter == 0:  # for instance a count of zeros: one frame says nothing about its scatter
        return 0.0
    from scipy.special import ndtri, stdtr  # imported late: it takes long, and few rules need it

    t = deviation / (scatter * math.sqrt(1 + leverage))
    gaussian = -float(ndtri(stdtr(freedom, -abs(t))))  # the lower tail keeps its digits
    return math.copysign(min(gaussian, _MOST), t)
