"""Rows of a table that grows, kept column by column: a number takes 8 bytes, and a text that repeats is kept once."""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

_MAX_SHARED = 4096
"""Number of different texts of a column that are kept once."""


class _Column:
    def __init__(self, first: Any, missing: int) -> None:
        self._shared: dict[str, str] = {}
        kind = type(first) if isinstance(first, str | int) else float
        self.missing: Any = {str: "", int: 0}.get(kind, math.nan)
        self.values: Any = (
            [""] * missing if kind is str else array("q" if kind is int else "d", [self.missing]) * missing
        )

    def append(self, value: Any) -> None:
        if isinstance(self.values, array):
            self.values.append(self.missing if value is None else type(self.missing)(value))
            return
        if value not in self._shared and len(self._shared) < _MAX_SHARED:
            self._shared[value] = value
        self.values.append(self._shared.get(value, value))


class Rows:
    """Rows by number, from 0; a row that lacks a column has NaN, 0 or an empty text there."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self.count = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        for name in row:
            if name not in self._columns:
                self._columns[name] = _Column(row[name], self.count)
        for name, column in self._columns.items():
            column.append(row.get(name, column.missing))
        self.count += 1

    def row(self, number: int, columns: Iterable[str]) -> dict[str, Any]:
        """Return some columns of a row."""
        return {name: self._columns[name].values[number] for name in columns if name in self._columns}

    def column(self, name: str) -> Any:
        """Return all values of a column: an array of numbers, or a list of texts."""
        return self._columns[name].values if name in self._columns else []
