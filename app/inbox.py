"""The agent's queue of received documents, with limits on their number and size."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..agent.types import Received, size_of

_STRUCTURE = frozenset({"start", "descriptor", "stop"})
"""Names of the documents that are needed to read the others of their run."""
RESERVE = 2
"""Factor by which the queue must exceed its limits before such a document is dropped."""
_DURABLE_DOCUMENTS = 1000
"""Number of waiting documents above which a source that can wait must wait."""


class Inbox:
    """Queue between the threads that bring documents and the agent's thread. A page counts as its Events.

    Parameters
    ----------
    documents : largest number of documents
    size : largest size of their content, bytes
    """

    def __init__(self, documents: int, size: float) -> None:
        self._documents, self._size = documents, size
        self._waiting: deque[tuple[Received, int, int]] = deque()
        """Documents with their size, bytes, and number of rows."""
        self._changed = threading.Condition()
        self.bytes = 0
        """Size of the waiting documents, bytes."""
        self.rows = 0
        """Number of waiting documents; a page counts as its Events."""
        self.taken = 0
        """Number of documents accepted so far."""
        self.newest_at: float | None = None
        """``time.monotonic()`` at the arrival of the newest accepted document."""
        self._dropped = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(
        self,
        name: str,
        doc: dict[str, Any],
        *,
        wait: bool = False,
        position: Mapping[str, Any] | None = None,
        age_s: float = 0.0,
    ) -> None:
        """Accept a document; if the queue is full, drop and count it, or ``wait`` for room."""
        size = size_of(doc)
        with self._changed:
            if wait and not self._has_room(most=_DURABLE_DOCUMENTS):
                self._changed.wait_for(lambda: self._closed or self._has_room(most=_DURABLE_DOCUMENTS))
            if self._closed:
                return
            now = time.monotonic()
            document = Received(name, doc, now - age_s, position)
            rows = document.rows
            if not self._has_room(RESERVE if name in _STRUCTURE else 1):
                self._dropped += rows
                return
            self.newest_at = now
            self._waiting.append((document, size, rows))
            self.bytes += size
            self.rows += rows
            self.taken += 1
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def _has_room(self, times: int = 1, most: float = math.inf) -> bool:
        """Return whether the queue is below ``times`` its limits and below ``most`` documents, or empty."""
        held = self.rows
        return not held or (held < times * self._documents and held < most and self.bytes < times * self._size)

    def get(self, timeout: float, most: int) -> list[Received]:
        """Return the ``most`` oldest documents; wait up to ``timeout`` s for the first one.

        The number is smaller if fewer documents wait, and larger if the last one is a page.
        """
        taken: list[Received] = []
        with self._changed:
            if not self._waiting:
                if timeout <= 0:
                    return taken
                self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            rows = 0
            while self._waiting and rows < most:
                document, size, its_rows = self._waiting.popleft()
                taken.append(document)
                rows += its_rows
                self.bytes -= size
            self.rows -= rows
            self._changed.notify_all()
        return taken

    def take_dropped(self) -> int:
        """Return the number of documents dropped since the last call; a page counts as its Events."""
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        return dropped

    @property
    def bound(self) -> str:
        """The limits in words."""
        return f"{self._documents} documents or {self._size / 1e6:g} MB"

    def close(self) -> None:
        """Accept no more documents; waiting ones can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
