"""Finds signs of damaged numbers in a text file: contradictions to repeated or announced values, broken patterns."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ...agent.types import Array

Indices = NDArray[np.intp]

MIN_ROWS = 10
"""Smallest number of rows in which a pattern is sought."""
SAMPLED = 200_000
"""Largest number of values whose texts are compared."""
_FEW = 3
"""Largest number of exceptions from a pattern; more are a pattern of their own."""
_SPIKE = 0.25
"""Largest ratio of any other bend of a curve to the bend at a spike."""
_POINTS = re.compile(
    r"\b(?:n_?points|num_?points|npts|npt|number of (?:data )?points|(?:data )?points collected)"
    r"\s*[=:]\s*(\d+)(?![\d.,])",
    re.I,
)
_REGION = re.compile(r"#\s*scanparameters\.region\d+:\s*([-\d.]+),\s*([-\d.]+),\s*([-\d.]+)\s+(True|False)", re.I)
_E0 = re.compile(r"#\s*scanparameters\.e0:\s*([\d.]+)", re.I)
_WAVE_NUMBER_EV = 3.80998
"""ħ²/2m, eV Å²: E − E0 = ħ²k²/2m."""


def doubt_rows(rows: Sequence[str], table: Array) -> tuple[str, ...]:
    """Return notes on rows that are written differently from all others, and on repeated rows.

    Parameters
    ----------
    rows : sequence of str
        The rows of the table, with blanks as separators.
    table : ndarray, (M, C)
        Their numbers.

    Returns
    -------
    tuple of str
    """
    if len(table) < MIN_ROWS:
        return ()
    notes = []
    twice = np.flatnonzero((table[1:] == table[:-1]).all(axis=1))
    if 0 < len(twice) <= _FEW:
        notes.append(f"row {twice[0] + 2} repeats the row above it{_more(len(twice))}")
    sample = islice(rows, max(SAMPLED // table.shape[1], MIN_ROWS))
    for column, texts in enumerate(zip(*(row.split() for row in sample), strict=True), 1):
        numeric = [i for i, text in enumerate(texts) if text.lstrip("+-")[0] in ".0123456789"]  # not nan, inf
        if odd := _odd_digits([texts[i] for i in numeric]):
            first = numeric[odd[0]]
            rest = f"has other digits than the rest of column {column}"
            notes.append(f"{texts[first]!r} in row {first + 1} {rest}{_more(len(odd))}")
    return tuple(notes)


def doubt_points(header: Sequence[str], rows: int) -> tuple[str, ...]:
    """Return a note if the header states another number of points than the table has."""
    stated = {int(found) for line in header for found in _POINTS.findall(line)}
    if len(stated) != 1 or rows in stated:
        return ()
    return (f"the header states {stated.pop()} points, the table has {rows}",)


def doubt_range(header: Sequence[str], energy: Array) -> tuple[str, ...]:
    """Return a note if the energies begin or end elsewhere than the header's scan regions (GSECARS)."""
    regions = [match for line in header if (match := _REGION.match(line))]
    edge = next((float(match[1]) for line in header if (match := _E0.match(line))), None)
    if not regions or edge is None or not np.isfinite(energy).all():
        return ()
    begin, end = float(regions[0][1]), float(regions[-1][2])
    if regions[-1][4].lower() == "true":
        end = _WAVE_NUMBER_EV * end**2
    low, high = edge + begin, edge + end
    near = 3 * np.abs(np.diff(energy)).max()
    if abs(energy.min() - low) <= near and abs(energy.max() - high) <= near:
        return ()
    return (
        f"the header announces energies from {low:.1f} to {high:.1f} eV, "
        f"the table has {energy.min():.1f} to {energy.max():.1f} eV",
    )


def doubt_energies(energy: Array) -> tuple[str, ...]:
    """Return a note on a few energy steps unlike their neighbours, such as those left by a lost row.

    Parameters
    ----------
    energy : ndarray, (M,)
        Energies, eV, in order.

    Returns
    -------
    tuple of str
    """
    steps = np.diff(energy)
    if len(energy) < MIN_ROWS or not np.isfinite(steps).all() or (steps < 0).any():
        return ()
    near = np.array([np.roll(steps, shift) for shift in (-3, -2, -1, 1, 2, 3)])[:, 3:-3]
    low, high = near.min(axis=0), near.max(axis=0)
    odd = np.flatnonzero(steps[3:-3] > high + np.maximum(0.6 * high, 3 * (high - low))) + 3
    for end, others in ((0, steps[1:5]), (len(steps) - 1, steps[-5:-1])):
        if steps[end] > 3 * others.max() + 3 * np.ptp(others):
            odd = np.append(odd, end)
    if not 0 < len(odd) <= _FEW:
        return ()
    first = odd.min()
    return (
        f"the energy steps by {steps[first]:.6g} eV at {energy[first]:.6g} eV, unlike around it{_more(len(odd))}",
    )


