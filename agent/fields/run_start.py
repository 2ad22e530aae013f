"""Reading a RunStart, whose metadata come nested, dotted, as 1-tuples or as strings, if at all."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any


def parse_absorber(element: Any, edge: Any) -> tuple[str | None, str | None]:
    """Return symbol and edge in their normal form, each None where it cannot be told; either may hold both."""
    joined = re.fullmatch(r"\s*([A-Za-z]{1,2})[\s_-]+([KLMklm][1-5]?)(?:[\s_-]*edge)?\s*", str(edge or element))
    if joined:
        element, edge = element if edge and element else joined[1], joined[2]
    symbol = re.fullmatch(r"\s*([A-Za-z]{1,2})\s*", str(element))
    shell = re.fullmatch(r"\s*([KLMklm][1-5]?)(?:[\s_-]*edge)?\s*", str(edge))
    return symbol[1].capitalize() if symbol else None, shell[1].upper() if shell else None


def nested_value(doc: Any, *path: str) -> Any:
    for key in path:
        doc = doc.get(key) if isinstance(doc, Mapping) else None
    return doc


def first_value(start: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first that is set, under its dotted name or nested; of a 1-tuple its only member."""
    for name in names:
        parts = name.split(".")
        candidates = [
            start.get(name),
            nested_value(start, *parts),
            nested_value(start, parts[0], ".".join(parts[1:])),
        ]
        for value in candidates[: 2 if len(parts) == 1 else 3]:
            while isinstance(value, (list, tuple)) and len(value) == 1:
                value = value[0]
            if isinstance(value, (str, int)) and value != "":
                return value
    return None


def read_number(start: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number of the RunStart, under its dotted name or nested, as a string or a 1-tuple; or None.

    >>> read_number({"angle_offset": ("0.55",)}, "angle_offset")
    0.55
    """
    for value in (start.get(name), nested_value(start, *name.split("."))):
        while isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(found) and not isinstance(value, bool):
            return found
    return None
