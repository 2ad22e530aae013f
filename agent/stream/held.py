"""Documents that wait for others, limited in number and in size."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..types import Received

MAX_HELD_DOCUMENTS = 4096
"""Number of documents that wait for their start or descriptor at once."""
MAX_HELD_BYTES = 32 * 2**20
"""Their total size in memory, bytes."""

Held = tuple[Received, int]
"""A document and its size, bytes."""


class HeldBack:
    """Counts the documents that are held back in several lists, and their bytes."""

    def __init__(self) -> None:
        self.count = self.bytes = 0

    def add(self, held: list[Held], document: Received) -> bool:
        """Append a document to ``held``; return False if the limits do not allow it."""
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


def size_of(value: Any) -> int:
    """Return the approximate size of a value in memory, bytes.

    >>> size_of({"data": np.zeros(1000)}) > 8000
    True
    """
    if isinstance(value, np.ndarray):
        return sys.getsizeof(value) if value.base is None else value.nbytes
    size = sys.getsizeof(value)
    if isinstance(value, Mapping):
        return size + _sizes(value.keys()) + _sizes(value.values())
    return size + _sizes(value) if isinstance(value, list | tuple) else size


def _sizes(values: Iterable[Any]) -> int:
    return sum(size_of(value) for value in values)
