"""Draws the course of a quantity over the session in characters, with the bars of the rules."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.text import Text

from ...agent.decide import READINGS
from .pen import Pen

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Dots of a braille character by column and row."""
_BRAILLE = 0x2800
LEAST_ROWS = 5
"""Smallest height of a course, including both axes of numbers."""


def value_in(row: Mapping[str, Any], quantity: str) -> float:
    """Return a quantity that rules can watch from the row of a frame; NaN if the frame lacks it."""
    if quantity.startswith(READINGS):
        name = quantity.removeprefix(READINGS).replace(".", "_").replace("/", "_")
        value = row.get(f"reading_{name}", row.get(name))
    elif quantity.endswith("_half_width"):
        stem = quantity.removesuffix("_half_width")
        value = (row.get(f"{stem}_hi", math.nan) - row.get(f"{stem}_lo", math.nan)) / 2
    else:
        value = row.get(f"{quantity}_mean", row.get(quantity))
    return float(value) if isinstance(value, int | float) else math.nan


def course(
    pen: Pen, points: Sequence[tuple[float, float]], bars: Sequence[float], rows: int, digits: int = 2
) -> list[Text]:
    """Return the course of a quantity.

    Parameters
    ----------
    points : sequence of (time, value)
        Points in time order, with finite values.
    bars : sequence of float
        Levels to draw as lines.
    rows : int
        Number of lines, at least ``LEAST_ROWS``.
    digits : int
        Decimals of the numbers at the side.
    """
    if not points or rows < LEAST_ROWS:
        return []
    values = [value for _, value in points]
    low, high = min(*values, *bars, values[0]), max(*values, *bars, values[0])
    margin = (high - low) * 0.04 or 10.0**-digits
    low, high = low - margin, high + margin
    labels = {_row(level, low, high, rows): f"{level:.{digits}f}" for level in (high - margin, low + margin, *bars)}
    side = max(len(label) for label in labels.values())
    width = pen.width - side - 2
    if width < 8:
        return []
    marks = _marks(pen, points, low, high, rows, width)
    levels = {_row(bar, low, high, rows) for bar in bars}
    lines: list[Text] = []
    for row in range(rows):
        line = Text(no_wrap=True, overflow="crop", end="")
        line.append(labels.get(row, "").rjust(side), "yellow" if row in levels else "dim")
        line.append(pen.plain(" ┤" if row in labels else " │"), "dim")
        for mark in marks[row]:
            if mark:
                line.append(mark, "cyan")
            else:
                line.append(pen.plain("╌") if row in levels else " ", "yellow")
        lines.append(line)
    return lines


def _row(level: float, low: float, high: float, rows: int) -> int:
    """Return the line of a level, counted from the top."""
    return min(int((high - level) / (high - low) * rows), rows - 1)


def _marks(
    pen: Pen, points: Sequence[tuple[float, float]], low: float, high: float, rows: int, width: int
) -> list[list[str]]:
    """Return the characters of the points by line and column; points in one column are replaced by their median."""
    across, down = (1, 1) if pen.ascii else (2, 4)
    begin, span = points[0][0], points[-1][0] - points[0][0] or 1.0
    shared: dict[int, list[float]] = {}
    for time, value in points:
        shared.setdefault(min(int((time - begin) / span * width * across), width * across - 1), []).append(value)
    dots = [[0] * width for _ in range(rows)]
    for column, values in shared.items():
        fine = min(int((high - median(values)) / (high - low) * rows * down), rows * down - 1)
        dots[fine // down][column // across] |= _DOTS[column % across][fine % down]
    mark = (lambda dot: "*") if pen.ascii else (lambda dot: chr(_BRAILLE + dot))
    return [[mark(dot) if dot else "" for dot in line] for line in dots]
