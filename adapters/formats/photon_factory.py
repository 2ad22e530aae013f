"""Reads files of format 9809, written at Photon Factory and SPring-8: counts over Bragg angles."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...agent.types import Array
from .column_names import Columns
from .column_table import EXPECTED, ColumnTable, spectra_in
from .columns import known_of
from .energy import EnergyAxisError, from_angle
from .spectrum import FileSpectrum, SpectrumFileError
from .text import NumberStyle, TextFile, parse_rows

_FIRST = re.compile(r"\s*9809\b")
_LABELS = re.compile(r"\s*Angle\(c\)\s+Angle\(o\)\s+time", re.I)
_BLOCK = re.compile(r"\s*\d+(\s+-?(\d+\.?\d*|\.\d+)){4}\s+\d+\s*")
"""A scan block: number, first and last energy (eV), step (eV), time (s) and number of points."""
_MAX_DEVIATION_EV = 5.0
"""Largest difference, besides a step, between the energies of the observed angles and those in the header, eV."""
_MODES = {"1": "i0", "2": "itrans", "3": "ifluor"}
"""Column names by the mode of a channel; channels of other modes are not part of the spectrum."""


def is_format_9809(text: TextFile) -> bool:
    """Return whether the first line names the format."""
    return bool(_FIRST.match(next((line for line in text.lines if line.strip()), "")))


def read_format_9809(path: Path, text: TextFile, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return the spectra of a file, with energies from the observed angles.

    The labels ``Angle(c)  Angle(o)  time/s`` and the numbers of the channels are followed by the modes of the
    channels, the offsets and the table.

    Parameters
    ----------
    path : Path
    text : TextFile
    wanted : mapping, optional
        Columns that the caller names, by role.

    Returns
    -------
    list of FileSpectrum
        One per sweep.

    Raises
    ------
    SpectrumFileError
        The header has no labels or modes, or the columns of energy and absorption cannot be identified.
    """
    lines = text.lines
    at = next((i for i, line in enumerate(lines) if _LABELS.match(line)), None)
    modes = [] if at is None else lines[at + 1 : at + 2]
    if at is None or not modes or modes[0].split()[:1] != ["Mode"]:
        raise SpectrumFileError(f"{path}: found format 9809 without 'Angle(c)' and 'Mode', {EXPECTED}")
    table, notes, complete = parse_rows(path, lines[at + 3 :], at + 4, NumberStyle(), text.ended)
    channels = lines[at].split()[3:]
    kinds = modes[0].split()[-len(channels) :] if channels else []
    if table.shape[1] != 3 + len(channels) or len(kinds) != len(channels):
        raise SpectrumFileError(f"{path}: found {3 + len(channels)} labels and {table.shape[1]} columns, {EXPECTED}")
    names = [_MODES.get(kind, f"channel {name}") for kind, name in zip(kinds, channels, strict=True)]
    if names.count("ifluor") > 1:
        names = [f"ifluor{i}" if name == "ifluor" else name for i, name in enumerate(names, 1)]
    head = "\n".join(lines[:at])
    points = re.search(r"Points\s*=\s*(\d+)(?![\d.,])", head)
    if points and len(table) > int(points[1]):
        notes += (f"the header states {points[1]} points, the table has {len(table)}",)
    if points and len(table) < int(points[1]):
        complete, notes = False, (*notes, f"the file ends early: {len(table)} of {points[1]} points")
    offsets = lines[at + 2].split()[-len(channels) :]
    if any(re.search("[1-9]", offset) for offset in offsets):
        notes += (f"the offsets in the header are not subtracted: {' '.join(offsets)}",)
    spacing = re.search(r"\bD\s*=\s*(\S+(?:\s+(?:A|Å|nm)\b)?)", head)
    notes += _doubt_blocks(lines[:at], table[:, 1], spacing[1] if spacing else "")
    known = known_of(path, text.notes + notes, complete and not text.cut)
    known["title"] = lines[1].split("  ")[0].strip() or None
    names = ["requested position", "angle", "time", *names]
    units = ["degrees", "degrees", "s", *[""] * len(channels)]
    columns = ColumnTable(path, list(table.T), names, units, spacing[1] if spacing else "", known)
    return spectra_in(columns, wanted)


def _doubt_blocks(header: Sequence[str], angles: Array, spacing: str) -> tuple[str, ...]:
    """Return a note if the energies of the angles, (M,) degrees, disagree with the scan blocks in the header."""
    blocks = [[float(number) for number in line.split()] for line in header if _BLOCK.fullmatch(line)]
    if not blocks:
        return ()
    try:
        energy = from_angle(angles, "Angle(o)", "degrees", spacing)
    except EnergyAxisError:
        return ()
    first, last = blocks[0][1], blocks[-1][2]
    lowest, highest, slack = energy.min(), energy.max(), abs(blocks[-1][3]) + _MAX_DEVIATION_EV
    inside = min(first, last) - slack <= lowest and highest <= max(first, last) + slack
    if inside and abs(energy[0] - first) <= abs(blocks[0][3]) + _MAX_DEVIATION_EV:
        return ()
    return (
        f"energies from {lowest:.1f} to {highest:.1f} eV, but the header's blocks reach from {first:.1f} to "
        f"{last:.1f} eV: check D and the angles",
    )
