"""What all triggers share: the state of a condition on one series, and points in time order."""

import math
from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from pydantic import AliasChoices, Field

from ...types import Array, SetAside, Settings, median
from ..observed import Observed, SeriesPoint, Uncertainty

MAX_LATE_FRAMES = 8
"""Number of successive frames older than the newest one that show that time went back, as in a replay."""
_MAX_STEP = 3.0
"""Longest time between two frames of a line, in units of the median step. A pause or a clock that jumps would extend
the line far beyond the measured times: a drift of 0.01 e per frame becomes some e in a few hours."""
_LONG = 1e6
"""Number above which an exponent is easier to read."""
_MOST_DIGITS = 12
"""Largest number of digits that distinguish a value from its bar."""
TREND_BLOCKS = 50
"""Number of block medians that replace a series at least twice as long, since the number of pairs grows as n²."""

Evidence = tuple[tuple[str, float], ...]
"""(frame uid, value) pairs in time order; evenly selected from a long window."""


class QuantityTrigger(Settings):
    """A condition on one quantity."""

    quantity: str = Field(validation_alias=AliasChoices("quantity", "descriptor"))
    """Name of the watched quantity: a descriptor (its expectation), a part of one (``OS_half_width``,
    ``OS_sd_frame``, ``OS_p``), ``ood_score``, a quantity of the alignment (``noise``, ``edge_step``, ``e0_ev``), or a
    reading of the frame (``readings.voltage``). The key may also be called ``descriptor``."""
    max_ood: float | None = Field(default=1.0, ge=0)
    """Frames with a higher ``ood_score`` (or without one) are left out of the series: they neither count towards a
    dwell nor interrupt it. ``null`` accepts every frame. By default this holds for descriptors only; readings and
    quantities of the alignment do not depend on what the model knows."""

    @property
    def limits_all(self) -> bool:
        """Whether the settings give ``max_ood``, so that it applies to every quantity."""
        return "max_ood" in self.model_fields_set


class Watch(ABC):
    """Judges the condition of a trigger on one series: whether it holds now, how certainly, and why.

    A rule decides when the condition begins to hold.
    """

    confidence = 0.0
    """Probability, 0…1, that the condition holds for the true values. For a combination it is a lower bound while the
    condition holds, and an upper bound while it does not."""
    begun = 0
    """How often the condition has begun to hold."""
    judged = True
    """Whether the condition has been judged; before its window is full, nobody knows whether it holds."""
    current = True
    """Whether the condition was judged with the newest frame, or does not depend on it."""
    _holds = False

    @property
    def holds(self) -> bool:
        """Whether the condition holds as of the newest frame."""
        return self._holds

    @holds.setter
    def holds(self, now: bool) -> None:
        self.begun += now and not self._holds
        self._holds = now

    @abstractmethod
    def frame(self, observed: Observed) -> None:
        """Take the next frame of the series."""

    def note(self, note: SetAside) -> None:  # noqa: B027  most triggers ignore notes
        """Take a note on data of the series that were set aside."""

    def quiet(self, seconds: float, time: float) -> None:  # noqa: B027  most triggers ignore silence
        """Take the time without a frame, s; it ends at ``time``, Unix s."""

    @property
    @abstractmethod
    def reason(self) -> str:
        """The judged value, the bar and the window in words, with units."""

    @property
    def evidence(self) -> Evidence:
        """The frames that were judged."""
        return ()

    @property
    def args(self) -> dict[str, Any]:
        """Arguments of ``repeat_frame`` that the condition computes, while it holds."""
        return {}

    def state(self) -> list[Any]:
        """Return the state for :meth:`restore`."""
        return [self._holds, self.begun, self.judged, self.current, self.confidence, self._kept()]

    def restore(self, state: list[Any]) -> None:
        """Continue with the state of another watch."""
        self._holds, self.begun, self.judged, self.current, self.confidence, kept = state
        self._keep_again(kept)

    @abstractmethod
    def _kept(self) -> list[Any]:
        """Return the rest of the state as JSON values."""

    @abstractmethod
    def _keep_again(self, kept: list[Any]) -> None:
        """Restore the rest of the state."""

    def parts(self) -> "Iterator[Watch]":
        """Yield this watch and, if it is a combination, all watches in it."""
        yield self


@dataclass(frozen=True, slots=True)
class Compared:
    """A value that a watch compared with its bars."""

    value: float
    bars: tuple[float, ...]
    what: str = ""
    """What the value describes, with its unit in brackets, if it is not the quantity itself."""


