"""One partition of a broker's documents, and the place from which another agent would continue."""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from zlib import crc32

from cachetools import FIFOCache

from ..agent.types import REPLAYED_S

_MAX_OWNERS = 20_000
"""Number of Descriptors and Resources whose run is remembered."""
_MAX_ENDED = 1000
"""Number of ended runs to remember."""
_LONGEST_SILENCE_S = 86_400.0
"""Time without a document after which a run without a stop counts as broken off, s."""
_POLL_S = 0.02
RELEASE_S = 2.0
"""Longest time that an agent waits at its end for the answers to documents read, s."""


class Partition:
    """The documents of a partition that an agent has read and acknowledged; each run is complete and in order.

    If a run is not over when an agent stops, the next agent reads it again from its start, since its frames need the
    earlier documents. The next agent therefore begins at the oldest open run, and skips documents up to the
    acknowledged one unless their run is open. Any thread may call the methods.

    Parameters
    ----------
    state : mapping
        :attr:`state` of the previous agent.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._lock = threading.Lock()
        self._acknowledged: int = state["acknowledged"]
        self._open: dict[str, int] = dict(state["open"])
        """Place of the start of each run that is not over."""
        self._inherited = self._acknowledged
        """Place up to which another agent has acknowledged."""
        self._seen = self._given = self._done = self.begin - 1
        self._heard: dict[str, float] = {}
        """Time of the latest document of each open run, Unix s."""
        self._ended: FIFOCache[str, None] = FIFOCache(_MAX_ENDED)
        self._run_of: FIFOCache[str, str] = FIFOCache(_MAX_OWNERS)
        self._known: FIFOCache[str, None] = FIFOCache(_MAX_OWNERS)
        """Runs with at least one document read."""
        self.lost = False
        """Whether another agent may read the partition."""
        self.term = 0
        """Number of the take-over since which the source has held the partition."""

    @staticmethod
    def new(after: int) -> dict[str, Any]:
        """Return the state of a partition whose reading begins after place ``after``.

        >>> Partition(Partition.new(4)).begin
        5
        """
        return {"acknowledged": after, "open": {}}

    @property
    def begin(self) -> int:
        """Place from which another agent would read."""
        return min([self._acknowledged + 1, *self._open.values()])

    @property
    def state(self) -> dict[str, Any]:
        """State that another agent needs to continue, as JSON values."""
        with self._lock:
            return {"acknowledged": self._acknowledged, "open": dict(self._open)}

    @property
    def seen(self) -> int:
        """Place of the latest document."""
        return self._seen

    @property
    def acknowledged(self) -> int:
        """Place up to which everything is acknowledged."""
        return self._acknowledged

    @property
    def settled(self) -> bool:
        """Whether all documents to be read, including those read again, have been acknowledged."""
        return self._done >= self._given

    @property
    def busy(self) -> bool:
        """Whether a run is open."""
        return bool(self._open)

    @property
    def runs_in_progress(self) -> list[str]:
        """Runs that the next agent would read from their starts."""
        with self._lock:
            return list(self._open)

    def knows(self, run: str) -> bool:
        """Return whether a document of a run was read."""
        return run in self._known

    def take(self, place: int, name: str, doc: Mapping[str, Any], at: float) -> float | None:
        """Record a document that arrived.

        Parameters
        ----------
        place : number of the document in its stream or partition; numbers rise, with possible gaps
        at : time at which the broker received it, Unix s

        Returns
        -------
        float or None
            Age to add to the document's, s: ``REPLAYED_S`` if another agent has acknowledged it; None if it must not
            be read, because it came earlier or its run is over.
        """
        run = self._run(name, doc)
        with self._lock:
            if place <= self._seen:
                return None
            self._seen = place
            if place <= self._inherited and run not in self._open:
                return None
            if name == "start" and run and run not in self._ended and not doc.get("xas_agent"):
                self._open.setdefault(run, place)
            if run in self._open:
                self._heard[run] = at
            self._given = place
            if run:
                self._known[run] = None
            return REPLAYED_S if place <= self._inherited else 0.0

    def pass_over(self, place: int) -> None:
        """Record a message that is not a document."""
        with self._lock:
            self._seen = max(self._seen, place)

    def acknowledge(self, place: int, ended: Collection[str]) -> bool:
        """Record that the documents up to ``place`` are safe and that runs are over; return whether this is new."""
        with self._lock:
            before = self._acknowledged, len(self._open)
            self._acknowledged = max(self._acknowledged, place)
            self._done = max(self._done, place)
            newest = max(self._heard.values(), default=0.0)
            silent = [run for run, at in self._heard.items() if newest - at > _LONGEST_SILENCE_S]
            for run in [*ended, *silent]:
                self._open.pop(run, None)
                self._heard.pop(run, None)
                self._ended[run] = None
            return before != (self._acknowledged, len(self._open))

    def _run(self, name: str, doc: Mapping[str, Any]) -> str:
        """Return the uid of a document's run; empty if it is unknown."""
        if name == "start":
            return str(doc.get("uid", ""))
        if "run_start" in doc:
            run = str(doc["run_start"])
            if name in ("descriptor", "resource", "stream_resource") and "uid" in doc:
                self._run_of[str(doc["uid"])] = run
            return run
        return self._run_of.get(str(doc.get("descriptor", doc.get("resource"))), "")


def settle(partitions: Iterable[Partition], longest_s: float) -> None:
    """Wait until all documents read are acknowledged, so that another agent finds all answers to them."""
    until = time.monotonic() + longest_s
    for partition in partitions:
        while not (partition.settled or partition.lost) and time.monotonic() < until:
            time.sleep(_POLL_S)


def partition_of(run: str, partitions: int) -> int:
    """Return the partition of a run by the CRC-32 of its uid.

    >>> partition_of("3a6b", 4), partition_of("3a6b", 1)
    (1, 0)
    """
    return crc32(run.encode()) % partitions
