"""CSV tables whose texts no spreadsheet evaluates as formulas.

Names of samples, files and readings come from outside. A spreadsheet evaluates a cell that begins with ``=``, ``+``,
``-`` or ``@``; such a formula can send other cells away or start a program. A leading apostrophe marks a text.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...agent.types import writable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARK = "'"


def cell(value: Any) -> Any:
    """Return a value as written to a table: text of valid characters, with an apostrophe if it would be a formula.

    >>> cell("=1+1"), cell("-0.5"), cell(-0.5), cell("LCO-3")
    ("'=1+1", '-0.5', -0.5, 'LCO-3')
    """
    if not isinstance(value, str):
        return value
    text = writable(value)
    return _MARK + text if text.startswith(_FORMULA) and not _is_number(text) else text


def text_of(written: str) -> str:
    """Return the text of a cell without the apostrophe that :func:`cell` added.

    >>> text_of("'=1+1"), text_of("'quoted'")
    ('=1+1', "'quoted'")
    """
    return written[1:] if written.startswith(_MARK) and written[1:].startswith(_FORMULA) else written


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class TableWriter:
    """Writes mappings as rows of a CSV table; cells of missing names are empty.

    Parameters
    ----------
    file : text file, opened with ``newline=""``
    header : sequence of str
    """

    def __init__(self, file: Any, header: Sequence[str]) -> None:
        self._writer, self._header = csv.writer(file), header

    def writeheader(self) -> None:
        """Write the names of the columns."""
        self._writer.writerow(map(cell, self._header))

    def writerow(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        self._writer.writerow([cell(row.get(name, "")) for name in self._header])

    def writerows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)
