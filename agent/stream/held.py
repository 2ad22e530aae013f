"""Documents that wait for others, with limits on their number and size."""

from collections.abc import Iterable

from ..types import Received, size_of

MAX_HELD_DOCUMENTS = 4096
"""Largest number of documents that wait for their start or descriptor at once."""
MAX_HELD_BYTES = 32 * 2**20
"""Largest total size of these documents in memory, bytes."""

Held = tuple[Received, int]
"""A document and its size, bytes."""


class HeldBack:
    """Counts the documents in several lists of held documents, and their bytes."""

    def __init__(self) -> None:
        self.count = self.bytes = 0

    def add(self, held: list[Held], document: Received) -> bool:
        """Append a document to ``held``; return False if that would exceed the limits."""
        size = size_of(document.doc)
        if self.count >= MAX_HELD_DOCUMENTS or self.bytes + size > MAX_HELD_BYTES:
            return False
        self.count += 1
        self.bytes += size
        held.append((document, size))
        return True

    def remove(self, held: Iterable[Held]) -> None:
        """Subtract documents from the count."""
        for _, size in held:
            self.count -= 1
            self.bytes -= size

    def describe(self) -> str:
        """Return the number and size of the held documents in words."""
        return f"{self.count} documents, {self.bytes / 2**20:.0f} MiB, wait for their start or descriptor"
