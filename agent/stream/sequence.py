"""Orders the Events of one stream by their ``seq_num`` and divides them into sweeps."""

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from cachetools import FIFOCache

from ..types import Array, size_of
from .sweeps import may_continue, split_sweeps, turn_threshold

REORDER_WINDOW_EVENTS = 64
"""Number of Events in order beyond a gap at which the gap is given up."""
MAX_SWEEP_POINTS = 20_000
"""Largest number of Events of one sweep, so that an energy that never changes direction cannot fill the memory."""
MAX_SWEEP_BYTES = 32 * 2**20
"""Largest size of a sweep's values in memory, bytes; the scalars of a sweep need less."""
MIN_HOLE_POINTS = 3
"""Number of successive lost points that make a hole. The points on its two sides never form a usable frame."""
MAX_NUMBERS_AHEAD = 1024
"""Number of Events beyond a gap, in any order, at which the gap is given up. Each Event costs a search in them."""
MAX_GAPS = 5
"""Largest number of gaps that a report names."""
MAX_LOST_NUMBERS = 4096
"""Number of lost numbers to remember, to distinguish a late Event from a repeated one."""


class SequenceNumbers:
    """Keeps account of the ``seq_num`` of a stream's Events, from 1, in any order of arrival.

    All numbers up to ``ready`` have arrived or were given up as lost.
    """

    def __init__(self) -> None:
        self.ready = 0
        self.count = 0
        self._above: set[int] = set()
        self._lost: FIFOCache[int, None] = FIFOCache(MAX_LOST_NUMBERS)
        self._highest = 0
        self._quiet = 0
        self.gaps: deque[str] = deque(maxlen=MAX_GAPS)
        """The last gaps given up, in words; the reporter removes them."""

    @property
    def ahead(self) -> int:
        """Number of ``seq_num`` that arrived beyond a gap."""
        return len(self._above)

    def restore(self, ready: int, count: int) -> None:
        """Continue with ``count`` of the numbers up to ``ready``, and none beyond."""
        self.ready = self._highest = ready
        self.count = count

    def accept(self, seq: int) -> bool:
        """Record a number; return False if it is already recorded."""
        if seq == self.ready + 1 and not self._above:
            self.ready = self._highest = seq
            self.count += 1
            return True
        if seq <= self.ready:
            if seq not in self._lost and not (seq == 0 and self.count == 0):
                return False
            self._lost.pop(seq, None)
            self.count += 1
            return True
        if seq in self._above:
            return False
        self._above.add(seq)
        self.count += 1
        self._quiet = self._quiet + 1 if seq > self._highest else 0
        self._highest = max(self._highest, seq)
        if self._quiet >= REORDER_WINDOW_EVENTS or len(self._above) > MAX_NUMBERS_AHEAD:
            self._give_up_to(min(self._above))
        self._advance()
        return True

    def accept_next(self, count: int) -> None:
        """Record the ``count`` numbers after ``ready``; none beyond it may have arrived."""
        self.ready += count
        self._highest = self.ready
        self.count += count

    def give_up(self) -> None:
        """Give up all missing numbers below the highest one."""
        while self._above:
            self._give_up_to(min(self._above))
            self._advance()

    def missing(self, total: int | None) -> int:
        """Return how many of the first ``total`` numbers are missing; None: of the numbers below the highest."""
        return max(0, (self._highest if total is None else total) - self.count)

    @property
    def given_up(self) -> int:
        """Number of missing numbers that are no longer waited for."""
        return max(0, self.ready + len(self._above) - self.count)

    def _give_up_to(self, seq: int) -> None:
        self._lost.update(dict.fromkeys(range(max(self.ready + 1, seq - MAX_LOST_NUMBERS), seq)))
        self.gaps.append(f"{self.ready + 1}" if seq == self.ready + 2 else f"{self.ready + 1}–{seq - 1}")
        self.ready = seq - 1

    def _advance(self) -> None:
        moved = False
        while self.ready + 1 in self._above:
            self.ready += 1
            self._above.discard(self.ready)
            moved = True
        if moved:
            self._quiet = len(self._above)


