"""Reads metadata of a RunStart, which may be nested, dotted, 1-tuples or strings."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any


def parse_absorber(element: Any, edge: Any) -> tuple[str | None, str | None]:
    """Return the normal form of an absorber's symbol and edge; each is None if it cannot be parsed.

    Either value may hold both symbol and edge, such as ``Ni_K``.
    """
    joined = re.fullmatch(r"\s*([A-Za-z]{1,2})[\s_-]+([KLMklm][1-5]?)(?:[\s_-]*edge)?\s*", str(edge or element))
    if joined:
        element, edge = element if edge and element else joined[1], joined[2]
    symbol = re.fullmatch(r"\s*([A-Za-z]{1,2})\s*", str(element))
    shell = re.fullmatch(r"\s*([KLMklm][1-5]?)(?:[\s_-]*edge)?\s*", str(edge))
    return symbol[1].capitalize() if symbol else None, shell[1].upper() if shell else None


def nested_value(doc: Any, *path: str) -> Any:
    """Return the value at a path of keys in nested mappings, or None."""
    for key in path:
        doc = doc.get(key) if isinstance(doc, Mapping) else None
    return doc


def first_value(start: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first value that is set, under a dotted name or nested; a 1-tuple gives its member."""
    for name in names:
        parts = name.split(".")
        candidates = [start.get(name), nested_value(start, *parts)]
        if len(parts) > 1:
            candidates.append(nested_value(start, parts[0], ".".join(parts[1:])))
        for value in candidates:
            while isinstance(value, (list, tuple)) and len(value) == 1:
                value = value[0]
            if isinstance(value, (str, int)) and value != "":
                return value
    return None


def read_number(start: Mapping[str, Any], name: str) -> float | None:
    """Return the finite number of a key, or None.

    A dotted name may be one key or a path of nested keys. A string or a 1-tuple may hold the number.

    >>> read_number({"angle_offset": ("0.55",)}, "angle_offset")
    0.55
    """
    for value in (start.get(name), nested_value(start, *name.split("."))):
        while isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        try:
            parsed = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(parsed) and not isinstance(value, bool):
            return parsed
    return None
