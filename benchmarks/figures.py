"""Figures with their spread over rounds and the bars that they are to meet, as a table and as part of a page."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

Row = tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """A limit that a figure is to keep."""

    limit: float
    at_least: bool = False
    """Whether the figure must not be below the limit; else it must not be above."""

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.limit)}"

    def verdict(self, values: Sequence[float]) -> str:
        """Return in words whether the median of the rounds keeps the limit, and in how many rounds it was kept.

        >>> Bar(0.15).verdict([0.14, 0.13, 0.16])
        'met, in 2 of 3 rounds'
        """
        kept = sum(map(self.holds, values))
        word = "met" if self.holds(float(np.median(values))) else "missed"
        all_alike = kept == (len(values) if word == "met" else 0)
        return word if all_alike else f"{word}, {'' if word == 'met' else 'met '}in {kept} of {len(values)} rounds"


@dataclass(frozen=True)
class Figure:
    """What is measured, by its key in the results of a round."""

    key: str
    what: str
    unit: str = ""
    bar: Bar | None = None


class Spread(NamedTuple):
    """Median and range of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = list(values)
        return cls(float(np.median(found)), min(found), max(found))

    def __str__(self) -> str:
        """
        >>> print(Spread.of([981.4, 1203.0, 1020.7]))
        1020 (981 to 1200)
        """
        span = f" ({number(self.low)} to {number(self.high)})" if self.low < self.high else ""
        return number(self.median) + span


def number(value: float) -> str:
    """Return a value with three digits.

    >>> [number(v) for v in (0.03217, 29.81, 999.6, 1234.5, 31_234.0)]
    ['0.0322', '29.8', '1000', '1230', '31 200']
    """
    if abs(value) < 999.5:
        return f"{value:.3g}"
    rounded = round(value, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{rounded:,.0f}".replace(",", " ") if abs(rounded) >= 10_000 else f"{rounded:.0f}"


def rows_of(figures: Iterable[Figure], rounds: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return figure, median, range, bar and verdict of those that were measured."""
    rows = []
    for figure in figures:
        if values := rounds.get(figure.key):
            spread, bar = Spread.of(values), figure.bar
            median = f"{number(spread.median)} {figure.unit}".rstrip()
            span = f"{number(spread.low)} to {number(spread.high)}" if len(values) > 1 else ""
            rows.append((figure.what, median, span, str(bar or ""), bar.verdict(values) if bar else ""))
    return rows


def table(heads: Row, rows: Iterable[Row]) -> str:
    """Return an aligned table for a terminal."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def markdown(heads: Row, rows: Iterable[Row]) -> str:
    """Return a table for a page."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)


def fill(page: Path, name: str, text: str) -> None:
    """Replace what a page has between ``<!-- measured: NAME -->`` and ``<!-- end -->``.

    Raises
    ------
    ValueError
        The page has no such place, or several.
    """
    begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
    place = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    filled, count = place.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page.read_text())
    if count != 1:
        raise ValueError(f"{page}: found {count} places {begin} … {end}, expected one")
    page.write_text(filled)


def machine() -> str:
    """Return processor, cores and versions in words."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = len(os.sched_getaffinity(0))
    return f"{found[1] if found else 'unknown processor'}, {cores} cores, torch {version('torch')}"


def load() -> str:
    """Return the load average of the last minute; above 0 other work runs."""
    return f"{os.getloadavg()[0]:.1f}"
