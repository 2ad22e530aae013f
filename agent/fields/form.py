"""Determines whether a data key holds one number per Event or a whole spectrum."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..types import as_count

NUMERIC = ("number", "integer", "array")
"""Types of data keys that may hold numbers."""


def is_scalar(about: Mapping[str, Any]) -> bool:
    """Return whether a data key describes one number per Event; an array of one number counts as a number."""
    shape = announced_shape(about)
    if not shape:
        return about.get("dtype") != "array"
    return all(n == 1 for n in shape)


def announced_shape(about: Mapping[str, Any]) -> list[int | None]:
    """Return the shape in a data key as whole numbers of any type; None replaces a length that is not a number."""
    shape = about.get("shape")
    return [] if shape is None else [as_count(n) for n in np.ravel(np.array(shape, dtype=object))]


def with_measured_form(descriptor: Mapping[str, Any], energy: str, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a descriptor with the form (numbers or whole spectra) of its first Event; None if it matches already.

    A device may announce one number and send arrays, or announce an array without a shape and send numbers.
    """
    keys = descriptor["data_keys"]
    if energy not in keys or has_many(data.get(energy)) != is_scalar(keys[energy]):
        return None
    if any(n != 1 for n in announced_shape(keys[energy])):
        return None
    corrected = {
        key: {**about, "shape": [np.size(data[key])]}
        if about.get("dtype") in NUMERIC
        and key in data
        and all(n == 1 for n in announced_shape(about))
        and has_many(data[key]) == is_scalar(about)
        else about
        for key, about in keys.items()
    }
    return {**descriptor, "data_keys": corrected}


def has_many(value: Any) -> bool:
    """Return whether a value of an Event holds more than one number."""
    return isinstance(value, (list, tuple, np.ndarray)) and len(np.ravel(np.array(value, dtype=object))) > 1
