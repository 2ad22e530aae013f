"""Reads numbers in documents: Python's and numpy's, but no complex, date, truth or masked values."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PLAIN = frozenset((float, int))


def unwrap(value: Any) -> Any:
    """Return the member of a list or tuple with one member, also nested; any other value unchanged.

    >>> unwrap((["Ni"],)), unwrap(("Ni", "Cu")), unwrap("Ni")
    ('Ni', ('Ni', 'Cu'), 'Ni')
    """
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return value


def as_number(value: Any, *, texts: bool = False) -> float | None:
    """Return a finite real number, also from an array or sequence of one; None for any other value.

    Parameters
    ----------
    value : any value of a document
    texts : whether a text may hold the number, as in metadata

    Examples
    --------
    >>> as_number(np.int64(3)), as_number(np.array([2.5])), as_number(("0.55",), texts=True)
    (3.0, 2.5, 0.55)
    >>> as_number(True), as_number(1j), as_number(np.datetime64(0, "s")), as_number("3")
    (None, None, None, None)
    """
    if type(value) is float:  # the usual case
        return value if math.isfinite(value) else None
    found: Any = unwrap(value)
    if isinstance(found, np.ndarray):
        if found.size != 1 or np.ma.is_masked(found):
            return None
        found = found.reshape(-1)[0]
    if not (_is_real(found) or (texts and isinstance(found, str))):
        return None
    try:
        number = float(found)
    except (ValueError, OverflowError):  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def as_count(value: Any) -> int | None:
    """Return a non-negative integer from any type of number or from a text; None for any other value.

    >>> as_count(np.float32(252)), as_count("252"), as_count(2.5), as_count(-1), as_count(2**53 + 1) - 2**53
    (252, 252, None, None, 1)
    """
    number = as_number(value, texts=True)
    if number is None or number < 0 or not number.is_integer():
        return None
    found = unwrap(value)
    return int(found) if isinstance(found, (int, np.integer)) else int(number)  # float64 is exact only up to 2⁵³


def as_numbers(values: Any) -> NDArray[np.number[Any]] | None:
    """Return an array of real numbers; None if the values have another type.

    Masked values and None become NaN.

    Raises
    ------
    ValueError, OverflowError
        The values have no common shape, or do not fit float64.
    """
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64), np.nan) if values.dtype.kind in "iuf" else None
    if _is_mixed(values) and any(isinstance(value, np.ma.MaskedArray) for value in values):
        values = [np.ma.filled(v.astype(np.float64), np.nan) if np.ma.is_masked(v) else v for v in values]
    array = np.asarray(values)
    if array.dtype.kind in "iuf" and _has_truth_values(values):
        return None
    if array.dtype.kind == "O" and all(value is None or _is_real(value) for value in array.flat):
        return array.astype(np.float64)
    return array if array.dtype.kind in "iuf" else None


def _has_truth_values(values: Any) -> bool:
    """Return whether a nested list contains True or False, which numpy converts to 1 and 0 beside numbers."""
    if isinstance(values, (list, tuple)):
        return _is_mixed(values) and any(_has_truth_values(value) for value in values)
    return isinstance(values, (bool, np.bool_)) or (isinstance(values, np.ndarray) and values.dtype.kind == "b")


def _is_mixed(values: Any) -> bool:
    """Return whether a list contains more than floats and integers; over NATS and Kafka spectra are lists."""
    return isinstance(values, (list, tuple)) and not _PLAIN.issuperset(map(type, values))


def _is_real(value: Any) -> bool:
    # numpy counts timedelta64 as an integer.
    real = isinstance(value, (int, float, np.integer, np.floating, Decimal))
    return real and not isinstance(value, (bool, np.timedelta64))
