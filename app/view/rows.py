"""Rows of a growing table, stored by column: a number takes 8 bytes, and a repeated text is stored once."""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

_LARGEST = 2**63 - 1
"""Largest integer that is stored as an integer."""
_MAX_SHARED = 4096
"""Largest number of different texts of a column that are shared."""


class _Column:
    """Values of one kind: texts, numbers, or, as long as none is missing, integers."""

    def __init__(self, first: Any, missing: int) -> None:
        self._shared: dict[str, str] = {}
        if isinstance(first, str):
            self.values: Any = [""] * missing
        elif _is_integer(first) and not missing:
            self.values = array("q")
        else:
            self.values = array("d", [math.nan]) * missing

    def checked(self, value: Any) -> Any:
        """Return a value in the form that the column stores.

        Raises
        ------
        ValueError, TypeError
            The value is not a number, unlike the others.
        """
        if isinstance(self.values, list):
            return "" if value is None else str(value)
        if self.values.typecode == "q" and not _is_integer(value):
            self.values = array("d", self.values)
        return value if self.values.typecode == "q" else math.nan if value is None else float(value)

    def append(self, value: Any) -> None:
        """Add a checked value."""
        if isinstance(value, str):
            if value not in self._shared and len(self._shared) < _MAX_SHARED:
                self._shared[value] = value
            value = self._shared.get(value, value)
        self.values.append(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


class Rows:
    """Rows by number, from 0; a missing value is NaN or an empty text."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self.count = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, completely or not at all.

        Raises
        ------
        ValueError, TypeError
            A value is not a number, unlike the others of its column.
        """
        new = {name: _Column(row[name], self.count) for name in row if name not in self._columns}
        columns = {**self._columns, **new}
        values = [column.checked(row.get(name)) for name, column in columns.items()]
        self._columns = columns
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        self.count += 1

    def row(self, number: int, columns: Iterable[str]) -> dict[str, Any]:
        """Return some columns of a row."""
        return {name: self._columns[name].values[number] for name in columns if name in self._columns}

    def column(self, name: str) -> Any:
        """Return all values of a column: an array of numbers, or a list of texts."""
        return self._columns[name].values if name in self._columns else []
