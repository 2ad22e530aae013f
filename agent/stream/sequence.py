"""The events of one stream by their ``seq_num``: which have come, which are lost, and the sweeps that they make."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from cachetools import FIFOCache

from ..types import Array
from .sweeps import split_sweeps, turn_threshold

REORDER_WINDOW_EVENTS = 64
"""A gap is given up once so many events beyond it have come, one after the other in order."""
MAX_SWEEP_POINTS = 20_000
"""Events that one sweep may have; a scan that never turns must not fill the memory."""
MIN_HOLE_POINTS = 3
"""So many neighbouring points lost are a hole: what lies on its two sides is never taken for one sweep."""
MAX_LOST_NUMBERS = 4096
"""Lost numbers that are remembered, so that an event which still comes is told from a repeated one."""


class SequenceNumbers:
    """The numbers, from 1, that a stream's events carry, in whatever order they come.

    ``ready`` is the number up to which all have come or are given up as lost.
    """

    def __init__(self) -> None:
        self.ready = 0
        self.count = 0
        self._above: set[int] = set()
        self._lost: FIFOCache[int, None] = FIFOCache(MAX_LOST_NUMBERS)
        self._highest = 0
        self._quiet = 0

    def accept(self, seq: int) -> bool:
        """Take in a number; False where it came before."""
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
        if self._quiet >= REORDER_WINDOW_EVENTS:
            self._give_up_to(min(self._above))
        self._advance()
        return True

    def give_up(self) -> None:
        """Take all that is missing below the highest as lost."""
        while self._above:
            self._give_up_to(min(self._above))
            self._advance()

    def missing(self, total: int | None) -> int:
        """Return how many of the first ``total`` have not come (None: of those below the highest)."""
        return max(0, (self._highest if total is None else total) - self.count)

    def _give_up_to(self, seq: int) -> None:
        self._lost.update(dict.fromkeys(range(max(self.ready + 1, seq - MAX_LOST_NUMBERS), seq)))
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
    """What is kept of one Event of a step scan."""

    energy: float
    """eV; NaN where the Event had none."""
    time: float
    received: float
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The points of one sweep in the order of acquisition, and what is known to be missing of it."""

    number: int
    """Counts the sweeps of the stream from 1."""
    points: list[ScanPoint]
    gaps: list[int] = field(default_factory=list)
    """How many neighbouring points are lost, for each gap in or beside the sweep: a gap between two sweeps may
    belong to either."""
    lost_first: bool = False
    """Whether the stream's first points are lost."""
    torn: bool = False
    """Whether points are lost so close to a turn that a point may have been put into the wrong one of two sweeps."""
    overfull: bool = False
    """Whether it was cut because it had more than MAX_SWEEP_POINTS, or is what followed that."""


