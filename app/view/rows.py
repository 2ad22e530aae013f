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
        if isinstance(first, str):
            self.missing: Any = ""
            self.values: array[float] | array[int] | list[str] = [""] * missing
        elif isinstance(first, int):
            self.missing = 0
            self.values = array("q", [0]) * missing
        else:
            self.missing = math.nan
            self.values = array("d", [math.nan]) * missing

    def append(self, value: Any) -> None:
        if isinstance(self.values, list):
            text = str(value)
            if len(self._shared) < _MAX_SHARED:
                text = self._shared.setdefault(text, text)
            self.values.append(self._shared.get(text, text))
        elif self.values.typecode == "q":
            self.values.append(int(value))
        else:
            self.values.append(math.nan if value is None else float(value))


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
