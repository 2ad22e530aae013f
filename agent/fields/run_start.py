"""Reads RunStart metadata, whose values may be nested, dotted, 1-tuples or strings."""

import re
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from ..types import as_number, unwrap, writable

_FOIL_KEYS = re.compile(
    r"(xdi\.|md\.)?(((sample|element|detector|scan)\.)?((has|use)_)?(reference([_ ](foil|channel))?|(ref_)?foil)"
    r"|detector\.(ir|iref|irefer))"
)
_NOTHING = re.compile(
    r"no|none|false|off|absent|nothing|empty|missing|n/?a|-+|un-?used|without"
    r"|not (used|installed|in place|available|measured)"
    r"|(no|without)[ _-](a )?(reference|ref|foil)([ _-](foil|channel))?"
    r"|([a-z]{1,2}[ _-])?filters?",  # a filter may be an oxide, whose edge is some eV above the metal's
    re.IGNORECASE,
)


def parse_absorber(element: Any, edge: Any) -> tuple[str | None, str | None]:
    """Return an absorber's symbol and edge in normal form; each is None if it cannot be parsed.

    Either value may hold both symbol and edge, for example ``Ni_K``.
    """
    joined = re.fullmatch(r"\s*([A-Za-z]{1,2})[\s_-]+([KLMklm][1-5]?)(?:[\s_-]*edge)?\s*", str(edge or element))
    if joined:
        element, edge = element if edge and element else joined[1], joined[2]
    symbol = re.fullmatch(r"\s*([A-Za-z]{1,2})\s*", str(element))
    shell = re.fullmatch(r"\s*([KLMklm][1-5]?)(?:[\s_-]*edge)?\s*", str(edge))
    return symbol[1].capitalize() if symbol else None, shell[1].upper() if shell else None


def find_no_foil(metadata: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the statement in nested or dotted metadata that no reference foil is in place, or None.

    >>> find_no_foil({"XDI": {"Sample.reference": "none"}}), find_no_foil({"Sample": {"reference": "Ni foil"}})
    ('XDI.Sample.reference: none', None)
    """
    for key, value in metadata.items():
        name, value = f"{prefix}{key}", unwrap(value)
        if isinstance(value, Mapping):
            if found := find_no_foil(value, f"{name}."):
                return found
        elif (
            isinstance(value, (str, bool, np.bool_))
            and _FOIL_KEYS.fullmatch(name.lower())
            and _NOTHING.fullmatch(str(value).strip(" .()"))
        ):
            return f"{name}: {value}"
    return None


def nested_value(doc: Any, *path: str) -> Any:
    """Return the value at a path of keys in nested mappings, or None."""
    for key in path:
        doc = doc.get(key) if isinstance(doc, Mapping) else None
    return doc


def first_value(start: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first non-empty value under the dotted or nested names; a 1-tuple gives its member."""
    for name in names:
        for value in _values_under(start, name):
            if isinstance(value, (str, int)) and value != "":
                return value
    return None


def read_text(start: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first text or number that is set, as one line; empty if nothing is set.

    >>> read_text({"sample_uid": " ", "Sample": {"name": "NiO"}}, ["sample_uid", "Sample.name"])
    'NiO'
    >>> read_text({"sample_uid": 7.0}, ["sample_uid"])
    '7'
    """
    for name in names:
        for value in _values_under(start, name):
            if isinstance(value, str):
                text = writable(" ".join(value.split()))
            elif isinstance(value, Integral) and not isinstance(value, bool):  # exact for any length
                text = str(int(value))
            else:
                number = as_number(value)
                text = "" if number is None else f"{number:.15g}"
            if text:
                return text
    return ""


def _values_under(start: Mapping[str, Any], name: str) -> Iterator[Any]:
    """Yield the values under a dotted name, nested or not; a 1-tuple gives its member."""
    parts = name.split(".")
    for path in ([name], parts, [parts[0], ".".join(parts[1:])]):
        yield unwrap(nested_value(start, *path))


def read_number(start: Mapping[str, Any], name: str) -> float | None:
    """Return the first finite number, also from a text, under a dotted or nested name; None if there is none.

    >>> read_number({"angle_offset": ("0.55",)}, "angle_offset")
    0.55
    >>> read_number({"MD": {"angle.offset": 0.55}}, "MD.angle.offset")
    0.55
    """
    for value in _values_under(start, name):
        if (number := as_number(value, texts=True)) is not None:
            return number
    return None
