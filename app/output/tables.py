"""Prints tables on stdout that fit the terminal: numbers are never cut, and long names are folded."""

import os
import sys
from collections.abc import Sequence
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LEAST_NAME = 16
"""Smallest width of the column of names, in cells."""
_LEAST_TEXT = 24
"""Smallest width of the column of texts, in cells."""
_GAP = 2
"""Number of cells between two columns: the padding, and the blank divider of the box."""
_UNLIMITED = 10_000
_TEXT_WIDTH = 100


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], file: IO[str] | None = None, width: int | None = None
) -> None:
    """Print a table of names, numbers and a text; columns that do not fit side by side form several tables.

    Parameters
    ----------
    header : sequence of str
        Names of the columns: the first has names (folded), the last texts (wrapped), the others numbers.
    rows : sequence of sequences of str
    file : IO, optional
        Output file; stdout by default.
    width : int, optional
        Width in cells, 0 for no limit; by default that of the terminal.
    """
    width = _width() if width is None else width or _UNLIMITED
    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    beside = width - sum(_GAP + others for others in widths[1:])
    name = min(widths[0], max(_LEAST_NAME, width // 4, beside))
    parts: list[list[int]] = [[0]]
    used = name
    last = len(header) - 1
    for column in range(1, len(header)):
        needed = _GAP + (min(widths[column], _LEAST_TEXT) if column == last else widths[column])
        if used + needed > width and len(parts[-1]) > 1:
            parts.append([0])
            used = name
        parts[-1].append(column)
        used += needed
    if parts[-1] == [0, last] and len(parts) > 1 and not any(row[last] for row in rows):
        parts.pop()  # no row has a text such as a flag
    console = Console(width=width, file=file)
    for part in parts:
        table = Table(box=SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        for column in part:
            if column == 0:
                table.add_column(header[0], width=name, overflow="fold")
            elif column == last:
                table.add_column(header[column], overflow="fold")
            else:
                table.add_column(header[column], justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(row[column]) for column in part))
        console.print(table)
        if part is not parts[-1]:
            console.print()


def width_of_texts() -> int:
    """Return the width of a table for readers, not programs: that of the terminal, but at most 100."""
    return min(_width(), _TEXT_WIDTH)


def _width() -> int:
    """Return the width of the terminal, or COLUMNS; unlimited if stdout is a file or pipe and COLUMNS is unset."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console().width
    return _UNLIMITED
