"""The approximate size of documents in memory, for queues with a limit in bytes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_VALUE_BYTES = 64
"""Size of a value apart from its content, bytes."""
_LARGEST = 2**30
"""Size at which the measurement of a document stops, bytes: no queue holds as much."""
_MANY_PARTS = 4096
"""Number of lists, mappings and arrays after which each counts once, since one that contains itself is endless."""
_NUMBERS = {float, int, bool, type(None), np.float64, np.float32, np.int64, np.int32, np.bool_}
_TEXT = {str}


def size_of(value: Any) -> int:
    """Return the approximate size of a document or of a value in it, bytes, limited to little more than 1 GiB.

    It is called for each Event in the caller's thread, and therefore counts numbers together.

    >>> size_of({"data": {"It": np.zeros(1000)}}) // 1000
    8
    """
    if type(value) is dict and _NUMBERS.issuperset(map(type, value.values())):
        return _VALUE_BYTES + 2 * _VALUE_BYTES * len(value) + _length_of(value)
    total, left, parts = _VALUE_BYTES, [value], 0
    counted: set[int] | None = None
    while left and total < _LARGEST:
        item = left.pop()
        parts += 1
        if parts == _MANY_PARTS:
            total, left, counted = _VALUE_BYTES, [value], set()
            continue
        if counted is not None:
            if id(item) in counted:
                continue
            counted.add(id(item))
        if type(item) is dict or isinstance(item, Mapping):
            if not item:
                continue
            total += 2 * _VALUE_BYTES * len(item) + _length_of(item)
            for part in item.values():
                kind = type(part)
                if kind is str:
                    total += len(part)
                elif kind not in _NUMBERS:
                    left.append(part)
        elif isinstance(item, np.ndarray):
            total += item.nbytes
        elif isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, list | tuple):
            types = set(map(type, item))
            if types <= _NUMBERS:
                total += _VALUE_BYTES // 2 * len(item)
            elif types == _TEXT:
                total += _VALUE_BYTES * len(item) + len("".join(item))
            else:
                total += _VALUE_BYTES * len(item)
                left += [part for part in item if type(part) not in _NUMBERS]
    return total


def _length_of(keys: Iterable[Any]) -> int:
    """Return the number of characters in those keys that are text."""
    try:
        return len("".join(keys))
    except TypeError:
        return sum(len(key) for key in keys if isinstance(key, str))