class PointSeries:
    """Points of one sample in time order."""

    def __init__(self) -> None:
        self.points: list[SeriesPoint] = []
        self._late: list[SeriesPoint] = []
        """The late points since the newest one."""

    def add(self, point: SeriesPoint) -> bool | None:
        """Insert a point: return True if it is the newest, False if it is late, None if the series restarts.

        The series restarts with the points since then if time went back. It also restarts where the calibration by
        the foil lapses or returns: the energies may step there without any change of the sample.
        """
        if not self.points or point.time >= self.points[-1].time:
            if self.points and point.foil_forgotten != self.points[-1].foil_forgotten:
                self.points[:] = [point]
                self._late.clear()
                return None
            self.points.append(point)
            self._late.clear()
            return True
        self._late.append(point)
        if len(self._late) < MAX_LATE_FRAMES:
            insort(self.points, point, key=lambda p: p.time)
            return False
        self.points[:] = sorted(self._late, key=lambda p: p.time)
        self._late.clear()
        return None

    def state(self) -> list[Any]:
        """Return the state for :meth:`restore`."""
        return [[astuple(p) for p in points] for points in (self.points, self._late)]

    def restore(self, state: list[Any]) -> None:
        """Continue with the state of another series."""
        for points, saved in zip((self.points, self._late), state, strict=True):
            points[:] = [SeriesPoint(*point) for point in saved]

    def arrays(self, last: int | None = None) -> tuple[Array, Array]:
        """Return times and values, (n,) each, of all points or the ``last``; 100 or more become 50 block medians."""
        points = self.points if last is None else self.points[-last:]
        time = np.array([p.time for p in points])
        value = np.array([p.value for p in points])
        if (size := len(time) // TREND_BLOCKS) > 1:
            time = np.median(time[-size * TREND_BLOCKS :].reshape(TREND_BLOCKS, size), axis=1)
            value = np.median(value[-size * TREND_BLOCKS :].reshape(TREND_BLOCKS, size), axis=1)
        return time, value


class QuantityWatch(Watch):
    """Follows one quantity of a series.

    Parameters
    ----------
    quantity, max_ood, uncertainty : see :class:`QuantityTrigger`
    unit : unit of the quantity, for the texts of the reasons
    """

    def __init__(
        self,
        quantity: str,
        max_ood: float | None,
        unit: str,
        uncertainty: Uncertainty = "all",
        *,
        limits_all: bool = False,
    ) -> None:
        self.quantity, self._max_ood, self._limits_all = quantity, max_ood, limits_all
        self._uncertainty: Uncertainty = uncertainty
        self.unit = f" {unit}" if unit else ""
        self.judged = False
        self.series = PointSeries()

    def frame(self, observed: Observed) -> None:
        """Take the next frame if it has the quantity and its spectrum is familiar."""
        self.current = False
        limit = self._max_ood if self._limits_all or observed.is_estimated(self.quantity) else None
        if observed.familiar(limit) and (point := observed.point(self.quantity, self._uncertainty)):
            self.add(point)

    def _insert(self, point: SeriesPoint) -> bool | None:
        """Insert a point as :meth:`PointSeries.add` does; forget all judgements if the series restarts."""
        newest = self.series.add(point)
        if newest is None:
            self.holds, self.judged = False, False
        return newest

    def _judge(self) -> None:
        self.judged = self.current = True

    @abstractmethod
    def add(self, point: SeriesPoint) -> None:
        """Take the next point of the quantity. A late point, older than the newest, only enters the window, since
        decisions concern the present."""

    @property
    @abstractmethod
    def compared(self) -> Compared:
        """The value of the last judgement, and its bars."""

    @property
    def evidence(self) -> Evidence:
        """The frames of the window."""
        return selected(self.series.points)


def apart(value: float, *bars: float, digits: int = 3, sign: str = "") -> str:
    """Return a value with enough digits, at least ``digits``, to show on which side of the bars it lies.

    >>> apart(4.104, 4.1), apart(3.4958, 3.496), apart(0.0501, -0.05, 0.05, digits=2, sign="+"), apart(1234.5)
    ('4.104', '3.4958', '+0.0501', '1234')
    """
    whole = len(f"{abs(value):.0f}") if abs(value) < _LONG else 0  # no exponent for what is readable without
    for n in range(max(digits, whole), _MOST_DIGITS):
        text = f"{value:{sign}.{n}g}"
        if all(value == bar or (float(text) - bar) * (value - bar) > 0 for bar in bars):
            return text
    return f"{value:{sign}}"


def duration_in_words(seconds: float) -> str:
    """Return a duration in a readable unit.

    >>> duration_in_words(7200.0), duration_in_words(0.8010001)
    ('120 min', '0.8 s')
    """
    size, unit = next(((s, u) for s, u in ((3600.0, "h"), (60.0, "min")) if seconds >= 3 * s), (1.0, "s"))
    length = seconds / size
    return f"{length:.{2 if length < 10 and size == 1 else 3}g} {unit}"


def selected(points: Sequence[SeriesPoint]) -> Evidence:
    """Select points evenly from a long window."""
    step = -(-len(points) // TREND_BLOCKS)
    return tuple((p.uid, p.value) for p in points[::-step][::-1])


def without_pauses(time: Array) -> Array:
    """Return rising times, s, counted from the first, with every step cut to ``_MAX_STEP`` median steps.

    >>> without_pauses(np.array([0.0, 1.0, 2.0, 1000.0, 1001.0])).tolist()
    [0.0, 1.0, 2.0, 5.0, 6.0]
    """
    steps = np.diff(time)
    longest = _MAX_STEP * median(steps[steps > 0]) if (steps > 0).any() else 0.0
    return np.concatenate([[0.0], np.minimum(steps, longest).cumsum()])


def probability_positive(mean: float, sigma: float) -> float:
    """Return the probability that a Gaussian quantity is positive."""
    if sigma == 0:
        return float(mean >= 0)
    return 0.5 * math.erfc(-mean / (sigma * math.sqrt(2)))


def probability_within(mean: float, sigma: float, bound: float) -> float:
    """Return the probability that a Gaussian quantity lies within ± ``bound``."""
    return probability_positive(bound - mean, sigma) - probability_positive(-bound - mean, sigma)
