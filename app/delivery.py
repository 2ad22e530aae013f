"""Sends the agent's documents once the journal has them, and tracks which ones all subscribers have received."""

import time
from collections import deque
from typing import Any

from ..agent.progress import Progress
from ..agent.types import Document
from .journal import Journal
from .subscribers import Subscribers

_MARK_S = 0.5
"""Least age of a delivery before the journal counts it, s: a ZMQ socket sends shortly after its call returns."""


class Delivery:
    """Collects the documents of a batch; ``commit`` stores them in the journal and then sends them."""

    def __init__(self, journal: Journal, subscribers: Subscribers) -> None:
        self._journal, self._subscribers = journal, subscribers
        self._emitted: list[Document] = []
        self._sent: deque[int] = deque()
        """Journal numbers of the documents that were sent and may not have been delivered."""
        self._delivered = 0
        """Number of documents known to be delivered."""
        self._newest = self._marked = 0
        """Journal number of the newest of them, now and at ``_marked_at``."""
        self._marked_at = time.monotonic()
        self._ended: list[str] = []
        """Watched runs, since last taken, whose documents are no longer needed."""

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Collect one document."""
        self._emitted.append((name, doc))

    def commit(self, progress: Progress) -> None:
        """Store the accepted and collected documents in the journal, then send the latter."""
        documents, self._emitted = self._emitted, []
        numbers = self._journal.publish(documents, progress, self._mark())
        self._sent.extend(numbers)
        self._subscribers.send(documents)
        self._ended += progress.ended

    def take_ended(self) -> list[str]:
        """Return the runs that ended since the last call; all documents about them were sent."""
        ended, self._ended = self._ended, []
        return ended

    def repeat(self) -> int:
        """Send an earlier process's documents that a subscriber may lack; return their number."""
        for number, name, doc in self._journal.undelivered():
            self._sent.append(number)
            self._subscribers(name, doc)
        return len(self._sent)

    def close(self) -> None:
        """Close the journal; to be called after the subscribers were closed."""
        self._count()
        self._journal.close(self._newest)

    def _mark(self) -> int:
        """Return the number of the newest document that was delivered some time ago."""
        if (now := time.monotonic()) - self._marked_at > _MARK_S:
            self._marked, self._marked_at = self._newest, now
            self._count()
        return self._marked

    def _count(self) -> None:
        while self._delivered < self._subscribers.delivered:
            self._newest = self._sent.popleft()
            self._delivered += 1
