"""The approximate size of documents in memory, for queues that are bounded in bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_VALUE_BYTES = 64
"""Size of a value besides its content, bytes."""
_LARGEST = 2**30
"""Size beyond which a document is not measured further: more than a queue holds. This also ends at one
that contains itself."""
_NUMBERS = {float, int, bool, type(None)}


def size_of(value: Any) -> int:
    """Return the approximate size of a document or of a value in it, bytes; not much more than 1 GiB.

    It is called for each Event in the caller's thread, and therefore counts numbers together.

    >>> size_of({"data": {"It": np.zeros(1000)}}) // 1000
    8
    """
    total, left = 0, [value]
    while left and total < _LARGEST:
        item = left.pop()
        kind = type(item)
        total += _VALUE_BYTES
        if kind in _NUMBERS:
            continue
        if isinstance(item, Mapping):
            total += _VALUE_BYTES * len(item) + sum(len(key) for key in item if isinstance(key, str))
            left += item.values()
        elif isinstance(item, np.ndarray):
            total += item.nbytes
        elif isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, list | tuple):
            if set(map(type, item)) <= _NUMBERS:
                total += _VALUE_BYTES // 2 * len(item)
            else:
                left += item
    return total