class ScanPoint(NamedTuple):
    """One Event of a step scan."""

    energy: float
    """Energy, eV; NaN if the Event has none."""
    time: float
    received: float
    data: Mapping[str, Any]
    """The values that a spectrum needs."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The points of one sweep in the order of acquisition, and its gaps."""

    number: int
    """Number of the sweep in its stream, from 1."""
    points: list[ScanPoint]
    gaps: list[int] = field(default_factory=list)
    """Number of lost points of each gap inside or beside the sweep. A gap between two sweeps counts for both, since
    it may belong to either."""
    lost_first: bool = False
    """Whether the stream's first points are lost."""
    torn: bool = False
    """Whether points close to a turn are lost, so that a point may belong to the neighbouring sweep."""
    overfull: bool = False
    """Whether the sweep was cut at MAX_SWEEP_POINTS or MAX_SWEEP_BYTES, or continues such a sweep."""


class PointBuffer:
    """Collects the points of one stream and returns each sweep as soon as it is complete."""

    def __init__(self, min_points: int) -> None:
        self.order = SequenceNumbers()
        self.outdated = 0
        """Number of unused points that repeat a number with an earlier time."""
        self._min_points = min_points
        self._points: dict[int, ScanPoint] = {}
        self._bytes = 0
        """Size of the points' values since the last returned sweep, bytes."""
        self._done = -1
        """Number up to which all points are lost or in returned sweeps."""
        self._last = 0
        """Number of the last point of the last returned sweep."""
        self._judge_at = 0
        """Number of points at which a step back that may lie within a sweep is judged again."""
        self._checked = 0
        """Number up to which the energies have been checked for a turn."""
        self._number = 0
        self._first = 1
        """Smallest number; 0 if the publisher counts from 0."""
        self._torn = self._overfull = False
        self._reset()

    @property
    def pending(self) -> int:
        """Number of points of the sweep in progress."""
        return len(self._points)

    def add(self, seq: int, point: ScanPoint) -> bool | None:
        """Add a point: return True, or False if its number is repeated, or None if its sweep was already returned.

        Of two points with one number the later measurement counts, because a RunEngine that resumes after a pause
        repeats the points since its last checkpoint.
        """
        if not self.order.accept(seq):
            kept = self._points.get(seq, point)
            self.outdated += point.time < kept.time
            if point.time > kept.time:
                self._bytes += size_of(point.data) - size_of(kept.data)
                self._points[seq] = point
            return False
        if seq <= self._done:
            return None
        self._points[seq] = point
        self._bytes += size_of(point.data)
        self._first = min(seq, self._first)
        return True

    def state(self) -> list[int]:
        """Return the state for :meth:`restore`; its first number is that up to which all points are lost or returned.

        It is empty before the first sweep.
        """
        if self._done < 0:
            return []
        flags = int(self._torn), int(self._overfull)
        return [self._done, self.order.count - len(self._points), self._last, self._number, self._first, *flags]

    def restore(self, state: list[int]) -> None:
        """Continue after the sweeps that another buffer returned before this state."""
        self._done, count, self._last, self._number, self._first, torn, overfull = state
        self._torn, self._overfull, self._checked = bool(torn), bool(overfull), self._done
        self.order.restore(self._done, count)

    def closed(self) -> list[Sweep]:
        """Return the sweeps after which the energy has changed direction."""
        count = len(self._points)
        full = count >= MAX_SWEEP_POINTS or self._bytes >= MAX_SWEEP_BYTES
        if full:
            self.order.give_up()
        ready, turned = self.order.ready, False
        while self._checked < ready:
            self._checked += 1
            point = self._points.get(self._checked)
            turned = (point is not None and self._has_turned(point.energy)) or turned
        if not full and (not turned or count < self._min_points or count < self._judge_at):
            return []
        seqs = sorted(seq for seq in self._points if seq <= ready)
        parts = self._split(seqs)
        if full:
            return self._take_sweeps(seqs, parts, full=True)
        energy = _fill_gaps([self._points[seq].energy for seq in seqs])
        self._turn_threshold_ev = turn_threshold(energy)
        complete = parts[:-1]
        if complete and may_continue(energy[complete[-1]], energy[parts[-1]]):
            complete.pop()
            self._judge_at = len(seqs) + len(seqs) // 64  # each judgement examines all points
        return self._take_sweeps(seqs, complete) if complete else []

    def finish(self, total: int | None) -> tuple[list[Sweep], Sweep | None]:
        """Return the remaining sweeps: all except the last, and the last one, which the end of the run closes.

        ``total`` is the number of Events that the RunStop announces, or None.
        """
        self.order.give_up()
        seqs = sorted(self._points)
        if not seqs:
            return [], None
        sweeps = self._take_sweeps(seqs, self._split(seqs), total)
        return sweeps[:-1], sweeps[-1]

    def _has_turned(self, energy: float) -> bool:
        if energy > self._high:
            self._high = energy
        if energy < self._low:
            self._low = energy
        return self._high - energy > self._turn_threshold_ev < energy - self._low

    def _reset(self) -> None:
        energies = [p.energy for seq, p in self._points.items() if seq <= self._checked and p.energy == p.energy]
        self._high = max(energies, default=-np.inf)
        self._low = min(energies, default=np.inf)
        self._turn_threshold_ev, self._judge_at = 0.0, 0
        self._bytes = sum(size_of(p.data) for p in self._points.values())

    def _split(self, seqs: list[int]) -> list[slice]:
        """Split the points at turns, and at holes unless the sweep continues after the hole."""
        energy = _fill_gaps([self._points[seq].energy for seq in seqs])
        holes = np.flatnonzero(np.diff(seqs) > MIN_HOLE_POINTS) + 1
        parts: list[slice] = []
        for a, b in itertools.pairwise([0, *holes.tolist(), len(seqs)]):
            first, *others = (slice(a + part.start, a + part.stop) for part in split_sweeps(energy[a:b]))
            if parts and len(split_sweeps(energy[parts[-1].start : first.stop])) == 1:
                first = slice(parts.pop().start, first.stop)
            parts += [first, *others]
        return parts

    def _take_sweeps(
        self, seqs: list[int], parts: list[slice], total: int | None = None, full: bool = False
    ) -> list[Sweep]:
        """Remove ``parts`` of the points from the buffer as sweeps; if ``full``, the last one continues."""
        sweeps = []
        for part in parts:
            numbers = seqs[part]
            continues = full and part is parts[-1]
            turns = part.stop < len(seqs)
            after = seqs[part.stop] if turns else None
            if after is None and total is not None:
                after = max(total + self._first, numbers[-1] + 1)
            gaps = np.diff([self._last, *numbers, *([] if after is None else [after])]) - 1
            # If a gap is this close to the turn, the last point may lie on either side of the turn.
            inner = gaps[: len(numbers)]
            torn_end = bool((inner[-4:] >= MIN_HOLE_POINTS).any() or (inner[1:][-2:] > 0).any())
            self._number += 1
            sweep = Sweep(
                self._number,
                [self._points.pop(seq) for seq in numbers],
                gaps[gaps > 0].tolist(),
                lost_first=self._done < 0 and numbers[0] > 1,
                torn=self._torn or (torn_end and turns),
                overfull=self._overfull or continues,
            )
            sweeps.append(sweep)
            self._last, self._done = numbers[-1], numbers[-1] if after is None else after - 1
            self._torn, self._overfull = torn_end, continues
        self._reset()
        return sweeps


def _fill_gaps(energies: list[float]) -> Array:
    """Replace energies that are not finite by the last finite one, so that such points stay in their sweep."""
    energy = np.array(energies, dtype=np.float64)
    good = np.isfinite(energy)
    if good.all() or not good.any():
        return energy if good.all() else np.zeros_like(energy)
    index = np.maximum.accumulate(np.where(good, np.arange(energy.size), np.argmax(good)))
    return energy[index]