def doubt_columns(columns: Sequence[Array], energy: int | None, channels: Mapping[str, Array]) -> tuple[str, ...]:
    """Return notes on values that contradict other columns of their row, or deviate far from their neighbours.

    Energies are often recorded twice (requested and achieved), and μ beside its intensities.

    Parameters
    ----------
    columns : sequence of ndarray, (M,)
        All columns of the table.
    energy : int or None
        Index of the column of energies or angles.
    channels : mapping of str to ndarray, (M,)
        Intensities and absorption by role.

    Returns
    -------
    tuple of str
    """
    notes = []
    for other in _repetitions(columns, energy):
        scan = columns[energy or 0]
        odd = _odd_ones(columns[other] - scan, float(0.5 * np.median(np.abs(np.diff(scan)))))
        if odd.size:
            notes.append(f"columns {(energy or 0) + 1} and {other + 1} differ in row {odd[0] + 1}{_more(odd.size)}")
    if {"mu", "i0", "it"} <= channels.keys() and (channels["i0"] > 0).all() and (channels["it"] > 0).all():
        odd = _odd_ones(channels["mu"] - np.log(channels["i0"] / channels["it"]), 1e-3)
        if odd.size:
            notes.append(f"μ in row {odd[0] + 1} is not the ln(I0/It) of its row{_more(odd.size)}")
    for role, values in channels.items():
        odd = _spike(values)
        if odd is None and (values > 0).all():  # a current may vary by orders of magnitude
            odd = _spike(np.log(values))
        if odd is not None:
            before, value, after = values[odd - 1 : odd + 2]
            notes.append(f"{role} is {value:.6g} in row {odd + 1}, between {before:.6g} and {after:.6g}")
    return tuple(notes)


def _repetitions(columns: Sequence[Array], energy: int | None) -> list[int]:
    """Return the indices of columns that repeat the energies or angles, such as requested values."""
    if energy is None or len(columns[energy]) < MIN_ROWS:
        return []
    scan = columns[energy]
    step = np.median(np.abs(np.diff(scan)))
    return [i for i, other in enumerate(columns) if i != energy and np.median(np.abs(other - scan)) < 0.5 * step]


def _odd_ones(difference: Array, least: float) -> Indices:
    """Return the indices of a few values that differ from the median by more than ``least`` and the usual scatter."""
    if len(difference) < MIN_ROWS or not np.isfinite(difference).all():
        return np.array([], np.intp)
    away = np.abs(difference - np.median(difference))
    odd = np.flatnonzero(away > max(least, 30 * float(np.median(away))))
    return odd if 0 < len(odd) <= _FEW else odd[:0]


def _spike(values: Array) -> int | None:
    """Return the index of the only value that stands out from the curve through its neighbours, or None.

    It bends the curve at its place, and half as much in the opposite sense on both sides, far more than elsewhere.
    """
    if len(values) < MIN_ROWS or not np.isfinite(values).all():
        return None
    bend = values[1:-1] - (values[:-2] + values[2:]) / 2
    top = int(np.argmax(np.abs(bend)))
    if bend[top] == 0 or not 0 < top < len(bend) - 1:
        return None
    sides = -bend[[top - 1, top + 1]] / bend[top]
    rest = np.delete(np.abs(bend), slice(max(top - 2, 0), top + 3))
    alone = rest.max() < _SPIKE * abs(bend[top]) and (np.abs(sides - 0.5) < 0.2).all()
    return top + 1 if alone else None


def _odd_digits(numbers: Sequence[str]) -> list[int]:
    """Return the indices of a few numbers with unusual counts of decimals or digits in a column.

    Zeros at the ends of numbers show that the column has a fixed count.
    """
    if len(numbers) < MIN_ROWS:
        return []
    parts = [number.lower().replace("d", "e").partition("e")[0].strip("+-").partition(".") for number in numbers]
    zeros = [bool(part[2]) and part[2][-1] == "0" for part in parts]
    lengths = [len(part[0]) for part in parts]
    decimals = [len(part[2]) for part in parts]
    if len(decimals) - max(Counter(decimals).values()) > _FEW:  # a fixed count of digits, if any
        return _few([len((part[0] + part[2]).lstrip("0")) for part in parts], zeros)
    odd = _few(decimals, zeros)
    known = {length for i, length in enumerate(lengths) if i not in odd}
    return [i for i in odd if not decimals[i] or lengths[i] in known]


def _few(counts: Sequence[int], zeros: Sequence[bool]) -> list[int]:
    """Return the indices of a few counts unlike the usual one; numbers ending in zero must have the usual count."""
    usual, often = Counter(counts).most_common(1)[0]
    fixed = usual > 0 and any(zero and count == usual for zero, count in zip(zeros, counts, strict=True))
    if not fixed or often < MIN_ROWS or not 0 < len(counts) - often <= _FEW:
        return []
    return [i for i, count in enumerate(counts) if count != usual]


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