class PointBuffer:
    """Collects the points of one stream and gives out its sweeps, each as soon as it is known to be complete."""

    def __init__(self, min_points: int) -> None:
        self.order = SequenceNumbers()
        self._min_points = min_points
        self._points: dict[int, ScanPoint] = {}
        self._done = -1
        """Up to here points are given out, or given up with the sweeps beside them."""
        self._last = 0
        self._fed = 0
        self._number = 0
        self._first = 1
        self._torn = self._overfull = False
        self._reset()

    def add(self, seq: int, point: ScanPoint) -> bool | None:
        """Take in a point: True; False where it came before, None where its sweep is already given out.

        Of two with one number the later measured counts: a RunEngine that goes on after a pause measures again
        from its last checkpoint.
        """
        if not self.order.accept(seq):
            if seq in self._points and self._points[seq].time < point.time:
                self._points[seq] = point
            return False
        if seq <= self._done:
            return None
        self._points[seq] = point
        self._first = min(seq, self._first)  # 0 for whoever counts from there
        return True

    def closed(self) -> list[Sweep]:
        """Return the sweeps after which the energy has turned round."""
        full = len(self._points) >= MAX_SWEEP_POINTS
        if full:
            self.order.give_up()
        ready, turned = self.order.ready, False
        while self._fed < ready:
            self._fed += 1
            point = self._points.get(self._fed)
            turned = (point is not None and self._comes_back(point.energy)) or turned
        if not (turned or full) or len(self._points) < self._min_points:
            return []
        seqs = sorted(seq for seq in self._points if seq <= ready)
        parts = self._split(seqs)
        if full:
            return self._give_out(seqs, parts, full=True)
        self._back = turn_threshold(_filled([self._points[seq].energy for seq in seqs]))
        return self._give_out(seqs, parts[:-1]) if len(parts) > 1 else []

    def finish(self, total: int | None) -> tuple[list[Sweep], Sweep | None]:
        """Return the sweeps that are left, and the last one, which nothing but the end of the run closes.

        ``total`` is the number of events that the RunStop announces; None: not known.
        """
        self.order.give_up()
        seqs = sorted(self._points)
        if not seqs:
            return [], None
        sweeps = self._give_out(seqs, self._split(seqs), total)
        return sweeps[:-1], sweeps[-1]

    def _comes_back(self, energy: float) -> bool:
        if energy > self._high:
            self._high = energy
        if energy < self._low:
            self._low = energy
        return min(self._high - energy, energy - self._low) > self._back

    def _reset(self) -> None:
        energies = [p.energy for seq, p in self._points.items() if seq <= self._fed and p.energy == p.energy]
        self._high = max(energies, default=-np.inf)
        self._low = min(energies, default=np.inf)
        self._back = 0.0

    def _split(self, seqs: list[int]) -> list[slice]:
        """Split the points at turns, and at holes unless one sweep goes on beyond."""
        energy = _filled([self._points[seq].energy for seq in seqs])
        holes = np.flatnonzero(np.diff(seqs) > MIN_HOLE_POINTS) + 1
        parts: list[slice] = []
        for a, b in itertools.pairwise([0, *holes.tolist(), len(seqs)]):
            first, *others = (slice(a + part.start, a + part.stop) for part in split_sweeps(energy[a:b]))
            if parts and len(split_sweeps(energy[parts[-1].start : first.stop])) == 1:
                first = slice(parts.pop().start, first.stop)
            parts += [first, *others]
        return parts

    def _give_out(
        self, seqs: list[int], parts: list[slice], total: int | None = None, full: bool = False
    ) -> list[Sweep]:
        """Take ``parts`` of the points out of the buffer as sweeps; ``full``: the last goes on."""
        sweeps = []
        for part in parts:
            own = seqs[part]
            goes_on = full and part is parts[-1]
            turns = part.stop < len(seqs)
            after = seqs[part.stop] if turns else None
            if after is None and total is not None:
                after = max(total + self._first, own[-1] + 1)
            gaps = np.diff([self._last, *own, *([] if after is None else [after])]) - 1
            # too little after a hole, or with a gap, to tell on which side of the turn the last point was measured
            torn_end = bool((gaps[: len(own)][-4:] >= MIN_HOLE_POINTS).any() or (gaps[1 : len(own)][-2:] > 0).any())
            self._number += 1
            sweep = Sweep(
                self._number,
                [self._points.pop(seq) for seq in own],
                gaps[gaps > 0].tolist(),
                lost_first=self._done < 0 and own[0] > 1,
                torn=self._torn or (torn_end and turns),
                overfull=self._overfull or goes_on,
            )
            sweeps.append(sweep)
            self._last, self._done = own[-1], own[-1] if after is None else after - 1
            self._torn, self._overfull = torn_end, goes_on
        self._reset()
        return sweeps


def _filled(energies: list[float]) -> Array:
    """Put the last good energy where there is none, so that a bad point stays in the sweep that it spoils."""
    energy = np.array(energies, dtype=np.float64)
    good = np.isfinite(energy)
    if good.all() or not good.any():
        return energy if good.all() else np.zeros_like(energy)
    index = np.maximum.accumulate(np.where(good, np.arange(energy.size), np.argmax(good)))
    return energy[index]
