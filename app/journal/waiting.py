"""Records that the journal's next transaction will write."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

_BACKLOG_MB = 8
"""Largest size of records that wait for space on the disk, MB."""
_NAME = -4
"""Index of the document's name in a row of ``inputs`` and of ``published``."""


@dataclass
class Waiting:
    """Rows of the journal's tables."""

    inputs: deque[tuple[Any, ...]] = field(default_factory=deque)
    published: deque[tuple[Any, ...]] = field(default_factory=deque)
    outcomes: list[tuple[str, str, int]] = field(default_factory=list)
    memory: dict[str, bytes] = field(default_factory=dict)
    position: dict[str, Any] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    unwatched: list[str] = field(default_factory=list)
    size: int = 0
    """Size of inputs and published documents, bytes."""

    def drop(self) -> int:
        """Drop the older half of the Events if too many records wait; return the number of records dropped."""
        if self.size <= _BACKLOG_MB * 1_000_000:
            return 0
        dropped = 0
        for rows in (self.inputs, self.published):
            events = sum("event" in row[_NAME] for row in rows)
            drop = ((events or len(rows)) + 1) // 2
            dropped += drop
            kept: deque[tuple[Any, ...]] = deque()
            for row in rows:
                if drop and ("event" in row[_NAME] or not events):
                    drop -= 1
                    self.size -= len(row[-1])
                else:
                    kept.append(row)
            rows.clear()
            rows.extend(kept)
        return dropped
