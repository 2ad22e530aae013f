"""Documents that wait for others, bounded in number and in bytes."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..types import Received

MAX_HELD_DOCUMENTS = 4096
"""Documents held back at once for their start or descriptor."""
MAX_HELD_BYTES = 256 * 2**20
"""Their size in memory, bytes."""

Held = tuple[Received, int]
"""A document with its size, bytes."""


class HeldBack:
    """Counts what is held back, wherever the documents are kept."""

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.reported = False
        """Whether the present overflow has been reported."""

    def add(self, where: list[Held], document: Received) -> bool:
        """Put a document into ``where``; False where too many, or too large ones, are held already."""
        size = size_of(document.doc)
        if self.count >= MAX_HELD_DOCUMENTS or self.bytes + size > MAX_HELD_BYTES:
            return False
        self.count += 1
        self.bytes += size
        self.reported = False
        where.append((document, size))
        return True

    def forget(self, held: Iterable[Held]) -> None:
        """Count documents no longer."""
        for _, size in held:
            self.count -= 1
            self.bytes -= size

    def describe(self) -> str:
        """Say how much is held, for the detail of what is set aside."""
        return f"{self.count} documents, {self.bytes / 2**20:.0f} MiB, wait for their start or descriptor"


def size_of(value: Any) -> int:
    """Return about how many bytes a document takes in memory.

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
